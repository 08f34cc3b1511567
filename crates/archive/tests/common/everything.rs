//! A home that has everything a home can have. Also used by the tests of `integration/`.
#![allow(dead_code)]

use std::fs::{self as stdfs, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{
    self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};

pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    fs::lsetxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|e| panic!("{name} on {}: {e}", path.display()));
}

pub fn chown(path: &Path, uid: u32, gid: u32) {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn chmod(path: &Path, mode: u32) {
    stdfs::set_permissions(path, stdfs::Permissions::from_mode(mode)).unwrap();
}

/// A raw ACL: version 2, then (tag, permissions, id) each.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

fn some_acl() -> Vec<u8> {
    const NONE: u32 = u32::MAX;
    acl(&[
        (0x01, 7, NONE),
        (0x02, 5, 12345),
        (0x04, 5, NONE),
        (0x08, 6, 54321),
        (0x10, 7, NONE),
        (0x20, 0, NONE),
    ])
}

/// Nested directories far beyond what a path may hold, each with a file.
fn nest(root: &Path, name: &[u8], levels: usize) {
    let mut dir: OwnedFd = File::open(root).unwrap().into();
    for level in 0..levels {
        fs::mkdirat(&dir, name, Mode::from_raw_mode(0o750)).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        dir = fs::openat(&dir, name, flags, Mode::empty()).unwrap();
        if level % 7 == 0 {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            let file = fs::openat(&dir, c"file", flags, Mode::from_raw_mode(0o600)).unwrap();
            File::from(file)
                .write_all(format!("{level}").as_bytes())
                .unwrap();
        }
    }
    // A hard link whose target's path is too long for one call, and a symlink down there.
    fs::symlinkat(c"/etc/../nowhere", dir.as_fd(), c"deep link").unwrap();
    let flags = OFlags::CREATE | OFlags::WRONLY;
    drop(fs::openat(&dir, c"a", flags, Mode::from_raw_mode(0o644)).unwrap());
    fs::linkat(&dir, c"a", &dir, c"b", AtFlags::empty()).unwrap();
}

/// Fills `root`, and sets the root's own attributes last.
pub fn home_with_everything(root: &Path) {
    let at = |name: &str| root.join(name);
    let bytes = |name: &[u8]| root.join(std::ffi::OsStr::from_bytes(name));
    let write = |name: &str, data: &[u8]| stdfs::write(at(name), data).unwrap();

    write("empty", b"");
    write("one", b"1");
    write("block", &[7; 512]);
    write("block+1", &[8; 513]);
    let noise: Vec<u8> = (0..3_000_001_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    write("noise", &noise);

    // Names.
    stdfs::write(bytes(&[b'n'; 255]), b"255").unwrap();
    stdfs::write(bytes(b"\xff\xfe not utf-8 \x80"), b"x").unwrap();
    stdfs::write(bytes(b"new\nline\ttab\r\x01\x7f"), b"x").unwrap();
    for name in [
        " ",
        "-rf",
        "*",
        "a'b\"c",
        "app.sock",
        ".wh.x",
        ".wh..wh..opq",
        "./@PaxHeader".trim_start_matches("./"),
        "\u{d55c}\u{ae00} \u{1f40e}",
        "trailing.",
        "back\\slash",
        "%3D=%25",
    ] {
        write(name, name.as_bytes());
    }
    stdfs::create_dir(bytes(&[b'd'; 255])).unwrap();
    stdfs::write(bytes(&[b'd'; 255]).join("x"), b"x").unwrap();
    for length in 95..=105 {
        write(&"p".repeat(length), b"around the header's 100 bytes");
        stdfs::create_dir(at(&"q".repeat(length))).unwrap();
        symlink("t".repeat(length), at(&format!("s{length}"))).unwrap();
    }

    // Deep: 30 x 200 bytes, and 600 levels.
    stdfs::create_dir(at("deep")).unwrap();
    nest(&at("deep"), &[b'L'; 200], 30);
    stdfs::create_dir(at("deeper")).unwrap();
    nest(&at("deeper"), b"d", 600);

    // Owners, modes, times.
    for (i, id) in [
        0,
        1,
        65_534,
        2_097_151,
        2_097_152,
        4_000_000_000,
        u32::MAX - 1,
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("owner{i}");
        write(&name, b"");
        chown(&at(&name), id, id);
    }
    for mode in [0o000, 0o4755, 0o2755, 0o1755, 0o7777, 0o111, 0o4000, 0o200] {
        let (file, dir) = (format!("mode{mode:o}"), format!("dirmode{mode:o}"));
        write(&file, b"x");
        chown(&at(&file), 1000, 1001);
        chmod(&at(&file), mode);
        stdfs::create_dir(at(&dir)).unwrap();
        stdfs::write(at(&dir).join("inside"), b"x").unwrap();
        chown(&at(&dir), 1000, 1001);
        chmod(&at(&dir), mode);
    }
    // ext4 with 256-byte inodes keeps 1901 to 2446.
    for (i, (seconds, nanoseconds)) in [
        (0, 0),
        (0, 1),
        (1, 999_999_999),
        (-1, 0),
        (-1, 1),
        (-1, 999_999_999),
        (-2, 500_000_000),
        (-1_000_000_000, 123_456_789),
        (4_294_967_296, 7),
        (10_000_000_000, 0),
        (1_700_000_000, 100),
    ]
    .into_iter()
    .enumerate()
    {
        let (file, dir, link) = (format!("t{i}"), format!("td{i}"), format!("tl{i}"));
        write(&file, b"x");
        stdfs::create_dir(at(&dir)).unwrap();
        stdfs::write(at(&dir).join("inside"), b"x").unwrap();
        symlink("x", at(&link)).unwrap();
        for name in [file, dir, link] {
            set_time(&at(&name), seconds, nanoseconds);
        }
    }

    // Links.
    for (name, target) in [
        ("absolute", "/etc/passwd"),
        ("dangling", "nowhere"),
        ("loop", "loop"),
        ("escaping", "../../../.."),
        ("self", "."),
        ("to-dir", "deep"),
        ("empty-ish", " "),
    ] {
        symlink(target, at(name)).unwrap();
        chown(&at(name), 77, 78);
    }
    symlink("m".repeat(4095), at("long-target")).unwrap();
    symlink(std::ffi::OsStr::from_bytes(b"\xff\n\xfe"), at("odd-target")).unwrap();
    stdfs::create_dir_all(at("links/zz/y")).unwrap();
    write("links/first", b"linked");
    set_xattr(&at("links/first"), "user.on.link", b"once");
    stdfs::hard_link(at("links/first"), at("links/zz/y/second")).unwrap();
    stdfs::hard_link(at("links/first"), at("zzz third")).unwrap();
    stdfs::hard_link(at("dangling"), at("zzz hard link to symlink")).unwrap();

    // Special files.
    let make = |name: &str, kind, device| {
        fs::mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    make("fifo", FileType::Fifo, 0);
    make("null", FileType::CharacterDevice, fs::makedev(1, 3));
    make("disk", FileType::BlockDevice, fs::makedev(259, 1_048_575));
    chmod(&at("fifo"), 0o7666);
    chown(&at("null"), 4_000_000_000, 3);
    set_time(&at("disk"), -5, 5);
    stdfs::hard_link(at("fifo"), at("zzz fifo")).unwrap();

    // Attributes.
    write("xattrs", b"x");
    set_xattr(&at("xattrs"), "user.empty", b"");
    set_xattr(
        &at("xattrs"),
        "user.binary",
        &(0..=255).collect::<Vec<u8>>(),
    );
    set_xattr(&at("xattrs"), "user.a=b%c", b"name with equals");
    set_xattr(&at("xattrs"), "user.large", &[b'v'; 3000]);
    set_xattr(&at("xattrs"), "trusted.windlass", b"t");
    let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
    capability.extend_from_slice(&0x400_u32.to_le_bytes());
    capability.extend_from_slice(&[0; 12]);
    write("ping", b"x");
    chown(&at("ping"), 1000, 1000);
    chmod(&at("ping"), 0o6755);
    set_xattr(&at("ping"), "security.capability", &capability);
    set_xattr(&at("odd-target"), "trusted.on.symlink", b"1");
    set_xattr(&at("fifo"), "trusted.on.fifo", b"1");
    write("acl", b"x");
    set_xattr(&at("acl"), "system.posix_acl_access", &some_acl());
    stdfs::create_dir(at("acl-dir")).unwrap();
    set_xattr(&at("acl-dir"), "system.posix_acl_access", &some_acl());
    set_xattr(&at("acl-dir"), "system.posix_acl_default", &some_acl());
    stdfs::create_dir(at("acl-dir/child")).unwrap();
    write("acl-dir/file", b"x");
    let clean = |path: &Path| fs::removexattr(path, "system.posix_acl_access").unwrap();
    clean(&at("acl-dir/file")); // so that inheriting again would show

    // Sparse.
    let sparse = File::create(at("hole")).unwrap();
    sparse.set_len(10 << 30).unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(&[9; 70_000], 5 << 30).unwrap();
    sparse.set_len(10 << 30).unwrap();
    let sparse = File::create(at("sparse-end")).unwrap();
    sparse.write_all_at(b"end", (9 << 30) - 3).unwrap();
    let sparse = File::create(at("many-extents")).unwrap();
    for i in 0..2000 {
        sparse.write_all_at(b"x", i * 16_384).unwrap();
    }
    chmod(&at("sparse"), 0o4711);
    let long = at(&"sparse".repeat(30));
    File::create(&long).unwrap().set_len(1 << 20).unwrap();

    // The root itself, last.
    set_xattr(root, "user.root", b"home");
    set_xattr(root, "system.posix_acl_default", &some_acl());
    chown(root, 1234, 4_000_000_001);
    chmod(root, 0o3771);
    set_time(root, -12_345, 678);
}
