//! Emptying a volume before a restore, and after a failed one.
//!
//! Only what is below the root goes; the root itself stays (it is the volume's mountpoint) and loses
//! its extended attributes, so that nothing new inherits an old default ACL.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, statat, unlinkat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::names::Names;
use super::open::{file_type, open_dir, reopen_dir};
use super::stack::DirStack;
use super::xattr;
use crate::error::ArchiveError;

/// Removes everything below `root`. `cancel` is looked at between entries.
pub(crate) fn clean(root: BorrowedFd<'_>, cancel: &CancellationToken) -> Result<(), ArchiveError> {
    let io = |errno| ArchiveError::io("open", b"", errno);
    let mut dirs = DirStack::new(reopen_dir(root).map_err(io)?).map_err(io)?;
    let mut frames = vec![(list(dirs.top())?, 0_usize)];
    while let Some((names, next)) = frames.last_mut() {
        if cancel.is_cancelled() {
            return Err(ArchiveError::Cancelled);
        }
        if let Some((name, kind)) = names.get(*next) {
            *next += 1;
            let failed = |errno| ArchiveError::io("remove", name.to_bytes(), errno);
            let kind = match kind {
                FileType::Unknown => {
                    let stat = statat(dirs.top(), name, AtFlags::SYMLINK_NOFOLLOW);
                    file_type(stat.map_err(failed)?.st_mode)
                }
                known => known,
            };
            if kind == FileType::Directory {
                let dir = open_dir(dirs.top(), name).map_err(failed)?;
                dirs.push(dir).map_err(failed)?;
                let names = list(dirs.top())?;
                frames.push((names, 0));
            } else {
                unlinkat(dirs.top(), name, AtFlags::empty()).map_err(failed)?;
            }
            continue;
        }
        frames.pop();
        if let Some((names, next)) = frames.last() {
            dirs.pop().map_err(io)?;
            // The frame below stands one past the directory just emptied.
            if let Some((name, _)) = next.checked_sub(1).and_then(|at| names.get(at)) {
                unlinkat(dirs.top(), name, AtFlags::REMOVEDIR)
                    .map_err(|e| ArchiveError::io("remove", name.to_bytes(), e))?;
            }
        }
    }
    match xattr::remove_all(root) {
        Ok(()) | Err(Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(ArchiveError::io("remove attributes of", b"", errno)),
    }
}

/// Whether the volume holds nothing at all.
pub(crate) fn is_empty(root: BorrowedFd<'_>) -> Result<bool, ArchiveError> {
    Ok(list(root)?.is_empty())
}

fn list(dir: BorrowedFd<'_>) -> Result<Names, ArchiveError> {
    let read = reopen_dir(dir).and_then(|fd| Names::read(fd.as_fd()));
    read.map_err(|e| ArchiveError::io("read directory", b"", e))
}
