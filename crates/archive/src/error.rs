//! The one error type of archive and restore jobs.
//!
//! Its [`ArchiveErrorKind`] is what a service maps to a gRPC status and to retryability; its text names
//! the file, the errno or the S3 code, and is shown to users as it is.

use std::io;

use rustix::io::Errno;

use crate::store::{StoreError, StoreErrorKind};

/// What kind of failure ended a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArchiveErrorKind {
    /// The archive is damaged: digest mismatch, broken stream, hostile or impossible entries.
    /// Repeating the call does not help; another archive may.
    Corrupted,
    /// The volume's file system has too little space or too few inodes (or a quota is used up).
    NoSpace,
    /// The volume changed while it was read. Worth repeating once nothing writes to it.
    Changed,
    /// The volume's file system reported an error.
    Io,
    /// The store failed.
    Store(StoreErrorKind),
    /// The caller cancelled the job.
    Cancelled,
    /// The request makes no sense (another volume's archive, unknown format version, limits).
    Invalid,
}

/// Why an archive, restore, verify or download failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive is damaged; see [`ArchiveErrorKind::Corrupted`].
    #[error("archive corrupted: {0}")]
    Corrupted(String),
    /// Less space than the archive needs.
    #[error(
        "not enough space on the volume: {needed_bytes} bytes and {needed_inodes} inodes needed, \
         {available_bytes} bytes and {available_inodes} inodes available"
    )]
    InsufficientSpace {
        /// Bytes that the restored home takes on disk.
        needed_bytes: u64,
        /// Bytes available on the volume's file system.
        available_bytes: u64,
        /// Entries that the archive holds.
        needed_inodes: u64,
        /// Inodes available; `u64::MAX` where the file system does not count them.
        available_inodes: u64,
    },
    /// A file or directory changed while it was read.
    #[error("the volume changed while it was archived: {path}: {what}")]
    Changed {
        /// Escaped path relative to the volume's root.
        path: String,
        /// What was found to differ.
        what: String,
    },
    /// A system call on the volume failed.
    #[error("{action} {path}: {}", describe_errno(.errno))]
    Io {
        /// What was tried, such as "read" or "open".
        action: &'static str,
        /// Escaped path relative to the volume's root, "." being the root.
        path: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The local stream that a caller gave (a download's writer, a pack's sink) failed.
    #[error("{action}: {source}")]
    Stream {
        /// What was tried.
        action: &'static str,
        /// The stream's own error.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller cancelled the job.
    #[error("cancelled")]
    Cancelled,
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A blocking task of this job died; a bug, never bad input.
    #[error("internal: {0}")]
    Internal(String),
    /// A test's failpoint (only with the `failpoints` feature).
    #[error("failpoint {failpoint}: {text}")]
    Injected {
        /// Which one.
        failpoint: &'static str,
        /// The text configured by the test.
        text: String,
    },
}

impl ArchiveError {
    /// The kind to map to a status.
    pub fn kind(&self) -> ArchiveErrorKind {
        match self {
            Self::Corrupted(_) => ArchiveErrorKind::Corrupted,
            Self::InsufficientSpace { .. } => ArchiveErrorKind::NoSpace,
            Self::Changed { .. } => ArchiveErrorKind::Changed,
            Self::Io { errno, .. } if matches!(*errno, Errno::NOSPC | Errno::DQUOT) => {
                ArchiveErrorKind::NoSpace
            }
            Self::Stream { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                ArchiveErrorKind::NoSpace
            }
            Self::Io { .. } | Self::Stream { .. } | Self::Internal(_) | Self::Injected { .. } => {
                ArchiveErrorKind::Io
            }
            Self::Store(error) => ArchiveErrorKind::Store(error.kind()),
            Self::Cancelled => ArchiveErrorKind::Cancelled,
            Self::Invalid(_) => ArchiveErrorKind::Invalid,
        }
    }

    pub(crate) fn corrupted(what: impl Into<String>) -> Self {
        Self::Corrupted(what.into())
    }

    pub(crate) fn io(action: &'static str, path: &[u8], errno: Errno) -> Self {
        Self::Io {
            action,
            path: display_path(path),
            errno,
        }
    }

    pub(crate) fn changed(path: &[u8], what: impl Into<String>) -> Self {
        Self::Changed {
            path: display_path(path),
            what: what.into(),
        }
    }

    /// Unwraps an error that travelled through `std::io` traits; anything else is the stream's own.
    pub(crate) fn from_stream(action: &'static str, error: io::Error) -> Self {
        match error.downcast::<ArchiveError>() {
            Ok(inner) => inner,
            Err(error) => match error.downcast::<StoreError>() {
                Ok(inner) => Self::Store(inner),
                Err(source) => Self::Stream { action, source },
            },
        }
    }

    /// The way through `std::io` traits; [`ArchiveError::from_stream`] takes it out again.
    pub(crate) fn into_stream(self) -> io::Error {
        io::Error::other(self)
    }
}

fn describe_errno(errno: &Errno) -> String {
    io::Error::from(*errno).to_string()
}

/// A path as people may read it: non-printing and non-UTF-8 bytes escaped, at most about 1 KiB.
pub fn display_path(path: &[u8]) -> String {
    const LIMIT: usize = 1000;
    if path.is_empty() {
        return ".".to_owned();
    }
    if path.len() <= LIMIT {
        return path.escape_ascii().to_string();
    }
    let head = &path[..LIMIT / 2];
    let tail = &path[path.len() - LIMIT / 2..];
    format!(
        "{}...({} bytes)...{}",
        head.escape_ascii(),
        path.len(),
        tail.escape_ascii()
    )
}
