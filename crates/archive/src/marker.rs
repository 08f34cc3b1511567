//! Commit markers: the JSON objects that make an archive, or a restore, count.
//!
//! They are bounded in size and parsed strictly enough that a damaged one is an error, never a guess;
//! unknown fields are allowed, so that a later version may add some without raising the format version.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::error::ArchiveError;

/// Version of the archive and marker format that this crate writes; it reads no other.
pub const FORMAT_VERSION: u32 = 1;
/// Largest marker that is read or written, in bytes.
pub const MAX_MARKER_BYTES: usize = 64 * 1024;

/// What an archive is: stands beside its data as `home.tar.zst.meta`, written last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveMarker {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// SHA-256 of the compressed object, 64 lower-case hex digits.
    pub sha256: String,
    /// Size of the compressed object in bytes.
    pub size: u64,
    /// Bytes of the tar stream before compression.
    pub tar_size: u64,
    /// Bytes that the restored home takes on disk (allocated blocks, holes not counted).
    pub disk_size: u64,
    /// Entries in the archive, the root directory included.
    pub entry_count: u64,
    /// Sockets, which an archive cannot hold.
    #[serde(default)]
    pub skipped_sockets: u64,
    /// Files that changed while they were read; only ever above 0 in a crash-consistent archive.
    #[serde(default)]
    pub changed_files: u64,
    /// Inventory fingerprint of the volume as packed, 64 hex digits (see [`crate::inventory`]).
    pub fingerprint: String,
    /// The volume that was packed; none for an archive made empty.
    #[serde(default)]
    pub volume_id: Option<Uuid>,
    /// Whose home.
    pub workspace_id: Uuid,
    /// The operation that made it.
    pub archive_op_id: Uuid,
    /// What the caller knows of the workspace (name, owner, image, ...), so that rows can be rebuilt
    /// from the bucket alone.
    #[serde(default)]
    pub workspace: BTreeMap<String, String>,
    /// When packing began.
    pub started_at: DateTime<Utc>,
    /// When the data was stored and verified.
    pub finished_at: DateTime<Utc>,
    /// Version of the writer, for people.
    pub windlass_version: String,
    /// Taken while the workspace was running: the state after a crash, not after a clean stop.
    #[serde(default)]
    pub crash_consistent: bool,
    /// Made empty, not from a volume.
    #[serde(default)]
    pub empty: bool,
}

/// A completed restore: its key already carries the op_id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreMarker {
    /// The restore's operation, also the new volume's id.
    pub op_id: Uuid,
    /// The data key it was restored from.
    pub archive_key: String,
    /// When everything was synced.
    pub finished_at: DateTime<Utc>,
}

impl ArchiveMarker {
    /// Reads a marker. Fails with `Corrupted` for damage and `Invalid` for another format version.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArchiveError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        // The version first: another version's fields may differ in any way.
        let version: Version = parse_json(bytes, "archive marker")?;
        if version.format_version != FORMAT_VERSION {
            return Err(ArchiveError::Invalid(format!(
                "archive marker has format version {}, this Windlass reads {FORMAT_VERSION}",
                version.format_version
            )));
        }
        let marker: Self = parse_json(bytes, "archive marker")?;
        for (name, value) in [
            ("sha256", &marker.sha256),
            ("fingerprint", &marker.fingerprint),
        ] {
            let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            if value.len() != 64 || !value.bytes().all(lower_hex) {
                return Err(ArchiveError::corrupted(format!(
                    "archive marker: {name} is not 64 lower-case hex digits"
                )));
            }
        }
        if marker.size == 0 || marker.entry_count == 0 {
            return Err(ArchiveError::corrupted(
                "archive marker: size and entry_count must not be 0",
            ));
        }
        Ok(marker)
    }

    /// The bytes to store. Fails with `Invalid` where the caller's `workspace` map is too large.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ArchiveError> {
        to_json(self, "archive marker")
    }
}

impl RestoreMarker {
    /// Reads a restore marker. Fails with `Corrupted` for damage.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArchiveError> {
        parse_json(bytes, "restore marker")
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ArchiveError> {
        to_json(self, "restore marker")
    }
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ArchiveError> {
    if bytes.len() > MAX_MARKER_BYTES {
        return Err(ArchiveError::corrupted(format!(
            "{what} is larger than {MAX_MARKER_BYTES} bytes"
        )));
    }
    serde_json::from_slice(bytes).map_err(|e| ArchiveError::corrupted(format!("{what}: {e}")))
}

fn to_json<T: Serialize>(value: &T, what: &str) -> Result<Vec<u8>, ArchiveError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| ArchiveError::Invalid(format!("{what}: {e}")))?;
    if bytes.len() > MAX_MARKER_BYTES {
        return Err(ArchiveError::Invalid(format!(
            "{what} would be {} bytes, more than {MAX_MARKER_BYTES}",
            bytes.len()
        )));
    }
    Ok(bytes)
}
