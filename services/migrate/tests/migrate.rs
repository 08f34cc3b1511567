//! The program itself, as `windlass up` and Kubernetes start it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio_postgres::NoTls;
use windlass_local::{
    ports,
    postgres::{Config, Postgres},
};

fn config(dir: &std::path::Path) -> Config {
    Config::for_test(dir.join("pg"), ports::free_port().unwrap())
}

fn dir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir()
        .unwrap()
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass-migrate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WINDLASS_") {
            command.env_remove(name);
        }
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn login(port: u16, role: &str, password: &str) -> bool {
    let connected = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(port)
        .user(role)
        .password(password)
        .dbname("windlass")
        .connect(NoTls)
        .await;
    connected.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_and_again_on_an_empty_cluster_that_is_still_starting() {
    let dir = dir();
    let config = config(dir.path());
    let made = Postgres::start(&config).await.unwrap();
    let url = made.url();
    made.stop().await;

    let secret = dir.path().join("role-password");
    std::fs::write(&secret, "r0le\n").unwrap();
    let start = || {
        program()
            .env("WINDLASS_DATABASE_URL", &url)
            .env("WINDLASS_ROLE_PASSWORD_FILE", &secret)
            .env("WINDLASS_GC_DB_PASSWORD", "gc's own")
            .env("WINDLASS_ADMIN_TOKEN", "wl_secret")
            .env("WINDLASS_ADMIN_NAME", "root")
            .spawn()
            .unwrap()
    };
    // Started before PostgreSQL is: they wait.
    let two = [start(), start()];
    let postgres = Postgres::start(&config).await.unwrap();
    for child in two {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let output = start().wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("up to date"),
        "{}",
        stderr(&output)
    );
    assert!(!stderr(&output).contains("wl_secret"));

    let port = postgres.port();
    for role in ["api", "observer", "wc", "ttl"] {
        assert!(login(port, &format!("windlass_{role}"), "r0le").await);
    }
    assert!(login(port, "windlass_gc", "gc's own").await);
    assert!(!login(port, "windlass_gc", "r0le").await);
    let (client, connection) = tokio_postgres::connect(&postgres.url(), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let admin = client
        .query(
            "SELECT u.name, u.role FROM users u JOIN tokens t ON t.user_id = u.id
             WHERE t.sha256 = sha256('wl_secret')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(admin.len(), 1);
    assert_eq!((admin[0].get(0), admin[0].get(1)), ("root", "admin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_in_one_line() {
    let output = program().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("WINDLASS_DATABASE_URL"),
        "{}",
        stderr(&output)
    );

    let port = ports::free_port().unwrap();
    let begin = std::time::Instant::now();
    let output = program()
        .env(
            "WINDLASS_DATABASE_URL",
            format!("postgres://a:hunter2@127.0.0.1:{port}/x"),
        )
        .env("WINDLASS_MIGRATE_WAIT", "1s")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(begin.elapsed() < Duration::from_secs(20));
    let last = stderr(&output);
    assert!(last.contains("PostgreSQL is unavailable"), "{last}");
    assert!(!last.contains("hunter2"), "{last}");
}
