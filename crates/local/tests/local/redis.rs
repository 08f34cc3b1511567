use windlass_local::redis::{Config, Redis};
use windlass_local::{Error, ports};

use crate::{eventually, is_alive, kill_9};

#[tokio::test]
async fn starts_twice_and_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        dir: dir.path().join("redis"),
        port: ports::free_port().unwrap(),
        die_with_parent: true,
    };
    let first = Redis::start(&config).await.unwrap();
    let pid = first.process().pid();
    first.stop().await;
    assert!(!is_alive(pid));
    let second = Redis::start(&config).await.unwrap();
    let pid = second.process().pid();
    kill_9(pid);
    eventually("Redis is gone", || !is_alive(pid)).await;
    let third = Redis::start(&config).await.unwrap();
    let beside = Config {
        dir: dir.path().join("other"),
        ..config.clone()
    };
    let error = Redis::start(&beside).await.unwrap_err();
    assert!(matches!(error, Error::PortTaken { .. }), "{error}");
    assert!(error.to_string().contains("redis"), "{error}");
    let pid = third.process().pid();
    drop(third);
    eventually("a dropped Redis is gone", || !is_alive(pid)).await;
}
