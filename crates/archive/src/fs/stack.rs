//! The chain of open directories from the root to where a walk stands, with bounded descriptors.
//!
//! Trees may be thousands of levels deep. Only the last [`WINDOW`] levels stay open; an older one is
//! reached again through ".." from its child and accepted only if device and inode are those seen on
//! the way down, so that a tree moved meanwhile is an error and never a way out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;

/// Levels kept open above the current one.
const WINDOW: usize = 64;

type Id = (u64, u64);

#[derive(Debug)]
pub(crate) struct DirStack {
    top: OwnedFd,
    top_id: Id,
    below: Vec<(Option<OwnedFd>, Id)>,
}

impl DirStack {
    pub(crate) fn new(root: OwnedFd) -> Result<Self, Errno> {
        let top_id = id(root.as_fd())?;
        Ok(Self {
            top: root,
            top_id,
            below: Vec::new(),
        })
    }

    /// The current directory, always open.
    pub(crate) fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// Descends into `dir`, a child of the current directory.
    pub(crate) fn push(&mut self, dir: OwnedFd) -> Result<(), Errno> {
        let dir_id = id(dir.as_fd())?;
        let parent = std::mem::replace(&mut self.top, dir);
        self.below.push((Some(parent), self.top_id));
        self.top_id = dir_id;
        if let Some(old) = self.below.len().checked_sub(WINDOW + 1) {
            self.below[old].0 = None;
        }
        Ok(())
    }

    /// Ascends; false at the root. ESTALE where the parent is no longer the directory it was.
    pub(crate) fn pop(&mut self) -> Result<bool, Errno> {
        let Some((open, parent_id)) = self.below.pop() else {
            return Ok(false);
        };
        let parent = match open {
            Some(fd) => fd,
            None => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd = openat(self.top.as_fd(), c"..", flags, Mode::empty())?;
                if id(fd.as_fd())? != parent_id {
                    return Err(Errno::STALE);
                }
                fd
            }
        };
        self.top = parent;
        self.top_id = parent_id;
        Ok(true)
    }
}

fn id(fd: BorrowedFd<'_>) -> Result<Id, Errno> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}
