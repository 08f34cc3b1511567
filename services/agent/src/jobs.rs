//! Work on workspaces: one job per workspace at a time, bounded queues, and the same answer to the same
//! call.
//!
//! Invariants: from before its checks until after its end a job excludes every other of its workspace, but
//! a checkpoint, and a start that only pulls its image, is cancelled when something else is asked for; kinds
//! of work never wait for each other, nor for a registry; a job that failed is run again only by a higher
//! attempt; a job that waited is dropped if its leader was deposed meanwhile. Nothing here is stored: after
//! a restart the same calls come again, and every operation is idempotent.

mod job;
mod progress;

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};
use uuid::Uuid;
use windlass_proto::v1;
use windlass_service::trace;

use crate::config::JobArgs;
use crate::epochs::Epochs;
use crate::error::{Failure, Reason};
use crate::feed::Dirty;

use job::{Finished, Phase};
pub use job::{Job, Kind, WorkContext};
pub use progress::JobProgress;

/// Finished jobs that are remembered at most.
const MAX_FINISHED: usize = 10_000;

/// One operation of the agent.
pub trait Task: Send + Sync + 'static {
    /// What it is.
    const KIND: Kind;
    /// Whether its caller waits for its end (or else only for its checks).
    const WAIT: bool = false;

    /// What can be checked at once. A failure refuses the call: there is no job then.
    fn check(&self, job: &Job) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Does it. Whatever was checked may have changed while it waited.
    fn run(&self, job: &Job) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// All jobs of this agent; cheap to clone.
#[derive(Debug, Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    epochs: Arc<Epochs>,
    /// Told of every job that moved.
    moved: Dirty,
    lanes: HashMap<Kind, Lane>,
    state: Mutex<State>,
    tracker: TaskTracker,
    /// Asks jobs to give up.
    cancel: CancellationToken,
    /// Drops jobs that did not.
    kill: CancellationToken,
}

/// The places of one kind of work.
#[derive(Debug)]
struct Lane {
    permits: Arc<Semaphore>,
    /// Jobs at work and waiting.
    bound: usize,
}

#[derive(Debug, Default)]
struct State {
    active: HashMap<Uuid, Arc<Job>>,
    finished: HashMap<Uuid, Finished>,
}

impl Jobs {
    /// No jobs yet; `moved` is told of each that moves.
    pub fn new(args: &JobArgs, epochs: Arc<Epochs>, moved: Dirty) -> Self {
        let lane = |kind: Kind| {
            let places = match kind {
                Kind::Start => args.max_start_jobs,
                Kind::Stop => args.max_stop_jobs,
                Kind::Archive => args.max_archive_jobs,
                Kind::Checkpoint => args.max_checkpoint_jobs,
                Kind::Restore => args.max_restore_jobs,
                Kind::Provision | Kind::DeleteVolume | Kind::CreateEmptyArchive => {
                    args.max_volume_jobs
                }
            };
            let lane = Lane {
                permits: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
                bound: places.saturating_add(args.max_queued_jobs),
            };
            (kind, lane)
        };
        Self {
            inner: Arc::new(Inner {
                epochs,
                moved,
                lanes: Kind::ALL.into_iter().map(lane).collect(),
                state: Mutex::default(),
                tracker: TaskTracker::new(),
                cancel: CancellationToken::new(),
                kill: CancellationToken::new(),
            }),
        }
    }

    /// Runs a task, or joins the same one, and answers with its job once it is checked (or ended).
    ///
    /// # Errors
    /// When it is refused, and when it failed.
    pub async fn submit<T: Task>(&self, context: WorkContext, task: T) -> Result<v1::Job, Failure> {
        self.inner.epochs.admit(context.claim).await?;
        let job = self.enter(&context, task)?;
        let mut phases = job.phases();
        let settled = phases
            .wait_for(|phase| match phase {
                Phase::Checking => false,
                Phase::Queued | Phase::Running => !T::WAIT,
                Phase::Refused(_) | Phase::Succeeded(_) | Phase::Failed(..) => true,
            })
            .await
            .map(|phase| phase.clone());
        match settled {
            Ok(Phase::Refused(failure) | Phase::Failed(failure, _)) => Err(failure),
            Ok(_) => Ok(job.wire()),
            // The job holds the sender, and we hold the job.
            Err(_) => Err(Failure::action("the job was lost")),
        }
    }

    /// The job that answers this call: the one at work, or a new one.
    fn enter<T: Task>(&self, context: &WorkContext, task: T) -> Result<Arc<Job>, Failure> {
        let inner = &self.inner;
        if inner.cancel.is_cancelled() {
            return Err(stopping());
        }
        let mut state = inner.lock();
        if let Some(job) = state.active.get(&context.workspace) {
            if job.kind != T::KIND || job.op_id != context.op_id {
                if job.gives_way() {
                    // wc asks for something else, so it has given this up: nobody waits for it.
                    job.cancel.cancel();
                }
                return Err(Failure::new(
                    Reason::Busy,
                    format!("{} of operation {} is running", job.kind.word(), job.op_id),
                ));
            }
            job.join(context);
            inner.moved.job(context.workspace);
            return Ok(job.clone());
        }
        if let Some(failure) = state
            .finished
            .get(&context.workspace)
            .and_then(|finished| finished.failure_of(T::KIND, context))
        {
            return Err(failure.clone());
        }
        let lane = inner.lane(T::KIND)?;
        let present = state.active.values().filter(|job| job.kind == T::KIND);
        if present.count() >= lane.bound {
            return Err(Failure::new(
                Reason::QueueFull,
                format!("too many jobs wait: {}", T::KIND.word()),
            ));
        }
        let (places, cancel) = (lane.permits.clone(), inner.cancel.child_token());
        let job = Arc::new(Job::new(T::KIND, context, places, cancel));
        state.active.insert(context.workspace, job.clone());
        drop(state);
        inner.moved.job(context.workspace);
        let (inner, driven) = (inner.clone(), job.clone());
        let span = job.span();
        let drive = async move { inner.drive(&driven, task).await };
        self.inner.tracker.spawn(drive.instrument(span));
        Ok(job)
    }

    /// Jobs at work and the last finished one of each workspace, newest first.
    pub fn list(&self, workspace: Option<Uuid>) -> Vec<v1::Job> {
        let state = self.inner.lock();
        let wanted = |id: &Uuid| workspace.is_none_or(|wanted| wanted == *id);
        let active = state.active.iter().filter(|(id, _)| wanted(id));
        let finished = state.finished.iter().filter(|(id, _)| wanted(id));
        let mut jobs: Vec<v1::Job> = active
            .map(|(_, job)| job.wire())
            .chain(finished.map(|(_, finished)| finished.wire.clone()))
            .collect();
        drop(state);
        let begun = |job: &v1::Job| job.create_time.map(|t| (t.seconds, t.nanos));
        jobs.sort_by_key(|job| std::cmp::Reverse(begun(job)));
        jobs
    }

    /// Jobs at work or waiting.
    pub fn active(&self) -> usize {
        self.inner.lock().active.len()
    }

    /// Workspaces that have a job at work or waiting.
    pub fn active_workspaces(&self) -> Vec<Uuid> {
        self.inner.lock().active.keys().copied().collect()
    }

    /// Whether the workspace has a job at work or waiting.
    pub fn is_busy(&self, workspace: Uuid) -> bool {
        self.inner.lock().active.contains_key(&workspace)
    }

    /// Waits for shutdown, then ends the jobs: what can give up does, the rest may finish within `bound`.
    pub async fn end_with(self, shutdown: CancellationToken, bound: Duration) {
        shutdown.cancelled().await;
        let inner = &self.inner;
        inner.cancel.cancel();
        inner.tracker.close();
        if tokio::time::timeout(bound, inner.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!(jobs = self.active(), "jobs did not end in time: dropped");
            inner.kill.cancel();
            inner.tracker.wait().await;
        }
    }
}

impl Inner {
    fn lane(&self, kind: Kind) -> Result<&Lane, Failure> {
        // Filled with every kind.
        let lane = self.lanes.get(&kind);
        lane.ok_or_else(|| Failure::action("no such kind of work"))
    }

    // Every change under the lock is one insert or remove: a panic leaves nothing half-done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drive<T: Task>(&self, job: &Arc<Job>, task: T) {
        let driven = tokio::select! {
            biased;
            () = self.kill.cancelled() => Err(stopping()),
            driven = self.check_and_queue(job, &task) => driven,
        };
        if let Err(failure) = driven {
            job.release_place();
            self.lock().active.remove(&job.workspace);
            job.set(Phase::Refused(failure));
            self.moved.job(job.workspace);
            return;
        }
        job.set(Phase::Running);
        self.moved.job(job.workspace);
        let running = metrics::gauge!("windlass_agent_jobs_running", "kind" => T::KIND.word());
        running.increment(1.0);
        let began = Instant::now();
        let result = tokio::select! {
            biased;
            () = self.kill.cancelled() => Err(stopping()),
            result = guarded(task.run(job)) => result,
        };
        job.release_place();
        running.decrement(1.0);
        self.finish(job, result, began.elapsed());
    }

    async fn check_and_queue<T: Task>(&self, job: &Job, task: &T) -> Result<(), Failure> {
        guarded(task.check(job)).await?;
        job.set(Phase::Queued);
        let waiting = metrics::gauge!("windlass_agent_jobs_queued", "kind" => T::KIND.word());
        waiting.increment(1.0);
        let placed = job.take_place().await;
        waiting.decrement(1.0);
        placed?;
        // Whoever asked may have been deposed while it waited.
        self.epochs.check(job.claim())
    }

    fn finish(&self, job: &Job, result: Result<(), Failure>, took: Duration) {
        let word = if result.is_ok() {
            "succeeded"
        } else {
            "failed"
        };
        metrics::histogram!(
            "windlass_agent_job_seconds", "kind" => job.kind.word(), "result" => word
        )
        .record(took.as_secs_f64());
        let now = Utc::now();
        let (workspace, kind) = (job.workspace, job.kind.word());
        let phase = match result {
            Ok(()) => {
                tracing::info!(kind, ?took, "job succeeded");
                Phase::Succeeded(now)
            }
            // Stopping is no failure of the operation: it is asked for again. Nor is being given up.
            Err(_) if job.cancel.is_cancelled() => Phase::Refused(stopping()),
            // Nor is a leader's fall.
            Err(failure) if failure.reason == Reason::StaleEpoch => Phase::Refused(failure),
            Err(failure) => {
                tracing::warn!(kind, ?took, reason = ?failure.reason, "job failed: {failure}");
                trace::failed(&Span::current(), failure.to_string());
                Phase::Failed(failure, now)
            }
        };
        let recorded = !matches!(phase, Phase::Refused(_));
        {
            let mut state = self.lock();
            job.set(phase);
            state.active.remove(&workspace);
            if recorded {
                state.finished.insert(workspace, Finished::of(job));
                forget_oldest(&mut state.finished);
            }
        }
        self.moved.job(workspace);
    }
}

fn stopping() -> Failure {
    Failure::new(Reason::Stopping, "the agent is stopping")
}

/// A panic fails the job, not the agent.
async fn guarded(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(Failure::action(
            "internal error: the job panicked; see the agent's log",
        )),
    }
}

/// Makes room in bulk, so that it costs nothing per job.
fn forget_oldest(finished: &mut HashMap<Uuid, Finished>) {
    if finished.len() <= MAX_FINISHED {
        return;
    }
    let mut ends: Vec<_> = finished.values().map(|f| f.end_time).collect();
    ends.sort_unstable();
    let limit = ends[ends.len() / 10];
    finished.retain(|_, f| f.end_time > limit);
}

#[cfg(test)]
mod tests;
