//! Plans the one operation of a workspace: `reconcile` turns its control columns into the next ones and
//! names the agent call to make once these are committed. Repeating it with nothing new changes nothing
//! and names the same call, so a crash at any point is repaired by the next tick.

use chrono::{DateTime, Utc};

use crate::{
    control::{Control, Freshness, Workspace},
    error_reason::{ErrorReason, Failure},
    home::{Home, HomeLocation},
    ids::{OpId, VolumeId},
    judge::{Judgement, container_ready, error_is_over, home_volume_present, judge},
    observation::exit_message,
    phase::{DesiredState, Operation, Phase},
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
            Self::Provision { .. }
            | Self::Start { .. }
            | Self::Archive { .. }
            | Self::Restore { .. }
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
    match judge(&ws, cx.fresh, cx.policy) {
        Judgement::Broken(failure) => {
            record(&mut ws.control, failure);
            return stopped(enter_error(ws.control, cx.now));
        }
        Judgement::StillBroken => return stopped(enter_error(ws.control, cx.now)),
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

fn stopped(next: Control) -> Plan {
    Plan { next, call: None }
}

fn enter_error(mut c: Control, now: DateTime<Utc>) -> Control {
    c.end_operation();
    c.retry_at = None;
    c.set_phase(Phase::Error, now);
    c
}

fn record(c: &mut Control, failure: Failure) {
    c.error_count = c.error_count.saturating_add(1);
    c.error_reason = Some(failure.reason);
    c.error_message = Some(failure.message);
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

// ---- (1) an operation is in progress -----------------------------------------------------------

/// Moves the operation in progress on. `None`: it has ended, and the next one may be chosen.
fn advance(ws: &mut Workspace, cx: &Context) -> Option<Plan> {
    if is_complete(ws) {
        complete(ws);
        return None;
    }
    if let Some(failure) = failed_attempt(ws) {
        fail(ws, cx, failure);
        set_judged_phase(ws, cx);
        return Some(stopped(ws.control.clone()));
    }
    if let Some(retry_at) = ws.control.retry_at {
        if may_be_released(ws, cx) {
            ws.control.end_operation();
            return None;
        }
        if retry_at > cx.now {
            set_judged_phase(ws, cx);
            return Some(stopped(ws.control.clone()));
        }
        ws.control.retry_at = None;
        ws.control.op_started_at = Some(cx.now);
    } else if is_timed_out(ws, cx) {
        let failure = Failure {
            reason: ErrorReason::Timeout,
            message: format!(
                "{} did not end within {} s",
                ws.control.operation,
                cx.policy.operation_timeout.num_seconds()
            ),
        };
        fail(ws, cx, failure);
        return Some(stopped(ws.control.clone()));
    }
    commit_archive(ws);
    set_judged_phase(ws, cx);
    let call = ws
        .control
        .op_id
        .zip(next_action(ws))
        .filter(|(_, action)| !(action.is_destructive() && is_stale(cx)))
        .map(|(op_id, action)| Call {
            op_id,
            attempt: ws.control.error_count,
            action,
        });
    Some(Plan {
        next: ws.control.clone(),
        call,
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
        Operation::CreateEmptyArchive => ws.conditions.archive_of(op).is_some(),
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
            c.home = Home::archive(None);
            c.archive_key = archive_key;
        }
        (Operation::Restoring, Some(op)) => {
            c.home = match restore {
                Some(r) => Home::restored(op.into(), &r.archive_key),
                None => Home::volume(op.into()),
            }
        }
        (Operation::Archiving, _) => c.home.volume_id = None,
        (Operation::Deleting, _) if c.home.location == HomeLocation::Volume => {
            c.home = Home::none();
        }
        (
            Operation::None
            | Operation::Starting
            | Operation::Stopping
            | Operation::Deleting
            | Operation::Provisioning
            | Operation::CreateEmptyArchive
            | Operation::Restoring,
            _,
        ) => {}
    }
    // A start is forgiven its earlier failures only after the container stayed ready for a while.
    let failures = c.error_count;
    let started = c.operation == Operation::Starting;
    c.clear_error();
    if started {
        c.error_count = failures;
    }
    c.end_operation();
}

/// The commit point of ARCHIVING: from here on the archive is the home.
fn commit_archive(ws: &mut Workspace) {
    let c = &mut ws.control;
    if c.operation == Operation::Archiving
        && c.home.location == HomeLocation::Volume
        && let Some(archive) = c.op_id.and_then(|op| ws.conditions.archive_of(op))
    {
        c.archive_key = Some(archive.key.clone());
        c.home = Home::archive(c.home.volume_id);
    }
}

/// A failure that was observed, if it is one of the present attempt.
fn failed_attempt(ws: &Workspace) -> Option<Failure> {
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
fn fail(ws: &mut Workspace, cx: &Context, failure: Failure) {
    let reason = failure.reason;
    let c = &mut ws.control;
    record(c, failure);
    let is_error = reason.is_error(c.error_count, cx.policy.max_retries);
    if is_error && !ws.spec.deleted {
        *c = enter_error(c.clone(), cx.now);
        return;
    }
    if reason == ErrorReason::VolumeChanged && c.home.location == HomeLocation::Archive {
        // What the archive holds is not what the volume holds: the volume is the home again.
        if let Some(volume_id) = c.home.volume_id {
            c.home = Home::volume(volume_id);
        }
    }
    if is_error || reason == ErrorReason::VolumeChanged {
        c.end_operation();
    }
    let seed = ws.id.0.as_u128() ^ cx.new_op.0.as_u128();
    c.retry_at = Some(cx.now + cx.policy.backoff(c.error_count, seed));
}

/// An attempt that failed and waits may be given up when something else is wanted by now. Nothing runs
/// for it, so no operation is preempted.
fn may_be_released(ws: &Workspace, cx: &Context) -> bool {
    let c = &ws.control;
    if c.operation == Operation::Archiving && c.home.location == HomeLocation::Archive {
        return false; // past its commit point: the volume is still to be removed
    }
    let new_image = c.operation == Operation::Starting
        && c.started_image.as_deref() != Some(ws.spec.image.as_str());
    let wanted = match judge(ws, cx.fresh, cx.policy) {
        Judgement::Phase(phase) => wanted(ws, phase),
        Judgement::Broken(_) | Judgement::StillBroken | Judgement::Undecided => return false,
    };
    new_image || wanted != c.operation
}

fn is_timed_out(ws: &Workspace, cx: &Context) -> bool {
    let c = &ws.control;
    let Some(started) = c.op_started_at else {
        return false;
    };
    let progressed = ws
        .observed_at
        .filter(|_| c.operation.reports_progress())
        .filter(|_| {
            let job = ws.conditions.evidence.job.as_ref();
            job.is_some_and(|j| Some(j.op_id) == c.op_id)
        });
    let since = progressed.map_or(started, |at| at.max(started));
    cx.now - since > cx.policy.operation_timeout
}

/// What the operation in progress needs done now.
fn next_action(ws: &Workspace) -> Option<Action> {
    let c = &ws.control;
    let evidence = &ws.conditions.evidence;
    let home = c.home.home_volume();
    match c.operation {
        Operation::None => None,
        Operation::Provisioning => Some(Action::Provision {
            replaces: volume_in_the_way(ws),
        }),
        Operation::CreateEmptyArchive => Some(Action::CreateEmptyArchive),
        Operation::Restoring => c.archive_key.clone().map(|archive_key| Action::Restore {
            archive_key,
            replaces: volume_in_the_way(ws),
        }),
        Operation::Starting => home.map(|volume_id| Action::Start { volume_id }),
        Operation::Stopping => Some(Action::Stop),
        Operation::Archiving => match c.home.location {
            HomeLocation::None => None,
            HomeLocation::Volume => home.map(|volume_id| Action::Archive { volume_id }),
            HomeLocation::Archive => {
                let archive = c.archive_key.as_deref()?;
                let archive = ws.conditions.archive_at(archive)?;
                Some(Action::DeleteArchivedVolume {
                    volume_id: c.home.volume_id?,
                    archive_key: archive.key.clone(),
                    sha256: archive.sha256.clone(),
                })
            }
        },
        Operation::Deleting if evidence.container.is_some() => Some(Action::Stop),
        Operation::Deleting => {
            let volume = evidence.volume.as_ref()?;
            match volume.volume_id.filter(|_| volume.owned) {
                Some(id) => Some(Action::DiscardVolume {
                    volume_id: Some(id),
                }),
                None if ws.spec.discard_home => Some(Action::DiscardVolume { volume_id: None }),
                None => None,
            }
        }
    }
}

/// A volume of this workspace that is there, is not what the operation makes, and is not the home.
fn volume_in_the_way(ws: &Workspace) -> Option<VolumeId> {
    let observed = ws.conditions.evidence.volume.as_ref().filter(|v| v.owned)?;
    let id = observed.volume_id?;
    let made_by_this = ws.control.op_id.map(VolumeId::from) == Some(id);
    let is_home = ws.control.home.home_volume() == Some(id);
    (!made_by_this && !is_home).then_some(id)
}

// ---- (2) error, (3) converged, (4) the table ---------------------------------------------------

fn choose(mut ws: Workspace, cx: &Context) -> Plan {
    let Some(phase) = set_judged_phase(&mut ws, cx) else {
        return stopped(ws.control);
    };
    forgive(&mut ws, phase, cx);
    if is_stale(cx) {
        return stopped(ws.control);
    }
    let operation = wanted(&ws, phase);
    if operation == Operation::None {
        return stopped(ws.control);
    }
    if operation == Operation::Starting && count_crash(&mut ws, cx) {
        return stopped(ws.control);
    }
    if waits(&ws.control, operation, cx.now) {
        return stopped(ws.control);
    }
    begin(&mut ws, operation, cx);
    let call = ws
        .control
        .op_id
        .zip(next_action(&ws))
        .map(|(op_id, action)| Call {
            op_id,
            attempt: ws.control.error_count,
            action,
        });
    Plan {
        next: ws.control,
        call,
    }
}

/// The table of operations.
pub fn wanted(ws: &Workspace, phase: Phase) -> Operation {
    use DesiredState as D;
    let container = ws.conditions.evidence.container.is_some();
    match (phase, ws.spec.desired) {
        (Phase::Deleting, _) => wanted_of_deleted(ws),
        (Phase::Deleted | Phase::Error, _) | (_, D::Deleted) => Operation::None,
        // A container that is left where none is wanted goes before anything else happens.
        (Phase::Pending | Phase::Archived, _) if container => Operation::Stopping,
        (Phase::Standby, D::Standby | D::Archived) if container => Operation::Stopping,
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
    let keep_home = home_volume_present(ws) && !ws.spec.discard_home;
    match (keep_home, evidence.container.is_some()) {
        (true, true) => Operation::Stopping,
        (true, false) => Operation::Archiving,
        (false, false) if leftover_volume(ws) && !ws.spec.discard_home => Operation::Archiving,
        (false, false) if evidence.volume.is_none() => Operation::None,
        (false, _) => Operation::Deleting,
    }
}

fn leftover_volume(ws: &Workspace) -> bool {
    let home = &ws.control.home;
    let observed = ws.conditions.evidence.volume.as_ref();
    home.location == HomeLocation::Archive
        && home.volume_id.is_some()
        && observed.is_some_and(|v| v.volume_id == home.volume_id)
}

fn forgive(ws: &mut Workspace, phase: Phase, cx: &Context) {
    let c = &mut ws.control;
    let stable = phase == Phase::Running && cx.now - c.phase_changed_at >= cx.policy.stable_after;
    if stable && c.error_count > 0 {
        c.clear_error();
    }
}

/// A container that ended although it should run counts as a failure, once. True if the start has to
/// wait for that.
fn count_crash(ws: &mut Workspace, cx: &Context) -> bool {
    let c = &ws.control;
    if c.error_reason == Some(ErrorReason::CrashLoop)
        || c.started_image.as_deref() != Some(ws.spec.image.as_str())
    {
        return false;
    }
    let Some(container) = ws.conditions.evidence.container.as_ref() else {
        return false;
    };
    if !container.has_ended() {
        return false;
    }
    let stayed = container.finished_at.zip(container.started_at);
    let was_stable = stayed.is_some_and(|(end, start)| end - start >= cx.policy.stable_after);
    let message = exit_message(container);
    if was_stable {
        ws.control.clear_error();
    }
    let failure = Failure {
        reason: ErrorReason::CrashLoop,
        message,
    };
    fail(ws, cx, failure);
    true
}

/// Whether an operation has to wait for its backoff. Another one than the one that failed need not.
fn waits(c: &Control, operation: Operation, now: DateTime<Utc>) -> bool {
    let concerned = match c.error_reason {
        Some(ErrorReason::CrashLoop | ErrorReason::ImagePullFailed) => {
            operation == Operation::Starting
        }
        Some(ErrorReason::StoreUnavailable) => operation.needs_store(),
        Some(ErrorReason::VolumeChanged) => operation == Operation::Archiving,
        Some(
            ErrorReason::Timeout
            | ErrorReason::ActionFailed
            | ErrorReason::Unreachable
            | ErrorReason::ArchiveCorrupted
            | ErrorReason::DataLost
            | ErrorReason::ContainerWithoutVolume,
        ) => true,
        None => false,
    };
    concerned && c.retry_at.is_some_and(|at| at > now)
}

fn begin(ws: &mut Workspace, operation: Operation, cx: &Context) {
    let continues_archive = operation == Operation::Archiving && leftover_volume(ws);
    let c = &mut ws.control;
    if operation == Operation::Starting
        && c.started_image.as_deref() != Some(ws.spec.image.as_str())
    {
        c.clear_error();
        c.started_image = Some(ws.spec.image.clone());
    }
    c.retry_at = None;
    c.operation = operation;
    c.op_started_at = Some(cx.now);
    c.op_id = Some(match c.archive_op_id {
        Some(made) if continues_archive => made,
        _ => cx.new_op,
    });
    if matches!(
        operation,
        Operation::Archiving | Operation::CreateEmptyArchive
    ) {
        c.archive_op_id = c.op_id;
    }
}
