//! The one walk over a volume that packing and the inventory share.
//!
//! Depth first, each directory before its contents, names sorted by bytes: the same volume gives the
//! same order, so a fingerprint taken while packing can be compared with one taken later. Hard links
//! are recognised by device and inode; sockets are counted and skipped, having no content to keep.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;

use super::names::Names;
use super::open::{file_type, open_dir, open_file, reopen_dir};
use super::stack::DirStack;
use super::xattr::{self, Target, Xattr};
use crate::error::ArchiveError;
use crate::tar::MAX_PATH;

/// One thing in the volume.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// Relative to the root, empty for the root itself.
    pub(crate) path: &'a [u8],
    pub(crate) kind: FileType,
    pub(crate) stat: Stat,
    /// Empty for a hard link: its first name has them.
    pub(crate) xattrs: Vec<Xattr>,
    /// Target of a symlink.
    pub(crate) target: Vec<u8>,
    /// The open file, for regular files.
    pub(crate) file: Option<BorrowedFd<'a>>,
    /// Set where an earlier entry is the same inode.
    pub(crate) link: Option<Link<'a>>,
}

/// The earlier entry that a hard link repeats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link<'a> {
    pub(crate) path: &'a [u8],
    /// Position of that entry in the walk.
    pub(crate) ordinal: u64,
}

impl Entry<'_> {
    pub(crate) fn mtime(&self) -> (i64, u32) {
        mtime(&self.stat)
    }

    /// Size of a regular file, 0 for anything else.
    pub(crate) fn file_size(&self) -> u64 {
        match self.kind {
            FileType::RegularFile => u64::try_from(self.stat.st_size).unwrap_or(0),
            _ => 0,
        }
    }
}

#[allow(clippy::unnecessary_cast)] // field types differ between architectures
pub(crate) fn mtime(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime as i64, stat.st_mtime_nsec as u32)
}

/// Receives every entry in order.
pub(crate) trait Visitor {
    fn visit(&mut self, entry: &Entry<'_>) -> Result<(), ArchiveError>;
}

/// What a walk saw besides the entries.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct WalkReport {
    pub(crate) sockets: u64,
    /// Entries that vanished between listing and opening (live walks only).
    pub(crate) vanished: u64,
}

/// How to walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalkOptions {
    /// The volume is in use: entries may vanish and directories change. Otherwise that is an error.
    pub(crate) live: bool,
}

struct Frame {
    names: Names,
    next: usize,
    path_len: usize,
    mtime: (i64, u32),
    /// The directory's path as groups share it, once one began here.
    shared: Option<Arc<[u8]>>,
}

/// Names of one inode of which some are still to come. There may be as many as files, and their paths as
/// long as they like: those of one directory share its path.
struct Group {
    parent: Arc<[u8]>,
    name: Box<[u8]>,
    ordinal: u64,
    left: u64,
}

struct Walk<'v> {
    dirs: DirStack,
    frames: Vec<Frame>,
    path: Vec<u8>,
    groups: HashMap<(u64, u64), Group>,
    ordinal: u64,
    report: WalkReport,
    options: WalkOptions,
    visitor: &'v mut dyn Visitor,
}

/// Walks everything below and including `root`.
pub(crate) fn walk(
    root: BorrowedFd<'_>,
    options: WalkOptions,
    visitor: &mut dyn Visitor,
) -> Result<WalkReport, ArchiveError> {
    let io = |errno| ArchiveError::io("open", b"", errno);
    let mut walk = Walk {
        dirs: DirStack::new(reopen_dir(root).map_err(io)?).map_err(io)?,
        frames: Vec::new(),
        path: Vec::new(),
        groups: HashMap::new(),
        ordinal: 0,
        report: WalkReport::default(),
        options,
        visitor,
    };
    walk.directory().map_err(|failed| match failed {
        Failed::Gone => ArchiveError::changed(b"", "the volume root was removed"),
        Failed::Other(error) => error,
    })?;
    while let Some(frame) = walk.frames.last_mut() {
        walk.path.truncate(frame.path_len);
        let Some((name, kind)) = frame.names.get(frame.next) else {
            walk.leave()?;
            continue;
        };
        let name = name.to_owned();
        frame.next += 1;
        if !walk.path.is_empty() {
            walk.path.push(b'/');
        }
        walk.path.extend_from_slice(name.to_bytes());
        if walk.path.len() > MAX_PATH {
            return Err(ArchiveError::Invalid(format!(
                "a path in the volume is longer than {MAX_PATH} bytes: {}",
                crate::error::display_path(&walk.path)
            )));
        }
        match walk.step(&name, kind) {
            Ok(()) => {}
            Err(Failed::Gone) if walk.options.live => walk.report.vanished += 1,
            Err(Failed::Gone) => {
                return Err(ArchiveError::changed(&walk.path, "removed or replaced"));
            }
            Err(Failed::Other(error)) => return Err(error),
        }
    }
    Ok(walk.report)
}

enum Failed {
    /// No longer what the directory said it was.
    Gone,
    Other(ArchiveError),
}

impl From<ArchiveError> for Failed {
    fn from(error: ArchiveError) -> Self {
        Self::Other(error)
    }
}

impl Walk<'_> {
    fn step(&mut self, name: &CStr, kind: FileType) -> Result<(), Failed> {
        let kind = match kind {
            FileType::Unknown => file_type(self.lstat(name)?.st_mode),
            known => known,
        };
        match kind {
            FileType::Directory => {
                let dir = open_dir(self.dirs.top(), name).map_err(|e| self.failed("open", e))?;
                self.dirs.push(dir).map_err(|e| self.failed("open", e))?;
                if let Err(failed) = self.directory() {
                    // No frame was made for it.
                    self.dirs.pop().map_err(|e| self.failed("leave", e))?;
                    return Err(failed);
                }
            }
            FileType::RegularFile => {
                let file = open_file(self.dirs.top(), name).map_err(|e| self.failed("open", e))?;
                let stat = fstat(&file).map_err(|e| self.failed("stat", e))?;
                if file_type(stat.st_mode) != FileType::RegularFile {
                    return Err(Failed::Gone);
                }
                let xattrs = self.attributes(&stat, Target::Fd(file.as_fd()))?;
                self.emit(stat, xattrs, Some(&file), Vec::new())?;
            }
            FileType::Socket => self.report.sockets += 1,
            FileType::Symlink
            | FileType::Fifo
            | FileType::CharacterDevice
            | FileType::BlockDevice => {
                let stat = self.lstat(name)?;
                if file_type(stat.st_mode) != kind {
                    return Err(Failed::Gone);
                }
                let target = match kind {
                    FileType::Symlink => readlinkat(self.dirs.top(), name, Vec::new())
                        .map_err(|e| self.failed("read link", e))?
                        .into_bytes(),
                    _ => Vec::new(),
                };
                let xattrs = self.attributes(&stat, Target::Entry(self.dirs.top(), name))?;
                self.emit(stat, xattrs, None, target)?;
            }
            FileType::Unknown => {
                return Err(ArchiveError::Invalid(format!(
                    "{}: unknown type of file",
                    crate::error::display_path(&self.path)
                ))
                .into());
            }
        }
        Ok(())
    }

    /// Emits the directory on top of the stack and lists it.
    fn directory(&mut self) -> Result<(), Failed> {
        let dir = self.dirs.top();
        let stat = fstat(dir).map_err(|e| self.failed("stat", e))?;
        let xattrs = self.attributes(&stat, Target::Fd(dir))?;
        self.emit(stat, xattrs, None, Vec::new())?;
        let names = Names::read(self.dirs.top()).map_err(|e| self.failed("read directory", e))?;
        self.frames.push(Frame {
            names,
            next: 0,
            path_len: self.path.len(),
            mtime: mtime(&stat),
            shared: None,
        });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), ArchiveError> {
        let Some(frame) = self.frames.pop() else {
            return Ok(());
        };
        if !self.options.live {
            let now =
                fstat(self.dirs.top()).map_err(|e| ArchiveError::io("stat", &self.path, e))?;
            if mtime(&now) != frame.mtime {
                return Err(ArchiveError::changed(&self.path, "entries came or went"));
            }
        }
        self.dirs
            .pop()
            .map_err(|e| ArchiveError::io("open parent of", &self.path, e))?;
        Ok(())
    }

    /// Attributes of an inode that was not seen before; a hard link's first name has them.
    fn attributes(&self, stat: &Stat, target: Target<'_>) -> Result<Vec<Xattr>, Failed> {
        if self.groups.contains_key(&inode(stat)) {
            return Ok(Vec::new());
        }
        xattr::read(target).map_err(|e| self.failed("read attributes of", e))
    }

    fn emit(
        &mut self,
        stat: Stat,
        xattrs: Vec<Xattr>,
        file: Option<&OwnedFd>,
        target: Vec<u8>,
    ) -> Result<(), ArchiveError> {
        let kind = file_type(stat.st_mode);
        let ordinal = self.ordinal;
        self.ordinal += 1;
        let (key, links) = (inode(&stat), stat.st_nlink);
        let linked = kind != FileType::Directory && links > 1;
        let group = if linked {
            self.groups.remove(&key)
        } else {
            None
        };
        let first = group.as_ref().map(|group| join(&group.parent, &group.name));
        self.visitor.visit(&Entry {
            path: &self.path,
            kind,
            stat,
            xattrs,
            target,
            file: file.map(AsFd::as_fd),
            link: group
                .as_ref()
                .zip(first.as_ref())
                .map(|(group, path)| Link {
                    path,
                    ordinal: group.ordinal,
                }),
        })?;
        if linked {
            // Forgotten once every name has been seen, so that memory follows open groups only.
            let group = match group {
                Some(mut group) => {
                    group.left = group.left.saturating_sub(1);
                    group
                }
                None => self.group(ordinal, links.saturating_sub(1)),
            };
            if group.left > 0 {
                self.groups.insert(key, group);
            }
        }
        Ok(())
    }

    /// A group that begins with the current entry, which is no directory.
    fn group(&mut self, ordinal: u64, left: u64) -> Group {
        let path = &self.path[..];
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        let parent = match self.frames.last_mut() {
            Some(frame) => frame.shared.get_or_insert_with(|| parent.into()).clone(),
            None => parent.into(),
        };
        Group {
            parent,
            name: name.into(),
            ordinal,
            left,
        }
    }

    fn lstat(&self, name: &CStr) -> Result<Stat, Failed> {
        statat(self.dirs.top(), name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.failed("stat", e))
    }

    fn failed(&self, action: &'static str, errno: Errno) -> Failed {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => Failed::Gone,
            errno => Failed::Other(ArchiveError::io(action, &self.path, errno)),
        }
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent {
        [] => name.to_vec(),
        parent => [parent, b"/", name].concat(),
    }
}

fn inode(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
