//! Judges the phase. The order of the rules is their priority: the user's intent, then safety, then
//! reality. Where a rule cannot be decided, because something is not observed, the phase stands.

use crate::{
    conditions::Conditions,
    control::{Freshness, Workspace},
    error_reason::{ErrorReason, Failure},
    home::{Home, HomeLocation},
    ids::VolumeId,
    phase::{Operation, Phase},
    policy::Policy,
};

/// What a workspace was judged to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// In this phase.
    Phase(Phase),
    /// In ERROR by a failure found just now.
    Broken(Failure),
    /// In ERROR by the failure that is stored.
    StillBroken,
    /// Not decidable from what was observed: the phase stands.
    Undecided,
}

/// Judges one workspace.
pub fn judge(ws: &Workspace, fresh: &Freshness, policy: &Policy) -> Judgement {
    if ws.spec.deleted {
        return Judgement::Phase(deleted(ws, fresh));
    }
    if let Some(failure) = broken(ws, fresh)
        && ws.control.error_reason != Some(failure.reason)
    {
        return Judgement::Broken(failure);
    }
    if is_error(ws, policy) {
        return Judgement::StillBroken;
    }
    match ws.control.home.location {
        HomeLocation::None => Judgement::Phase(Phase::Pending),
        HomeLocation::Archive if home_archive_present(ws) => Judgement::Phase(Phase::Archived),
        HomeLocation::Volume if home_volume_present(ws) => {
            Judgement::Phase(if container_ready(ws) {
                Phase::Running
            } else {
                Phase::Standby
            })
        }
        HomeLocation::Archive | HomeLocation::Volume => Judgement::Undecided,
    }
}

/// Rule 1. DELETED needs a complete observation of the host since the deletion began, and since the backoff
/// of an attempt that was given up, so that nothing made at the last moment is overlooked.
fn deleted(ws: &Workspace, fresh: &Freshness) -> Phase {
    let c = &ws.control;
    let evidence = &ws.conditions.evidence;
    let anything_seen =
        evidence.container.is_some() || evidence.volume.is_some() || !evidence.archives.is_empty();
    if c.phase == Phase::Deleted && !anything_seen {
        return Phase::Deleted;
    }
    let anything_left =
        anything_seen || c.operation != Operation::None || !ws.conditions.archives_known();
    let observed_since = c.phase == Phase::Deleting
        && fresh
            .host
            .is_some_and(|at| at > c.phase_changed_at && c.retry_at.is_none_or(|r| at > r))
        && ws.observed_at.is_some();
    if anything_left || !observed_since {
        Phase::Deleting
    } else {
        Phase::Deleted
    }
}

/// Rule 2, what is found now. DataLost needs the absence in two complete observations in a row: the one
/// that stored it, and a later one that changed nothing.
fn broken(ws: &Workspace, fresh: &Freshness) -> Option<Failure> {
    let confirmed_by = |unit: Option<_>| {
        ws.observed_at
            .is_some_and(|at| unit.is_some_and(|u| u > at))
    };
    if container_without_volume(ws) {
        return Some(Failure {
            reason: ErrorReason::ContainerWithoutVolume,
            message: "a container is ready, but its home volume is absent".to_owned(),
        });
    }
    if let Some(home) = ws.control.home.home_volume()
        && !home_volume_present(ws)
        && confirmed_by(fresh.host)
    {
        return Some(data_lost_volume(ws, home));
    }
    if ws.control.home.location == HomeLocation::Archive
        && ws.conditions.archives_known()
        && !home_archive_present(ws)
        && confirmed_by(fresh.archives)
    {
        let key = ws.control.archive_key.as_deref().unwrap_or("(none)");
        return Some(Failure {
            reason: ErrorReason::DataLost,
            message: format!("the home is archive {key}, and no complete archive is there"),
        });
    }
    None
}

fn data_lost_volume(ws: &Workspace, home: VolumeId) -> Failure {
    let found = match &ws.conditions.evidence.volume {
        None => "the volume is absent".to_owned(),
        Some(v) => match v.volume_id {
            Some(other) => format!("volume {} is another one (volume_id {other})", v.name),
            None => format!("volume {} has no volume_id", v.name),
        },
    };
    Failure {
        reason: ErrorReason::DataLost,
        message: format!("the home is the volume with volume_id {home}, but {found}"),
    }
}

/// Rule 2, what is stored: it stays until recovered.
fn is_error(ws: &Workspace, policy: &Policy) -> bool {
    ws.control
        .error_reason
        .is_some_and(|r| r.is_error(ws.control.error_count, policy.max_retries))
}

/// Whether what put the workspace into ERROR has gone away by itself: a host that could not be reached was
/// observed again since, or an image that failed is no longer the wanted one.
pub fn error_is_over(ws: &Workspace, fresh: &Freshness) -> bool {
    let c = &ws.control;
    if c.phase != Phase::Error {
        return false;
    }
    match c.error_reason {
        Some(ErrorReason::Unreachable) => fresh.host.is_some_and(|at| at > c.phase_changed_at),
        Some(ErrorReason::ImagePullFailed | ErrorReason::CrashLoop) => {
            c.started_image.as_deref() != Some(ws.spec.image.as_str())
        }
        Some(
            ErrorReason::Timeout
            | ErrorReason::ActionFailed
            | ErrorReason::StoreUnavailable
            | ErrorReason::ArchiveCorrupted
            | ErrorReason::DataLost
            | ErrorReason::ContainerWithoutVolume
            | ErrorReason::VolumeChanged
            | ErrorReason::CheckpointFailed,
        )
        | None => false,
    }
}

/// Whether a container is ready although no volume is there. Nobody but a person can say what of it is to be
/// kept, so nothing is done to it.
pub fn container_without_volume(ws: &Workspace) -> bool {
    container_ready(ws) && ws.conditions.evidence.volume.is_none()
}

/// Whether the container is observed to be ready.
pub fn container_ready(ws: &Workspace) -> bool {
    ws.conditions
        .evidence
        .container
        .as_ref()
        .is_some_and(|c| c.is_ready())
}

/// Whether the volume that is the home is observed.
pub fn home_volume_present(ws: &Workspace) -> bool {
    is_home_volume(&ws.control.home, &ws.conditions)
}

pub(crate) fn is_home_volume(home: &Home, conditions: &Conditions) -> bool {
    let observed = conditions
        .evidence
        .volume
        .as_ref()
        .filter(|v| v.owned)
        .and_then(|v| v.volume_id);
    home.home_volume()
        .is_some_and(|home| observed == Some(home))
}

/// Whether the archive that is the home is observed.
pub fn home_archive_present(ws: &Workspace) -> bool {
    ws.control.home.location == HomeLocation::Archive
        && ws
            .control
            .archive_key
            .as_deref()
            .is_some_and(|key| ws.conditions.archive_at(key).is_some())
}
