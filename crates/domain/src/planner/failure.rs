//! What a failed attempt leads to. Every attempt `(op_id, attempt)` is counted once: counting makes the
//! next attempt the present one, so that the same evidence no longer speaks of it.

use chrono::{DateTime, Utc};

use super::{Context, action::leftover_volume};
use crate::{
    control::{Control, Workspace},
    error_reason::{ErrorReason, Failure, Severity},
    home::Home,
    observation::exit_message,
    phase::{Operation, Phase},
};

/// A failure that was observed, if it is one of the present attempt.
pub(super) fn failed_attempt(ws: &Workspace) -> Option<Failure> {
    let c = &ws.control;
    if c.retry_at.is_some() {
        return None;
    }
    let evidence = &ws.conditions.evidence;
    let present = |op, attempt| Some(op) == c.op_id && attempt == c.error_count;
    if let Some(job) = &evidence.failed_job
        && present(job.op_id, job.attempt)
    {
        return Some(Failure {
            reason: job.reason.parse().unwrap_or(ErrorReason::ActionFailed),
            message: job.message.clone(),
        });
    }
    evidence
        .container
        .as_ref()
        .filter(|k| c.operation == Operation::Starting && k.has_ended())
        .filter(|k| k.op_id.is_some_and(|op| present(op, k.attempt)))
        .map(|k| Failure {
            reason: ErrorReason::CrashLoop,
            message: exit_message(k),
        })
}

/// Records a failed attempt: the operation is tried again after a backoff, or ends in ERROR. A deleted
/// workspace is never in ERROR; whatever stands in its way is tried again for ever.
pub(super) fn fail(ws: &mut Workspace, cx: &Context, failure: Failure) {
    let failure = of_operation(ws.control.operation, failure);
    let reason = failure.reason;
    let was_archived = ws.control.operation == Operation::Archiving && leftover_volume(ws);
    let c = &mut ws.control;
    // However long it waited, the first failure that counts is the first: it is numbered anew, and
    // therefore under a new id.
    let waited = |r: ErrorReason| r.severity() == Severity::Waiting;
    let counts_anew = reason.severity() == Severity::Counted && c.error_reason.is_some_and(waited);
    if counts_anew {
        c.error_count = 0;
    }
    record(c, failure);
    let is_error = reason.is_error(c.error_count, cx.policy.max_retries);
    if is_error && !ws.spec.deleted {
        enter_error(c, cx.now);
        return;
    }
    if reason == ErrorReason::VolumeChanged && was_archived {
        // What the archive holds is not what the volume holds: the volume is the home again.
        if let Some(volume_id) = c.home.volume_id {
            c.home = Home::volume(volume_id);
        }
    }
    // A checkpoint that failed makes room at once: the next one is taken anew, under a new id.
    let ends = matches!(
        reason,
        ErrorReason::VolumeChanged | ErrorReason::CheckpointFailed
    );
    if is_error || counts_anew || ends {
        c.end_operation();
    }
    let seed = ws.id.0.as_u128() ^ cx.new_op.0.as_u128();
    c.retry_at = Some(cx.now + cx.policy.backoff(c.error_count, seed));
}

/// A failure as it is stored. Of a checkpoint only that is told, with what it was in the message: however
/// it failed, the workspace runs on, and its severity says so.
fn of_operation(operation: Operation, failure: Failure) -> Failure {
    match operation {
        Operation::Checkpointing => Failure {
            reason: ErrorReason::CheckpointFailed,
            message: failure.to_string(),
        },
        Operation::None
        | Operation::Provisioning
        | Operation::CreateEmptyArchive
        | Operation::Restoring
        | Operation::Starting
        | Operation::Archiving
        | Operation::Stopping
        | Operation::Deleting => failure,
    }
}

pub(super) fn record(c: &mut Control, failure: Failure) {
    c.error_count = c.error_count.saturating_add(1);
    c.error_reason = Some(failure.reason);
    c.error_message = Some(failure.message);
}

pub(super) fn enter_error(c: &mut Control, now: DateTime<Utc>) {
    c.end_operation();
    c.retry_at = None;
    c.set_phase(Phase::Error, now);
}

/// Whether a failure stands in the way of this operation: of what it concerns, until its backoff is over.
pub(super) fn concerns(reason: ErrorReason, operation: Operation) -> bool {
    match reason {
        ErrorReason::CrashLoop | ErrorReason::ImagePullFailed => operation == Operation::Starting,
        ErrorReason::StoreUnavailable => operation.needs_store(),
        ErrorReason::VolumeChanged => operation == Operation::Archiving,
        ErrorReason::CheckpointFailed => operation == Operation::Checkpointing,
        ErrorReason::Timeout
        | ErrorReason::ActionFailed
        | ErrorReason::Unreachable
        | ErrorReason::ArchiveCorrupted
        | ErrorReason::DataLost
        | ErrorReason::ContainerWithoutVolume => true,
    }
}
