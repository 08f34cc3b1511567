//! What the operation in progress asks of the agent, from what was observed. Container before volume,
//! always; and no call ever names the home as a volume that makes room.

use super::Action;
use crate::{control::Workspace, home::HomeLocation, ids::VolumeId, phase::Operation};

/// What the operation in progress needs done now.
pub(super) fn next(ws: &Workspace) -> Option<Action> {
    let c = &ws.control;
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
        Operation::Starting => c
            .home
            .home_volume()
            .map(|volume_id| Action::Start { volume_id }),
        Operation::Stopping => Some(Action::Stop),
        Operation::Archiving => archiving(ws),
        Operation::Checkpointing => c
            .home
            .home_volume()
            .map(|volume_id| Action::Checkpoint { volume_id }),
        Operation::Deleting => deleting(ws),
    }
}

fn archiving(ws: &Workspace) -> Option<Action> {
    let c = &ws.control;
    // A start that was given up may have come through late.
    if ws.conditions.evidence.container.is_some() {
        return Some(Action::Stop);
    }
    match c.home.location {
        HomeLocation::None => None,
        HomeLocation::Volume => {
            let volume_id = c.home.volume_id?;
            Some(Action::Archive { volume_id })
        }
        HomeLocation::Archive => {
            let archive = ws.conditions.archive_at(c.archive_key.as_deref()?)?;
            Some(Action::DeleteArchivedVolume {
                volume_id: c.home.volume_id?,
                archive_key: archive.key.clone(),
                sha256: archive.sha256.clone(),
            })
        }
    }
}

fn deleting(ws: &Workspace) -> Option<Action> {
    let evidence = &ws.conditions.evidence;
    if evidence.container.is_some() {
        return Some(Action::Stop);
    }
    let volume = evidence.volume.as_ref()?;
    let volume_id = volume.volume_id.filter(|_| volume.owned);
    // A home, an archived one that may have changed since, and a volume that does not say it is this
    // workspace's: only if its user gave everything up.
    let may_go = volume_id.is_some() && volume_id != ws.control.home.volume_id;
    (may_go || ws.spec.discard_home).then_some(Action::DiscardVolume { volume_id })
}

/// A volume of this workspace that is there, is not what the operation makes, and neither is nor was the home:
/// what was it may have changed since it was archived, or be back after it was lost.
fn volume_in_the_way(ws: &Workspace) -> Option<VolumeId> {
    let observed = ws.conditions.evidence.volume.as_ref().filter(|v| v.owned)?;
    let id = observed.volume_id?;
    let made_by_this = ws.control.op_id.map(VolumeId::from) == Some(id);
    let is_or_was_home = ws.control.home.volume_id == Some(id);
    (!made_by_this && !is_or_was_home).then_some(id)
}

/// Whether the home is an archive, and the volume that was it before is still there, or there again.
pub(super) fn leftover_volume(ws: &Workspace) -> bool {
    let home = &ws.control.home;
    let observed = ws.conditions.evidence.volume.as_ref();
    home.location == HomeLocation::Archive
        && home.volume_id.is_some()
        && observed.is_some_and(|v| v.volume_id == home.volume_id)
}
