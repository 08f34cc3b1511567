//! The volume of a restore is too small, or becomes so.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use windlass_archive::ArchiveErrorKind;
use windlass_integration::home;
use windlass_integration::proxy::{Fault, Gate, Rule};
use windlass_integration::wait;

use crate::row::{Row, says};

/// A mounted file system, gone with its folder when dropped.
pub struct Mount(TempDir);

impl Mount {
    pub fn new(args: &[&str]) -> Self {
        let root = rustix::process::geteuid().is_root();
        assert!(root, "this test mounts file systems: run it as root");
        let dir = TempDir::new().unwrap();
        let status = Command::new("mount").args(args).arg(dir.path()).status();
        assert!(status.unwrap().success(), "mount {args:?}");
        Self(dir)
    }

    pub fn tmpfs(options: &str) -> Self {
        Self::new(&["-t", "tmpfs", "-o", options, "windlass-test"])
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount")
            .arg("-l")
            .arg(self.path())
            .status()
            .ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_too_small_is_refused_before_anything_is_written() {
    let row = Row::new().await;
    row.archive().await.unwrap();
    row.proxy.clear();
    let mount = Mount::tmpfs("size=20m");
    let error = row.restore(mount.path()).await.unwrap_err();
    says(
        &error,
        ArchiveErrorKind::NoSpace,
        &["not enough space on the volume", "20971520 bytes and"],
    );
    assert_eq!(
        row.proxy.count("GET", "range: bytes="),
        0,
        "downloaded all the same"
    );
    row.failed_restore(mount.path()).await;

    let mount = Mount::tmpfs("size=200m,nr_inodes=100");
    let error = row.restore(mount.path()).await.unwrap_err();
    says(&error, ArchiveErrorKind::NoSpace, &["99 inodes available"]);
    row.failed_restore(mount.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_fills_up_while_a_home_is_restored() {
    let row = Row::new().await;
    row.archive().await.unwrap();
    row.proxy.clear();
    // Somebody else takes the space after it was checked.
    let mount = Mount::tmpfs("size=80m");
    let volume = mount.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let gate = Gate::default();
    row.proxy
        .add(Rule::new(Fault::Hold(gate.clone())).with("range: bytes="));
    let filling = async {
        let asked = async || row.proxy.count("GET", "range: bytes=");
        wait::until("the download", asked, |n| *n > 0).await;
        home::ballast(mount.path(), 60);
        gate.open();
    };
    let (result, ()) = tokio::join!(row.restore(&volume), filling);
    let error = result.unwrap_err();
    says(
        &error,
        ArchiveErrorKind::NoSpace,
        &["No space left on device"],
    );
    row.failed_restore(&volume).await;
}
