//! Hints make passes, and a transport that is away delays nobody.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;
use windlass_coordinator::{Channel, Hints};
use windlass_db::Pool;
use windlass_local::redis::Redis;

use crate::common::{Db, LONG, database, redis_config, replica, until};

#[tokio::test(flavor = "multi_thread")]
async fn hints_over_postgresql_make_passes_and_a_storm_makes_few() {
    let db = database().await;
    let hints = Hints::new(None, &db.pool()).unwrap();
    hinted(&db, &hints).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_over_redis_make_passes_and_a_storm_makes_few() {
    let db = database().await;
    let dir = tempfile::tempdir().unwrap();
    let redis = Redis::start(&redis_config(&dir)).await.unwrap();
    let hints = Hints::new(Some(&redis.url()), &db.pool()).unwrap();
    hinted(&db, &hints).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_keeps_nobody_waiting_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = redis_config(&dir);
    let url = format!("redis://127.0.0.1:{}", config.port);
    let unused = Pool::new("postgres://nobody@127.0.0.1:1/none", 1).unwrap();
    let hints = Hints::new(Some(&url), &unused).unwrap();
    // It takes connections and never answers.
    let hole = std::net::TcpListener::bind(("127.0.0.1", config.port)).unwrap();
    let began = Instant::now();
    for _ in 0..1_000 {
        hints.publish(Channel::Wc);
        tokio::task::yield_now().await;
    }
    assert!(began.elapsed() < Duration::from_secs(60));
    drop(hole);

    let redis = Redis::start(&config).await.unwrap();
    let waker = hints.subscribe(Channel::Wc);
    let woken = async || {
        let hint = tokio::time::timeout(Duration::from_secs(60), waker.hint());
        hint.await.expect("a hint");
    };
    // Listening wakes by itself; what comes after that is a hint.
    woken().await;
    hints.publish(Channel::Wc);
    woken().await;
    // A connection that was good is not any more: the first hint on a new one counts.
    redis.stop().await;
    let _redis = Redis::start(&config).await.unwrap();
    woken().await;
    hints.publish(Channel::Wc);
    woken().await;
}

async fn hinted(db: &Db, hints: &Hints) {
    let slow = Duration::from_millis(300);
    let replica = replica(db, "only", LONG, hints, slow);
    let passes = || replica.passes.load(Ordering::SeqCst);
    // Whether it listens already nobody knows, so the first hint may need repeating.
    until("the first pass", || passes() >= 1).await;
    tokio::time::sleep(2 * slow).await;
    let (before, began) = (passes(), Instant::now());
    while passes() == before {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "no hint made a pass"
        );
        hints.publish(Channel::Wc);
        tokio::time::sleep(2 * slow).await;
    }

    tokio::time::sleep(2 * slow).await;
    let before = passes();
    for _ in 0..50 {
        hints.publish(Channel::Wc);
    }
    until("a hinted pass", || passes() > before).await;
    // All that came while a pass was being made is one more pass; the storm itself may outlast the first.
    tokio::time::sleep(4 * slow).await;
    let after = passes() - before;
    assert!((1..=4).contains(&after), "{after} passes for a storm");
}
