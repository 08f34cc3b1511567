//! A home that has everything, packed and unpacked, compared by an independent walker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs as stdfs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use common::everything::{chmod, chown, home_with_everything, set_time, set_xattr};
use common::{Listing, assert_same, list, pack, require_root, unpack};
use rustix::fs::FileType;
use tempfile::TempDir;
use windlass_archive::inventory::fingerprint;

#[test]
fn everything_comes_back_as_it_was() {
    require_root();
    let (source, target) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let root = source.path();
    home_with_everything(root);
    let _socket = UnixListener::bind(root.join("real.sock")).unwrap();
    set_time(root, -12_345, 678);
    let Listing {
        mut tree,
        allocated,
    } = list(root);
    assert_eq!(
        tree.remove(&b"real.sock"[..]).unwrap().kind,
        FileType::Socket
    );

    let begun = Instant::now();
    let (bytes, summary) = pack(root).unwrap();
    assert_eq!(summary.skipped_sockets, 1);
    assert_eq!(summary.changed_files, 0);
    assert_eq!(summary.entry_count, tree.len() as u64);
    assert!(bytes.len() < 8 << 20, "holes were packed: {}", bytes.len());
    assert!(summary.disk_size >= allocated && summary.disk_size < allocated + (4 << 20));
    let inventory = fingerprint(root).unwrap();
    assert_eq!(inventory.fingerprint, summary.fingerprint);

    let unpacked = unpack(&bytes, target.path()).unwrap();
    assert_eq!(unpacked.entries, summary.entry_count);
    // A hole costs no time: reading 30 GiB of them would take much longer than everything else here.
    assert!(begun.elapsed().as_secs() < 60);

    let restored = list(target.path());
    assert_same(&tree, &restored.tree);
    assert!(
        restored.allocated <= allocated + (1 << 20),
        "holes were filled"
    );
    let inventory = fingerprint(target.path()).unwrap();
    assert_eq!(inventory.fingerprint, summary.fingerprint);

    // And once more from the copy: byte for byte the same content.
    let (_, again) = pack(target.path()).unwrap();
    assert_eq!(again.tar_size, summary.tar_size);
}

#[test]
fn packing_leaves_no_trace_on_the_volume() {
    require_root();
    let source = TempDir::new().unwrap();
    home_with_everything(source.path());
    let before = list(source.path()).tree;
    let first = fingerprint(source.path()).unwrap();
    pack(source.path()).unwrap();
    assert_eq!(fingerprint(source.path()).unwrap(), first);
    assert_same(&before, &list(source.path()).tree);
}

#[test]
fn a_hundred_thousand_small_files() {
    require_root();
    let (source, target) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for i in 0..100 {
        let dir = source.path().join(format!("{i}"));
        stdfs::create_dir(&dir).unwrap();
        for j in 0..1000 {
            stdfs::write(dir.join(format!("{j}")), format!("{i}/{j}")).unwrap();
        }
    }
    let (bytes, summary) = pack(source.path()).unwrap();
    assert_eq!(summary.entry_count, 100_101);
    unpack(&bytes, target.path()).unwrap();
    assert_same(&list(source.path()).tree, &list(target.path()).tree);
}

#[test]
fn every_kind_of_change_changes_the_fingerprint() {
    require_root();
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    stdfs::write(root.join("a"), b"12345").unwrap();
    stdfs::write(root.join("b"), b"12345").unwrap();
    symlink("x", root.join("s")).unwrap();
    let fixed = || {
        for name in ["a", "b", "s", "."] {
            set_time(&root.join(name), 1000, 1);
        }
    };
    fixed();
    let base = fingerprint(root).unwrap().fingerprint;
    let mut seen = vec![base.clone()];
    let mut differs = |what: &str| {
        let now = fingerprint(root).unwrap().fingerprint;
        assert!(!seen.contains(&now), "{what}");
        seen.push(now);
    };
    set_time(&root.join("a"), 1000, 2);
    differs("nanoseconds");
    stdfs::write(root.join("a"), b"123456").unwrap();
    fixed();
    differs("size");
    chmod(&root.join("a"), 0o600);
    differs("mode");
    chown(&root.join("a"), 5, 0);
    differs("owner");
    chown(&root.join("a"), 0, 5);
    differs("group");
    set_xattr(&root.join("a"), "user.x", b"1");
    differs("attribute");
    set_xattr(&root.join("a"), "user.x", b"2");
    differs("attribute's value");
    stdfs::remove_file(root.join("s")).unwrap();
    symlink("y", root.join("s")).unwrap();
    fixed();
    differs("symlink target");
    stdfs::rename(root.join("b"), root.join("c")).unwrap();
    set_time(root, 1000, 1);
    differs("name");
    stdfs::hard_link(root.join("a"), root.join("l")).unwrap();
    set_time(root, 1000, 1);
    differs("hard link");
    let _socket = UnixListener::bind(root.join("sock")).unwrap();
    set_time(root, 1000, 1);
    assert_eq!(Some(&fingerprint(root).unwrap().fingerprint), seen.last());
}
