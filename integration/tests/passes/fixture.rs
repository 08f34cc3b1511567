//! An observer of its own for each test, driven pass by pass: real PostgreSQL, simulated agents, no clock.

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::Notify;
use uuid::Uuid;
use windlass_coordinator::{Agents, Hints, Pass, PassError, Verdict};
use windlass_db::{Bootstrap, Lease, Pool, migrate};
use windlass_integration::sim_agent::{Shape, SimAgent, total};
use windlass_local::{
    ports,
    postgres::{self, Postgres},
};
use windlass_observer::{Observe, Settings};
use windlass_proto::v1::ObserveResponse;
use windlass_service::Secret;

const PASSWORD: &str = "test-password";
/// Longer than any test.
pub const LONG: Duration = Duration::from_secs(24 * 3600);

/// PostgreSQL, agents and an observer that leads.
pub struct Fixture {
    pub agents: Vec<SimAgent>,
    pub pool: Pool,
    pub lease: Lease,
    pub observe: Observe,
    /// Rung by late answers.
    pub bell: Arc<Notify>,
    /// There, but while it is started anew.
    postgres: Option<Postgres>,
    config: postgres::Config,
    _dir: TempDir,
}

/// A world with so many hosts, `Uuid::from_u128(1)` and so on; nothing is in it. A pass waits for every host.
pub async fn fixture(hosts: usize) -> Fixture {
    fixture_that_waits(hosts, LONG).await
}

/// The same, where a pass waits so long for a host that was as quick the last time.
pub async fn fixture_that_waits(hosts: usize, grace: Duration) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    // PostgreSQL runs as another user when we are root, and has to pass through.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let config = postgres::Config::for_test(dir.path().join("pg"), ports::free_port().unwrap());
    let postgres = Postgres::start(&config).await.unwrap();
    let bootstrap = Bootstrap {
        role_passwords: ["observer", "api"]
            .map(|r| (format!("windlass_{r}"), PASSWORD.to_owned()))
            .to_vec(),
        admin: Some(("admin".to_owned(), [1; 32])),
    };
    migrate(&postgres.url(), &bootstrap).await.unwrap();
    let mut agents = Vec::new();
    for n in 1..=hosts {
        let agent = SimAgent::start().await;
        sql(
            &postgres,
            &format!(
                "INSERT INTO hosts (id, name, address) VALUES ('{}', 'h{n}', '{}')",
                host(n),
                agent.address()
            ),
        );
        agents.push(agent);
    }
    let pool = Pool::new(&role_url(&postgres), 4).unwrap();
    let lease = lead(&pool).await;
    let bell = Arc::new(Notify::new());
    let observe = observe(&pool, &bell, grace);
    Fixture {
        agents,
        pool,
        lease,
        observe,
        bell,
        postgres: Some(postgres),
        config,
        _dir: dir,
    }
}

async fn lead(pool: &Pool) -> Lease {
    let lease = pool.try_lead("observer", "test", LONG).await;
    lease.unwrap().unwrap()
}

/// An observer that knows nothing yet.
pub fn observe(pool: &Pool, bell: &Arc<Notify>, grace: Duration) -> Observe {
    let agents = Arc::new(Agents::new(&Secret::new("token")));
    let settings = Settings {
        timeout: LONG,
        grace,
        stale_after: LONG,
    };
    Observe::new(
        pool.clone(),
        agents,
        Hints::off(),
        None,
        Arc::clone(bell),
        settings,
    )
}

/// The id of the n-th host, from 1.
pub fn host(n: usize) -> Uuid {
    Uuid::from_u128(n as u128)
}

fn role_url(postgres: &Postgres) -> String {
    let url = postgres.url();
    let (_, at) = url.rsplit_once('@').unwrap();
    format!("postgres://windlass_observer:{PASSWORD}@{at}")
}

fn sql(postgres: &Postgres, statement: &str) -> String {
    // By its input: thousands of ids are more than an argument may hold.
    let mut psql = Command::new("psql")
        .args([&postgres.url(), "-XAtq", "-v", "ON_ERROR_STOP=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the psql program");
    let mut input = psql.stdin.take().unwrap();
    input.write_all(statement.as_bytes()).unwrap();
    drop(input);
    let output = psql.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{statement}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Fixture {
    /// Runs SQL as the database's owner.
    pub fn sql(&self, statement: &str) -> String {
        sql(self.postgres.as_ref().unwrap(), statement)
    }

    /// Stops PostgreSQL, and starts it anew.
    pub async fn restart_postgres(&mut self) {
        self.postgres.take().unwrap().stop().await;
        self.postgres = Some(Postgres::start(&self.config).await.unwrap());
    }

    /// Rows for these workspaces on the n-th host, otherwise as `columns` (`phase = 'RUNNING', ...`) say.
    pub fn rows(&self, n: usize, ids: &[Uuid], columns: &str) {
        let values: Vec<String> = ids.iter().map(|id| format!("'{id}'::uuid")).collect();
        self.sql(&format!(
            "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state)
             SELECT w, u.id, '{}', 'w-' || substr(md5(w::text), 1, 20), 'busybox', 'RUNNING'
             FROM unnest(ARRAY[{}]) AS w, users AS u;
             UPDATE workspaces SET {columns} WHERE id = ANY (ARRAY[{}])",
            host(n),
            values.join(","),
            values.join(",")
        ));
    }

    /// Changes the row of one workspace.
    pub fn set(&self, id: Uuid, columns: &str) {
        self.sql(&format!(
            "UPDATE workspaces SET {columns} WHERE id = '{id}'"
        ));
    }

    /// Gives these workspaces on the n-th host what `shape` says.
    pub fn populate(&self, n: usize, ids: &[Uuid], shape: &Shape) {
        let agent = &self.agents[n - 1];
        ids.iter().for_each(|id| agent.populate(*id, shape));
    }

    /// Begins another leadership.
    pub async fn lead_anew(&mut self) {
        self.lease = lead(&self.pool).await;
    }

    /// A pass.
    pub async fn try_pass(&mut self) -> Result<Verdict<ObserveResponse>, PassError> {
        self.observe.pass(&self.lease, ()).await
    }

    /// A pass that goes well; how many rows it wrote.
    pub async fn pass(&mut self) -> u32 {
        self.try_pass().await.unwrap().report.changed
    }

    /// Waits until a late answer wakes the observer.
    pub async fn woken(&self) {
        tokio::time::timeout(Duration::from_secs(60), self.bell.notified())
            .await
            .expect("a late answer wakes the observer");
    }

    /// Passes until one has nothing to do any more.
    pub async fn settle(&mut self) {
        for _ in 0..10 {
            let (versions, told) = (self.versions(), total(&self.agents).entries);
            self.pass().await;
            if (self.versions(), total(&self.agents).entries) == (versions, told) {
                return;
            }
        }
        panic!("it does not settle");
    }

    /// The version of every row that the observer may write: it changes with every UPDATE, also of one that
    /// changes nothing.
    pub fn versions(&self) -> String {
        self.sql(
            "SELECT string_agg(v, ' ' ORDER BY v) FROM (
                 SELECT xmin || '/' || id FROM workspaces
                 UNION ALL SELECT xmin || '/' || id FROM hosts
                 UNION ALL SELECT xmin || '/s' FROM archive_store) AS t (v)",
        )
    }

    /// Why the n-th host could not be observed; empty if it could.
    pub fn host_error(&self, n: usize) -> String {
        self.sql(&format!(
            "SELECT observe_error FROM hosts WHERE id = '{}'",
            host(n)
        ))
    }

    /// Status of a condition; empty: none.
    pub fn status(&self, id: Uuid, condition: &str) -> String {
        self.sql(&format!(
            "SELECT conditions -> '{condition}' ->> 'status' FROM workspaces WHERE id = '{id}'"
        ))
    }

    /// What is stored as evidence at a path (`container,state`).
    pub fn evidence(&self, id: Uuid, path: &str) -> String {
        self.sql(&format!(
            "SELECT conditions -> 'evidence' #>> '{{{path}}}' FROM workspaces WHERE id = '{id}'"
        ))
    }

    /// How many rows say of a condition that it is True.
    pub fn count_true(&self, condition: &str) -> usize {
        let count = self.sql(&format!(
            "SELECT count(*) FROM workspaces WHERE conditions -> '{condition}' ->> 'status' = 'True'"
        ));
        count.parse().unwrap()
    }
}

pub const CONTAINER: &str = "infra.container_ready";
pub const VOLUME: &str = "storage.volume_ready";
pub const ARCHIVE: &str = "storage.archive_ready";
