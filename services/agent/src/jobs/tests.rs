use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use windlass_domain::Shard;

use super::*;
use crate::epochs::Claim;

struct Fixture {
    jobs: Jobs,
    epochs: Arc<Epochs>,
    _folder: tempfile::TempDir,
}

fn fixture(places: usize, queue: usize) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let epochs = Arc::new(Epochs::open(folder.path()).unwrap());
    let args = JobArgs {
        max_archive_jobs: places,
        max_checkpoint_jobs: places,
        max_restore_jobs: places,
        max_start_jobs: places,
        max_stop_jobs: places,
        max_volume_jobs: places,
        max_queued_jobs: queue,
    };
    Fixture {
        jobs: Jobs::new(&args, epochs.clone(), Dirty::default()),
        epochs,
        _folder: folder,
    }
}

fn context(workspace: u128, op: u128, attempt: u32) -> WorkContext {
    WorkContext {
        workspace: Uuid::from_u128(workspace),
        op_id: Uuid::from_u128(op),
        attempt,
        claim: Claim::Wc(Shard::WHOLE, 1),
    }
}

#[derive(Clone, Default)]
struct Probe {
    runs: Arc<AtomicUsize>,
    go: Arc<Notify>,
    waits: bool,
    refuse: bool,
    fail: bool,
    /// How long the message of a failure is.
    words: usize,
    panic: bool,
}

impl Probe {
    async fn act(&self) -> Result<(), Failure> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        if self.waits {
            self.go.notified().await;
        }
        assert!(!self.panic, "as told");
        if self.fail {
            let why = format!("no such image{}", "!".repeat(self.words));
            return Err(Failure::new(Reason::ImagePullFailed, why));
        }
        Ok(())
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

macro_rules! task {
    ($name:ident, $kind:ident, $wait:literal) => {
        #[derive(Clone)]
        struct $name(Probe);
        impl Task for $name {
            const KIND: Kind = Kind::$kind;
            const WAIT: bool = $wait;
            async fn check(&self, _: &Job) -> Result<(), Failure> {
                if self.0.refuse {
                    return Err(Failure::new(Reason::VolumeNotFound, "no volume"));
                }
                Ok(())
            }
            async fn run(&self, _: &Job) -> Result<(), Failure> {
                self.0.act().await
            }
        }
    };
}
task!(Starting, Start, false);
task!(Stopping, Stop, false);
task!(Provisioning, Provision, true);

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

fn waiting() -> Probe {
    Probe {
        waits: true,
        ..Probe::default()
    }
}

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
    let take = |workspace, op| f.jobs.submit(context(workspace, op, 0), Checkpointing);
    take(1, 1).await.unwrap();
    // It waits for the place of the other, and gives way there too.
    let queued = take(2, 1).await.unwrap();
    assert_eq!(queued.state(), v1::JobState::Queued);
    // The same call joins it as any other.
    take(1, 1).await.unwrap();
    for workspace in [2, 1] {
        let probe = Probe::default();
        let stop = || {
            f.jobs
                .submit(context(workspace, 2, 0), Stopping(probe.clone()))
        };
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
    let start = |workspace, task| f.jobs.submit(context(workspace, 1, 0), task);
    start(1, first.clone()).await.unwrap();
    until("the registry is asked", || first.registry.runs() == 1).await;
    // The only place aside is taken.
    start(2, first.clone()).await.unwrap();
    // The only place is not.
    f.jobs
        .submit(context(3, 1, 0), Starting(second.clone()))
        .await
        .unwrap();
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
    f.jobs.submit(context(1, 1, 0), slow.clone()).await.unwrap();
    until("the registry is asked", || slow.registry.runs() == 1).await;
    let stopped = Probe::default();
    let stop = || f.jobs.submit(context(1, 2, 0), Stopping(stopped.clone()));
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
    f.jobs
        .submit(context(2, 1, 0), quick.clone())
        .await
        .unwrap();
    until("it starts", || quick.start.runs() == 1).await;
    let busy = f.jobs.submit(context(2, 2, 0), Stopping(stopped)).await;
    assert_eq!(busy.unwrap_err().reason, Reason::Busy);
    quick.start.go.notify_one();
    until("it ends", || f.jobs.active() == 0).await;
    let ended = &f.jobs.list(Some(Uuid::from_u128(2)))[0];
    assert_eq!(ended.state(), v1::JobState::Succeeded);
}

#[tokio::test]
async fn the_same_call_joins_and_another_is_busy() {
    let f = fixture(2, 2);
    let probe = waiting();
    let job = f
        .jobs
        .submit(context(1, 1, 0), Starting(probe.clone()))
        .await
        .unwrap();
    assert_ne!(job.state(), v1::JobState::Failed);
    until("running", || probe.runs() == 1).await;
    let again = f
        .jobs
        .submit(context(1, 1, 1), Starting(probe.clone()))
        .await
        .unwrap();
    assert_eq!((again.attempt, again.state()), (1, v1::JobState::Running));

    let other = f
        .jobs
        .submit(context(1, 2, 0), Starting(probe.clone()))
        .await
        .unwrap_err();
    assert_eq!(other.reason, Reason::Busy);
    let other = f
        .jobs
        .submit(context(1, 1, 0), Stopping(probe.clone()))
        .await
        .unwrap_err();
    assert_eq!(other.reason, Reason::Busy);
    probe.go.notify_one();
    until("ended", || f.jobs.active() == 0).await;
    assert_eq!(probe.runs(), 1);
    let jobs = f.jobs.list(Some(Uuid::from_u128(1)));
    assert_eq!(jobs.len(), 1);
    assert_eq!(
        (jobs[0].state(), jobs[0].attempt),
        (v1::JobState::Succeeded, 1)
    );
}

#[tokio::test]
async fn a_failed_job_runs_again_only_as_a_higher_attempt() {
    let f = fixture(2, 2);
    let probe = Probe {
        fail: true,
        ..Probe::default()
    };
    let submit = |attempt| {
        f.jobs
            .submit(context(1, 1, attempt), Starting(probe.clone()))
    };
    let _ = submit(0).await;
    until("ended", || f.jobs.active() == 0).await;
    for _ in 0..2 {
        assert_eq!(submit(0).await.unwrap_err().reason, Reason::ImagePullFailed);
    }
    assert_eq!(probe.runs(), 1);
    let told = &f.jobs.list(None)[0];
    assert_eq!(told.reason, "ImagePullFailed");
    assert_eq!(
        (told.message.as_str(), told.state()),
        ("no such image", v1::JobState::Failed)
    );
    assert!(told.end_time.is_some());
    let _ = submit(1).await;
    until("ended", || f.jobs.active() == 0).await;
    assert_eq!(probe.runs(), 2);
}

/// Larger than any gRPC message may be.
#[tokio::test]
async fn a_failure_of_many_words_is_still_listed() {
    let f = fixture(1, 1);
    let probe = Probe {
        fail: true,
        words: 8 << 20,
        ..Probe::default()
    };
    let failure = f
        .jobs
        .submit(context(1, 1, 0), Provisioning(probe))
        .await
        .unwrap_err();
    let told = &f.jobs.list(None)[0];
    assert_eq!(told.message, failure.message);
    assert!(told.message.starts_with("no such image!") && told.message.len() <= 2048);
}

#[tokio::test]
async fn a_job_that_succeeded_may_run_again_and_a_refused_one_is_none() {
    let f = fixture(2, 2);
    let probe = Probe::default();
    for _ in 0..2 {
        let job = f
            .jobs
            .submit(context(1, 1, 0), Provisioning(probe.clone()))
            .await
            .unwrap();
        assert_eq!(job.state(), v1::JobState::Succeeded);
    }
    assert_eq!(probe.runs(), 2);
    let refused = Probe {
        refuse: true,
        ..Probe::default()
    };
    let failure = f
        .jobs
        .submit(context(2, 2, 0), Starting(refused))
        .await
        .unwrap_err();
    assert_eq!(failure.reason, Reason::VolumeNotFound);
    assert!(f.jobs.list(Some(Uuid::from_u128(2))).is_empty());
}

#[tokio::test]
async fn kinds_do_not_wait_for_each_other_and_queues_are_bounded() {
    let f = fixture(1, 1);
    let slow = waiting();
    f.jobs
        .submit(context(1, 1, 0), Stopping(slow.clone()))
        .await
        .unwrap();
    until("running", || slow.runs() == 1).await;
    let queued = f
        .jobs
        .submit(context(2, 2, 0), Stopping(slow.clone()))
        .await
        .unwrap();
    assert_eq!(queued.state(), v1::JobState::Queued);
    let full = f
        .jobs
        .submit(context(3, 3, 0), Stopping(slow.clone()))
        .await
        .unwrap_err();
    assert_eq!(full.reason, Reason::QueueFull);
    let quick = Probe::default();
    f.jobs
        .submit(context(3, 3, 0), Provisioning(quick.clone()))
        .await
        .unwrap();
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
    f.jobs
        .submit(context(1, 1, 0), Stopping(slow.clone()))
        .await
        .unwrap();
    until("running", || slow.runs() == 1).await;
    let late = Probe::default();
    f.jobs
        .submit(context(2, 2, 0), Stopping(late.clone()))
        .await
        .unwrap();
    let kept = Probe::default();
    f.jobs
        .submit(context(3, 3, 0), Stopping(kept.clone()))
        .await
        .unwrap();
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
    let stale = f
        .jobs
        .submit(context(2, 2, 0), Stopping(late))
        .await
        .unwrap_err();
    assert_eq!(stale.reason, Reason::StaleEpoch);
}

#[tokio::test]
async fn a_panic_fails_the_job_and_frees_the_workspace() {
    let f = fixture(1, 1);
    let probe = Probe {
        panic: true,
        ..Probe::default()
    };
    let failure = f
        .jobs
        .submit(context(1, 1, 0), Provisioning(probe))
        .await
        .unwrap_err();
    assert_eq!(failure.reason, Reason::ActionFailed);
    assert_eq!(f.jobs.active(), 0);
    f.jobs
        .submit(context(1, 2, 0), Provisioning(Probe::default()))
        .await
        .unwrap();
}

#[tokio::test]
async fn stopping_ends_all_and_records_no_failure() {
    let f = fixture(1, 8);
    let slow = waiting();
    f.jobs
        .submit(context(1, 1, 0), Stopping(slow.clone()))
        .await
        .unwrap();
    until("running", || slow.runs() == 1).await;
    f.jobs
        .submit(context(2, 2, 0), Stopping(slow.clone()))
        .await
        .unwrap();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    f.jobs
        .clone()
        .end_with(shutdown, Duration::from_millis(50))
        .await;
    assert_eq!(f.jobs.active(), 0);
    assert!(f.jobs.list(None).is_empty());
}
