//! A workspace as judge and planner see it: what the user wants, what wc decided, what was observed.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::{
    conditions::Conditions,
    error_reason::ErrorReason,
    home::Home,
    ids::{HostId, OpId, WorkspaceId},
    phase::{DesiredState, Operation, Phase},
};

/// Upper bounds of a container; `None` is the default of its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// What the user wants. Written by api (desired also by ttl).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Name.
    pub name: String,
    /// Name of the owner.
    pub owner: String,
    /// Image of the container.
    pub image: String,
    /// Upper bounds.
    pub limits: Limits,
    /// What it should be.
    pub desired: DesiredState,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Whether its user gave the home up when deleting it.
    pub discard_home: bool,
    /// The archive it is to go back to; open until wc has applied its request.
    pub restore: Option<RestoreWish>,
    /// How old the newest archive of the running home may become; `None` and zero: as old as it likes.
    pub checkpoint_interval: Option<TimeDelta>,
}

/// A wish to have another archive as the home. What is the home until then is archived first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreWish {
    /// Tells one wish from the next.
    pub request: Uuid,
    /// Key of the archive.
    pub key: String,
}

/// The columns that wc owns, as one value: the planner turns one into the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Where it is.
    pub phase: Phase,
    /// Since when.
    pub phase_changed_at: DateTime<Utc>,
    /// What is in progress.
    pub operation: Operation,
    /// Id of the operation in progress.
    pub op_id: Option<OpId>,
    /// When its present attempt began; without an operation, since when one waits for a place.
    pub op_started_at: Option<DateTime<Utc>>,
    /// The last operation that made, or was to make, an archive. Stays after completion, for gc.
    pub archive_op_id: Option<OpId>,
    /// Key of the archive that is, or last was, the home.
    pub archive_key: Option<String>,
    /// Failures in a row. Also the number of the present attempt.
    pub error_count: u32,
    /// Why the last attempt failed.
    pub error_reason: Option<ErrorReason>,
    /// The same in words.
    pub error_message: Option<String>,
    /// When the next attempt is due; `None` if none waits.
    pub retry_at: Option<DateTime<Utc>>,
    /// The home of record.
    pub home: Home,
    /// The image the last start used.
    pub started_image: Option<String>,
    /// The request of the restore wish that was fulfilled last.
    pub restore_applied: Option<Uuid>,
}

impl Control {
    /// A workspace that was just created.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self {
            phase: Phase::Pending,
            phase_changed_at: now,
            operation: Operation::None,
            op_id: None,
            op_started_at: None,
            archive_op_id: None,
            archive_key: None,
            error_count: 0,
            error_reason: None,
            error_message: None,
            retry_at: None,
            home: Home::none(),
            started_image: None,
            restore_applied: None,
        }
    }

    /// Forgets past failures.
    pub fn clear_error(&mut self) {
        self.error_count = 0;
        self.error_reason = None;
        self.error_message = None;
        self.retry_at = None;
    }

    /// Ends the operation in progress.
    pub fn end_operation(&mut self) {
        self.operation = Operation::None;
        self.op_id = None;
        self.op_started_at = None;
    }

    /// Moves to `phase`; the time changes only with the phase.
    pub fn set_phase(&mut self, phase: Phase, now: DateTime<Utc>) {
        if self.phase != phase {
            self.phase = phase;
            self.phase_changed_at = now;
        }
    }
}

/// One workspace.
#[derive(Clone, Debug, PartialEq)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// The host it lives on.
    pub host_id: HostId,
    /// What the user wants.
    pub spec: Spec,
    /// What wc decided.
    pub control: Control,
    /// What was observed.
    pub conditions: Conditions,
    /// When the conditions last changed; `None` if never observed.
    pub observed_at: Option<DateTime<Utc>>,
}

impl Workspace {
    /// The restore wish that was not applied yet.
    pub fn open_restore(&self) -> Option<&RestoreWish> {
        let wish = self.spec.restore.as_ref()?;
        (Some(wish.request) != self.control.restore_applied).then_some(wish)
    }

    /// The open restore wish, if it can be fulfilled: its archive is observed, and nothing is deleted.
    pub fn due_restore(&self) -> Option<&RestoreWish> {
        self.open_restore()
            .filter(|wish| !self.spec.deleted && self.conditions.archive_at(&wish.key).is_some())
    }

    /// The state to head for: what is desired, but by way of ARCHIVED while a restore is due. So whatever
    /// is the home now is an archive before another one becomes the home.
    pub fn target(&self) -> DesiredState {
        match self.due_restore() {
            Some(_) => DesiredState::Archived,
            None => self.spec.desired,
        }
    }
}

/// When the two units of observation were last observed completely.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// Containers and volumes of the workspace's host.
    pub host: Option<DateTime<Utc>>,
    /// The archive store.
    pub archives: Option<DateTime<Utc>>,
}
