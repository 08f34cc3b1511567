//! Whose fault it is that the kernel refuses something.
//!
//! Names, links and sizes that cannot be are the archive's: such a restore is not worth repeating. Whatever
//! else is refused is the volume's.

use rustix::io::Errno;

use crate::error::{ArchiveError, display_path};
use crate::tar::Header;

pub(super) fn not_made(action: &'static str, header: &Header, errno: Errno) -> ArchiveError {
    match errno {
        Errno::EXIST | Errno::NAMETOOLONG => refused(action, header, errno),
        errno => failed(action, header, errno),
    }
}

pub(super) fn no_target(header: &Header, errno: Errno) -> ArchiveError {
    let action = "find the link target of";
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG => {
            refused(action, header, errno)
        }
        errno => failed(action, header, errno),
    }
}

pub(super) fn refused(action: &str, header: &Header, errno: Errno) -> ArchiveError {
    ArchiveError::corrupted(format!(
        "tar: {action} {}: {}",
        display_path(&header.path),
        std::io::Error::from(errno)
    ))
}

pub(super) fn failed(action: &'static str, header: &Header, errno: Errno) -> ArchiveError {
    match errno {
        // No file is so large.
        Errno::FBIG => refused(action, header, errno),
        errno => ArchiveError::io(action, &header.path, errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ArchiveErrorKind::{Corrupted, Io, NoSpace};
    use crate::tar::EntryKind;

    #[test]
    fn only_impossible_names_are_the_archives_fault() {
        let header = Header::new(b"x".to_vec(), EntryKind::File);
        for (errno, making, linking, else_) in [
            (Errno::EXIST, Corrupted, Io, Io),
            (Errno::NAMETOOLONG, Corrupted, Corrupted, Io),
            (Errno::NOENT, Io, Corrupted, Io),
            (Errno::LOOP, Io, Corrupted, Io),
            (Errno::INVAL, Io, Io, Io),
            (Errno::FBIG, Corrupted, Corrupted, Corrupted),
            (Errno::NOSPC, NoSpace, NoSpace, NoSpace),
        ] {
            let kinds = [
                not_made("create", &header, errno).kind(),
                no_target(&header, errno).kind(),
                failed("set owner of", &header, errno).kind(),
            ];
            assert_eq!(kinds, [making, linking, else_], "{errno}");
        }
    }
}
