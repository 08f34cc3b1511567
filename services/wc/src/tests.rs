//! Passes against a real PostgreSQL: what is looked at, what is not, and what is not forgotten.

mod config;

use std::{collections::HashSet, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use config::config;
use tokio::sync::Notify;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use uuid::Uuid;
use windlass_coordinator::{Agents, Hints, Lease, Pass as _, PassError};
use windlass_db::{Bootstrap, Pool, migrate};
use windlass_domain::{ErrorReason, Policy, WorkspaceId, error_reason::Failure};
use windlass_local::{
    ports,
    postgres::{Config, Postgres},
};
use windlass_proto::v1::ReconcileResponse;

use crate::{
    dispatch::{CallFailure, Dispatcher},
    memory::Memory,
    plan::Numbers,
    tick::{Reconcile, Request},
};

const VOLUME: &str = "22222222-2222-4222-8222-222222222222";
const HOUR: Duration = Duration::from_secs(3600);

struct Db {
    postgres: Postgres,
    superuser: Client,
    _dir: tempfile::TempDir,
}

async fn db() -> Db {
    let dir = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir()
        .unwrap();
    let config = Config {
        durable: false,
        die_with_parent: true,
        template_cache: Some(std::env::temp_dir().join("windlass-test-postgres")),
        ..Config::new(dir.path().join("pg"), ports::free_port().unwrap())
    };
    let postgres = Postgres::start(&config).await.unwrap();
    let bootstrap = Bootstrap {
        role_passwords: vec![("windlass_wc".to_owned(), "pw".to_owned())],
        admin: None,
    };
    migrate(&postgres.url(), &bootstrap).await.unwrap();
    let (superuser, connection) = tokio_postgres::connect(&postgres.url(), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let db = Db {
        postgres,
        superuser,
        _dir: dir,
    };
    db.sql(
        "INSERT INTO hosts (name, address, last_observed_at) VALUES ('h1', 'http://127.0.0.1:1', now());
         INSERT INTO users (name) VALUES ('ann')",
    )
    .await;
    db
}

impl Db {
    async fn sql(&self, sql: &str) -> Vec<String> {
        let rows = self.superuser.simple_query(sql).await.unwrap();
        let first = |row: &SimpleQueryMessage| match row {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
            _ => None,
        };
        rows.iter().filter_map(first).collect()
    }

    async fn number(&self, sql: &str) -> u64 {
        self.sql(sql).await[0].parse().unwrap()
    }

    fn pool(&self) -> Pool {
        let port = self.postgres.port();
        Pool::new(
            &format!("postgres://windlass_wc:pw@127.0.0.1:{port}/windlass"),
            1,
        )
        .unwrap()
    }

    /// So many workspaces that run and should.
    async fn running(&self, count: u32) -> Vec<WorkspaceId> {
        let ids = self
            .sql(&format!(
                r#"INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state, phase, home_ctx,
                       started_image, observed_at, conditions)
                   SELECT gen_random_uuid(), u.id, h.id, 'w' || n, 'i', 'RUNNING', 'RUNNING',
                       '{{"location": "volume", "volume_id": "{VOLUME}"}}', 'i', now(),
                       '{{"evidence": {{"container": {{"id": "c", "image": "i", "state": "running"}},
                         "volume": {{"name": "n", "volume_id": "{VOLUME}", "owned": true}}}}}}'
                   FROM users u, hosts h, generate_series(1, {count}) n RETURNING id"#
            ))
            .await;
        self.sql("ANALYZE workspaces").await;
        ids.iter().map(|id| id.parse().unwrap()).collect()
    }

    /// Until the trigger is dropped.
    async fn refuses_writes(&self) {
        self.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE OF phase ON workspaces EXECUTE FUNCTION refuse()",
        )
        .await;
    }

    /// Its home is not seen any more.
    async fn loses_its_volume(&self, id: WorkspaceId) {
        self.sql(&format!(
            "UPDATE workspaces SET observed_at = now(), conditions = '{{}}' WHERE id = '{id}'"
        ))
        .await;
    }

    async fn phase(&self, id: WorkspaceId) -> String {
        let phase = format!("SELECT phase FROM workspaces WHERE id = '{id}'");
        self.sql(&phase).await.remove(0)
    }
}

struct Wc {
    pass: Reconcile,
    lease: Lease,
}

impl Wc {
    async fn leading(db: &Db) -> Self {
        Self::told(db, []).await
    }

    /// Calls have told these failures.
    async fn told(db: &Db, failures: impl IntoIterator<Item = (WorkspaceId, CallFailure)>) -> Self {
        let pool = db.pool();
        let lease = pool.try_lead("wc", "test", HOUR).await.unwrap().unwrap();
        let agents = Arc::new(Agents::new(&"token".into()));
        let bell = Arc::new(Notify::new());
        let dispatcher = Dispatcher::new(agents, Hints::off(), bell, Duration::from_secs(1), 16);
        dispatcher.put_back(failures.into_iter());
        let numbers = Numbers {
            policy: Policy::default(),
            places: config(&[]).places,
        };
        let pass = Reconcile::new(pool, Hints::off(), dispatcher, numbers, Memory::new(HOUR));
        Self { pass, lease }
    }

    async fn pass(&mut self, request: Request) -> Result<ReconcileResponse, PassError> {
        let verdict = self.pass.pass(&self.lease, request).await?;
        Ok(verdict.report.counts)
    }

    async fn due(&mut self) -> ReconcileResponse {
        self.pass(Request::Due).await.unwrap()
    }

    async fn takes_over(&mut self, db: &Db) {
        let pool = db.pool();
        self.lease = pool.try_lead("wc", "test", HOUR).await.unwrap().unwrap();
    }
}

fn looked_at(counts: ReconcileResponse) -> u32 {
    counts.workspaces
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_at_rest_cost_one_look_without_a_row() {
    const PASSES: u64 = 10;
    let db = db().await;
    let ids = db.running(1000).await;
    let mut wc = Wc::leading(&db).await;
    assert_eq!(
        looked_at(wc.due().await),
        1000,
        "whoever begins to lead knows nothing"
    );
    drop(wc);
    let gone = async || {
        let there = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'windlass_wc'";
        while db.number(there).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    gone().await;
    let written = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'workspaces'";
    let walked = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'workspaces'";
    let looks = "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE relname = 'workspaces'";

    let mut wc = Wc::leading(&db).await;
    wc.due().await;
    let before = (
        db.number(written).await,
        db.number(walked).await,
        db.number(looks).await,
    );
    for _ in 0..PASSES {
        assert_eq!(wc.due().await, ReconcileResponse::default());
    }
    drop(wc);
    gone().await;
    assert_eq!(db.number(written).await, before.0, "nothing is written");
    // The first, whole one walks; it is counted only now.
    assert!(
        db.number(walked).await - before.1 <= 1,
        "nothing is walked over"
    );
    let per_pass = (db.number(looks).await - before.2) / PASSES;
    assert!(per_pass <= 3, "{per_pass} index scans in each pass");

    let mut wc = Wc::leading(&db).await;
    wc.due().await;
    let one = wc.pass(Request::One(ids[3])).await.unwrap();
    assert_eq!(looked_at(one), 1);
    assert_eq!(looked_at(wc.pass(Request::All).await.unwrap()), 1000);
    for nobody in [WorkspaceId(Uuid::nil()), ids[5]] {
        db.sql(&format!(
            "UPDATE workspaces SET phase = 'DELETED', desired_state = 'DELETED', deleted_at = now()
             WHERE id = '{nobody}'"
        ))
        .await;
        let refused = wc.pass(Request::One(nobody)).await.unwrap_err();
        assert!(matches!(refused, PassError::Refused(..)), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_fresher_observation_is_looked_at_until_it_comes() {
    let db = db().await;
    let ids = db.running(20).await;
    let mut wc = Wc::leading(&db).await;
    wc.due().await;
    db.loses_its_volume(ids[0]).await;
    assert_eq!(looked_at(wc.due().await), 1);
    for _ in 0..3 {
        assert_eq!(looked_at(wc.due().await), 1, "its absence is not confirmed");
        assert_eq!(db.phase(ids[0]).await, "RUNNING");
    }
    // The confirmation is none of its row's.
    db.sql("UPDATE hosts SET last_observed_at = now() + interval '1 s'")
        .await;
    assert_eq!(wc.due().await.changed, 1);
    assert_eq!(db.phase(ids[0]).await, "ERROR");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_pass_saw_is_seen_again() {
    let db = db().await;
    let ids = db.running(20).await;
    let mut wc = Wc::leading(&db).await;
    wc.due().await;
    db.refuses_writes().await;
    // Its container is gone: nothing in its columns says so.
    db.sql(&format!(
        "UPDATE workspaces SET conditions = conditions #- '{{evidence,container}}' WHERE id = '{}'",
        ids[7]
    ))
    .await;
    wc.pass(Request::Due).await.unwrap_err();
    db.sql("DROP TRIGGER refuse ON workspaces").await;
    let counts = wc.due().await;
    assert_eq!((counts.workspaces, counts.changed), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_told_is_counted_though_a_pass_failed_meanwhile() {
    let db = db().await;
    let id = db.running(1).await[0];
    let op = "33333333-3333-4333-8333-333333333333";
    db.sql(&format!(
        "UPDATE workspaces SET desired_state = 'STANDBY', operation = 'STOPPING', op_id = '{op}',
             op_started_at = now()"
    ))
    .await;
    let told = CallFailure {
        op_id: op.parse().unwrap(),
        attempt: 0,
        failure: Failure {
            reason: ErrorReason::Unreachable,
            message: "away".to_owned(),
        },
    };
    let mut wc = Wc::told(&db, [(id, told)]).await;
    db.refuses_writes().await;
    wc.pass(Request::Due).await.unwrap_err();
    db.sql("DROP TRIGGER refuse ON workspaces").await;
    wc.due().await;
    let reason = db.sql("SELECT error_reason FROM workspaces").await;
    assert_eq!(reason, ["Unreachable"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_over_looks_at_everything_once() {
    let db = db().await;
    db.running(20).await;
    let mut wc = Wc::leading(&db).await;
    let seen: HashSet<u32> = [looked_at(wc.due().await), looked_at(wc.due().await)].into();
    assert_eq!(seen, HashSet::from([20, 0]));
    wc.takes_over(&db).await;
    assert_eq!(looked_at(wc.due().await), 20);
    assert_eq!(looked_at(wc.due().await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_look_leaves_alone_who_is_at_rest_and_has_wait_who_finds_no_place() {
    let db = db().await;
    let ids = db.running(40).await;
    db.sql(&format!(
        "UPDATE workspaces SET desired_state = 'STANDBY' WHERE id <> '{}'",
        ids[0]
    ))
    .await;
    let mut wc = Wc::leading(&db).await;
    let counts = wc.due().await;
    let told = (counts.workspaces, counts.changed, counts.calls);
    assert_eq!(told, (40, 39, 16));
    let stopping = "SELECT count(*) FROM workspaces WHERE operation = 'STOPPING'";
    assert_eq!(db.number(stopping).await, 16);
    let waiting =
        "SELECT count(*) FROM workspaces WHERE operation = 'NONE' AND op_started_at IS NOT NULL";
    assert_eq!(db.number(waiting).await, 23);
    let next = wc.due().await;
    assert_eq!((next.workspaces, next.changed), (39, 0), "all but one");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_by_the_clock_is_looked_at_when_it_is() {
    let db = db().await;
    let ids = db.running(20).await;
    db.sql(&format!(
        "UPDATE workspaces SET checkpoint_interval_ms = 5000, phase_changed_at = now() WHERE id = '{}'",
        ids[2]
    ))
    .await;
    let mut wc = Wc::leading(&db).await;
    wc.due().await;
    let looked = looked_at(wc.due().await);
    let early = format!(
        "SELECT now() < phase_changed_at + interval '5 s' FROM workspaces WHERE id = '{}'",
        ids[2]
    );
    let early = db.sql(&early).await[0] == "t";
    assert!(looked == 0 || !early, "not yet");
    let doing = format!("SELECT operation FROM workspaces WHERE id = '{}'", ids[2]);
    let began = std::time::Instant::now();
    while db.sql(&doing).await[0] != "CHECKPOINTING" {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it is overlooked"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
        wc.due().await;
    }
}
