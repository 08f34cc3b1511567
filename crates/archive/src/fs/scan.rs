//! A light pass that only adds up file sizes, for the total in a progress display.
//!
//! What vanishes meanwhile is left out: nothing but a display depends on the sum. It gives up at the first
//! directory with very many names, which packing keeps in memory at the same time.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::names::Names;
use super::open::{file_type, open_dir, reopen_dir};
use super::stack::DirStack;
use crate::error::ArchiveError;

/// Hard links beyond this many inodes are counted once per name.
const MAX_LINKS: usize = 100_000;
const MAX_NAMES: usize = 100_000;

/// Calls `found` with the bytes that packing will read from each file (holes not counted). `false`: it gave up.
pub(crate) fn scan(
    root: BorrowedFd<'_>,
    cancel: &CancellationToken,
    found: &mut dyn FnMut(u64),
) -> Result<bool, ArchiveError> {
    let io = |errno| ArchiveError::io("scan", b"", errno);
    let mut dirs = DirStack::new(reopen_dir(root).map_err(io)?).map_err(io)?;
    let list = |dir: BorrowedFd<'_>| -> Result<Option<Names>, Errno> {
        Names::read_some(reopen_dir(dir)?.as_fd(), MAX_NAMES)
    };
    let Some(names) = list(dirs.top()).map_err(io)? else {
        return Ok(false);
    };
    let mut frames = vec![(names, 0_usize)];
    let mut seen = HashSet::new();
    while let Some((names, next)) = frames.last_mut() {
        if cancel.is_cancelled() {
            return Err(ArchiveError::Cancelled);
        }
        let Some((name, kind)) = names.get(*next) else {
            frames.pop();
            dirs.pop().map_err(io)?;
            continue;
        };
        *next += 1;
        if !matches!(
            kind,
            FileType::Directory | FileType::RegularFile | FileType::Unknown
        ) {
            continue;
        }
        let Ok(stat) = statat(dirs.top(), name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        match file_type(stat.st_mode) {
            FileType::Directory => {
                let Ok(dir) = open_dir(dirs.top(), name) else {
                    continue;
                };
                dirs.push(dir).map_err(io)?;
                let Some(names) = list(dirs.top()).unwrap_or(Some(Names::default())) else {
                    return Ok(false);
                };
                frames.push((names, 0));
            }
            FileType::RegularFile => {
                let again = stat.st_nlink > 1
                    && seen.len() < MAX_LINKS
                    && !seen.insert((stat.st_dev, stat.st_ino));
                if !again {
                    let size = u64::try_from(stat.st_size).unwrap_or(0);
                    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
                    found(size.min(allocated.max(4096)));
                }
            }
            _ => {}
        }
    }
    Ok(true)
}
