//! Case 1: an operation is in progress. It completes only on what was observed of this very operation;
//! until then the same call is repeated. A failed attempt waits out its backoff first, and for a place again.

use super::{
    Context, Plan, call,
    choose::{has_new_image, wanted},
    failure, set_judged_phase, stopped,
};
use crate::{
    conditions::JobEvidence,
    control::Workspace,
    error_reason::{ErrorReason, Failure},
    home::{Home, HomeLocation},
    judge::{Judgement, container_ready, judge},
    phase::{Operation, Phase},
};

/// Moves the operation in progress on. `None`: it has ended, and the next one may be chosen.
pub(super) fn advance(ws: &mut Workspace, cx: &Context) -> Option<Plan> {
    commit_archive(ws);
    if is_complete(ws) {
        complete(ws);
        return None;
    }
    if ws.control.operation == Operation::Deleting && is_taken_back(ws) {
        ws.control.end_operation();
        return None;
    }
    if gives_way(ws, cx) {
        ws.control.end_operation();
        return None;
    }
    if let Some(failure) = failure::failed_attempt(ws).or_else(|| timeout(ws, cx)) {
        failure::fail(ws, cx, failure);
        if ws.control.phase == Phase::Error {
            return Some(stopped(ws.clone()));
        }
        if ws.control.operation == Operation::None {
            return None;
        }
    }
    let mut held_back = None;
    if let Some(retry_at) = ws.control.retry_at {
        if may_be_released(ws, cx) {
            ws.control.end_operation();
            return None;
        }
        set_judged_phase(ws, cx);
        if retry_at > cx.now {
            return Some(stopped(ws.clone()));
        }
        held_back = Some(ws.control.clone());
        ws.control.retry_at = None;
        ws.control.op_started_at = Some(cx.now);
    }
    // A container that ends during a checkpoint is a crash, counted when RUNNING is lost: after it.
    let runs_on = ws.control.operation == Operation::Checkpointing && !ws.spec.deleted;
    if !runs_on {
        set_judged_phase(ws, cx);
    }
    Some(Plan {
        next: ws.control.clone(),
        call: call(ws, cx),
        held_back,
        settled: false,
        again_at: None,
    })
}

/// The `complete when observed` column.
fn is_complete(ws: &Workspace) -> bool {
    let c = &ws.control;
    let Some(op) = c.op_id else { return true };
    let evidence = &ws.conditions.evidence;
    let made_volume = evidence
        .volume
        .as_ref()
        .is_some_and(|v| v.owned && v.volume_id == Some(op.into()));
    match c.operation {
        Operation::None => true,
        Operation::Provisioning => made_volume,
        Operation::CreateEmptyArchive | Operation::Checkpointing => {
            ws.conditions.archive_of(op).is_some()
        }
        Operation::Restoring => {
            made_volume && evidence.restore.as_ref().is_some_and(|r| r.op_id == op)
        }
        Operation::Starting => container_ready(ws),
        Operation::Archiving => {
            c.home.location == HomeLocation::Archive && evidence.volume.is_none()
        }
        Operation::Stopping => evidence.container.is_none(),
        Operation::Deleting => evidence.container.is_none() && evidence.volume.is_none(),
    }
}

/// Whether the user took back the deletion, or that the home may go with it.
fn is_taken_back(ws: &Workspace) -> bool {
    !ws.spec.deleted || wanted(ws, Phase::Deleting) != Operation::Deleting
}

fn complete(ws: &mut Workspace) {
    let archive_key = ws
        .control
        .op_id
        .and_then(|op| ws.conditions.archive_of(op))
        .map(|a| a.key.clone());
    let restore = ws.conditions.evidence.restore.clone();
    let c = &mut ws.control;
    match (c.operation, c.op_id) {
        (Operation::Provisioning, Some(op)) => c.home = Home::volume(op.into()),
        (Operation::CreateEmptyArchive, Some(_)) => {
            c.home = Home::archive(c.home.volume_id);
            c.archive_key = archive_key;
        }
        (Operation::Restoring, Some(op)) => {
            c.home = match restore {
                Some(r) => Home::restored(op.into(), &r.archive_key),
                None => Home::volume(op.into()),
            }
        }
        (Operation::Archiving, _) => c.home.volume_id = None,
        // Given up, or lost before that: the latter may come back.
        (Operation::Deleting, _) if c.home.location == HomeLocation::Volume => {
            c.home = Home::none_after(c.home.volume_id);
        }
        (
            Operation::None
            | Operation::Starting
            | Operation::Stopping
            | Operation::Deleting
            | Operation::Provisioning
            | Operation::CreateEmptyArchive
            | Operation::Restoring
            // The home is the volume still, and archive_key names what was the home (docs/adr/015).
            | Operation::Checkpointing,
            _,
        ) => {}
    }
    // Crashes are forgiven only after the container stayed ready for a while.
    let crashes = (c.operation == Operation::Starting
        && c.error_reason == Some(ErrorReason::CrashLoop))
    .then_some(c.error_count);
    c.clear_error();
    c.error_count = crashes.unwrap_or(0);
    c.end_operation();
}

/// The commit point of ARCHIVING: from here on the archive is the home. Not while a container is there,
/// nor before it is on record that none is: RUNNING to ARCHIVED are two steps. And never on the word of a
/// checkpoint.
fn commit_archive(ws: &mut Workspace) {
    let c = &mut ws.control;
    if c.operation == Operation::Archiving
        && c.home.location == HomeLocation::Volume
        && c.phase != Phase::Running
        && ws.conditions.evidence.container.is_none()
        && let Some(archive) = c.op_id.and_then(|op| ws.conditions.archive_of(op))
        && !archive.crash_consistent
    {
        c.archive_key = Some(archive.key.clone());
        c.home = Home::archive(c.home.volume_id);
    }
}

/// A checkpoint that the agent has not begun gives way to whatever else is wanted by now. Nothing runs for it
/// either, and the agent drops it when it is asked for something else.
fn gives_way(ws: &Workspace, cx: &Context) -> bool {
    let may = ws.control.operation == Operation::Checkpointing && is_queued(ws);
    may && match judge(ws, cx.fresh, cx.policy) {
        Judgement::Phase(phase) => wanted(ws, phase) != Operation::None,
        Judgement::Broken(_) | Judgement::StillBroken | Judgement::Undecided => false,
    }
}

/// Whether the agent has accepted the operation in progress and not begun it.
fn is_queued(ws: &Workspace) -> bool {
    job_of(ws).is_some_and(JobEvidence::is_queued)
}

/// The job of the operation in progress, as long as the agent tells of one.
fn job_of(ws: &Workspace) -> Option<&JobEvidence> {
    let job = ws.conditions.evidence.job.as_deref();
    job.filter(|job| Some(job.op_id) == ws.control.op_id)
}

/// An attempt that failed and waits may be given up when something else is wanted by now. Nothing runs
/// for it, so no operation is preempted.
fn may_be_released(ws: &Workspace, cx: &Context) -> bool {
    let c = &ws.control;
    let new_image = c.operation == Operation::Starting && has_new_image(ws);
    let wanted = match judge(ws, cx.fresh, cx.policy) {
        Judgement::Phase(phase) => wanted(ws, phase),
        Judgement::Broken(_) | Judgement::StillBroken | Judgement::Undecided => return false,
    };
    new_image || wanted != c.operation
}

/// The time limit, counted from the start of the attempt; of operations that report progress, and while the agent
/// tells of the job, from the last change seen: it may have been queued for long, or wait for its image. It is exceeded only if an observation made after it does not show the result: an
/// observer that was away makes no error. While the agent says that it is queued there, no limit runs.
fn timeout(ws: &Workspace, cx: &Context) -> Option<Failure> {
    let c = &ws.control;
    if is_queued(ws) {
        return None;
    }
    let started = c.op_started_at.filter(|_| c.retry_at.is_none())?;
    let tells = c.operation.reports_progress() || job_of(ws).is_some();
    let progressed = ws.observed_at.filter(|_| tells);
    let since = progressed.map_or(started, |at| at.max(started));
    let deadline = since + cx.policy.operation_timeout;
    let observed_since = cx.fresh.host.is_some_and(|at| at > deadline);
    (cx.now > deadline && observed_since).then(|| Failure {
        reason: ErrorReason::Timeout,
        message: format!(
            "{} did not end within {} s",
            c.operation,
            cx.policy.operation_timeout.num_seconds()
        ),
    })
}
