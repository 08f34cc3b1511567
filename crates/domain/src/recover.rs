//! The way out of ERROR: an explicit call. Where the home is lost, it must say what becomes the home.

use crate::{
    control::{Control, Workspace},
    error_reason::ErrorReason,
    home::Home,
    judge::container_without_volume,
    phase::Phase,
};

/// What becomes the home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accept {
    /// This archive.
    Archive(String),
    /// An empty one: the old home is given up, unless it comes back before there is another.
    StartEmpty,
    /// The volume that is there, whatever is in it.
    AdoptVolume,
}

/// Why a workspace cannot be recovered like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// It is not in ERROR.
    #[error("the workspace is not in ERROR")]
    NotInError,
    /// The home is lost: the call must say what to accept.
    #[error(
        "the home is lost: say what to accept (an archive, an empty home, or the volume that is there)"
    )]
    AcceptRequired,
    /// The home is not lost: there is nothing to accept.
    #[error("the home is not lost: recover without saying what to accept")]
    AcceptRefused,
    /// No complete archive of that key is observed.
    #[error("no complete archive of that key is observed; see ListWorkspaceArchives")]
    ArchiveNotFound,
    /// No volume of this workspace is observed.
    #[error("no volume that carries this workspace's labels is observed")]
    VolumeNotFound,
    /// The container that has no volume is still there: it would be found broken again at once.
    #[error(
        "its container still runs without its home volume: save what you need of it (docker cp) and remove \
         it; what becomes the home is asked after that (DataLost)"
    )]
    ContainerStillThere,
}

impl RecoverError {
    /// Machine-readable word.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotInError => "NOT_IN_ERROR",
            Self::AcceptRequired => "ACCEPT_REQUIRED",
            Self::AcceptRefused => "ACCEPT_REFUSED",
            Self::ArchiveNotFound => "ARCHIVE_NOT_FOUND",
            Self::VolumeNotFound => "VOLUME_NOT_FOUND",
            Self::ContainerStillThere => "CONTAINER_STILL_THERE",
        }
    }
}

/// The control columns after the recovery; the next pass judges the phase.
pub fn recover(ws: &Workspace, accept: Option<Accept>) -> Result<Control, RecoverError> {
    if ws.control.phase != Phase::Error {
        return Err(RecoverError::NotInError);
    }
    if container_without_volume(ws) {
        return Err(RecoverError::ContainerStillThere);
    }
    let mut next = ws.control.clone();
    next.clear_error();
    // The volume that is or was the home may hold what nothing else has, be it there or lost and back some day:
    // it is not made room of, but compared with the accepted archive before it goes, and is the home again if it
    // differs (VolumeChanged).
    let was = next.home.volume_id;
    match (ws.control.error_reason, accept) {
        (Some(ErrorReason::DataLost), None) => return Err(RecoverError::AcceptRequired),
        (Some(ErrorReason::ArchiveCorrupted), Some(_))
            if ws.control.home.home_volume().is_some() =>
        {
            return Err(RecoverError::AcceptRefused);
        }
        (
            Some(ErrorReason::DataLost | ErrorReason::ArchiveCorrupted),
            Some(Accept::Archive(key)),
        ) => {
            if ws.conditions.archive_at(&key).is_none() {
                return Err(RecoverError::ArchiveNotFound);
            }
            next.archive_key = Some(key);
            next.home = Home::archive(was);
        }
        (Some(ErrorReason::DataLost), Some(Accept::StartEmpty)) => {
            // What is there now is given up. What is not may come back before anything has its place.
            let nothing_there = ws.conditions.evidence.volume.is_none();
            next.home = Home::none_after(was.filter(|_| nothing_there));
        }
        (Some(ErrorReason::DataLost), Some(Accept::AdoptVolume)) => {
            let volume = ws.conditions.evidence.volume.as_ref();
            let id = volume.filter(|v| v.owned).and_then(|v| v.volume_id);
            next.home = Home::volume(id.ok_or(RecoverError::VolumeNotFound)?);
        }
        (_, None) => {}
        (_, Some(_)) => return Err(RecoverError::AcceptRefused),
    }
    Ok(next)
}
