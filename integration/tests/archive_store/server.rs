//! The servers, and a home's way to a store and back.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use uuid::Uuid;
use windlass_archive::{
    ArchiveMarker, ArchiveSpec, CancellationToken, Progress, RestoreSpec, Store, StoreConfig,
    archive, layout, restore,
};
use windlass_embedded_s3::{Config, EmbeddedS3, Running};
#[cfg(feature = "garage")]
use windlass_integration::garage::{self, Garage};
use windlass_integration::home;
use windlass_integration::moto::Moto;
use windlass_integration::proxy::Proxy;

pub const BUCKET: &str = "homes";
pub const KEY: &str = "test-key";
pub const SECRET: &str = "test-secret";

pub enum Server {
    /// With its folder.
    Embedded(Running, #[allow(dead_code)] TempDir),
    Moto(Moto),
    #[cfg(feature = "garage")]
    Garage(Garage),
}

impl Server {
    pub async fn embedded() -> Self {
        let dir = TempDir::new().unwrap();
        let config = Config {
            root: dir.path().to_owned(),
            addr: "127.0.0.1:0".parse().unwrap(),
            access_key: KEY.into(),
            secret_key: SECRET.into(),
            buckets: Vec::new(),
        };
        Self::Embedded(EmbeddedS3::start(config).await.unwrap(), dir)
    }

    pub async fn moto() -> Self {
        Self::Moto(Moto::start().await)
    }

    #[cfg(feature = "garage")]
    pub async fn garage() -> Self {
        Self::Garage(Garage::start(BUCKET).await)
    }

    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Embedded(running, _) => running.addr,
            Self::Moto(moto) => moto.addr,
            #[cfg(feature = "garage")]
            Self::Garage(garage) => garage.addr,
        }
    }

    fn credentials(&self) -> (&'static str, &'static str) {
        match self {
            Self::Embedded(..) | Self::Moto(_) => (KEY, SECRET),
            #[cfg(feature = "garage")]
            Self::Garage(_) => (garage::KEY, garage::SECRET),
        }
    }

    pub fn config(&self) -> StoreConfig {
        let (key, secret) = self.credentials();
        StoreConfig {
            endpoint: Some(format!("http://{}", self.addr())),
            bucket: BUCKET.into(),
            prefix: "x/".into(),
            force_path_style: true,
            credentials: Some((key.into(), secret.into())),
            part_size: 5 << 20,
            ..StoreConfig::default()
        }
    }

    pub async fn store(&self) -> Store {
        made(self.config()).await
    }

    /// A store that talks through a proxy.
    pub async fn watched(&self) -> (Store, Proxy) {
        let proxy = Proxy::start(self.addr()).await;
        let config = StoreConfig {
            endpoint: Some(proxy.endpoint()),
            ..self.config()
        };
        (made(config).await, proxy)
    }
}

pub async fn made(config: StoreConfig) -> Store {
    let store = Store::new(config).await.unwrap();
    store.ensure_bucket().await.unwrap();
    store
}

pub fn spec() -> ArchiveSpec {
    let mut spec = ArchiveSpec::new(Uuid::now_v7(), Uuid::now_v7());
    spec.volume_id = Some(Uuid::now_v7());
    spec.workspace.insert("name".into(), "a \u{1f40e}".into());
    spec
}

pub async fn put(store: &Store, root: &Path, spec: &ArchiveSpec) -> ArchiveMarker {
    let progress = Arc::new(Progress::default());
    let cancel = CancellationToken::new();
    archive(store, root.into(), spec.clone(), progress, cancel)
        .await
        .unwrap()
}

pub fn key_of(store: &Store, marker: &ArchiveMarker) -> String {
    layout::data_key(store.prefix(), marker.workspace_id, marker.archive_op_id)
}

/// Restores into a new folder.
pub async fn get(store: &Store, marker: &ArchiveMarker) -> TempDir {
    let target = TempDir::new().unwrap();
    let spec = RestoreSpec {
        workspace_id: marker.workspace_id,
        op_id: Uuid::now_v7(),
    };
    let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
    let key = key_of(store, marker);
    let report = restore(store, &key, target.path().into(), spec, progress, cancel)
        .await
        .unwrap();
    assert!(!report.already_complete);
    assert_eq!(&report.archive, marker);
    target
}

/// A home whose archive takes many parts.
pub fn large_home() -> TempDir {
    let dir = TempDir::new().unwrap();
    home::fill(dir.path(), 1);
    home::ballast(dir.path(), 45);
    dir
}
