//! What an entry has beside its name and data, as the kernel takes it.

use std::os::fd::BorrowedFd;

use rustix::fs::{
    Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, fchmod, fchown, fstat, futimens,
};

use super::failure::failed;
use crate::error::{ArchiveError, display_path};
use crate::fs::xattr::{self, Target};
use crate::tar::Header;

/// Owner, attributes, mode, time, in this order: a new owner clears setuid bits and file capabilities.
/// What it was made with is not set again: that costs more than to look.
pub(super) fn metadata(fd: BorrowedFd<'_>, header: &Header) -> Result<(), ArchiveError> {
    let made = fstat(fd).map_err(|e| failed("stat", header, e))?;
    if (made.st_uid, made.st_gid) != (header.uid, header.gid) {
        let (uid, gid) = owner(header);
        fchown(fd, uid, gid).map_err(|e| failed("set owner of", header, e))?;
    }
    attributes(Target::Fd(fd), header)?;
    // An ACL among the attributes changes it, as a new owner does special bits.
    let special = header.mode & 0o7000 != 0;
    if special || !header.xattrs.is_empty() || made.st_mode & 0o7777 != header.mode {
        fchmod(fd, mode(header)).map_err(|e| failed("set mode of", header, e))?;
    }
    futimens(fd, &times(header)).map_err(|e| failed("set time of", header, e))
}

pub(super) fn attributes(target: Target<'_>, header: &Header) -> Result<(), ArchiveError> {
    for (name, value) in &header.xattrs {
        xattr::set(target, name, value).map_err(|errno| ArchiveError::Io {
            action: "set attribute of",
            path: format!("{} ({})", display_path(&header.path), name.escape_ascii()),
            errno,
        })?;
    }
    Ok(())
}

pub(super) fn owner(header: &Header) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(header.uid)),
        Some(Gid::from_raw(header.gid)),
    )
}

pub(super) fn mode(header: &Header) -> Mode {
    Mode::from_raw_mode(header.mode & 0o7777)
}

/// What something is made with: never setuid or setgid before it has its owner.
pub(super) fn permissions(header: &Header) -> Mode {
    Mode::from_raw_mode(header.mode & 0o777)
}

pub(super) fn times(header: &Header) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: header.mtime.0,
            tv_nsec: header.mtime.1.into(),
        },
    }
}
