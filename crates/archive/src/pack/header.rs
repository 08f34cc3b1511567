//! What the archive says of a file beside its data.

use rustix::fs::{FileType, major, minor};

use crate::error::ArchiveError;
use crate::fs::walk::Entry;
use crate::tar::{EntryKind, Header};

/// The header of an entry, without what its data says: size and holes.
pub(super) fn header(entry: &Entry<'_>) -> Result<Header, ArchiveError> {
    let kind = match (entry.link.is_some(), entry.kind) {
        (true, _) => EntryKind::HardLink,
        (false, FileType::RegularFile) => EntryKind::File,
        (false, FileType::Directory) => EntryKind::Directory,
        (false, FileType::Symlink) => EntryKind::Symlink,
        (false, FileType::Fifo) => EntryKind::Fifo,
        (false, FileType::CharacterDevice) => EntryKind::CharDevice,
        (false, FileType::BlockDevice) => EntryKind::BlockDevice,
        // The walk passes neither on.
        (false, FileType::Socket | FileType::Unknown) => {
            return Err(ArchiveError::Internal(
                "a socket or unknown file reached the packer".into(),
            ));
        }
    };
    let mut header = Header::new(entry.path.to_vec(), kind);
    header.mode = entry.stat.st_mode & 0o7777;
    header.uid = entry.stat.st_uid;
    header.gid = entry.stat.st_gid;
    header.mtime = entry.mtime();
    match entry.link {
        Some(link) => {
            header.link = link.path.to_vec();
            // The first name carries the nanoseconds; here they would only cost a PAX header.
            header.mtime.1 = 0;
            header.mtime.0 = header.mtime.0.max(0);
        }
        None => {
            header.link = entry.target.clone();
            header.xattrs = entry.xattrs.clone();
        }
    }
    if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
        header.device = (major(entry.stat.st_rdev), minor(entry.stat.st_rdev));
    }
    Ok(header)
}
