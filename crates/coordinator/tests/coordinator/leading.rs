//! One leads, until it is gone.

use std::{sync::atomic::Ordering, time::Duration};

use windlass_coordinator::{Hints, RunError};
use windlass_local::postgres::Postgres;
use windlass_service::telemetry;

use crate::common::{LONG, database, replica, until};

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_the_other_takes_over() {
    let db = database().await;
    let off = Hints::off();
    let first = replica(&db, "first", LONG, &off, Duration::ZERO);
    until("the first leader", || first.handle.status().leader).await;
    let second = replica(&db, "second", LONG, &off, Duration::ZERO);
    until("the follower to see who leads", || {
        second.handle.status().holder == "first"
    })
    .await;
    assert!(matches!(
        second.handle.run_now(()).await,
        Err(RunError::NotLeader(who)) if who.contains("first")
    ));
    assert!(first.handle.run_now(()).await.unwrap() >= 1);

    // Stopped: the leadership is given up, not left to expire.
    first.shutdown.cancel();
    first.task.await.unwrap().unwrap();
    until("the second leader", || second.handle.status().leader).await;
    assert!(second.handle.status().epoch > 1);

    // Gone without a word, and started again under the same name: it takes over from itself.
    let epoch = second.handle.status().epoch;
    second.task.abort();
    let again = replica(&db, "second", LONG, &off, Duration::ZERO);
    until("the restarted leader", || again.handle.status().leader).await;
    assert_eq!(again.handle.status().epoch, epoch + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_first_pass_hangs_becomes_late() {
    let metrics = telemetry::metrics_handle();
    let began = chrono::Utc::now().timestamp() as f64;
    let db = database().await;
    let _hangs = replica(&db, "only", LONG, &Hints::off(), LONG);
    let last_success = || {
        let text = metrics.render();
        let mut values = text.lines().filter_map(|line| line.rsplit_once(' '));
        let told = "windlass_tick_last_success_timestamp_seconds";
        let found = values.find(|(series, _)| series.starts_with(told));
        found.map_or(0.0, |(_, value)| value.parse::<f64>().unwrap())
    };
    until("the time from which it is late", || last_success() >= began).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_told_and_survived() {
    let mut db = database().await;
    let replica = replica(
        &db,
        "only",
        Duration::from_millis(100),
        &Hints::off(),
        Duration::ZERO,
    );
    until("a leader", || replica.handle.status().leader).await;
    until("readiness", || replica.readiness.report().ready).await;

    db.postgres.stop().await;
    until("unreadiness", || !replica.readiness.report().ready).await;
    assert!(!replica.handle.status().last_error.is_empty());

    db.postgres = Postgres::start(&db.config).await.unwrap();
    until("readiness again", || replica.readiness.report().ready).await;
    let before = replica.passes.load(Ordering::SeqCst);
    until("passes again", || {
        replica.passes.load(Ordering::SeqCst) > before + 2
    })
    .await;
    assert!(replica.handle.status().leader);
}
