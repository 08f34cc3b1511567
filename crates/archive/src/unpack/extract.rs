//! Creates entries from a tar stream, strictly below one directory.
//!
//! An entry is created in its parent's open directory under a single new name: the parent must be the
//! directory the walk stands in or an ancestor of it, which is what the packer writes; names are taken
//! exclusively, so nothing that exists is opened, followed or replaced. A directory gets its owner,
//! attributes, mode and time when it is left, after everything in it.

use std::ffi::{CStr, CString};
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, chmod, chownat, fstat, ftruncate, linkat, makedev, mkdirat,
    mknodat, openat, openat2, statat, symlinkat, utimensat,
};
use rustix::io::{Errno, pwrite};
use tokio_util::sync::CancellationToken;

use super::failure::{failed, no_target, not_made, refused};
use super::metadata::{attributes, metadata, mode, owner, permissions, times};
use super::stream::too_much;
use crate::error::{ArchiveError, display_path};
use crate::fs::open::{CONFINED, file_type, open_beneath, proc_path, reopen_dir};
use crate::fs::stack::DirStack;
use crate::fs::xattr::{Target, Xattr};
use crate::progress::Progress;
use crate::tar::sparse::{Extent, read_map};
use crate::tar::{EntryKind, Header, TarReader};

/// Most bytes of ACLs kept for the directories that stand open: 4,000 pairs of the largest that ext4
/// takes. Everything else about an open directory has a fixed size, so that nesting costs no memory.
const MAX_KEPT: usize = 32 << 20;
/// The attributes that must wait until a directory is left: what is created in it would inherit the
/// default ACL, and the access ACL may forbid to create anything.
const ACL: &[u8] = b"system.posix_acl_";

/// What a directory gets when it is left. One for each level: no more than that is kept.
struct OpenDir {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    acls: Vec<Xattr>,
    path_len: usize,
}

pub(super) struct Extractor<'a, R> {
    tar: TarReader<R>,
    root: OwnedFd,
    dirs: DirStack,
    /// One per level of `dirs`; the root's is first.
    open: Vec<OpenDir>,
    /// Path of the current directory.
    path: Vec<u8>,
    /// Bytes of attributes in `open`.
    kept: usize,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl<'a, R: BufRead> Extractor<'a, R> {
    pub(super) fn new(
        stream: R,
        root: BorrowedFd<'_>,
        progress: &'a Progress,
        cancel: &'a CancellationToken,
    ) -> Result<Self, ArchiveError> {
        let io = |errno| ArchiveError::io("open", b"", errno);
        Ok(Self {
            tar: TarReader::new(stream),
            root: reopen_dir(root).map_err(io)?,
            dirs: DirStack::new(reopen_dir(root).map_err(io)?).map_err(io)?,
            open: Vec::new(),
            path: Vec::new(),
            kept: 0,
            progress,
            cancel,
        })
    }

    /// Extracts everything to the stream's proper end, at most `limit` entries; returns their number.
    pub(super) fn run(mut self, limit: u64) -> Result<u64, ArchiveError> {
        let mut entries = 0;
        while let Some(header) = self.tar.next_entry()? {
            if self.cancel.is_cancelled() {
                return Err(ArchiveError::Cancelled);
            }
            if entries == limit {
                return Err(too_much("entries", limit));
            }
            self.entry(header)?;
            self.progress.add_entry();
            entries += 1;
        }
        if entries == 0 {
            return Err(ArchiveError::corrupted("tar: no entries"));
        }
        while !self.open.is_empty() {
            self.leave()?;
        }
        Ok(entries)
    }

    fn entry(&mut self, header: Header) -> Result<(), ArchiveError> {
        if header.path.is_empty() || self.open.is_empty() {
            // The root comes first and only once.
            if !header.path.is_empty() || !self.open.is_empty() {
                return Err(ArchiveError::corrupted("tar: root directory out of place"));
            }
            return self.enter(header);
        }
        let (parent, name) = match header.path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&header.path[..slash], &header.path[slash + 1..]),
            None => (&[][..], &header.path[..]),
        };
        while self.path.len() > parent.len() {
            self.leave()?;
        }
        if self.path != parent {
            return Err(ArchiveError::corrupted(format!(
                "tar: {} does not follow its directory",
                display_path(&header.path)
            )));
        }
        let name =
            CString::new(name).map_err(|_| ArchiveError::corrupted("tar: a name contains NUL"))?;
        match header.kind {
            EntryKind::Directory => self.directory(header, &name),
            EntryKind::File => self.file(&header, &name),
            EntryKind::HardLink => self.hard_link(&header, &name),
            EntryKind::Symlink => self.symlink(&header, &name),
            EntryKind::Fifo => self.special(&header, &name, FileType::Fifo),
            EntryKind::CharDevice => self.special(&header, &name, FileType::CharacterDevice),
            EntryKind::BlockDevice => self.special(&header, &name, FileType::BlockDevice),
        }
    }

    fn directory(&mut self, header: Header, name: &CStr) -> Result<(), ArchiveError> {
        let mode = Mode::RWXU | permissions(&header);
        mkdirat(self.dirs.top(), name, mode).map_err(|e| not_made("create", &header, e))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat2(self.dirs.top(), name, flags, Mode::empty(), CONFINED)
            .map_err(|e| failed("open", &header, e))?;
        self.dirs
            .push(dir)
            .map_err(|e| failed("open", &header, e))?;
        self.enter(header)
    }

    /// Makes the directory on top of the stack the current one.
    fn enter(&mut self, mut header: Header) -> Result<(), ArchiveError> {
        let all = std::mem::take(&mut header.xattrs);
        let (acls, now): (Vec<_>, _) = all.into_iter().partition(|(name, _)| name.starts_with(ACL));
        header.xattrs = now;
        attributes(Target::Fd(self.dirs.top()), &header)?;
        self.kept += size_of(&acls);
        if self.kept > MAX_KEPT {
            return Err(ArchiveError::corrupted(
                "tar: the ACLs of nested directories are too large",
            ));
        }
        self.path = header.path;
        self.open.push(OpenDir {
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            mtime: header.mtime,
            acls,
            path_len: self.path.len(),
        });
        Ok(())
    }

    /// Gives the current directory its metadata and goes up.
    fn leave(&mut self) -> Result<(), ArchiveError> {
        let Some(dir) = self.open.pop() else {
            return Ok(());
        };
        self.kept -= size_of(&dir.acls);
        let header = Header {
            mode: dir.mode,
            uid: dir.uid,
            gid: dir.gid,
            mtime: dir.mtime,
            xattrs: dir.acls,
            ..Header::new(std::mem::take(&mut self.path), EntryKind::Directory)
        };
        metadata(self.dirs.top(), &header)?;
        self.dirs.pop().map_err(|e| failed("leave", &header, e))?;
        self.path = header.path;
        self.path
            .truncate(self.open.last().map_or(0, |dir| dir.path_len));
        Ok(())
    }

    fn file(&mut self, header: &Header, name: &CStr) -> Result<(), ArchiveError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A single name, and EXCL: what is opened was made by this very call, on no other mount.
        let file = openat(self.dirs.top(), name, flags, permissions(header))
            .map_err(|e| not_made("create", header, e))?;
        match header.sparse_size {
            None => {
                let all = Extent {
                    offset: 0,
                    length: header.size,
                };
                self.copy(header, &file, all)?;
            }
            Some(size) => {
                let extents = read_map(&mut self.tar, header.size, size)?;
                for extent in extents {
                    self.copy(header, &file, extent)?;
                }
                ftruncate(&file, size).map_err(|e| failed("set size of", header, e))?;
            }
        }
        metadata(file.as_fd(), header)
    }

    fn copy(&mut self, header: &Header, file: &OwnedFd, to: Extent) -> Result<(), ArchiveError> {
        let (mut at, end) = (to.offset, to.offset + to.length);
        while at < end {
            if self.cancel.is_cancelled() {
                return Err(ArchiveError::Cancelled);
            }
            let arrived = self.tar.arrived()?;
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
            let data = &arrived[..arrived.len().min(wanted)];
            if data.is_empty() {
                return Err(ArchiveError::corrupted("tar: an entry's data is too short"));
            }
            match pwrite(file, data, at) {
                Ok(0) => return Err(failed("write", header, Errno::IO)),
                Ok(written) => {
                    self.tar.consume(written);
                    at += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed("write", header, e)),
            }
        }
        Ok(())
    }

    fn hard_link(&mut self, header: &Header, name: &CStr) -> Result<(), ArchiveError> {
        let (parent, target) = match header.link.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&header.link[..slash], &header.link[slash + 1..]),
            None => (&[][..], &header.link[..]),
        };
        let parent = open_beneath(self.root.as_fd(), parent).map_err(|e| no_target(header, e))?;
        let to =
            statat(&parent, target, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| no_target(header, e))?;
        if file_type(to.st_mode) == FileType::Directory {
            return Err(refused("link", header, Errno::ISDIR));
        }
        linkat(parent, target, self.dirs.top(), name, AtFlags::empty())
            .map_err(|e| not_made("link", header, e))
    }

    fn symlink(&mut self, header: &Header, name: &CStr) -> Result<(), ArchiveError> {
        if header.link.is_empty() || header.link.contains(&0) {
            return Err(ArchiveError::corrupted("tar: impossible symlink target"));
        }
        symlinkat(&header.link[..], self.dirs.top(), name)
            .map_err(|e| not_made("create", header, e))?;
        self.unopened_metadata(header, name)?;
        self.set_time(header, name)
    }

    fn special(
        &mut self,
        header: &Header,
        name: &CStr,
        kind: FileType,
    ) -> Result<(), ArchiveError> {
        let device = makedev(header.device.0, header.device.1);
        mknodat(self.dirs.top(), name, kind, Mode::RUSR | Mode::WUSR, device)
            .map_err(|e| not_made("create", header, e))?;
        self.unopened_metadata(header, name)?;
        // Opened as a path only, checked, and changed through that: never through a link put there.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let change = openat(self.dirs.top(), name, flags, Mode::empty()).and_then(|entry| {
            if file_type(fstat(&entry)?.st_mode) != kind {
                return Err(Errno::STALE);
            }
            chmod(&proc_path(entry.as_fd(), None)[..], mode(header))
        });
        change.map_err(|e| failed("set mode of", header, e))?;
        self.set_time(header, name)
    }

    /// Owner and attributes of what cannot be opened.
    fn unopened_metadata(&self, header: &Header, name: &CStr) -> Result<(), ArchiveError> {
        let dir = self.dirs.top();
        let (uid, gid) = owner(header);
        chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed("set owner of", header, e))?;
        attributes(Target::Entry(dir, name), header)
    }

    fn set_time(&self, header: &Header, name: &CStr) -> Result<(), ArchiveError> {
        utimensat(
            self.dirs.top(),
            name,
            &times(header),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|e| failed("set time of", header, e))
    }
}

fn size_of(attributes: &[Xattr]) -> usize {
    attributes.iter().map(|(_, value)| value.len()).sum()
}
