//! Opening: volume roots, entries without following links, directories beneath a root.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::error::ArchiveError;

/// Resolution that cannot leave `dirfd`, whatever the name or the tree says.
pub(crate) const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

const DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a volume's root directory, the one path that the caller names and is trusted for.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd, ArchiveError> {
    openat(CWD, path, DIR, Mode::empty()).map_err(|errno| ArchiveError::Io {
        action: "open volume root",
        path: path.display().to_string(),
        errno,
    })
}

/// A second, independent description of an open directory (its own read offset).
pub(crate) fn reopen_dir(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    quiet_open(dir, c".", DIR)
}

/// Opens the directory `name` in `dir` for reading.
pub(crate) fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    quiet_open(dir, name, DIR)
}

/// Opens the regular file `name` in `dir` for reading; never blocks on a fifo put in its place.
pub(crate) fn open_file(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    quiet_open(dir, name, flags)
}

/// Without touching atime where permitted (it is not permitted for files of others without privilege).
fn quiet_open(dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    match openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(dir, name, flags, Mode::empty()),
        other => other,
    }
}

/// Opens a directory below `root` by a path of any length, confined, in pieces that the kernel takes.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    const PIECE: usize = 3800; // below PATH_MAX (4096) with a name of 255 bytes to spare
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat2(root, c".", flags, Mode::empty(), CONFINED)?;
    let mut rest = path;
    while !rest.is_empty() {
        let cut = if rest.len() <= PIECE {
            rest.len()
        } else {
            match rest[..PIECE].iter().rposition(|b| *b == b'/') {
                Some(slash) if slash > 0 => slash,
                _ => return Err(Errno::NAMETOOLONG),
            }
        };
        at = openat2(at.as_fd(), &rest[..cut], flags, Mode::empty(), CONFINED)?;
        rest = rest.get(cut + 1..).unwrap_or_default();
    }
    Ok(at)
}

/// The path through which calls without an `at` variant reach `name` in `dir`: the last component is
/// not followed by `l...` calls, and the magic link before it leads exactly to the open directory.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: Option<&CStr>) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", dir.as_raw_fd()).into_bytes();
    if let Some(name) = name {
        path.push(b'/');
        path.extend_from_slice(name.to_bytes());
    }
    path
}

/// Type bits of a `st_mode`.
pub(crate) fn file_type(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}
