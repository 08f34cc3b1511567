use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tokio_postgres::NoTls;
use windlass_local::postgres::{Config, Postgres};
use windlass_local::{Error, ports};

use crate::{eventually, is_alive, kill_9, open_dir};

fn config(dir: &std::path::Path) -> Config {
    Config {
        die_with_parent: true,
        ..Config::new(dir.join("pg"), ports::free_port().unwrap())
    }
}

async fn run(postgres: &Postgres, sql: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(&postgres.url(), NoTls)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let rows = client.simple_query(sql).await.unwrap();
    connection.abort();
    rows.iter()
        .filter_map(|row| match row {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn starts_twice_and_after_a_kill() {
    let dir = open_dir();
    let config = config(dir.path());
    let first = Postgres::start(&config).await.unwrap();
    run(&first, "CREATE TABLE t (x int)").await;
    let sql = "SELECT current_setting('fsync') || current_setting('server_encoding') || current_database()";
    assert_eq!(run(&first, sql).await, ["onUTF8windlass"]);
    let url = first.url();
    first.stop().await;
    assert!(!config.dir.join("data/postmaster.pid").exists());

    let second = Postgres::start(&config).await.unwrap();
    assert_eq!(second.url(), url);
    run(&second, "INSERT INTO t VALUES (1)").await;
    let pid = second.process().pid();
    kill_9(pid);
    eventually("the postmaster is gone", || !is_alive(pid)).await;
    assert!(config.dir.join("data/postmaster.pid").exists());

    let third = Postgres::start(&config).await.unwrap();
    assert_eq!(run(&third, "SELECT count(*) FROM t").await, ["1"]);
    // A pid file that names a living stranger (a pid given anew) does not keep the next start away.
    let pid = third.process().pid();
    kill_9(pid);
    eventually("the postmaster is gone", || !is_alive(pid)).await;
    let stale = config.dir.join("data/postmaster.pid");
    let text = fs::read_to_string(&stale).unwrap();
    let me = std::process::id().to_string();
    fs::write(&stale, text.replacen(&pid.to_string(), &me, 1)).unwrap();
    let fourth = Postgres::start(&config).await.unwrap();
    assert_eq!(run(&fourth, "SELECT count(*) FROM t").await, ["1"]);
    fourth.stop().await;
}

#[tokio::test]
async fn a_server_that_outlived_its_parent_is_replaced() {
    let dir = open_dir();
    let config = config(dir.path());
    let first = Postgres::start(&config).await.unwrap();
    let pid = first.process().pid();
    // As if this process had been killed: nobody stops the first one.
    let second = Postgres::start(&config).await.unwrap();
    assert!(!is_alive(pid));
    assert_ne!(second.process().pid(), pid);
    second.stop().await;
    drop(first);
}

#[tokio::test]
async fn templates_are_made_once_by_racing_starts() {
    let dir = open_dir();
    let cache = dir.path().join("cache");
    let starts = ["a", "b", "c"].map(|name| {
        let config = Config {
            durable: false,
            template_cache: Some(cache.clone()),
            ..config(&dir.path().join(name))
        };
        fs::create_dir(dir.path().join(name)).unwrap();
        let mode = fs::Permissions::from_mode(0o711);
        fs::set_permissions(dir.path().join(name), mode).unwrap();
        tokio::spawn(async move { Postgres::start(&config).await.unwrap() })
    });
    for start in starts {
        let postgres = start.await.unwrap();
        let fsync = run(&postgres, "SHOW fsync").await;
        assert_eq!(fsync, ["off"]);
        postgres.stop().await;
    }
    let templates = fs::read_dir(&cache).unwrap();
    let dirs = templates.filter(|e| e.as_ref().unwrap().path().is_dir());
    assert_eq!(dirs.count(), 1);
}

#[tokio::test]
async fn refusals_are_clear() {
    let dir = open_dir();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(dir.path());
    config.port = taken.local_addr().unwrap().port();
    config.durable = false;
    let error = Postgres::start(&config).await.unwrap_err();
    assert!(matches!(error, Error::PortTaken { .. }), "{error}");
    config.port = ports::free_port().unwrap();
    config.settings = vec![("no_such_setting".into(), "1".into())];
    let error = Postgres::start(&config).await.unwrap_err().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
    if rustix::process::geteuid().is_root() {
        let closed = dir.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let error = Postgres::start(&Config::new(closed.join("pg"), 1)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::NotTraversable(_)), "{error}");
    }
}
