//! Credentials of the SDK's own chain, and buckets as host names: both are of a whole process.

use std::process::Command;

use tempfile::TempDir;
use windlass_archive::{Store, StoreConfig, StoreErrorKind};
use windlass_integration::home;
use windlass_integration::proxy::Proxy;

use crate::server::{BUCKET, KEY, SECRET, Server, get, made, put, spec};
use crate::tree;

/// This very test in a process of its own, with some of the environment changed.
fn again(program: &mut Command, test: &str, endpoint: &str) {
    let status = program
        .args([test, "--exact", "--nocapture"])
        .env("WINDLASS_TEST_ENDPOINT", endpoint)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

/// What the other process does: a whole round trip.
async fn round_trip(config: StoreConfig) {
    let source = TempDir::new().unwrap();
    home::fill(source.path(), 9);
    let store = made(config).await;
    let marker = put(&store, source.path(), &spec()).await;
    let target = get(&store, &marker).await;
    assert_eq!(home::picture(source.path()), home::picture(target.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_come_from_the_default_chain() {
    const TEST: &str = "environment::credentials_come_from_the_default_chain";
    let config = |endpoint| StoreConfig {
        endpoint: Some(endpoint),
        bucket: BUCKET.into(),
        force_path_style: true,
        ..StoreConfig::default()
    };
    if let Ok(endpoint) = std::env::var("WINDLASS_TEST_ENDPOINT") {
        return round_trip(config(endpoint)).await;
    }
    // The embedded store checks signatures: another key is refused.
    let server = Server::embedded().await;
    let endpoint = format!("http://{}", server.addr());
    let wrong = StoreConfig {
        credentials: Some((KEY.into(), "wrong".into())),
        ..config(endpoint.clone())
    };
    let error = Store::new(wrong).await.unwrap().probe().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Denied, "{error}");
    let myself = std::env::current_exe().unwrap();
    let mut by_environment = Command::new(&myself);
    by_environment
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET);
    again(&mut by_environment, TEST, &endpoint);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("credentials");
    let text = format!("[homes]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n");
    std::fs::write(&file, text).unwrap();
    let mut by_profile = Command::new(&myself);
    by_profile
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("AWS_PROFILE", "homes")
        .env("AWS_SHARED_CREDENTIALS_FILE", &file);
    again(&mut by_profile, TEST, &endpoint);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_may_be_host_names() {
    if let Ok(endpoint) = std::env::var("WINDLASS_TEST_ENDPOINT") {
        let config = StoreConfig {
            endpoint: Some(endpoint),
            bucket: BUCKET.into(),
            force_path_style: false,
            credentials: Some((KEY.into(), SECRET.into())),
            ..StoreConfig::default()
        };
        return round_trip(config).await;
    }
    tree::require_root();
    // `homes.localhost` has to mean loopback: in a mount namespace of its own, where /etc/hosts says so.
    // Only moto: the embedded store knows path-style alone.
    let server = Server::moto().await;
    let proxy = Proxy::start(server.addr()).await;
    let dir = TempDir::new().unwrap();
    let hosts = dir.path().join("hosts");
    std::fs::write(&hosts, format!("127.0.0.1 localhost {BUCKET}.localhost\n")).unwrap();
    let endpoint = proxy.endpoint().replace("127.0.0.1", "localhost");
    let mut program = Command::new("unshare");
    program
        .args([
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$HOSTS\" /etc/hosts && exec \"$@\"",
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .env("HOSTS", &hosts);
    again(
        &mut program,
        "environment::buckets_may_be_host_names",
        &endpoint,
    );
    assert!(proxy.requests().len() > 5);
    for head in proxy.requests() {
        let host = format!("host: {BUCKET}.localhost");
        assert!(
            head.contains(&host) && !head.contains(&format!("/{BUCKET}/")),
            "{head}"
        );
    }
}
