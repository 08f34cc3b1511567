//! A cluster with the schema, a pool per role, and rows to try things on.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use uuid::Uuid;
use windlass_db::{Bootstrap, Lease, Pool, WorkspaceRecord, migrate, write::api::Quota};
use windlass_domain::{HostId, UserId, WorkspaceId};
use windlass_local::{
    ports,
    postgres::{Config, Postgres},
};

pub const ROLES: [&str; 5] = [
    "windlass_api",
    "windlass_observer",
    "windlass_wc",
    "windlass_ttl",
    "windlass_gc",
];
pub const PASSWORD: &str = "pass'word\\ with \"all\" sorts";
pub const TTL: Duration = Duration::from_secs(600);

pub struct Db {
    pub postgres: Postgres,
    superuser: Client,
    _dir: tempfile::TempDir,
}

pub async fn cluster() -> Db {
    let dir = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir()
        .unwrap();
    let config = Config::for_test(dir.path().join("pg"), ports::free_port().unwrap());
    let postgres = Postgres::start(&config).await.unwrap();
    let superuser = connect(&postgres.url()).await;
    Db {
        postgres,
        superuser,
        _dir: dir,
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub fn bootstrap() -> Bootstrap {
    Bootstrap {
        role_passwords: ROLES
            .map(|role| (role.to_owned(), PASSWORD.to_owned()))
            .to_vec(),
        admin: Some(("admin".to_owned(), [7; 32])),
    }
}

/// A cluster with the schema, host `h1` and user `ann`.
pub async fn db() -> Db {
    let db = cluster().await;
    migrate(&db.postgres.url(), &bootstrap()).await.unwrap();
    db.sql("INSERT INTO hosts (name, address) VALUES ('h1', 'http://127.0.0.1:1')")
        .await;
    db.sql("INSERT INTO users (name) VALUES ('ann')").await;
    db
}

impl Db {
    /// A connection of its own as superuser.
    pub async fn client(&self) -> Client {
        connect(&self.postgres.url()).await
    }

    /// Runs SQL as superuser and returns the first column.
    pub async fn sql(&self, sql: &str) -> Vec<String> {
        let rows = self.superuser.simple_query(sql).await.unwrap();
        rows.iter()
            .filter_map(|row| match row {
                SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
                _ => None,
            })
            .collect()
    }

    pub async fn one(&self, sql: &str) -> String {
        let rows = self.sql(sql).await;
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows.into_iter().next().unwrap()
    }

    /// A pool that logs in as `windlass_<service>`.
    pub fn pool(&self, service: &str) -> Pool {
        Pool::new(&self.role_url(service, PASSWORD), 8).unwrap()
    }

    pub fn role_url(&self, service: &str, password: &str) -> String {
        let password: String = password.bytes().map(|b| format!("%{b:02x}")).collect();
        let port = self.postgres.port();
        format!("postgres://windlass_{service}:{password}@127.0.0.1:{port}/windlass")
    }

    pub async fn lead(&self, service: &str) -> (Pool, Lease) {
        let pool = self.pool(service);
        let lease = pool.try_lead(service, "test", TTL).await.unwrap().unwrap();
        (pool, lease)
    }

    pub async fn user(&self, name: &str) -> UserId {
        let id = self
            .one(&format!("SELECT id FROM users WHERE name = '{name}'"))
            .await;
        UserId(id.parse().unwrap())
    }

    pub async fn host(&self, name: &str) -> HostId {
        let id = self
            .one(&format!("SELECT id FROM hosts WHERE name = '{name}'"))
            .await;
        HostId(id.parse().unwrap())
    }

    /// A row of ann's on h1, otherwise as `columns` (`phase = 'RUNNING', ...`) say.
    pub async fn workspace(&self, name: &str, columns: &str) -> WorkspaceId {
        let id = Uuid::new_v4();
        self.sql(&format!(
            "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state)
             SELECT '{id}', u.id, h.id, '{name}', 'busybox', 'RUNNING'
             FROM users u, hosts h WHERE u.name = 'ann' AND h.name = 'h1'"
        ))
        .await;
        if !columns.is_empty() {
            self.set(WorkspaceId(id), columns).await;
        }
        WorkspaceId(id)
    }

    pub async fn set(&self, id: WorkspaceId, columns: &str) {
        self.sql(&format!(
            "UPDATE workspaces SET {columns} WHERE id = '{id}'"
        ))
        .await;
    }

    pub async fn record(&self, id: WorkspaceId) -> WorkspaceRecord {
        self.pool("api").workspace(id).await.unwrap().unwrap()
    }

    /// Waits until somebody waits for a lock.
    pub async fn somebody_waits_for_a_lock(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        let end = Instant::now() + Duration::from_secs(30);
        while self.one(waiting).await == "0" {
            assert!(Instant::now() < end, "nobody waits");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub const STALE_AFTER: TimeDelta = TimeDelta::seconds(60);

pub fn generous() -> Quota {
    Quota {
        per_user: 1000,
        running_per_user: 1000,
        running: 1000,
    }
}
