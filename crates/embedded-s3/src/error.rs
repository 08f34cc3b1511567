//! Why a store does not start. What a client did wrong is answered in S3's own error codes instead.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why [`crate::EmbeddedS3::start`] failed; each is one line for a user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store holds unencrypted data behind one key: it never listens beyond the machine.
    #[error("the S3 store listens on loopback only, not on {0}")]
    NotLoopback(SocketAddr),
    /// Something listens there already.
    #[error("the S3 store cannot listen on {0}: the port is taken")]
    PortTaken(SocketAddr),
    /// Listening failed otherwise.
    #[error("the S3 store cannot listen on {addr}: {source}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Another process (or another store in this one) has the folder open.
    #[error("the S3 folder {} is in use by another running store", .0.display())]
    InUse(PathBuf),
    /// The folder was written by something else.
    #[error("{} is not an S3 folder of this version (its file `format` says {found:?})", path.display())]
    Format {
        /// The folder.
        path: PathBuf,
        /// What its format file holds.
        found: String,
    },
    /// A name in [`crate::Config::buckets`] is not allowed.
    #[error("{0:?} is no valid bucket name (3 to 63 of a-z, 0-9, '-' and '.')")]
    BucketName(String),
    /// Reading or writing the folder failed.
    #[error("the S3 folder cannot be used: {path}: {source}", path = path.display())]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A background task failed in a way that should not happen.
    #[error("the S3 store failed to start: {0}")]
    Internal(String),
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
