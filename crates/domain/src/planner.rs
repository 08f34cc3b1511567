//! Plans the one operation of a workspace: `reconcile` turns its control columns into the next ones and
//! names the agent call to make once these are committed. Repeating it with nothing new changes nothing
//! and names the same call, so a crash at any point is repaired by the next tick.

mod action;
mod advance;
mod checkpoint;
mod choose;
mod failure;

use chrono::{DateTime, Utc};

use self::{
    advance::advance,
    choose::choose,
    failure::{enter_error, fail, record},
};
pub use self::{
    checkpoint::{due_at as checkpoint_due_at, is_late as checkpoint_is_late},
    choose::wanted,
};
use crate::{
    control::{Control, Freshness, Workspace},
    error_reason::Failure,
    home::{Home, HomeLocation},
    ids::{OpId, VolumeId},
    judge::{Judgement, error_is_over, is_home_volume, judge},
    phase::{Operation, Phase},
    policy::Policy,
};

/// What a call to the agent asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make an empty home volume. A volume that is not the home makes room.
    Provision {
        /// The volume that makes room.
        replaces: Option<VolumeId>,
    },
    /// Create and start the container.
    Start {
        /// The home.
        volume_id: VolumeId,
    },
    /// Stop and remove the container.
    Stop,
    /// Archive the home volume.
    Archive {
        /// The home.
        volume_id: VolumeId,
    },
    /// Archive the home volume while its container runs.
    Checkpoint {
        /// The home.
        volume_id: VolumeId,
    },
    /// Restore an archive into a new volume. A volume that is not the home makes room.
    Restore {
        /// The archive.
        archive_key: String,
        /// The volume that makes room.
        replaces: Option<VolumeId>,
    },
    /// Make an archive of an empty home.
    CreateEmptyArchive,
    /// Remove a volume whose archive is the home.
    DeleteArchivedVolume {
        /// The volume.
        volume_id: VolumeId,
        /// The archive that holds it.
        archive_key: String,
        /// Its digest.
        sha256: String,
    },
    /// Remove a volume of a deleted workspace.
    DiscardVolume {
        /// The volume; `None`: whatever volume has the workspace's name.
        volume_id: Option<VolumeId>,
    },
}

impl Action {
    /// Whether it removes something; such actions need a fresh observation.
    fn is_destructive(&self) -> bool {
        match self {
            Self::DeleteArchivedVolume { .. } | Self::DiscardVolume { .. } | Self::Stop => true,
            Self::Provision { replaces } | Self::Restore { replaces, .. } => replaces.is_some(),
            Self::Start { .. }
            | Self::Archive { .. }
            | Self::Checkpoint { .. }
            | Self::CreateEmptyArchive => false,
        }
    }
}

/// A call to the agent. Idempotent by `(op_id, attempt)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The operation, stored before the call.
    pub op_id: OpId,
    /// How many attempts failed before.
    pub attempt: u32,
    /// What to do.
    pub action: Action,
}

/// What is to be stored, and what is to be called after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The control columns from now on; equal to the present ones if nothing is to be written.
    pub next: Control,
    /// The call to make once `next` is committed.
    pub call: Option<Call>,
    /// Where `next` has an attempt begin: what is to be stored instead, without a call, while there is no
    /// place for it. Nothing has begun then, and no time limit runs.
    pub held_back: Option<Control>,
    /// Nothing will be planned for this workspace before `again_at`, by any fresher observation, until its
    /// row changes. Where unsure, false.
    pub settled: bool,
    /// When something may be planned by the clock alone, such as a checkpoint; `None`: never.
    pub again_at: Option<DateTime<Utc>>,
}

impl Plan {
    /// `next` is stored, and nothing is called; such as after a failure that [`record_failure`] counted.
    pub fn nothing_more(next: Control) -> Self {
        Self {
            next,
            call: None,
            held_back: None,
            settled: false,
            again_at: None,
        }
    }

    /// The plan while there is no place for what would begin.
    pub fn wait(&mut self) {
        if let Some(control) = self.held_back.take() {
            self.next = control;
            self.call = None;
        }
    }

    /// Since when the attempt that would begin waits for a place; `None`: none would.
    pub fn waits_since(&self) -> Option<DateTime<Utc>> {
        let waiting = self.held_back.as_ref()?;
        waiting.retry_at.or(waiting.op_started_at)
    }

    /// The operation that is at work, now or as soon as this is stored. One that waits out its backoff is
    /// not.
    pub fn at_work(&self) -> Operation {
        match self.next.retry_at {
            None => self.next.operation,
            Some(_) => Operation::None,
        }
    }
}

/// The inputs of a plan that are not the workspace's own.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// How fresh the observations are.
    pub fresh: &'a Freshness,
    /// The numbers to go by.
    pub policy: &'a Policy,
    /// Now.
    pub now: DateTime<Utc>,
    /// The id of the operation that may begin.
    pub new_op: OpId,
}

/// Judges and plans one workspace.
pub fn reconcile(ws: &Workspace, cx: &Context) -> Plan {
    let mut ws = ws.clone();
    if error_is_over(&ws, cx.fresh) {
        ws.control.clear_error();
    }
    take_back(&mut ws);
    match judge(&ws, cx.fresh, cx.policy) {
        Judgement::Broken(failure) => {
            record(&mut ws.control, failure);
            enter_error(&mut ws.control, cx.now);
            return stopped(ws);
        }
        Judgement::StillBroken => {
            enter_error(&mut ws.control, cx.now);
            return stopped(ws);
        }
        Judgement::Phase(_) | Judgement::Undecided => {}
    }
    if ws.control.operation != Operation::None
        && let Some(plan) = advance(&mut ws, cx)
    {
        return plan;
    }
    choose(ws, cx)
}

/// Counts a failure of the attempt `(op_id, attempt)` that the call itself told. `None` if the workspace
/// has moved on meanwhile.
pub fn record_failure(
    ws: &Workspace,
    cx: &Context,
    op_id: OpId,
    attempt: u32,
    failure: Failure,
) -> Option<Control> {
    let c = &ws.control;
    if c.op_id != Some(op_id) || c.error_count != attempt || c.retry_at.is_some() {
        return None;
    }
    let mut ws = ws.clone();
    fail(&mut ws, cx, failure);
    Some(ws.control)
}

/// A volume that was given up as lost, and is there again before there is another home, is the home again.
fn take_back(ws: &mut Workspace) {
    let home = &ws.control.home;
    if home.location == HomeLocation::None
        && let Some(volume_id) = home.volume_id
    {
        let again = Home::volume(volume_id);
        if is_home_volume(&again, &ws.conditions) {
            ws.control.home = again;
        }
    }
}

fn stopped(ws: Workspace) -> Plan {
    Plan::nothing_more(ws.control)
}

/// The call that the operation in progress needs now. Nothing is removed on a stale observation.
fn call(ws: &Workspace, cx: &Context) -> Option<Call> {
    let op_id = ws.control.op_id?;
    let action = action::next(ws).filter(|a| !(a.is_destructive() && is_stale(cx)))?;
    Some(Call {
        op_id,
        attempt: ws.control.error_count,
        action,
    })
}

fn set_judged_phase(ws: &mut Workspace, cx: &Context) -> Option<Phase> {
    match judge(ws, cx.fresh, cx.policy) {
        Judgement::Phase(phase) => {
            ws.control.set_phase(phase, cx.now);
            Some(phase)
        }
        Judgement::Broken(_) | Judgement::StillBroken | Judgement::Undecided => None,
    }
}

fn is_stale(cx: &Context) -> bool {
    cx.fresh
        .host
        .is_none_or(|at| cx.now - at > cx.policy.stale_after)
}
