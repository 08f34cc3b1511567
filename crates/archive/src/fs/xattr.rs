//! Extended attributes, POSIX ACLs among them (as raw `system.posix_acl_*` values).
//!
//! Left out are the three that belong to a host's policy and not to a home: SELinux labels and the
//! IMA/EVM signatures. Everything else is kept, and failing to set one fails the restore.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use rustix::buffer::spare_capacity;
use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr, lsetxattr,
};
use rustix::io::Errno;

use super::open::proc_path;

/// Name (without NUL) and value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// The kernel's limit for both a value and the list of names.
const MAX: usize = 64 * 1024;
const HOST_POLICY: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];

/// Where attributes are read from or written to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    /// An open file or directory.
    Fd(BorrowedFd<'a>),
    /// An entry that cannot be opened (symlink, fifo, device), by its directory.
    Entry(BorrowedFd<'a>, &'a CStr),
}

/// All attributes, sorted by name.
pub(crate) fn read(target: Target<'_>) -> Result<Vec<Xattr>, Errno> {
    let path = target.path();
    let list = growing(256, |buffer| match target {
        Target::Fd(fd) => flistxattr(fd, spare_capacity(buffer)),
        Target::Entry(..) => llistxattr(&path[..], spare_capacity(buffer)),
    });
    let list = match list {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut attributes = Vec::new();
    for name in list.split(|b| *b == 0) {
        if name.is_empty() || HOST_POLICY.contains(&name) {
            continue;
        }
        let value = growing(1024, |buffer| match target {
            Target::Fd(fd) => fgetxattr(fd, name, spare_capacity(buffer)),
            Target::Entry(..) => lgetxattr(&path[..], name, spare_capacity(buffer)),
        });
        match value {
            Ok(value) => attributes.push((name.to_vec(), value)),
            Err(Errno::NODATA) => {} // removed since it was listed
            Err(errno) => return Err(errno),
        }
    }
    attributes.sort_unstable();
    Ok(attributes)
}

/// Sets one attribute.
pub(crate) fn set(target: Target<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match target {
        Target::Fd(fd) => fsetxattr(fd, name.as_c_str(), value, XattrFlags::empty()),
        Target::Entry(..) => lsetxattr(
            &target.path()[..],
            name.as_c_str(),
            value,
            XattrFlags::empty(),
        ),
    }
}

/// Removes every attribute that [`read`] returns.
pub(crate) fn remove_all(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    for (name, _) in read(Target::Fd(fd))? {
        fremovexattr(fd, &name[..])?;
    }
    Ok(())
}

impl Target<'_> {
    fn path(self) -> Vec<u8> {
        match self {
            Self::Fd(_) => Vec::new(),
            Self::Entry(dir, name) => proc_path(dir, Some(name)),
        }
    }
}

/// Calls with a growing buffer until the answer fits.
fn growing(
    first: usize,
    mut call: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    let mut capacity = first;
    loop {
        let mut buffer = Vec::with_capacity(capacity);
        match call(&mut buffer) {
            Err(Errno::RANGE) if capacity < MAX => capacity = MAX,
            Err(errno) => return Err(errno),
            Ok(_) => return Ok(buffer),
        }
    }
}
