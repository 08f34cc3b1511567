//! One row of the table: what fails, and what must hold afterwards.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use uuid::Uuid;
use windlass_archive::layout::{self, ParsedKey};
use windlass_archive::{
    ArchiveError, ArchiveErrorKind, ArchiveMarker, ArchiveSpec, CancellationToken, Progress,
    RestoreSpec, Store, StoreConfig, StoreErrorKind, archive, restore, verify,
};
use windlass_embedded_s3::{Config, EmbeddedS3, Running};
use windlass_integration::home;
use windlass_integration::proxy::Proxy;
use windlass_integration::wait;

pub const PART: u64 = 5 << 20;
/// Less than any of the waits that a store may ask for otherwise ([`StoreConfig`]'s defaults).
pub const SOON: Duration = Duration::from_secs(60);

/// A home, a store, and a network between them that fails as told.
pub struct Row {
    pub home: TempDir,
    pub spec: ArchiveSpec,
    pub proxy: Proxy,
    /// Through the proxy.
    pub store: Store,
    /// Past it.
    pub direct: Store,
    pub before: home::Picture,
    pub s3_dir: TempDir,
    _s3: Running,
}

impl Row {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut StoreConfig)) -> Self {
        let home = TempDir::new().unwrap();
        home::fill(home.path(), 1);
        home::ballast(home.path(), 40);
        Self::of(home, change).await
    }

    pub async fn of(home: TempDir, change: impl FnOnce(&mut StoreConfig)) -> Self {
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
            repeats: 2,
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

    pub fn key(&self) -> String {
        layout::data_key("", self.spec.workspace_id, self.spec.op_id)
    }

    pub async fn archive_with(&self, store: &Store) -> Result<ArchiveMarker, ArchiveError> {
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        let root = self.home.path().to_owned();
        archive(store, root, self.spec.clone(), progress, cancel).await
    }

    pub async fn archive(&self) -> Result<ArchiveMarker, ArchiveError> {
        self.archive_with(&self.store).await
    }

    pub async fn restore_with(&self, store: &Store, target: &Path) -> Result<(), ArchiveError> {
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

    pub async fn restore(&self, target: &Path) -> Result<(), ArchiveError> {
        self.restore_with(&self.store, target).await
    }

    /// The archive is there and whole.
    pub async fn archived(&self) {
        verify(&self.direct, &self.key()).await.unwrap();
        let uploads = self.direct.list_stale_uploads("", Duration::ZERO).await;
        assert_eq!(uploads.unwrap(), []);
    }

    /// A failed archive: no marker; after gc nothing; and the same call then succeeds.
    pub async fn failed_archive(&self) {
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
    pub async fn collect(&self) {
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
    pub async fn failed_restore(&self, target: &Path) {
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
pub fn stored(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => stored(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0, // gone meanwhile
    });
    sizes.sum()
}

#[track_caller]
pub fn says(error: &ArchiveError, kind: ArchiveErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

pub fn store(kind: StoreErrorKind) -> ArchiveErrorKind {
    ArchiveErrorKind::Store(kind)
}
