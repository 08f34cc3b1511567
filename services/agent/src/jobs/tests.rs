//! Jobs that do as they are told, for the tests below.

mod calls;
mod giving_way;
mod places;

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

impl Fixture {
    /// The first attempt of an operation.
    async fn submit<T: Task>(
        &self,
        workspace: u128,
        op: u128,
        task: T,
    ) -> Result<v1::Job, Failure> {
        self.jobs.submit(context(workspace, op, 0), task).await
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
