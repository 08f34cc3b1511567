//! Memory that does not grow with the home.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self as stdfs, File};
use std::os::fd::OwnedFd;

use common::{peak, reset_peak};
use rustix::fs::{AtFlags, Mode, OFlags, linkat, mkdirat, openat};
use tempfile::TempDir;
use windlass_archive::pack::{PackOptions, pack_stream};
use windlass_archive::{CancellationToken, Progress};

#[test]
fn hard_links_do_not_keep_the_path_of_their_folder_each() {
    let home = TempDir::new().unwrap();
    stdfs::create_dir(home.path().join("zz")).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut dir: OwnedFd = File::open(home.path()).unwrap().into();
    let second = openat(&dir, "zz", flags, Mode::empty()).unwrap();
    let name = [b'd'; 250];
    for _ in 0..100 {
        mkdirat(&dir, &name[..], Mode::RWXU).unwrap();
        dir = openat(&dir, &name[..], flags, Mode::empty()).unwrap();
    }
    // 4,000 paths of 25 KB, each needed again for the other name of its file.
    for i in 0..4000 {
        let name = i.to_string();
        openat(&dir, &name, OFlags::WRONLY | OFlags::CREATE, Mode::RUSR).unwrap();
        linkat(&dir, &name, &second, &name, AtFlags::empty()).unwrap();
    }
    let options = PackOptions {
        threads: 1,
        ..PackOptions::default()
    };
    let before = reset_peak();
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let packed = pack_stream(home.path(), &options, std::io::sink(), &progress, &cancel);
    let grown = peak() - before;
    assert_eq!(packed.unwrap().0.entry_count, 8102);
    assert!(grown < 50 << 20, "{grown} bytes");
}
