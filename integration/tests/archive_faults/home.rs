//! The home changes or cannot be read, the job is cancelled, and what an archive does without.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use windlass_archive::{
    ArchiveError, ArchiveErrorKind, ArchiveSpec, CancellationToken, Progress, Store, StoreConfig,
    archive, verify,
};
use windlass_integration::home;
use windlass_integration::proxy::{Fault, Gate, Rule};
use windlass_integration::wait;

use crate::row::{PART, Row, says};
use crate::space::Mount;

/// Changes the home once its first part is on the way, before the rest is read.
async fn change_while_read(row: &Row, change: impl FnOnce(&Path)) -> ArchiveError {
    let gate = Gate::default();
    row.proxy
        .add(Rule::new(Fault::Hold(gate.clone())).with("partNumber="));
    let changing = async {
        let sent = async || row.proxy.count("PUT", "partNumber=");
        wait::until("a part", sent, |n| *n > 0).await;
        change(row.home.path());
        gate.open();
    };
    let (result, ()) = tokio::join!(row.archive(), changing);
    result.unwrap_err()
}

/// A home whose content is read in the order of these names.
async fn two_files() -> Row {
    let home = TempDir::new().unwrap();
    for name in ["first", "second"] {
        home::ballast(home.path(), 32);
        fs::rename(home.path().join("ballast"), home.path().join(name)).unwrap();
    }
    Row::of(home, |_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_home_changes_while_it_is_read() {
    let mut row = two_files().await;
    let error = change_while_read(&row, |home| {
        let file = OpenOptions::new().append(true).open(home.join("first"));
        file.unwrap().write_all(b"more").unwrap();
    })
    .await;
    says(&error, ArchiveErrorKind::Changed, &["first", "changed"]);
    // The home as it is now is what has to stay.
    row.before = home::picture(row.home.path());
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_vanishes_while_the_home_is_read() {
    let mut row = two_files().await;
    let gone = |home: &Path| fs::remove_file(home.join("second")).unwrap();
    let error = change_while_read(&row, gone).await;
    says(&error, ArchiveErrorKind::Changed, &["second", "removed"]);
    row.before = home::picture(row.home.path());
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_home_shrinks_while_it_is_read() {
    let mut row = two_files().await;
    let error = change_while_read(&row, |home| {
        let file = OpenOptions::new().write(true).open(home.join("first"));
        file.unwrap().set_len(100).unwrap();
    })
    .await;
    says(&error, ArchiveErrorKind::Changed, &["first", "shrank"]);
    row.before = home::picture(row.home.path());
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_the_home_fails() {
    // A disk whose end was cut off: reading there is a real EIO from the block layer.
    let disk = TempDir::new().unwrap();
    let image = disk.path().join("image");
    fs::File::create(&image)
        .unwrap()
        .set_len(128 << 20)
        .unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status();
    assert!(made.unwrap().success(), "mkfs.ext4");
    let image = image.to_str().unwrap();
    let options = ["-o", "loop,data=writeback", image];
    {
        let mount = Mount::new(&options);
        fs::create_dir(mount.path().join("home")).unwrap();
        fs::write(mount.path().join("home/first"), "readable").unwrap();
        let home = mount.path().join("home");
        home::ballast(&home, 60);
        let status = Command::new("umount").arg(mount.path()).status();
        assert!(status.unwrap().success());
    }
    let row = Row::new().await;
    let mount = Mount::new(&options);
    let home = mount.path().join("home");
    let file = OpenOptions::new().write(true).open(image).unwrap();
    file.set_len(24 << 20).unwrap();
    let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
    let error = archive(&row.store, home, row.spec.clone(), progress, cancel)
        .await
        .unwrap_err();
    says(
        &error,
        ArchiveErrorKind::Io,
        &["read ballast", "Input/output error"],
    );
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_archive_leaves_nothing() {
    let row = Row::new().await;
    let (gate, cancel) = (Gate::default(), CancellationToken::new());
    row.proxy
        .add(Rule::new(Fault::Hold(gate)).with("partNumber="));
    let progress = Arc::new(Progress::default());
    let root = row.home.path().to_owned();
    let working = archive(&row.store, root, row.spec.clone(), progress, cancel.clone());
    let cancelling = async {
        let sent = async || row.proxy.count("PUT", "partNumber=");
        wait::until("a part", sent, |n| *n > 0).await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(working, cancelling);
    says(
        &result.unwrap_err(),
        ArchiveErrorKind::Cancelled,
        &["cancelled"],
    );
    let uploads = async || {
        let uploads = row.direct.list_stale_uploads("", Duration::ZERO).await;
        uploads.unwrap()
    };
    wait::until("the upload to be aborted", uploads, Vec::is_empty).await;
    row.failed_archive().await;
}

/// The archive runs in a process that cannot write one byte to any file and has no temporary folder.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_needs_no_temporary_file() {
    const TEST: &str = "home::an_archive_needs_no_temporary_file";
    if let Ok(root) = std::env::var("WINDLASS_TEST_HOME") {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let nothing = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(Resource::Fsize, nothing).unwrap();
        let config = StoreConfig {
            endpoint: std::env::var("WINDLASS_TEST_ENDPOINT").ok(),
            bucket: "homes".into(),
            force_path_style: true,
            credentials: Some(("key".into(), "secret".into())),
            part_size: PART,
            ..StoreConfig::default()
        };
        let store = Store::new(config).await.unwrap();
        let id = |name| std::env::var(name).unwrap().parse().unwrap();
        let mut spec = ArchiveSpec::new(id("WINDLASS_TEST_WORKSPACE"), id("WINDLASS_TEST_OP"));
        spec.volume_id = Some(id("WINDLASS_TEST_VOLUME"));
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        archive(&store, PathBuf::from(root), spec, progress, cancel)
            .await
            .unwrap();
        return;
    }
    let row = Row::new().await;
    let output = Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact"])
        .env("TMPDIR", "/nonexistent")
        .env("WINDLASS_TEST_HOME", row.home.path())
        .env("WINDLASS_TEST_ENDPOINT", row.proxy.endpoint())
        .env("WINDLASS_TEST_WORKSPACE", row.spec.workspace_id.to_string())
        .env("WINDLASS_TEST_OP", row.spec.op_id.to_string())
        .env(
            "WINDLASS_TEST_VOLUME",
            row.spec.volume_id.unwrap().to_string(),
        )
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    row.archived().await;
    assert_eq!(home::picture(row.home.path()).len() as u64, {
        let marker = verify(&row.direct, &row.key()).await.unwrap();
        marker.entry_count
    });
}
