//! Why something failed, and whether trying again may help.

use std::fmt;

use crate::phase::words;

words! {
    /// The reasons a workspace shows. See `docs/operations.md` for what to do about each.
    ErrorReason {
        /// The operation exceeded its time limit.
        Timeout = "Timeout",
        /// The agent reported an error.
        ActionFailed = "ActionFailed",
        /// The host cannot be reached.
        Unreachable = "Unreachable",
        /// The archive store cannot be reached: archives wait, everything else goes on.
        StoreUnavailable = "StoreUnavailable",
        /// The image is missing or refused.
        ImagePullFailed = "ImagePullFailed",
        /// The container keeps exiting.
        CrashLoop = "CrashLoop",
        /// An archive's digest does not match.
        ArchiveCorrupted = "ArchiveCorrupted",
        /// The home of record is gone.
        DataLost = "DataLost",
        /// A container runs without its volume.
        ContainerWithoutVolume = "ContainerWithoutVolume",
        /// The volume changed after its archive was taken.
        VolumeChanged = "VolumeChanged",
        /// A checkpoint failed, for whatever reason: the workspace runs on.
        CheckpointFailed = "CheckpointFailed",
    }
}

/// What a failure leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// ERROR at once.
    Terminal,
    /// ERROR after `max_retries` failures in a row.
    Counted,
    /// Tried again for ever, with backoff.
    Waiting,
}

impl ErrorReason {
    /// The `terminal` column of the table of error reasons.
    pub fn severity(self) -> Severity {
        match self {
            Self::Timeout
            | Self::ArchiveCorrupted
            | Self::DataLost
            | Self::ContainerWithoutVolume => Severity::Terminal,
            Self::ActionFailed | Self::Unreachable | Self::ImagePullFailed | Self::CrashLoop => {
                Severity::Counted
            }
            Self::StoreUnavailable | Self::VolumeChanged | Self::CheckpointFailed => {
                Severity::Waiting
            }
        }
    }

    /// Whether a workspace with this reason and this many failures in a row is in ERROR.
    pub fn is_error(self, error_count: u32, max_retries: u32) -> bool {
        match self.severity() {
            Severity::Terminal => true,
            Severity::Counted => error_count >= max_retries,
            Severity::Waiting => false,
        }
    }
}

/// A failed attempt, as the agent or the call told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: ErrorReason,
    /// In words.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn the_runbook_has_every_reason_and_when_it_is_an_error() {
        let page = include_str!("../../../docs/operations.md");
        let (_, rest) = page.split_once("\n| reason | ERROR |").unwrap();
        // A blank line ends a table.
        let table = rest.split("\n\n").next().unwrap();
        let rows: Vec<_> = table
            .lines()
            .skip(2)
            .map(|row| {
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                (cells[1].to_owned(), cells[2].to_owned())
            })
            .collect();
        let expected: Vec<_> = ErrorReason::ALL
            .iter()
            .map(|reason| {
                let when = match reason.severity() {
                    Severity::Terminal => "at once".to_owned(),
                    Severity::Counted => {
                        format!("after {} in a row", Policy::default().max_retries)
                    }
                    Severity::Waiting => "never".to_owned(),
                };
                (reason.to_string(), when)
            })
            .collect();
        assert_eq!(rows, expected);
    }
}
