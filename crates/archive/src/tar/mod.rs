//! The archive's inner format: POSIX tar with PAX records, written and read by hand.
//!
//! Written archives are ordinary: GNU tar restores one by hand (`zstd -d | tar --xattrs
//! --xattrs-include='*' --numeric-owner -x`). The `tar` crate does not serve here: names and values
//! may be any bytes, sparse files must stay sparse, and what is read needs limits everywhere.
//!
//! The reader accepts what the writer writes and nothing looser: plain, link, directory, fifo and
//! device entries, PAX records before them, GNU sparse format 1.0, two zero blocks at the end. Anything
//! else is `Corrupted`. It never panics and never allocates by a length it was told.

pub(crate) mod block;
pub(crate) mod pax;
mod reader;
pub(crate) mod sparse;
mod writer;

pub use reader::TarReader;
pub use writer::TarWriter;

/// Longest path in bytes, relative to the root; Linux knows no limit, memory does.
pub const MAX_PATH: usize = 1024 * 1024;
/// Most bytes of PAX records (path, link target, attributes) in front of one entry.
pub const MAX_PAX: u64 = 16 * 1024 * 1024;
/// Most data ranges of a sparse file that are kept apart; what follows is stored as data.
pub const MAX_EXTENTS: usize = 256 * 1024;
pub(crate) const BLOCK: usize = 512;

/// Type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file, possibly sparse.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A fifo.
    Fifo,
}

/// Everything about an entry except its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Relative to the root, without leading or trailing slash; empty for the root directory.
    pub path: Vec<u8>,
    /// Type.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky (0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds (any sign) and nanoseconds (0 to 999,999,999, counted forward).
    pub mtime: (i64, u32),
    /// Bytes of data that follow, a sparse file's map included.
    pub size: u64,
    /// For a sparse file, its apparent size.
    pub sparse_size: Option<u64>,
    /// Target of a symlink (any bytes), or the earlier entry's path for a hard link.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes by name, raw values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Header {
    /// A header of this kind with nothing else set.
    pub fn new(path: Vec<u8>, kind: EntryKind) -> Self {
        Self {
            path,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            sparse_size: None,
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }
}
