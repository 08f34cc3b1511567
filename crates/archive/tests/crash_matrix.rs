//! The crash matrix: the process is killed at every named failpoint of archive and restore. Afterwards
//! never a marker without verified data, and the same call again ends as if nothing had happened.
//!
//! Needs the feature `failpoints`, which no service may have: `just test` runs it in a step of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{Tree, assert_same, list};
use tempfile::TempDir;
use uuid::Uuid;
use windlass_archive::store::Store;
use windlass_archive::unpack::forget_lost;
use windlass_archive::{
    ArchiveError, ArchiveMarker, ArchiveSpec, CancellationToken, Progress, RestoreReport,
    RestoreSpec, StoreConfig, archive, failpoints, layout, restore, verify,
};
use windlass_embedded_s3::{Config, EmbeddedS3, Running};

const KILLED: Option<i32> = Some(9);

/// One home, its archive and its restore, with the same ids in every process.
struct Job {
    endpoint: String,
    home: PathBuf,
    target: PathBuf,
    workspace_id: Uuid,
    op_id: Uuid,
    restore_id: Uuid,
}

impl Job {
    async fn store(&self) -> Store {
        let config = StoreConfig {
            endpoint: Some(self.endpoint.clone()),
            bucket: "homes".into(),
            force_path_style: true,
            credentials: Some(("key".into(), "secret".into())),
            part_size: 5 << 20,
            max_attempts: 2,
            ..StoreConfig::default()
        };
        Store::new(config).await.unwrap()
    }

    fn key(&self) -> String {
        layout::data_key("", self.workspace_id, self.op_id)
    }

    async fn archive(&self) -> Result<ArchiveMarker, ArchiveError> {
        let mut spec = ArchiveSpec::new(self.workspace_id, self.op_id);
        spec.volume_id = Some(self.op_id);
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        archive(
            &self.store().await,
            self.home.clone(),
            spec,
            progress,
            cancel,
        )
        .await
    }

    async fn restore(&self) -> Result<RestoreReport, ArchiveError> {
        let spec = RestoreSpec {
            workspace_id: self.workspace_id,
            op_id: self.restore_id,
        };
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        let target = self.target.clone();
        restore(
            &self.store().await,
            &self.key(),
            target,
            spec,
            progress,
            cancel,
        )
        .await
    }

    async fn run(&self, name: &str) -> Result<(), ArchiveError> {
        match name {
            "archive" => self.archive().await.map(drop),
            _ => self.restore().await.map(drop),
        }
    }

    /// Runs `name` in a process that is killed at `failpoint`.
    fn killed_at(&self, test: &str, name: &str, failpoint: &str) {
        let status = Command::new(env::current_exe().unwrap())
            .args([test, "--exact"])
            .env("CRASH_JOB", name)
            .env("CRASH_AT", failpoint)
            .env("CRASH_ENDPOINT", &self.endpoint)
            .env("CRASH_HOME", &self.home)
            .env("CRASH_TARGET", &self.target)
            .env(
                "CRASH_IDS",
                format!("{} {} {}", self.workspace_id, self.op_id, self.restore_id),
            )
            .status()
            .unwrap();
        assert_eq!(
            status.signal(),
            KILLED,
            "{failpoint} was not reached: {status}"
        );
    }

    /// In the process that is to be killed: the job of the environment, if there is one.
    async fn as_child() -> Option<()> {
        let name = env::var("CRASH_JOB").ok()?;
        let get = |name| env::var(name).unwrap();
        let ids: Vec<Uuid> = get("CRASH_IDS")
            .split(' ')
            .map(|id| id.parse().unwrap())
            .collect();
        let job = Self {
            endpoint: get("CRASH_ENDPOINT"),
            home: get("CRASH_HOME").into(),
            target: get("CRASH_TARGET").into(),
            workspace_id: ids[0],
            op_id: ids[1],
            restore_id: ids[2],
        };
        fail::cfg_callback(get("CRASH_AT"), || {
            use rustix::process::{Signal, getpid, kill_process};
            kill_process(getpid(), Signal::KILL).unwrap();
        })
        .unwrap();
        job.run(&name).await.unwrap();
        Some(())
    }

    /// What gc does with uploads that nobody goes on with.
    async fn abort_stale(&self) {
        let store = self.store().await;
        let uploads = async || store.list_stale_uploads("", Duration::ZERO).await.unwrap();
        for upload in uploads().await {
            store
                .abort_upload(&upload.key, &upload.upload_id)
                .await
                .unwrap();
        }
        assert_eq!(uploads().await, []);
    }

    /// Never a marker without data that matches it.
    async fn marker_is_true(&self) -> bool {
        let store = self.store().await;
        let marker = layout::marker_key(&self.key());
        let listed = store.list(&marker).await.unwrap();
        if !listed.is_empty() {
            verify(&store, &self.key()).await.unwrap();
        }
        !listed.is_empty()
    }

    async fn restored(&self) -> bool {
        let prefix = layout::restore_marker_prefix("", self.workspace_id);
        !self.store().await.list(&prefix).await.unwrap().is_empty()
    }
}

struct World {
    dir: TempDir,
    s3: Running,
    before: Tree,
}

impl World {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let s3 = EmbeddedS3::start(Config {
            root: dir.path().join("s3"),
            addr: "127.0.0.1:0".parse().unwrap(),
            access_key: "key".into(),
            secret_key: "secret".into(),
            buckets: vec!["homes".into()],
        });
        let home = dir.path().join("home");
        fs::create_dir_all(home.join("some/where")).unwrap();
        for i in 0..50 {
            fs::write(home.join(format!("some/where/{i}")), vec![i; 1000]).unwrap();
        }
        // Enough for several parts.
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..12 << 20)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) as u8
            })
            .collect();
        fs::write(home.join("noise"), noise).unwrap();
        std::os::unix::fs::symlink("some/where", home.join("link")).unwrap();
        Self {
            s3: s3.await.unwrap(),
            before: list(&home).tree,
            dir,
        }
    }

    /// A job with ids and a target of its own.
    fn job(&self) -> Job {
        let restore_id = Uuid::now_v7();
        let target = self.dir.path().join(restore_id.to_string());
        fs::create_dir(&target).unwrap();
        Job {
            endpoint: self.s3.endpoint(),
            home: self.dir.path().join("home"),
            target,
            workspace_id: Uuid::now_v7(),
            op_id: Uuid::now_v7(),
            restore_id,
        }
    }

    fn home_is_untouched(&self) {
        assert_same(&self.before, &list(&self.dir.path().join("home")).tree);
    }

    fn same_home(&self, target: &Path) {
        assert_same(&self.before, &list(target).tree);
    }
}

fn points(prefixes: &[&str]) -> Vec<&'static str> {
    let fits = |name: &&&str| prefixes.iter().any(|p| name.starts_with(p));
    failpoints::ALL.iter().filter(fits).copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failpoint_is_in_one_of_the_matrices() {
    assert_eq!(
        points(&["archive::", "upload::", "restore::"]).len(),
        failpoints::ALL.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_killed_anywhere_ends_as_one_that_was_not() {
    if Job::as_child().await.is_some() {
        return;
    }
    const TEST: &str = "an_archive_killed_anywhere_ends_as_one_that_was_not";
    let world = World::start().await;
    let calm = world.job().archive().await.unwrap();
    for failpoint in points(&["archive::", "upload::"]) {
        let job = world.job();
        job.killed_at(TEST, "archive", failpoint);
        world.home_is_untouched();
        assert_eq!(
            job.marker_is_true().await,
            failpoint == "archive::after-marker",
            "{failpoint}"
        );
        let marker = job.archive().await.unwrap();
        let result = |m: &ArchiveMarker| {
            let numbers = (m.size, m.tar_size, m.disk_size, m.entry_count);
            (numbers, m.sha256.clone(), m.fingerprint.clone())
        };
        assert_eq!(result(&marker), result(&calm), "{failpoint}");
        assert!(job.marker_is_true().await);
        job.abort_stale().await;
        let objects = job
            .store()
            .await
            .list(&job.workspace_id.to_string())
            .await
            .unwrap();
        assert_eq!(objects.len(), 2, "{failpoint}: {objects:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_killed_anywhere_ends_as_one_that_was_not() {
    if Job::as_child().await.is_some() {
        return;
    }
    const TEST: &str = "a_restore_killed_anywhere_ends_as_one_that_was_not";
    let world = World::start().await;
    for failpoint in points(&["restore::"]) {
        let job = world.job();
        job.archive().await.unwrap();
        fs::write(job.target.join("left over"), "from an earlier attempt").unwrap();
        job.killed_at(TEST, "restore", failpoint);
        let complete = failpoint == "restore::after-marker";
        assert_eq!(job.restored().await, complete, "{failpoint}");
        if complete {
            world.same_home(&job.target);
        }
        let report = job.restore().await.unwrap();
        assert_eq!(report.already_complete, complete, "{failpoint}");
        world.same_home(&job.target);
        assert!(job.restored().await && job.marker_is_true().await);
    }
}

/// What was restored is lost with its host, and the same restore is done again elsewhere: the marker of the
/// first must not complete what the second has only begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_done_again_is_complete_only_at_its_end() {
    if Job::as_child().await.is_some() {
        return;
    }
    const TEST: &str = "a_restore_done_again_is_complete_only_at_its_end";
    let world = World::start().await;
    for failpoint in [
        "restore::before-clean",
        "restore::after-unpack",
        "restore::before-marker",
    ] {
        let job = world.job();
        job.archive().await.unwrap();
        job.restore().await.unwrap();
        fs::remove_dir_all(&job.target).unwrap();
        fs::create_dir(&job.target).unwrap();
        job.killed_at(TEST, "restore", failpoint);
        assert!(!job.restored().await, "{failpoint}");
        let report = job.restore().await.unwrap();
        assert!(!report.already_complete, "{failpoint}");
        world.same_home(&job.target);
        assert!(job.restored().await);
    }

    // Without a volume to look into.
    let job = world.job();
    let archive = job.archive().await.unwrap();
    let (store, key) = (job.store().await, job.key());
    let forget = |root| forget_lost(&store, &key, &archive, root, job.restore_id);
    assert_eq!(forget(None).await.unwrap(), None);
    job.restore().await.unwrap();
    assert_eq!(forget(Some(job.target.clone())).await.unwrap(), None);
    assert!(job.restored().await);
    assert!(forget(None).await.unwrap().is_some());
    assert!(!job.restored().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_anywhere_leaves_no_half_done_work() {
    let world = World::start().await;
    for failpoint in failpoints::ALL {
        let job = world.job();
        let name = if failpoint.starts_with("restore::") {
            job.archive().await.unwrap();
            "restore"
        } else {
            "archive"
        };
        fail::cfg(*failpoint, "return(injected)").unwrap();
        let error = job.run(name).await.unwrap_err();
        fail::remove(*failpoint);
        assert!(
            error.to_string().contains("injected"),
            "{failpoint}: {error}"
        );
        world.home_is_untouched();
        let (archived, restored) = (job.marker_is_true().await, job.restored().await);
        let last = failpoint.ends_with("::after-marker");
        match name {
            "archive" => assert_eq!((archived, restored), (last, false), "{failpoint}"),
            _ => assert_eq!((archived, restored), (true, last), "{failpoint}"),
        }
        // Failed uploads abort themselves, in the background.
        let store = job.store().await;
        let mut tries = 0;
        while !store
            .list_stale_uploads("", Duration::ZERO)
            .await
            .unwrap()
            .is_empty()
        {
            tries += 1;
            assert!(tries < 300, "{failpoint} left parts behind");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        job.run(name).await.unwrap();
        job.restore().await.unwrap();
        world.same_home(&job.target);
    }
}
