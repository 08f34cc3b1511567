//! An S3 object store for one machine: in-process, on disk, HTTP on loopback.
//!
//! It exists so that `windlass up` and the tests have a real S3 endpoint without a second program to
//! install, and it keeps the promises archives rely on:
//!
//! - An object becomes visible in one rename, after every digest the client gave was verified and the
//!   bytes were synced. A kill at any point leaves the old object or the new one, never a part of one.
//! - An answer of success means the object survives a power cut.
//! - Parts of a multipart upload stay until the completed object is in place.
//!
//! One access key, SigV4 (and presigned URLs); no versions, ACLs, tags or encryption.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod api;
mod bucket;
mod digest;
mod error;
mod ingest;
mod layout;
mod listing;
mod record;
mod server;
mod store;
mod upload;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use error::Error;
pub use server::Running;

/// How the store is started.
#[derive(Clone)]
pub struct Config {
    /// Folder of everything stored; made if absent. One running store per folder (it is locked).
    pub root: PathBuf,
    /// Where to listen: a loopback address; port 0 takes a free one.
    pub addr: SocketAddr,
    /// The one access key id accepted.
    pub access_key: String,
    /// The secret belonging to `access_key`.
    pub secret_key: String,
    /// Buckets made at start if absent.
    pub buckets: Vec<String>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("root", &self.root)
            .field("addr", &self.addr)
            .field("access_key", &self.access_key)
            .field("secret_key", &"***")
            .field("buckets", &self.buckets)
            .finish()
    }
}

/// The store itself; see [`EmbeddedS3::start`].
#[derive(Debug)]
pub struct EmbeddedS3;

impl EmbeddedS3 {
    /// Recovers the folder (leftovers of a killed run are removed), loads the index and listens.
    ///
    /// # Errors
    /// When the address is not loopback or taken, the folder is in use by another store, unreadable or of
    /// another format, or a bucket name is not allowed by S3.
    pub async fn start(config: Config) -> Result<Running, Error> {
        server::start(config).await
    }
}
