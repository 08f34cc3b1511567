//! What gives way to whatever else is asked for, and what waits without a place of its own.

use super::*;

/// Runs until it is asked to give up.
struct Checkpointing;

impl Task for Checkpointing {
    const KIND: Kind = Kind::Checkpoint;

    async fn check(&self, _: &Job) -> Result<(), Failure> {
        Ok(())
    }

    async fn run(&self, job: &Job) -> Result<(), Failure> {
        job.cancel.cancelled().await;
        Err(Failure::action("cancelled"))
    }
}

#[tokio::test]
async fn a_checkpoint_gives_way_to_whatever_else_is_asked_for() {
    let f = fixture(1, 1);
    let take = |workspace, op| f.submit(workspace, op, Checkpointing);
    take(1, 1).await.unwrap();
    // It waits for the place of the other, and gives way there too.
    let queued = take(2, 1).await.unwrap();
    assert_eq!(queued.state(), v1::JobState::Queued);
    // The same call joins it as any other.
    take(1, 1).await.unwrap();
    for workspace in [2, 1] {
        let probe = Probe::default();
        let stop = || f.submit(workspace, 2, Stopping(probe.clone()));
        let busy = stop().await.unwrap_err();
        assert_eq!(busy.reason, Reason::Busy, "not before it has ended");
        let id = Uuid::from_u128(workspace);
        until("the checkpoint ends", || !f.jobs.is_busy(id)).await;
        assert!(f.jobs.list(Some(id)).is_empty(), "no failure is told");
        stop().await.unwrap();
        until("stopped", || probe.runs() == 1).await;
    }
}

/// Waits for others before it needs its place.
#[derive(Clone)]
struct Pulling {
    registry: Probe,
    places: Arc<Semaphore>,
    start: Probe,
}

impl Task for Pulling {
    const KIND: Kind = Kind::Start;

    async fn check(&self, _: &Job) -> Result<(), Failure> {
        Ok(())
    }

    async fn run(&self, job: &Job) -> Result<(), Failure> {
        job.aside(&self.places, self.registry.act()).await?;
        self.start.act().await
    }
}

fn pulling(places: usize) -> Pulling {
    Pulling {
        registry: waiting(),
        places: Arc::new(Semaphore::new(places)),
        start: Probe::default(),
    }
}

#[tokio::test]
async fn who_waits_aside_keeps_no_place_and_takes_one_afterwards() {
    let f = fixture(1, 8);
    let (first, second) = (pulling(1), waiting());
    let state = |id| f.jobs.list(Some(Uuid::from_u128(id)))[0].state();
    let start = |workspace, task| f.submit(workspace, 1, task);
    start(1, first.clone()).await.unwrap();
    until("the registry is asked", || first.registry.runs() == 1).await;
    // The only place aside is taken.
    start(2, first.clone()).await.unwrap();
    // The only place is not.
    f.submit(3, 1, Starting(second.clone())).await.unwrap();
    until("the other starts", || second.runs() == 1).await;
    assert_eq!(
        (state(1), state(2)),
        (v1::JobState::Running, v1::JobState::Queued)
    );
    first.registry.go.notify_one();
    until("the place aside is the next one's", || {
        first.registry.runs() == 2
    })
    .await;
    until("the place is waited for", || {
        state(1) == v1::JobState::Queued
    })
    .await;
    assert_eq!(first.start.runs(), 0);
    second.go.notify_one();
    first.registry.go.notify_one();
    until("all", || f.jobs.active() == 0).await;
    assert_eq!(first.start.runs(), 2);
}

#[tokio::test]
async fn who_waits_aside_gives_way_to_whatever_else_is_asked_for() {
    let f = fixture(1, 8);
    let slow = pulling(1);
    let id = Uuid::from_u128(1);
    f.submit(1, 1, slow.clone()).await.unwrap();
    until("the registry is asked", || slow.registry.runs() == 1).await;
    let stopped = Probe::default();
    let stop = || f.submit(1, 2, Stopping(stopped.clone()));
    assert_eq!(stop().await.unwrap_err().reason, Reason::Busy);
    until("it ends", || !f.jobs.is_busy(id)).await;
    assert!(f.jobs.list(Some(id)).is_empty(), "no failure is told");
    stop().await.unwrap();
    until("stopped", || stopped.runs() == 1).await;
    assert_eq!(slow.start.runs(), 0);

    // Once it has its place again it is a job as any other.
    let quick = Pulling {
        registry: Probe::default(),
        start: waiting(),
        ..pulling(1)
    };
    f.submit(2, 1, quick.clone()).await.unwrap();
    until("it starts", || quick.start.runs() == 1).await;
    let busy = f.submit(2, 2, Stopping(stopped)).await;
    assert_eq!(busy.unwrap_err().reason, Reason::Busy);
    quick.start.go.notify_one();
    until("it ends", || f.jobs.active() == 0).await;
    let ended = &f.jobs.list(Some(Uuid::from_u128(2)))[0];
    assert_eq!(ended.state(), v1::JobState::Succeeded);
}
