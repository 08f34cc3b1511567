//! Cases 2 to 4: no operation is in progress. ERROR waits for its recovery, a workspace that is where it
//! should be is left alone, and for the others the table of operations says which one begins. It begins when
//! there is a place for it: until then nothing but the time since which it waits is stored (`held_back`).

use super::{
    Context, Plan, action::leftover_volume, call, checkpoint, failure, is_stale, set_judged_phase,
    stopped,
};
use crate::{
    control::Workspace,
    error_reason::{ErrorReason, Failure, Severity},
    home::Home,
    judge::home_volume_present,
    observation::exit_message,
    phase::{DesiredState, Operation, Phase},
};

/// Begins the operation that is wanted, if any.
pub(super) fn choose(mut ws: Workspace, cx: &Context) -> Plan {
    let before = ws.control.phase;
    let Some(judged) = set_judged_phase(&mut ws, cx) else {
        return stopped(ws);
    };
    forgive(&mut ws, judged, cx);
    let phase = apply_restore(&mut ws, judged, cx);
    let operation = match wanted(&ws, phase) {
        Operation::None if checkpoint::is_due(&ws, phase, cx.now) => Operation::Checkpointing,
        wanted => wanted,
    };
    if before == Phase::Running && operation == Operation::Starting {
        count_crash(&mut ws, cx);
    }
    if operation == Operation::None || ws.control.phase == Phase::Error {
        ws.control.op_started_at = None;
        let settled = is_at_rest(&ws);
        return Plan {
            settled,
            again_at: checkpoint::due_at(&ws, phase),
            ..stopped(ws)
        };
    }
    if is_stale(cx) || waits(&ws, operation, cx) {
        return stopped(ws);
    }
    let mut held_back = ws.control.clone();
    held_back.op_started_at.get_or_insert(cx.now);
    begin(&mut ws, operation, cx);
    let call = call(&ws, cx);
    Plan {
        next: ws.control,
        call,
        held_back: Some(held_back),
        settled: false,
        again_at: None,
    }
}

/// Whether a workspace for which no operation is wanted is where it should be, its home seen, with no
/// failure to forgive and no wish open. What is observed is in its row; a fresher observation of the same
/// says nothing new.
fn is_at_rest(ws: &Workspace) -> bool {
    let c = &ws.control;
    let here = c.phase == ws.spec.desired.phase() && !ws.spec.deleted;
    here && c.error_count == 0 && c.retry_at.is_none() && ws.open_restore().is_none()
}

/// The table of operations.
pub fn wanted(ws: &Workspace, phase: Phase) -> Operation {
    use DesiredState as D;
    let container = ws.conditions.evidence.container.is_some();
    match (phase, ws.target()) {
        (Phase::Deleting, _) => wanted_of_deleted(ws),
        (Phase::Deleted | Phase::Error, _) | (_, D::Deleted) => Operation::None,
        // A container that is left where none is wanted goes before anything else happens.
        (Phase::Pending | Phase::Archived, _) if container => Operation::Stopping,
        (Phase::Standby, D::Standby | D::Archived) if container => Operation::Stopping,
        // No empty home for one that is to have an archive, whether or not that is observed yet.
        (Phase::Pending, _) if ws.open_restore().is_some() => Operation::None,
        (Phase::Pending, D::Standby | D::Running) => Operation::Provisioning,
        (Phase::Pending, D::Archived) => Operation::CreateEmptyArchive,
        // An archived volume that is still there was not removed: ARCHIVING goes on with that.
        (Phase::Archived, _) if leftover_volume(ws) => Operation::Archiving,
        (Phase::Archived, D::Standby | D::Running) => Operation::Restoring,
        (Phase::Archived, D::Archived) => Operation::None,
        (Phase::Standby, D::Running) => Operation::Starting,
        (Phase::Standby, D::Archived) => Operation::Archiving,
        (Phase::Standby, D::Standby) => Operation::None,
        (Phase::Running, D::Standby | D::Archived) => Operation::Stopping,
        (Phase::Running, D::Running) => Operation::None,
    }
}

/// A deleted workspace: its home is archived first unless its user gave it up.
fn wanted_of_deleted(ws: &Workspace) -> Operation {
    let evidence = &ws.conditions.evidence;
    let keep = !ws.spec.discard_home && (home_volume_present(ws) || leftover_volume(ws));
    match (keep, evidence.container.is_some()) {
        (true, true) => Operation::Stopping,
        (true, false) => Operation::Archiving,
        (false, false) if evidence.volume.is_none() => Operation::None,
        (false, _) => Operation::Deleting,
    }
}

fn forgive(ws: &mut Workspace, phase: Phase, cx: &Context) {
    let stable =
        phase == Phase::Running && cx.now - ws.control.phase_changed_at >= cx.policy.stable_after;
    // That it runs says nothing about its checkpoints, as long as there are to be any.
    let of_checkpoints = ws.control.error_reason == Some(ErrorReason::CheckpointFailed)
        && checkpoint::interval(ws).is_some();
    if stable && ws.control.error_count > 0 && !of_checkpoints {
        ws.control.clear_error();
    }
}

/// At ARCHIVED, with nothing left of what was the home before but its archive, the archive that is wished
/// for becomes the home. At PENDING it becomes the first home: a workspace that was rebuilt begins with
/// such a wish. Returns the phase after that.
fn apply_restore(ws: &mut Workspace, phase: Phase, cx: &Context) -> Phase {
    let container = ws.conditions.evidence.container.is_some();
    let may = matches!(phase, Phase::Archived | Phase::Pending);
    if !may || container || leftover_volume(ws) || is_stale(cx) {
        return phase;
    }
    let Some(wish) = ws.due_restore().cloned() else {
        return phase;
    };
    ws.control.archive_key = Some(wish.key);
    ws.control.restore_applied = Some(wish.request);
    if phase == Phase::Pending {
        ws.control.home = Home::archive(ws.control.home.volume_id);
    }
    set_judged_phase(ws, cx).unwrap_or(phase)
}

/// A container that ended although it should run counts as a failure: once, when RUNNING is lost.
fn count_crash(ws: &mut Workspace, cx: &Context) {
    let ended = ws.conditions.evidence.container.as_ref();
    let Some(container) = ended.filter(|c| c.has_ended()) else {
        return;
    };
    if has_new_image(ws) {
        return; // whatever ended is not what is to be started
    }
    let stayed = container.finished_at.zip(container.started_at);
    let was_stable = stayed.is_some_and(|(end, start)| end - start >= cx.policy.stable_after);
    let failure = Failure {
        reason: ErrorReason::CrashLoop,
        message: exit_message(container),
    };
    if was_stable {
        ws.control.clear_error();
    }
    failure::fail(ws, cx, failure);
}

/// Whether an operation has to wait for its backoff. Another one than the one that failed need not, nor
/// need a start with another image than the one that failed.
fn waits(ws: &Workspace, operation: Operation, cx: &Context) -> bool {
    let c = &ws.control;
    let Some(reason) = c.error_reason else {
        return false;
    };
    let of_the_image = matches!(
        reason,
        ErrorReason::CrashLoop | ErrorReason::ImagePullFailed
    );
    let is_over = of_the_image && has_new_image(ws);
    failure::concerns(reason, operation) && !is_over && c.retry_at.is_some_and(|at| at > cx.now)
}

fn begin(ws: &mut Workspace, operation: Operation, cx: &Context) {
    // Past its commit point ARCHIVING only removes the volume; the archive stays the one it was.
    let makes_archive = match operation {
        Operation::Archiving => !leftover_volume(ws),
        Operation::CreateEmptyArchive | Operation::Checkpointing => true,
        Operation::None
        | Operation::Provisioning
        | Operation::Restoring
        | Operation::Starting
        | Operation::Stopping
        | Operation::Deleting => false,
    };
    let new_image = operation == Operation::Starting && has_new_image(ws);
    let c = &mut ws.control;
    let waited_for_another = c.error_reason.is_some_and(|reason| {
        reason.severity() == Severity::Waiting && !failure::concerns(reason, operation)
    });
    if new_image || waited_for_another {
        c.clear_error();
    }
    if operation == Operation::Starting {
        c.started_image = Some(ws.spec.image.clone());
    }
    c.retry_at = None;
    c.operation = operation;
    c.op_id = Some(cx.new_op);
    c.op_started_at = Some(cx.now);
    if makes_archive {
        c.archive_op_id = c.op_id;
    }
}

/// Whether the image is another one than the last start used.
pub(super) fn has_new_image(ws: &Workspace) -> bool {
    ws.control.started_image.as_deref() != Some(ws.spec.image.as_str())
}
