//! An archive can be restored by hand with GNU tar, and what it gives is what the crate gives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self as stdfs, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::process::{Command, Stdio};

use common::{assert_same, list, pack, require_root};
use rustix::fs::{
    AtFlags, CWD, Gid, Timespec, Timestamps, Uid, XattrFlags, chown, lsetxattr, utimensat,
};
use tempfile::TempDir;

#[test]
fn gnu_tar_extracts_the_same() {
    require_root();
    let (source, target) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let at = |name: &str| source.path().join(name);
    stdfs::write(at("file"), b"content").unwrap();
    stdfs::hard_link(at("file"), at("link")).unwrap();
    symlink("s".repeat(300), at("symlink")).unwrap();
    stdfs::create_dir_all(at(&"long/".repeat(40))).unwrap();
    stdfs::write(at(&"long/".repeat(40)).join("x"), b"x").unwrap();
    let odd = source
        .path()
        .join(std::ffi::OsStr::from_bytes(b"\xff\n-odd"));
    stdfs::write(odd, b"odd").unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.write_all_at(b"middle", 1 << 30).unwrap();
    sparse.set_len(2 << 30).unwrap();
    File::create(at("hole")).unwrap().set_len(1 << 30).unwrap();
    lsetxattr(
        at("file"),
        "user.a=b",
        b"\x00\xffvalue",
        XattrFlags::empty(),
    )
    .unwrap();
    let (uid, gid) = (Uid::from_raw(4_000_000_000), Gid::from_raw(3_000_000));
    chown(at("sparse"), Some(uid), Some(gid)).unwrap();
    let time = Timespec {
        tv_sec: -2,
        tv_nsec: 500_000_000,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, at("hole"), &times, AtFlags::empty()).unwrap();

    let (bytes, _) = pack(source.path()).unwrap();
    let tar = zstd::decode_all(&bytes[..]).unwrap();
    let mut child = Command::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "-xpf",
            "-",
            "-C",
        ])
        .arg(target.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&tar).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    // It remarks on times before 1970, and sets them all the same.
    let complaints: String = complaints
        .lines()
        .filter(|line| !line.contains("implausibly old time stamp"))
        .collect();
    assert!(
        output.status.success() && complaints.is_empty(),
        "{complaints}"
    );
    assert_same(&list(source.path()).tree, &list(target.path()).tree);
    assert!(list(target.path()).allocated < 1 << 20);
}
