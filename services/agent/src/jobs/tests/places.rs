//! Places and queues, and what becomes of those who wait.

use super::*;

#[tokio::test]
async fn kinds_do_not_wait_for_each_other_and_queues_are_bounded() {
    let f = fixture(1, 1);
    let slow = waiting();
    f.submit(1, 1, Stopping(slow.clone())).await.unwrap();
    until("running", || slow.runs() == 1).await;
    let queued = f.submit(2, 2, Stopping(slow.clone())).await.unwrap();
    assert_eq!(queued.state(), v1::JobState::Queued);
    let full = f.submit(3, 3, Stopping(slow.clone())).await.unwrap_err();
    assert_eq!(full.reason, Reason::QueueFull);
    let quick = Probe::default();
    f.submit(3, 3, Provisioning(quick.clone())).await.unwrap();
    assert_eq!((quick.runs(), slow.runs()), (1, 1));
    slow.go.notify_one();
    until("the next", || slow.runs() == 2).await;
    slow.go.notify_one();
    until("all", || f.jobs.active() == 0).await;
}

#[tokio::test]
async fn what_waited_is_dropped_when_its_leader_fell() {
    let f = fixture(1, 8);
    let slow = waiting();
    f.submit(1, 1, Stopping(slow.clone())).await.unwrap();
    until("running", || slow.runs() == 1).await;
    let late = Probe::default();
    f.submit(2, 2, Stopping(late.clone())).await.unwrap();
    let kept = Probe::default();
    f.submit(3, 3, Stopping(kept.clone())).await.unwrap();
    f.epochs.admit(Claim::Wc(Shard::WHOLE, 2)).await.unwrap();
    // The new leader asks for the same.
    let next = WorkContext {
        claim: Claim::Wc(Shard::WHOLE, 2),
        ..context(3, 3, 0)
    };
    f.jobs.submit(next, Stopping(kept.clone())).await.unwrap();
    slow.go.notify_one();
    until("all", || f.jobs.active() == 0).await;
    assert_eq!((late.runs(), kept.runs()), (0, 1));
    assert!(f.jobs.list(Some(Uuid::from_u128(2))).is_empty());
    let stale = f.submit(2, 2, Stopping(late)).await.unwrap_err();
    assert_eq!(stale.reason, Reason::StaleEpoch);
}

#[tokio::test]
async fn stopping_ends_all_and_records_no_failure() {
    let f = fixture(1, 8);
    let slow = waiting();
    f.submit(1, 1, Stopping(slow.clone())).await.unwrap();
    until("running", || slow.runs() == 1).await;
    f.submit(2, 2, Stopping(slow.clone())).await.unwrap();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    f.jobs
        .clone()
        .end_with(shutdown, Duration::from_millis(50))
        .await;
    assert_eq!(f.jobs.active(), 0);
    assert!(f.jobs.list(None).is_empty());
}
