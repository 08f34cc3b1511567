//! One job: who asked for what, and how it stands.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Span, field::Empty};
use uuid::Uuid;
use windlass_proto::{convert, v1};
use windlass_service::{TraceContext, trace};

use super::progress::JobProgress;
use super::stopping;
use crate::epochs::Claim;
use crate::error::Failure;

/// What a job does. Each has places and a queue of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Makes an empty home.
    Provision,
    /// Starts a container.
    Start,
    /// Stops and removes a container.
    Stop,
    /// Archives a home.
    Archive,
    /// Archives a home that is in use.
    Checkpoint,
    /// Restores a home.
    Restore,
    /// Makes an archive of an empty home.
    CreateEmptyArchive,
    /// Removes a volume.
    DeleteVolume,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Provision,
        Self::Start,
        Self::Stop,
        Self::Archive,
        Self::Checkpoint,
        Self::Restore,
        Self::CreateEmptyArchive,
        Self::DeleteVolume,
    ];

    /// Its name in logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Archive => "archive",
            Self::Checkpoint => "checkpoint",
            Self::Restore => "restore",
            Self::CreateEmptyArchive => "create_empty_archive",
            Self::DeleteVolume => "delete_volume",
        }
    }

    fn operation(self) -> v1::Operation {
        match self {
            Self::Provision => v1::Operation::Provisioning,
            Self::Start => v1::Operation::Starting,
            Self::Stop => v1::Operation::Stopping,
            Self::Archive => v1::Operation::Archiving,
            Self::Checkpoint => v1::Operation::Checkpointing,
            Self::Restore => v1::Operation::Restoring,
            Self::CreateEmptyArchive => v1::Operation::CreateEmptyArchive,
            Self::DeleteVolume => v1::Operation::Deleting,
        }
    }
}

/// Who asks for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkContext {
    /// The workspace.
    pub workspace: Uuid,
    /// The operation.
    pub op_id: Uuid,
    /// How often it failed before.
    pub attempt: u32,
    /// The wc that asks.
    pub claim: Claim,
}

/// How a job stands.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Not yet let in.
    Checking,
    /// Not let in, or dropped before it changed anything it could not take back.
    Refused(Failure),
    /// Waiting for a place.
    Queued,
    /// At work.
    Running,
    /// Done.
    Succeeded(DateTime<Utc>),
    /// Failed.
    Failed(Failure, DateTime<Utc>),
}

/// A job at work.
#[derive(Debug)]
pub struct Job {
    /// The workspace.
    pub workspace: Uuid,
    /// The operation.
    pub op_id: Uuid,
    /// What is done.
    pub kind: Kind,
    /// How far it is.
    pub progress: JobProgress,
    /// Cancelled when the job is to give up.
    pub cancel: CancellationToken,
    attempt: AtomicU32,
    claim: Mutex<Claim>,
    created: DateTime<Utc>,
    phase: watch::Sender<Phase>,
    /// The places of its kind, and the one it has.
    places: Arc<Semaphore>,
    place: Mutex<Option<OwnedSemaphorePermit>>,
    gives_way: AtomicBool,
}

impl Job {
    pub(super) fn new(
        kind: Kind,
        context: &WorkContext,
        places: Arc<Semaphore>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            workspace: context.workspace,
            op_id: context.op_id,
            kind,
            progress: JobProgress::default(),
            cancel,
            attempt: AtomicU32::new(context.attempt),
            claim: Mutex::new(context.claim),
            created: Utc::now(),
            phase: watch::Sender::new(Phase::Checking),
            places,
            place: Mutex::new(None),
            gives_way: AtomicBool::new(kind == Kind::Checkpoint),
        }
    }

    /// Its span: in the log, and in the trace of the call that asked for it. It has no parent in the log, or
    /// the call would seem to last as long as the job.
    pub(super) fn span(&self) -> Span {
        let kind = self.kind.word();
        let span = tracing::info_span!(
            parent: None,
            "job",
            workspace_id = %self.workspace,
            op_id = %self.op_id,
            kind,
            trace_id = Empty
        );
        if let Some(caller) = TraceContext::current() {
            trace::join(&span, &caller);
            trace::name(&span, format!("agent job {kind}"));
            let operation = self.kind.operation().as_str_name();
            trace::attribute(
                &span,
                "operation",
                operation.trim_start_matches("OPERATION_"),
            );
        }
        span
    }

    /// The attempt it belongs to: the highest that asked for it.
    pub fn attempt(&self) -> u32 {
        self.attempt.load(Ordering::Relaxed)
    }

    /// The leader it belongs to: the latest that asked for it.
    pub fn claim(&self) -> Claim {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another call for the same.
    pub(super) fn join(&self, context: &WorkContext) {
        self.attempt.fetch_max(context.attempt, Ordering::Relaxed);
        let mut claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if context.claim.epoch() > claim.epoch() {
            *claim = context.claim;
        }
    }

    /// Gives its place to the next of its kind: what is left is only waiting.
    pub fn release_place(&self) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits for a place of its kind.
    pub(super) async fn take_place(&self) -> Result<(), Failure> {
        let place = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(stopping()),
            place = self.places.clone().acquire_owned() => place.map_err(|_| stopping())?,
        };
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        Ok(())
    }

    /// Does what may hang on others and has changed nothing yet, in one of these `places` instead of its
    /// own. Meanwhile the job gives way to whatever else is asked for. Its leader may have fallen then.
    ///
    /// # Errors
    /// When that fails, or the job is to give up.
    pub async fn aside<T>(
        &self,
        places: &Semaphore,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.release_place();
        self.gives_way.store(true, Ordering::Relaxed);
        self.set(Phase::Queued);
        let aside = async {
            let _place = places.acquire().await.map_err(|_| stopping())?;
            self.set(Phase::Running);
            work.await
        };
        let done = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(stopping()),
            done = aside => done?,
        };
        self.set(Phase::Queued);
        self.take_place().await?;
        self.set(Phase::Running);
        self.gives_way.store(false, Ordering::Relaxed);
        Ok(done)
    }

    /// Whether it is to be cancelled when something else is asked for of its workspace.
    pub(super) fn gives_way(&self) -> bool {
        self.gives_way.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn wire(&self) -> v1::Job {
        let phase = self.phase.borrow().clone();
        let (state, failure, end) = match phase {
            Phase::Checking | Phase::Queued => (v1::JobState::Queued, None, None),
            Phase::Running => (v1::JobState::Running, None, None),
            Phase::Succeeded(end) => (v1::JobState::Succeeded, None, Some(end)),
            Phase::Refused(failure) => (v1::JobState::Failed, Some(failure), None),
            Phase::Failed(failure, end) => (v1::JobState::Failed, Some(failure), Some(end)),
        };
        let stored = failure.as_ref().and_then(|f| f.reason.stored());
        v1::Job {
            workspace_id: self.workspace.to_string(),
            op_id: self.op_id.to_string(),
            attempt: self.attempt(),
            operation: self.kind.operation().into(),
            state: state.into(),
            reason: stored.map(|r| r.to_string()).unwrap_or_default(),
            message: failure.map(|f| f.message).unwrap_or_default(),
            progress: self.progress.wire(),
            create_time: Some(convert::timestamp(self.created)),
            end_time: end.map(convert::timestamp),
        }
    }
}

/// What a job came to.
#[derive(Debug, Clone)]
pub(super) struct Finished {
    kind: Kind,
    op_id: Uuid,
    attempt: u32,
    failure: Option<Failure>,
    pub(super) end_time: DateTime<Utc>,
    pub(super) wire: v1::Job,
}

impl Finished {
    pub(super) fn of(job: &Job) -> Self {
        let (failure, end_time) = match &*job.phase.borrow() {
            Phase::Succeeded(end) => (None, *end),
            Phase::Failed(failure, end) => (Some(failure.clone()), *end),
            Phase::Refused(failure) => (Some(failure.clone()), Utc::now()),
            Phase::Checking | Phase::Queued | Phase::Running => (None, Utc::now()),
        };
        Self {
            kind: job.kind,
            op_id: job.op_id,
            attempt: job.attempt(),
            failure,
            end_time,
            wire: job.wire(),
        }
    }

    /// The failure that this call already came to.
    pub(super) fn failure_of(&self, kind: Kind, context: &WorkContext) -> Option<&Failure> {
        let same = self.kind == kind && self.op_id == context.op_id;
        self.failure
            .as_ref()
            .filter(|_| same && context.attempt <= self.attempt)
    }
}
