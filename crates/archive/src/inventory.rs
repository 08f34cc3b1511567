//! The inventory fingerprint: one digest over everything a volume is, except the bytes in its files.
//!
//! Taken while packing and again right before a volume is deleted; equal means that nothing was
//! created, removed, written or re-attributed in between. It covers relative path, type, mode, uid,
//! gid, size, mtime (nanoseconds), symlink target, device number, which names are hard links of each
//! other, and extended attributes. It leaves out what archiving itself or the file system changes:
//! atime, ctime, inode numbers, a directory's size, sockets. A restored volume has the fingerprint of
//! the one that was archived.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::FileType;
use sha2::{Digest, Sha256};

use crate::error::ArchiveError;
use crate::fs::open::open_root;
use crate::fs::walk::{Entry, Visitor, WalkOptions, walk};

/// A volume's inventory in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// 64 hex digits.
    pub fingerprint: String,
    /// Entries, the root included, sockets not.
    pub entries: u64,
    /// Sum of the regular files' sizes in bytes, hard links once.
    pub bytes: u64,
}

/// Takes the fingerprint of the directory `root`. Blocking: call it from `spawn_blocking`.
///
/// Fails with `Changed` if entries come or go meanwhile, with `Io` where something cannot be read.
pub fn fingerprint(root: &Path) -> Result<Inventory, ArchiveError> {
    let root = open_root(root)?;
    let mut hasher = InventoryHasher::default();
    walk(root.as_fd(), WalkOptions { live: false }, &mut hasher)?;
    Ok(hasher.finish())
}

/// Builds the fingerprint entry by entry, in the walk's order.
#[derive(Debug)]
pub(crate) struct InventoryHasher {
    digest: Sha256,
    record: Vec<u8>,
    entries: u64,
    bytes: u64,
}

impl Default for InventoryHasher {
    fn default() -> Self {
        let mut digest = Sha256::new();
        digest.update(b"windlass inventory 1\0");
        Self {
            digest,
            record: Vec::new(),
            entries: 0,
            bytes: 0,
        }
    }
}

impl InventoryHasher {
    pub(crate) fn add(&mut self, entry: &Entry<'_>) {
        self.entries += 1;
        let record = &mut self.record;
        record.clear();
        put_bytes(record, entry.path);
        record.extend_from_slice(&entry.stat.st_mode.to_le_bytes());
        record.extend_from_slice(&entry.stat.st_uid.to_le_bytes());
        record.extend_from_slice(&entry.stat.st_gid.to_le_bytes());
        put(record, entry.file_size());
        let (seconds, nanoseconds) = entry.mtime();
        record.extend_from_slice(&seconds.to_le_bytes());
        record.extend_from_slice(&nanoseconds.to_le_bytes());
        put_bytes(record, &entry.target);
        let device = matches!(
            entry.kind,
            FileType::CharacterDevice | FileType::BlockDevice
        );
        put(record, if device { entry.stat.st_rdev } else { 0 });
        // Ordinals begin at 0, which is the root and never a link's first name.
        put(record, entry.link.map_or(0, |link| link.ordinal));
        put(record, entry.xattrs.len() as u64);
        for (name, value) in &entry.xattrs {
            put_bytes(record, name);
            put_bytes(record, value);
        }
        self.digest.update(&record);
        if entry.link.is_none() {
            self.bytes += entry.file_size();
        }
    }

    pub(crate) fn finish(self) -> Inventory {
        Inventory {
            fingerprint: hex::encode(self.digest.finalize()),
            entries: self.entries,
            bytes: self.bytes,
        }
    }
}

impl Visitor for InventoryHasher {
    fn visit(&mut self, entry: &Entry<'_>) -> Result<(), ArchiveError> {
        self.add(entry);
        Ok(())
    }
}

fn put(record: &mut Vec<u8>, value: u64) {
    record.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(record: &mut Vec<u8>, bytes: &[u8]) {
    put(record, bytes.len() as u64);
    record.extend_from_slice(bytes);
}
