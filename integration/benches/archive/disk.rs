//! The disk that is restored to: a new ext4 with a journal for each job, as volumes' disks have one. On a file
//! system that was used before, a job would pay for what others removed: ext4 holds back the inodes of files removed
//! a short while ago, and whatever makes files then searches long for others.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An empty file system in a file, mounted by a loop device; gone when dropped.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    pub root: PathBuf,
}

impl Disk {
    /// Makes and mounts one below `work`.
    pub fn new(work: &Path) -> Self {
        let (image, root) = (work.join("disk.ext4"), work.join("disk"));
        File::create(&image).unwrap().set_len(8 << 30).unwrap();
        // Nothing is left to be initialised in the background.
        let now = "lazy_itable_init=0,lazy_journal_init=0";
        run(
            "mkfs.ext4",
            [
                "-q".as_ref(),
                "-E".as_ref(),
                now.as_ref(),
                image.as_os_str(),
            ],
        );
        fs::create_dir(&root).unwrap();
        run(
            "mount",
            [
                "-o".as_ref(),
                "loop".as_ref(),
                image.as_os_str(),
                root.as_os_str(),
            ],
        );
        rustix::fs::sync();
        Self { image, root }
    }

    /// An empty folder on it.
    pub fn target(&self) -> PathBuf {
        let target = self.root.join("home");
        fs::create_dir(&target).unwrap();
        target
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", [self.root.as_os_str()]);
        fs::remove_dir(&self.root).unwrap();
        fs::remove_file(&self.image).unwrap();
    }
}

fn run<'a>(command: &str, args: impl IntoIterator<Item = &'a OsStr>) {
    let status = Command::new(command).args(args).status();
    assert!(
        status.unwrap().success(),
        "{command}: run the benchmark as root"
    );
}
