//! Homes: what is written into them, and a picture of everything in them to compare by.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// Everything that must be the same after archive and restore: of each path its type, mode, owner, size,
/// mtime in nanoseconds, and the digest of its content or the target of its link.
pub type Picture = BTreeMap<PathBuf, String>;

/// Takes a picture of a home, its root included.
pub fn picture(root: &Path) -> Picture {
    let mut seen = Picture::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).expect("a readable home");
        let content = if meta.is_symlink() {
            format!("-> {}", fs::read_link(&path).expect("a link").display())
        } else if meta.is_file() {
            hex::encode(Sha256::digest(fs::read(&path).expect("a readable file")))
        } else {
            if meta.is_dir() {
                let entries = fs::read_dir(&path).expect("a readable folder");
                todo.extend(entries.map(|e| e.expect("an entry").path()));
            }
            String::new()
        };
        // The size of a folder is the file system's own affair.
        let size = if meta.is_dir() { 0 } else { meta.size() };
        let relative = path.strip_prefix(root).expect("below the root").to_owned();
        let line = format!(
            "{:o} {}:{} {size} {}.{:09} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        seen.insert(relative, line);
    }
    seen
}

/// Fills a home with files of all sizes and kinds. `seed` makes two homes differ.
pub fn fill(root: &Path, seed: u8) {
    fs::write(root.join("hello.txt"), format!("hello {seed}\n")).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    let big: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
        .collect();
    fs::write(root.join("big.bin"), big).unwrap();
    let deep = root.join("src/deep/er");
    fs::create_dir_all(&deep).unwrap();
    for i in 0..200 {
        fs::write(
            deep.join(format!("file-{i}")),
            format!("{seed}-{i}").repeat(i),
        )
        .unwrap();
    }
    fs::create_dir(root.join("nothing here")).unwrap();
    symlink("src/deep", root.join("link")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    fs::hard_link(root.join("hello.txt"), root.join("src/hello-again")).unwrap();
    fs::write(root.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(root.join("agent.sock"), "named like a socket").unwrap();
}

/// Adds `megabytes` of bytes that do not compress, so that moving the home takes a while.
pub fn ballast(root: &Path, megabytes: usize) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut block = vec![0u8; 1 << 20];
    let mut file = fs::File::create(root.join("ballast")).unwrap();
    for _ in 0..megabytes {
        for chunk in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        std::io::Write::write_all(&mut file, &block).unwrap();
    }
}
