//! When the running home is to be archived again, so that a lost host costs no more than that.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{control::Workspace, error_reason::ErrorReason, phase::DesiredState, phase::Phase};

/// The interval, if there are to be checkpoints at all.
pub(super) fn interval(ws: &Workspace) -> Option<TimeDelta> {
    let interval = ws.spec.checkpoint_interval;
    interval.filter(|i| *i > TimeDelta::zero())
}

/// When the next checkpoint is due; `None` while there is none to take: not RUNNING, to be something else,
/// or in trouble of another kind. Counted from the newest archive of this very volume, whichever way it was
/// made; of a home that has none, from when it began to run.
pub fn due_at(ws: &Workspace, phase: Phase) -> Option<DateTime<Utc>> {
    let due = due_by_interval(ws, phase)?;
    Some(ws.control.retry_at.map_or(due, |retry| retry.max(due)))
}

/// Whether a checkpoint has been due for a whole interval: what is lost with the host is twice what its owner
/// chose. Failed attempts excuse nothing.
pub fn is_late(ws: &Workspace, now: DateTime<Utc>) -> bool {
    let late_at = || due_by_interval(ws, ws.control.phase)?.checked_add_signed(interval(ws)?);
    late_at().is_some_and(|at| at <= now)
}

fn due_by_interval(ws: &Workspace, phase: Phase) -> Option<DateTime<Utc>> {
    let c = &ws.control;
    let interval = interval(ws)?;
    let home = c.home.home_volume()?;
    let runs_on = phase == Phase::Running && ws.target() == DesiredState::Running;
    // A start that came through leaves crashes that are not forgiven yet: a count without a reason.
    let in_trouble = match c.error_reason {
        Some(reason) => reason != ErrorReason::CheckpointFailed,
        None => c.error_count > 0,
    };
    if !runs_on || ws.spec.deleted || in_trouble {
        return None;
    }
    let archives = ws.conditions.evidence.archives.iter();
    let of_this_home = archives.filter(|a| a.volume_id == Some(home));
    let since = of_this_home.map(|a| a.created_at).max();
    since
        .unwrap_or(c.phase_changed_at)
        .checked_add_signed(interval)
}

pub(super) fn is_due(ws: &Workspace, phase: Phase, now: DateTime<Utc>) -> bool {
    due_at(ws, phase).is_some_and(|at| at <= now)
}
