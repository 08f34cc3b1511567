//! Homes that cannot be lost: a volume becomes one verified object in S3, and comes back with every
//! attribute.
//!
//! Archive: [`pack`] streams volume -> tar (PAX) -> zstd -> multipart upload while hashing; [`verify`]
//! reads the object back; only then is the [`marker`] written. Without its marker an archive does not
//! exist. Restore: [`unpack`] streams the other way into an emptied volume, never outside it, and
//! writes the restore marker only after the digest matched and the data is synced.
//!
//! Invariants that hold in the whole crate:
//! - nothing is written to a temporary file, and memory is bounded whatever the home (parts of fixed
//!   size, bounded channels, limits on everything read from an archive);
//! - the volume is walked relative to directory descriptors, never by path and never through a
//!   symlink, so that names of any length and content work and nothing outside is touched;
//! - part of a home is no home: every read error, change or truncation fails the job with the file's
//!   name.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod error;
pub mod failpoints;
mod fs;
pub mod inventory;
pub mod layout;
pub mod marker;
pub mod pack;
pub mod progress;
pub mod store;
pub mod tar;
pub mod unpack;
pub mod verify;

pub use error::{ArchiveError, ArchiveErrorKind};
pub use marker::{ArchiveMarker, RestoreMarker};
pub use pack::{ArchiveSpec, Verify, archive, empty_archive};
pub use progress::{Progress, Stage};
pub use store::{Store, StoreConfig, StoreError, StoreErrorKind};
pub use unpack::{RestoreReport, RestoreSpec, restore};
pub use verify::{download, verify};

// Named again so that callers need not depend on tokio-util themselves.
pub use tokio_util::sync::CancellationToken;
