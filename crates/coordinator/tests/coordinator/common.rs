//! A database, a replica that counts its passes, and waiting.

use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windlass_coordinator::{
    Channel, Coordinator, Handle, Hints, Lease, Pass, PassError, Periods, Verdict, Waker,
};
use windlass_db::{Bootstrap, Pool};
use windlass_local::{
    ports::free_port,
    postgres::{self, Postgres},
    redis,
};
use windlass_service::Readiness;

pub const LONG: Duration = Duration::from_secs(3600);

/// Counts its passes, and fails while the database cannot be reached.
#[derive(Clone)]
pub struct Counting {
    pub pool: Pool,
    pub passes: Arc<AtomicU64>,
    pub slow: Duration,
}

impl Pass for Counting {
    type Request = ();
    type Report = u64;

    async fn pass(&mut self, _lease: &Lease, (): ()) -> Result<Verdict<u64>, PassError> {
        tokio::time::sleep(self.slow).await;
        self.pool.ping().await?;
        Ok(Verdict {
            report: self.passes.fetch_add(1, Ordering::SeqCst) + 1,
            active: false,
        })
    }
}

pub struct Db {
    pub postgres: Postgres,
    pub config: postgres::Config,
    _dir: TempDir,
}

pub async fn database() -> Db {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let config = postgres::Config::for_test(dir.path().join("pg"), free_port().unwrap());
    let postgres = Postgres::start(&config).await.unwrap();
    let password = ("windlass_wc".to_owned(), "pw".to_owned());
    let bootstrap = Bootstrap {
        role_passwords: vec![password],
        admin: None,
    };
    windlass_db::migrate(&postgres.url(), &bootstrap)
        .await
        .unwrap();
    Db {
        postgres,
        config,
        _dir: dir,
    }
}

impl Db {
    pub fn pool(&self) -> Pool {
        let url = self.postgres.url();
        let (_, host) = url.rsplit_once('@').unwrap();
        Pool::new(&format!("postgres://windlass_wc:pw@{host}"), 4).unwrap()
    }
}

pub struct Replica {
    pub handle: Handle<Counting>,
    pub passes: Arc<AtomicU64>,
    pub readiness: Readiness,
    pub shutdown: CancellationToken,
    pub task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

pub fn replica(db: &Db, holder: &str, period: Duration, hints: &Hints, slow: Duration) -> Replica {
    let (pool, shutdown, readiness) = (db.pool(), CancellationToken::new(), Readiness::new());
    let passes = Arc::new(AtomicU64::new(0));
    let coordinator = Coordinator {
        name: "wc",
        holder: holder.to_owned(),
        pool: pool.clone(),
        lease_ttl: Duration::from_secs(10),
        periods: Periods::steady(period),
        passes: vec![(
            hints.subscribe(Channel::Wc),
            Counting {
                pool,
                passes: Arc::clone(&passes),
                slow,
            },
        )],
    };
    let (handle, task) = coordinator.start(readiness.clone(), shutdown.clone());
    Replica {
        handle,
        passes,
        readiness,
        shutdown,
        task: tokio::spawn(task),
    }
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "waited in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts the only replica there is; its lease outlasts the test.
pub fn alone<P: Pass>(
    db: &Db,
    periods: Periods,
    passes: Vec<(Waker, P)>,
) -> (Handle<P>, CancellationToken) {
    let coordinator = Coordinator {
        name: "wc",
        holder: "only".to_owned(),
        pool: db.pool(),
        lease_ttl: Duration::from_secs(60),
        periods,
        passes,
    };
    let shutdown = CancellationToken::new();
    let (handle, task) = coordinator.start(Readiness::new(), shutdown.clone());
    tokio::spawn(task);
    (handle, shutdown)
}

/// A Redis that is not started yet.
pub fn redis_config(dir: &TempDir) -> redis::Config {
    redis::Config {
        dir: dir.path().to_owned(),
        port: free_port().unwrap(),
        die_with_parent: true,
    }
}
