//! The names in one directory, read at once and sorted by their bytes.
//!
//! Kept in one arena, so that a directory of a million files costs tens of megabytes, not hundreds.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

/// Sorted names (without "." and "..") and their types as far as the directory knows them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    arena: Vec<u8>,
    index: Vec<(usize, FileType)>,
}

impl Names {
    /// Reads the directory from its current offset, which must be the start.
    pub(crate) fn read(dir: BorrowedFd<'_>) -> Result<Self, Errno> {
        Ok(Self::read_some(dir, usize::MAX)?.unwrap_or_default())
    }

    /// The same, but `None` where there are more than `most`.
    pub(crate) fn read_some(dir: BorrowedFd<'_>, most: usize) -> Result<Option<Self>, Errno> {
        let mut names = Self::default();
        let mut buffer = Vec::with_capacity(32 * 1024);
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if names.index.len() == most {
                return Ok(None);
            }
            names.index.push((names.arena.len(), entry.file_type()));
            names.arena.extend_from_slice(name.to_bytes_with_nul());
        }
        let arena = &names.arena;
        names
            .index
            .sort_unstable_by(|a, b| name_at(arena, a.0).cmp(name_at(arena, b.0)));
        Ok(Some(names))
    }

    pub(crate) fn get(&self, position: usize) -> Option<(&CStr, FileType)> {
        let (offset, kind) = *self.index.get(position)?;
        Some((name_at(&self.arena, offset), kind))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

fn name_at(arena: &[u8], offset: usize) -> &CStr {
    // Every indexed offset begins a NUL-terminated name, by construction in `read`.
    CStr::from_bytes_until_nul(&arena[offset..]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::fs::open::open_root;

    #[test]
    fn more_than_asked_for_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let read = |most| Names::read_some(open_root(dir.path()).unwrap().as_fd(), most).unwrap();
        assert!(read(2).is_none());
        assert_eq!(read(3).unwrap().get(2).unwrap().0, c"c");
    }
}
