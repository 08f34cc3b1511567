//! An independent walker: lists everything about a tree by its own code, so that the crate's walk is
//! not checked against itself. Also used by the tests of `integration/`.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, SeekFrom};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub kind: FileType,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: (i64, u64),
    pub rdev: u64,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Digest of the data ranges.
    pub content: Option<String>,
    pub links: u64,
    /// Path of the first name of the same inode.
    pub same_as: Vec<u8>,
}

pub type Tree = BTreeMap<Vec<u8>, Item>;

/// Allocated bytes of the whole tree.
pub struct Listing {
    pub tree: Tree,
    pub allocated: u64,
}

pub fn list(root: &Path) -> Listing {
    let fd = fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut lister = Lister {
        tree: Tree::new(),
        inodes: BTreeMap::new(),
        allocated: 0,
    };
    let stat = fs::fstat(&fd).unwrap();
    lister.item(b"", fd.as_fd(), c".", stat, FileType::Directory);
    lister.children(&fd, b"");
    Listing {
        tree: lister.tree,
        allocated: lister.allocated,
    }
}

struct Lister {
    tree: Tree,
    inodes: BTreeMap<(u64, u64), Vec<u8>>,
    allocated: u64,
}

impl Lister {
    fn children(&mut self, dir: &impl AsFd, path: &[u8]) {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).unwrap() {
            let name = entry.unwrap().file_name().to_owned();
            if name.as_c_str() != c"." && name.as_c_str() != c".." {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let stat = fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            let kind = FileType::from_raw_mode(stat.st_mode);
            let mut full = path.to_vec();
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(name.to_bytes());
            self.item(&full, dir.as_fd(), &name, stat, kind);
            if kind == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let child = fs::openat(dir, &name, flags, Mode::empty()).unwrap();
                self.children(&child, &full);
            }
        }
    }

    fn item(
        &mut self,
        path: &[u8],
        dir: BorrowedFd<'_>,
        name: &CStr,
        stat: fs::Stat,
        kind: FileType,
    ) {
        let first = self
            .inodes
            .entry((stat.st_dev, stat.st_ino))
            .or_insert_with(|| path.to_vec())
            .clone();
        if first == path {
            self.allocated += stat.st_blocks as u64 * 512;
        }
        let target = match kind {
            FileType::Symlink => fs::readlinkat(dir, name, Vec::new()).unwrap().into_bytes(),
            _ => Vec::new(),
        };
        let item = Item {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: match kind {
                FileType::Directory => 0,
                _ => stat.st_size as u64,
            },
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            rdev: match kind {
                FileType::CharacterDevice | FileType::BlockDevice => stat.st_rdev,
                _ => 0,
            },
            target,
            xattrs: xattrs(dir, name),
            content: (kind == FileType::RegularFile).then(|| content(dir, name)),
            links: match kind {
                FileType::Directory => 0,
                _ => stat.st_nlink,
            },
            same_as: first,
        };
        self.tree.insert(path.to_vec(), item);
    }
}

fn xattrs(dir: BorrowedFd<'_>, name: &CStr) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let mut names = Vec::with_capacity(65536);
    fs::llistxattr(&path[..], spare_capacity(&mut names)).unwrap();
    names
        .split(|b| *b == 0)
        .filter(|n| !n.is_empty())
        .map(|n| {
            let mut value = Vec::with_capacity(65536);
            fs::lgetxattr(&path[..], n, spare_capacity(&mut value)).unwrap();
            (n.to_vec(), value)
        })
        .collect()
}

fn content(dir: BorrowedFd<'_>, name: &CStr) -> String {
    let file = fs::openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty()).unwrap();
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut at = 0;
    // Only data that is not zero counts, with its place: a hole equals zeros, wherever it ends.
    while let Ok(start) = fs::seek(&file, SeekFrom::Data(at)) {
        let end = fs::seek(&file, SeekFrom::Hole(start)).unwrap();
        at = start;
        while at < end {
            let want = buffer.len().min((end - at) as usize);
            let read = rustix::io::pread(&file, &mut buffer[..want], at).unwrap();
            for (i, byte) in buffer[..read].iter().enumerate() {
                if *byte != 0 {
                    digest.update((at + i as u64).to_le_bytes());
                    digest.update([*byte]);
                }
            }
            at += read as u64;
        }
    }
    hex::encode(digest.finalize())
}
/// Fails with the first difference instead of two dumps.
pub fn assert_same(before: &Tree, after: &Tree) {
    for (path, item) in before {
        let shown = windlass_archive::error::display_path(path);
        match after.get(path) {
            None => panic!("{shown} is missing"),
            Some(other) => assert_eq!(item, other, "{shown} differs"),
        }
    }
    for path in after.keys() {
        let shown = windlass_archive::error::display_path(path);
        assert!(before.contains_key(path), "{shown} was added");
    }
}

pub fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes devices, owners and trusted attributes: run it as root"
    );
}
