//! The agent's one failure: what a caller is told at once, or a job says later, in the same words.

use tonic::Status;
use windlass_archive::{ArchiveError, ArchiveErrorKind, StoreError, StoreErrorKind};
use windlass_domain::ErrorReason;
use windlass_service::error::ErrorKind;

use crate::docker::{DockerError, DockerErrorKind};

/// Longest message in bytes. Messages go into headers, rows and chunks of a thousand jobs, and engines and
/// stores may answer anything.
const MAX_MESSAGE: usize = 2048;
/// How one ends that was cut.
const CUT: &str = "...";

/// Why something was refused or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The caller's epoch is over.
    StaleEpoch,
    /// Another job of the workspace is running.
    Busy,
    /// Too many jobs of the kind wait.
    QueueFull,
    /// Whoever reads an archive takes nothing any more.
    ReaderStalled,
    /// The agent is stopping.
    Stopping,
    /// The engine cannot be reached.
    EngineUnavailable,
    /// The archive store cannot be reached or refuses us.
    StoreUnavailable,
    /// No volume of that name.
    VolumeNotFound,
    /// Another volume has the name.
    VolumeExists,
    /// The volume of that name has another volume_id. Nothing is known to have changed in a home.
    VolumeMismatch,
    /// The volume's content changed since (or while) its archive was taken.
    VolumeChanged,
    /// A container uses the volume.
    ContainerRunning,
    /// No complete archive at that key.
    ArchiveNotFound,
    /// The archive is not the one the caller means.
    DigestMismatch,
    /// The archive is damaged.
    ArchiveCorrupted,
    /// The volumes' file system is too full.
    NoSpace,
    /// The image is missing or refused.
    ImagePullFailed,
    /// The container exited.
    CrashLoop,
    /// There is no such container.
    NotFound,
    /// The container does not run.
    NotRunning,
    /// Anything else the engine or the file system answered.
    ActionFailed,
}

impl Reason {
    /// The kind and the word of its `ErrorInfo`.
    fn wire(self) -> (ErrorKind, &'static str) {
        use ErrorKind::{
            Aborted, FailedPrecondition, Internal, NotFound, ResourceExhausted, Unavailable,
        };
        match self {
            Self::StaleEpoch => (FailedPrecondition, "STALE_EPOCH"),
            Self::Busy => (Aborted, "BUSY"),
            Self::QueueFull => (ResourceExhausted, "QUEUE_FULL"),
            Self::ReaderStalled => (Aborted, "READER_STALLED"),
            Self::Stopping => (Unavailable, windlass_service::error::DRAINING),
            Self::EngineUnavailable => (Unavailable, "ENGINE_UNAVAILABLE"),
            Self::StoreUnavailable => (Unavailable, "STORE_UNAVAILABLE"),
            Self::VolumeNotFound => (FailedPrecondition, "VOLUME_NOT_FOUND"),
            Self::VolumeExists => (FailedPrecondition, "VOLUME_EXISTS"),
            Self::VolumeMismatch | Self::VolumeChanged => (FailedPrecondition, "VOLUME_CHANGED"),
            Self::ContainerRunning => (FailedPrecondition, "CONTAINER_RUNNING"),
            Self::ArchiveNotFound => (FailedPrecondition, "ARCHIVE_NOT_FOUND"),
            Self::DigestMismatch => (FailedPrecondition, "DIGEST_MISMATCH"),
            Self::ArchiveCorrupted => (FailedPrecondition, "ARCHIVE_CORRUPTED"),
            Self::NoSpace => (FailedPrecondition, "NO_SPACE"),
            Self::ImagePullFailed => (FailedPrecondition, "IMAGE_PULL_FAILED"),
            Self::CrashLoop => (FailedPrecondition, "CRASH_LOOP"),
            Self::NotFound => (NotFound, "NOT_FOUND"),
            Self::NotRunning => (FailedPrecondition, "NOT_RUNNING"),
            Self::ActionFailed => (Internal, "ACTION_FAILED"),
        }
    }

    /// What wc stores; `None` where nothing failed, so that nothing is to be counted: the call was not
    /// let in, and may simply be repeated (by whoever leads).
    pub fn stored(self) -> Option<ErrorReason> {
        match self {
            Self::StaleEpoch
            | Self::Busy
            | Self::QueueFull
            | Self::ReaderStalled
            | Self::Stopping => None,
            Self::EngineUnavailable => Some(ErrorReason::Unreachable),
            Self::StoreUnavailable => Some(ErrorReason::StoreUnavailable),
            Self::VolumeChanged => Some(ErrorReason::VolumeChanged),
            Self::ArchiveCorrupted | Self::DigestMismatch => Some(ErrorReason::ArchiveCorrupted),
            Self::ImagePullFailed => Some(ErrorReason::ImagePullFailed),
            Self::CrashLoop => Some(ErrorReason::CrashLoop),
            // A volume with another id says nothing about the home of record: VolumeChanged would make
            // wc take the volume for the home again.
            Self::VolumeNotFound
            | Self::VolumeExists
            | Self::VolumeMismatch
            | Self::ContainerRunning
            | Self::ArchiveNotFound
            | Self::NoSpace
            | Self::NotFound
            | Self::NotRunning
            | Self::ActionFailed => Some(ErrorReason::ActionFailed),
        }
    }
}

/// A refusal or failure, with the words of whoever knew best.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// In words, for people; at most 2 KiB.
    pub message: String,
}

impl Failure {
    /// A failure; what is too long of the message is cut.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: bounded(message.into()),
        }
    }

    /// [`Reason::ActionFailed`].
    pub fn action(message: impl Into<String>) -> Self {
        Self::new(Reason::ActionFailed, message)
    }

    /// For the wire.
    pub fn status(&self) -> Status {
        let (kind, word) = self.reason.wire();
        let stored = self.reason.stored().map(|r| ("error_reason", r.as_str()));
        windlass_service::status(kind, word, self.message.as_str(), stored)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.status()
    }
}

impl From<DockerError> for Failure {
    fn from(error: DockerError) -> Self {
        let reason = match error.kind {
            DockerErrorKind::Unreachable => Reason::EngineUnavailable,
            DockerErrorKind::NotFound | DockerErrorKind::Conflict | DockerErrorKind::Other => {
                Reason::ActionFailed
            }
        };
        Self::new(reason, error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(store_reason(error.kind()), error.to_string())
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        let reason = match error.kind() {
            ArchiveErrorKind::Corrupted => Reason::ArchiveCorrupted,
            ArchiveErrorKind::NoSpace => Reason::NoSpace,
            ArchiveErrorKind::Changed => Reason::VolumeChanged,
            ArchiveErrorKind::Store(kind) => store_reason(kind),
            ArchiveErrorKind::Io | ArchiveErrorKind::Cancelled | ArchiveErrorKind::Invalid => {
                Reason::ActionFailed
            }
        };
        Self::new(reason, error.to_string())
    }
}

/// The message, as far as there is room for it.
pub(crate) fn bounded(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE - CUT.len()));
        message.push_str(CUT);
        message.shrink_to_fit();
    }
    message
}

fn store_reason(kind: StoreErrorKind) -> Reason {
    match kind {
        StoreErrorKind::Unreachable | StoreErrorKind::Denied | StoreErrorKind::Throttled => {
            Reason::StoreUnavailable
        }
        StoreErrorKind::NotFound => Reason::ArchiveNotFound,
        StoreErrorKind::Corrupt => Reason::ArchiveCorrupted,
        StoreErrorKind::Invalid | StoreErrorKind::Other => Reason::ActionFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_what_wc_stores() {
        let status = Failure::new(Reason::VolumeChanged, "written to").status();
        let reason = windlass_service::reason_of(&status);
        assert_eq!(reason.as_deref(), Some("VOLUME_CHANGED"));
        let stored = windlass_service::error::metadata_of(&status, "error_reason");
        assert_eq!(stored.as_deref(), Some("VolumeChanged"));

        let status = Failure::new(Reason::VolumeMismatch, "another").status();
        let stored = windlass_service::error::metadata_of(&status, "error_reason");
        assert_eq!(stored.as_deref(), Some("ActionFailed"));

        let status = Failure::new(Reason::Busy, "busy").status();
        assert_eq!(status.code(), tonic::Code::Aborted);
        let stored = windlass_service::error::metadata_of(&status, "error_reason");
        assert_eq!(stored, None);
    }

    #[test]
    fn messages_are_cut_between_characters() {
        let message = |text: &str| Failure::action(text).message;
        let fits = "x".repeat(MAX_MESSAGE);
        assert_eq!(message(&fits), fits);
        for long in [format!("{fits}x"), "\u{1f980}".repeat(MAX_MESSAGE)] {
            let cut = message(&long);
            assert!(cut.len() <= MAX_MESSAGE && cut.len() > MAX_MESSAGE - 4);
            assert!(long.starts_with(cut.strip_suffix(CUT).unwrap()));
        }
    }
}
