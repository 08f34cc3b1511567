//! The one way to Redis: over a restart of it, and against one that never answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use windlass_coordinator::RedisLink;
use windlass_local::redis::Redis;

use crate::common::redis_config;

#[tokio::test]
async fn a_command_is_answered_although_redis_was_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let config = redis_config(&dir);
    let mut server = Redis::start(&config).await.unwrap();
    let link = RedisLink::new(&server.url()).unwrap();
    let ping = redis::cmd("PING");
    for _ in 0..2 {
        assert_eq!(link.send::<String>(&ping).await.unwrap(), "PONG");
        server.stop().await;
        server = Redis::start(&config).await.unwrap();
    }
    assert_eq!(link.send::<String>(&ping).await.unwrap(), "PONG");
    server.stop().await;
    link.send::<()>(&ping).await.unwrap_err();
}

#[tokio::test]
async fn one_that_never_answers_keeps_nobody_waiting_for_long() {
    // It takes connections, and that is all.
    let hole = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("redis://{}", hole.local_addr().unwrap());
    let link = Arc::new(RedisLink::new(&url).unwrap());
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let link = link.clone();
        callers.spawn(async move { link.send::<()>(&redis::cmd("PING")).await });
    }
    for answer in callers.join_all().await {
        let why = answer.unwrap_err().to_string();
        assert!(why.contains("timed out"), "{why}");
    }
    // One after another they would take 100 s.
    assert!(began.elapsed() < Duration::from_secs(60));
    hole.set_nonblocking(true).unwrap();
    let connections = std::iter::from_fn(|| hole.accept().ok()).count();
    assert!((1..4).contains(&connections), "{connections}");
}
