//! The fault table of the archive pipeline: one test a row. Whatever fails, the reason is precise, no
//! marker is written, the home stays as it was, and nothing is left once gc has passed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use uuid::Uuid;
use windlass_archive::layout::{self, ParsedKey};
use windlass_archive::{
    ArchiveError, ArchiveErrorKind, ArchiveMarker, ArchiveSpec, CancellationToken, Progress,
    RestoreSpec, Store, StoreConfig, StoreErrorKind, archive, restore, verify,
};
use windlass_embedded_s3::{Config, EmbeddedS3, Running};
use windlass_integration::home;
use windlass_integration::proxy::{Fault, Gate, Proxy, Rule};
use windlass_integration::wait;

const PART: u64 = 5 << 20;
/// A moment, for waits that must not be believed to be anything else.
const SOON: Duration = Duration::from_secs(30);

/// A home, a store, and a network between them that fails as told.
struct Row {
    home: TempDir,
    spec: ArchiveSpec,
    proxy: Proxy,
    /// Through the proxy.
    store: Store,
    /// Past it.
    direct: Store,
    before: home::Picture,
    s3_dir: TempDir,
    _s3: Running,
}

impl Row {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut StoreConfig)) -> Self {
        let home = TempDir::new().unwrap();
        home::fill(home.path(), 1);
        home::ballast(home.path(), 40);
        Self::of(home, change).await
    }

    async fn of(home: TempDir, change: impl FnOnce(&mut StoreConfig)) -> Self {
        let s3_dir = TempDir::new().unwrap();
        let s3 = EmbeddedS3::start(Config {
            root: s3_dir.path().to_owned(),
            addr: "127.0.0.1:0".parse().unwrap(),
            access_key: "key".into(),
            secret_key: "secret".into(),
            buckets: vec!["homes".into()],
        });
        let s3 = s3.await.unwrap();
        let proxy = Proxy::start(s3.addr).await;
        let direct = StoreConfig {
            endpoint: Some(s3.endpoint()),
            bucket: "homes".into(),
            force_path_style: true,
            credentials: Some(("key".into(), "secret".into())),
            part_size: PART,
            parts_in_flight: 2,
            max_attempts: 2,
            ..StoreConfig::default()
        };
        let mut faulty = direct.clone();
        faulty.endpoint = Some(proxy.endpoint());
        change(&mut faulty);
        let mut spec = ArchiveSpec::new(Uuid::now_v7(), Uuid::now_v7());
        spec.volume_id = Some(Uuid::now_v7());
        Self {
            before: home::picture(home.path()),
            home,
            spec,
            proxy,
            store: Store::new(faulty).await.unwrap(),
            direct: Store::new(direct).await.unwrap(),
            s3_dir,
            _s3: s3,
        }
    }

    fn key(&self) -> String {
        layout::data_key("", self.spec.workspace_id, self.spec.op_id)
    }

    async fn archive_with(&self, store: &Store) -> Result<ArchiveMarker, ArchiveError> {
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        let root = self.home.path().to_owned();
        archive(store, root, self.spec.clone(), progress, cancel).await
    }

    async fn archive(&self) -> Result<ArchiveMarker, ArchiveError> {
        self.archive_with(&self.store).await
    }

    async fn restore_with(&self, store: &Store, target: &Path) -> Result<(), ArchiveError> {
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        let spec = RestoreSpec {
            workspace_id: self.spec.workspace_id,
            op_id: Uuid::now_v7(),
        };
        restore(
            store,
            &self.key(),
            target.to_owned(),
            spec,
            progress,
            cancel,
        )
        .await
        .map(drop)
    }

    async fn restore(&self, target: &Path) -> Result<(), ArchiveError> {
        self.restore_with(&self.store, target).await
    }

    /// The archive is there and whole.
    async fn archived(&self) {
        verify(&self.direct, &self.key()).await.unwrap();
        let uploads = self.direct.list_stale_uploads("", Duration::ZERO).await;
        assert_eq!(uploads.unwrap(), []);
    }

    /// A failed archive: no marker; after gc nothing; and the same call then succeeds.
    async fn failed_archive(&self) {
        let markers = |key: &str| {
            matches!(
                layout::parse_key("", key),
                Some(ParsedKey::Marker { .. } | ParsedKey::RestoreMarker { .. })
            )
        };
        let objects = self.direct.list("").await.unwrap();
        assert!(!objects.iter().any(|o| markers(&o.key)), "{objects:?}");
        self.collect().await;
        assert_eq!(self.before, home::picture(self.home.path()));
        self.proxy.clear();
        self.archive_with(&self.direct).await.unwrap();
        self.archived().await;
    }

    /// What gc does with all of a failed archive, and that nothing is left then.
    async fn collect(&self) {
        for upload in self
            .direct
            .list_stale_uploads("", Duration::ZERO)
            .await
            .unwrap()
        {
            let (key, id) = (&upload.key, &upload.upload_id);
            self.direct.abort_upload(key, id).await.unwrap();
        }
        let keys: Vec<_> = self.direct.list("").await.unwrap();
        let keys: Vec<_> = keys.into_iter().map(|o| o.key).collect();
        for (_, result) in self.direct.delete(&keys).await {
            result.unwrap();
        }
        let left = async || stored(self.s3_dir.path());
        wait::until("an empty store", left, |bytes| *bytes < 1 << 20).await;
    }

    /// A failed restore: volume empty, no restore marker, archive as it was; the next one succeeds.
    async fn failed_restore(&self, target: &Path) {
        assert_eq!(fs::read_dir(target).unwrap().count(), 0, "left-overs");
        let restored = layout::restore_marker_prefix("", self.spec.workspace_id);
        assert_eq!(self.direct.list(&restored).await.unwrap(), []);
        self.archived().await;
        self.proxy.clear();
        let again = TempDir::new().unwrap();
        self.restore_with(&self.direct, again.path()).await.unwrap();
        assert_eq!(self.before, home::picture(again.path()));
        let marker = self.direct.list(&restored).await.unwrap().remove(0).key;
        self.direct.delete(&[marker]).await.remove(0).1.unwrap();
    }
}

/// Bytes below a folder.
fn stored(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => stored(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0, // gone meanwhile
    });
    sizes.sum()
}

#[track_caller]
fn says(error: &ArchiveError, kind: ArchiveErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

fn store(kind: StoreErrorKind) -> ArchiveErrorKind {
    ArchiveErrorKind::Store(kind)
}

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

/// A mounted file system, gone with its folder when dropped.
struct Mount(TempDir);

impl Mount {
    fn new(args: &[&str]) -> Self {
        let root = rustix::process::geteuid().is_root();
        assert!(root, "this test mounts file systems: run it as root");
        let dir = TempDir::new().unwrap();
        let status = Command::new("mount").args(args).arg(dir.path()).status();
        assert!(status.unwrap().success(), "mount {args:?}");
        Self(dir)
    }

    fn tmpfs(options: &str) -> Self {
        Self::new(&["-t", "tmpfs", "-o", options, "windlass-test"])
    }

    fn path(&self) -> &Path {
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

#[tokio::test(flavor = "multi_thread")]
async fn the_store_refuses_connections() {
    // A port nobody listens on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let row = Row::with(|config| config.endpoint = Some(endpoint)).await;
    let begun = Instant::now();
    let error = row.archive().await.unwrap_err();
    says(&error, store(StoreErrorKind::Unreachable), &["refused"]);
    assert!(begun.elapsed() < SOON);
    row.failed_archive().await;
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(&error, store(StoreErrorKind::Unreachable), &["refused"]);
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_resets_connections() {
    let row = Row::new().await;
    row.proxy.add(Rule::new(Fault::Reset).with("partNumber=3"));
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["upload part 3"],
    );
    row.failed_archive().await;
    row.proxy.clear();
    row.proxy.add(Rule::new(Fault::Reset).with("range: bytes="));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(&error, store(StoreErrorKind::Unreachable), &[&row.key()]);
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_reset_now_and_then_does_no_harm() {
    let row = Row::new().await;
    for part in [
        "partNumber=2",
        "partNumber=5",
        "home.tar.zst.meta",
        "range: bytes=",
    ] {
        row.proxy.add(Rule::new(Fault::Reset).with(part).times(1));
    }
    row.archive().await.unwrap();
    row.archived().await;
}

fn impatient(config: &mut StoreConfig) {
    config.read_timeout = Duration::from_millis(700);
    config.stall_timeout = Duration::from_secs(1);
    config.min_upload_rate = 2 << 20;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_hangs_before_it_answers() {
    let row = Row::with(impatient).await;
    row.proxy.add(Rule::new(Fault::Hang).with("partNumber="));
    let begun = Instant::now();
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["upload part", "timeout"],
    );
    assert!(begun.elapsed() < SOON);
    row.failed_archive().await;

    row.proxy.add(Rule::new(Fault::Hang).method("GET"));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(&error, store(StoreErrorKind::Unreachable), &["timeout"]);
    assert!(begun.elapsed() < SOON);
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_hangs_half_way_through_an_answer() {
    let row = Row::with(impatient).await;
    row.proxy
        .add(Rule::new(Fault::StallDown(100_000)).with("range: bytes="));
    let begun = Instant::now();
    let error = row.archive().await.unwrap_err();
    // Read-back is where the data comes down again.
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["read", "throughput"],
    );
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    row.failed_archive().await;

    row.proxy
        .add(Rule::new(Fault::StallDown(100_000)).with("range: bytes="));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["read", "throughput"],
    );
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_that_lives_is_not_given_up() {
    // A part takes 5 s, far longer than a request may take to be answered once it was sent.
    let row = Row::with(|config| {
        impatient(config);
        config.min_upload_rate = 256 << 10;
    })
    .await;
    row.proxy
        .add(Rule::new(Fault::SlowUp(1 << 20)).with("partNumber=2&"));
    row.archive().await.unwrap();
    assert_eq!(row.proxy.count("PUT", "partNumber=2&"), 1);
    row.archived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_cuts_uploads_off() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::CutUp(1_000_000)).with("partNumber=4"));
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["upload part 4"],
    );
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_cuts_the_read_back_off() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::CutDown(1_000_000)).with("range: bytes=8388608-"));
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["read", &row.key()],
    );
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_cuts_downloads_off() {
    let row = Row::new().await;
    row.archive().await.unwrap();
    row.proxy
        .add(Rule::new(Fault::CutDown(1_000_000)).with("range: bytes=8388608-"));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["read", &row.key()],
    );
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_cut_off_once_is_repeated() {
    let row = Row::new().await;
    row.proxy.add(
        Rule::new(Fault::CutUp(1_000_000))
            .with("partNumber=4")
            .times(1),
    );
    row.proxy.add(
        Rule::new(Fault::CutDown(1_000_000))
            .with("range: bytes=0-")
            .times(1),
    );
    row.archive().await.unwrap();
    row.archived().await;
    row.proxy.add(
        Rule::new(Fault::CutDown(5_000_000))
            .with("range: bytes=8388608-")
            .times(2),
    );
    let target = TempDir::new().unwrap();
    row.restore(target.path()).await.unwrap();
    assert_eq!(home::picture(row.home.path()), home::picture(target.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_altered_on_the_way_up_are_refused() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::CorruptUp(1_000_000)).with("partNumber=2"));
    let error = row.archive().await.unwrap_err();
    says(&error, store(StoreErrorKind::Corrupt), &["upload part 2"]);
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_the_store_altered_fail_the_read_back() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::CorruptDown(1_000_000)).with("range: bytes=0-"));
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        ArchiveErrorKind::Corrupted,
        &[&row.key(), "SHA-256"],
    );
    // What cannot be trusted is not kept either.
    assert_eq!(row.direct.list("").await.unwrap(), []);
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_archive_is_known_within_seconds() {
    let row = Row::new().await;
    row.archive().await.unwrap();
    for at in [20, 1_000_000] {
        row.proxy.clear();
        row.proxy
            .add(Rule::new(Fault::CorruptDown(at)).with("range: bytes=0-"));
        let target = TempDir::new().unwrap();
        let begun = Instant::now();
        let error = row.restore(target.path()).await.unwrap_err();
        says(&error, ArchiveErrorKind::Corrupted, &["archive corrupted"]);
        assert!(begun.elapsed() < SOON);
        row.failed_restore(target.path()).await;
    }
    // Lost altogether, and cut short, as the store itself has it.
    for short in [false, true] {
        row.direct.delete(&[row.key()]).await.remove(0).1.unwrap();
        if short {
            row.direct.put_small(&row.key(), "short").await.unwrap();
        }
        let target = TempDir::new().unwrap();
        let error = row.restore(target.path()).await.unwrap_err();
        says(&error, ArchiveErrorKind::Corrupted, &[&row.key()]);
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_finds_a_part_too_large() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::Answer(413, "EntityTooLarge")).with("partNumber="));
    let error = row.archive().await.unwrap_err();
    let words = ["upload part", "EntityTooLarge (413)"];
    says(&error, store(StoreErrorKind::Invalid), &words);
    // Asking again would not make it smaller.
    assert!(row.proxy.count("PUT", "partNumber=") <= 2);
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_503_that_ends_is_weathered() {
    let row = Row::new().await;
    let storm = || Rule::new(Fault::Answer(503, "SlowDown"));
    row.proxy.add(storm().with("partNumber=").times(5));
    row.proxy.add(storm().with("range: bytes=").times(3));
    row.archive().await.unwrap();
    row.archived().await;
    row.proxy.clear();
    row.proxy.add(storm().method("GET").times(3));
    let target = TempDir::new().unwrap();
    row.restore(target.path()).await.unwrap();
    assert_eq!(home::picture(row.home.path()), home::picture(target.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_503_that_does_not_end_is_the_reason() {
    let row = Row::new().await;
    let storm = || Rule::new(Fault::Answer(503, "SlowDown"));
    row.proxy.add(storm().with("partNumber="));
    let begun = Instant::now();
    let error = row.archive().await.unwrap_err();
    let words = ["upload part", "SlowDown (503)"];
    says(&error, store(StoreErrorKind::Throttled), &words);
    assert!(begun.elapsed() < 2 * SOON);
    row.failed_archive().await;
    row.proxy.add(storm().method("GET"));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Throttled),
        &["SlowDown (503)"],
    );
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_expire_half_way() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::Answer(403, "ExpiredToken")).with("partNumber=3"));
    // From then on nothing is allowed any more, aborting included.
    row.proxy
        .add(Rule::new(Fault::Answer(403, "ExpiredToken")).method("DELETE"));
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Denied),
        &["ExpiredToken (403)"],
    );
    let stale = async || {
        let uploads = row.direct.list_stale_uploads("", Duration::ZERO).await;
        (row.proxy.count("DELETE", ""), uploads.unwrap())
    };
    let (_, uploads) = wait::until("an attempt to abort", stale, |s| s.0 > 0).await;
    assert_eq!(uploads.len(), 1);
    row.failed_archive().await;
    row.proxy
        .add(Rule::new(Fault::Answer(403, "ExpiredToken")).with("range: bytes="));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Denied),
        &["ExpiredToken (403)"],
    );
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_marker_cannot_be_written() {
    let row = Row::new().await;
    row.proxy.add(
        Rule::new(Fault::Answer(403, "AccessDenied"))
            .method("PUT")
            .with(".meta"),
    );
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Denied),
        &["home.tar.zst.meta", "AccessDenied"],
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
    const TEST: &str = "an_archive_needs_no_temporary_file";
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
