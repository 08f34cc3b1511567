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
use tokio_util::sync::CancellationToken;

use crate::error::ArchiveError;
use crate::fs::open::open_root;
use crate::fs::scan;
use crate::fs::walk::{Entry, Visitor, WalkOptions, walk};
use crate::fs::xattr::Xattr;
use crate::progress::Progress;
use crate::tar::Header;

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

/// Adds up file sizes for a progress display while packing is under way: `progress.total_bytes` grows
/// until the scan is through, and is 0 again if it gives up.
pub(crate) fn scan_bytes(
    root: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(), ArchiveError> {
    let mut total = 0;
    let is_all = scan::scan(open_root(root)?.as_fd(), cancel, &mut |bytes| {
        progress.add_total(bytes);
        total += bytes;
    })?;
    if !is_all {
        progress.take_total(total);
    }
    Ok(())
}

/// The fingerprint of a volume that holds nothing but a root as `header` describes it.
pub(crate) fn fingerprint_of_root(header: &Header) -> String {
    let mut hasher = InventoryHasher::default();
    hasher.add_record(&Record {
        path: &header.path,
        mode: FileType::Directory.as_raw_mode() | header.mode,
        uid: header.uid,
        gid: header.gid,
        size: 0,
        mtime: header.mtime,
        target: &[],
        device: 0,
        link: 0,
        xattrs: &header.xattrs,
    });
    hasher.finish().fingerprint
}

/// What the fingerprint covers of one entry.
struct Record<'a> {
    path: &'a [u8],
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: (i64, u32),
    target: &'a [u8],
    device: u64,
    /// Ordinal of the first entry of the same inode; 0, which is the root's, for none.
    link: u64,
    xattrs: &'a [Xattr],
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
    /// Of a volume that is in use: such an inventory is of no one moment, and never equals that of a volume
    /// at rest, however alike they are.
    pub(crate) fn live() -> Self {
        let mut hasher = Self::default();
        hasher.digest.update(b"live\0");
        hasher
    }

    pub(crate) fn add(&mut self, entry: &Entry<'_>) {
        let device = matches!(
            entry.kind,
            FileType::CharacterDevice | FileType::BlockDevice
        );
        self.add_record(&Record {
            path: entry.path,
            mode: entry.stat.st_mode,
            uid: entry.stat.st_uid,
            gid: entry.stat.st_gid,
            size: entry.file_size(),
            mtime: entry.mtime(),
            target: &entry.target,
            device: if device { entry.stat.st_rdev } else { 0 },
            link: entry.link.map_or(0, |link| link.ordinal),
            xattrs: &entry.xattrs,
        });
        if entry.link.is_none() {
            self.bytes += entry.file_size();
        }
    }

    fn add_record(&mut self, entry: &Record<'_>) {
        self.entries += 1;
        let record = &mut self.record;
        record.clear();
        put_bytes(record, entry.path);
        record.extend_from_slice(&entry.mode.to_le_bytes());
        record.extend_from_slice(&entry.uid.to_le_bytes());
        record.extend_from_slice(&entry.gid.to_le_bytes());
        put(record, entry.size);
        record.extend_from_slice(&entry.mtime.0.to_le_bytes());
        record.extend_from_slice(&entry.mtime.1.to_le_bytes());
        put_bytes(record, entry.target);
        put(record, entry.device);
        put(record, entry.link);
        put(record, entry.xattrs.len() as u64);
        for (name, value) in entry.xattrs {
            put_bytes(record, name);
            put_bytes(record, value);
        }
        self.digest.update(&record);
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
