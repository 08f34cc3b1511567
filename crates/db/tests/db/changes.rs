//! The narrow table beside `workspaces`: it always says what the rows say, and spares them their indexes.

use std::sync::Arc;

use windlass_db::write::observer::Observation;
use windlass_domain::{Conditions, Shard, observation};

use crate::common::{Db, ROLES, cluster, db};

/// Workspaces of which the narrow table does not say what their rows say.
const WRONG: &str = "
SELECT count(*) FROM workspaces AS w FULL JOIN workspace_changes AS c ON c.workspace_id = w.id
WHERE (c.change_xid, c.updated_at, c.deleted) IS DISTINCT FROM (w.change_xid, w.updated_at, w.deleted_at IS NOT NULL)";

async fn add(db: &Db, count: usize) {
    db.sql(&format!(
        "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state, phase)
         SELECT gen_random_uuid(), u.id, h.id, 'w' || n, 'i', 'RUNNING', 'RUNNING'
         FROM generate_series(1, {count}) AS n, users u, hosts h WHERE u.name = 'ann'"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_the_rows_say() {
    let db = db().await;
    add(&db, 3).await;
    assert_eq!(db.one(WRONG).await, "0");
    for change in [
        "UPDATE workspaces SET description = 'x'",
        "UPDATE workspaces SET deleted_at = now(), desired_state = 'DELETED' WHERE name = 'w1'",
        "UPDATE workspaces SET deleted_at = NULL, desired_state = 'RUNNING' WHERE name = 'w1'",
        "UPDATE workspaces SET description = 'x' WHERE name = 'nobody'",
        "DELETE FROM workspaces WHERE name = 'w2'",
    ] {
        db.sql(change).await;
        assert_eq!(db.one(WRONG).await, "0", "{change}");
    }
    let count = db.one("SELECT count(*) FROM workspace_changes").await;
    assert_eq!(count, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_from_before_it_are_in_it() {
    const THIS: &str = "2026-11-28-000006_changes";
    let db = cluster().await;
    for (folder, text) in super::compatible::all() {
        if folder == THIS {
            db.sql(
                "INSERT INTO users (name) VALUES ('ann');
                 INSERT INTO hosts (name, address) VALUES ('h1', 'http://h');",
            )
            .await;
            add(&db, 2).await;
            db.sql("UPDATE workspaces SET operation = 'STARTING', op_id = id WHERE name = 'w2'")
                .await;
        }
        db.sql(&text).await;
    }
    assert_eq!(db.one(WRONG).await, "0");
    let busy =
        "SELECT w.name FROM workspace_changes AS c JOIN workspaces AS w ON w.id = c.workspace_id
                WHERE c.attention";
    assert_eq!(db.sql(busy).await, ["w2"]);
}

/// What is written of all workspaces at once touches none of the table's many indexes.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_the_beginning_of_an_operation_are_in_no_index() {
    let db = db().await;
    // In a column of one, or in what it is restricted to.
    let indexed = "
        SELECT DISTINCT a.attname FROM pg_index AS i
        JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
            AND d.refobjid = i.indrelid
        JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE i.indrelid = 'workspaces'::regclass";
    let indexed = db.sql(indexed).await;
    assert!(indexed.contains(&"phase".to_owned()) && indexed.contains(&"name".to_owned()));
    for column in [
        "conditions",
        "observed_at",
        "updated_at",
        "change_xid",
        "operation",
        "op_id",
        "op_started_at",
        "archive_op_id",
        "archive_key",
        "error_count",
        "error_reason",
        "error_message",
        "retry_at",
        "home_ctx",
        "started_image",
        "restore_applied",
    ] {
        assert!(!indexed.contains(&column.to_owned()), "{column} is indexed");
    }
}

/// And so they are heap-only, where the page has room.
#[tokio::test(flavor = "multi_thread")]
async fn what_observer_writes_is_heap_only() {
    let db = db().await;
    add(&db, 1).await;
    let (pool, lease) = db.lead("observer").await;
    let mut rows = Vec::new();
    let reading = pool.observed_rows(Shard::WHOLE, None, None, |id, _| rows.push(id));
    let until = reading.await.unwrap();
    let seen = Some(observation::HostSeen::default());
    let conditions =
        observation::conditions(&Conditions::default(), seen, None, None, None, until.now);
    let pass = Observation {
        changed: vec![(rows[0], Arc::new(conditions))],
        ..Observation::default()
    };
    assert_eq!(pool.store_observation(&lease, pass).await.unwrap().rows, 1);
    drop(pool);
    let mut writes = String::new();
    for _ in 0..2_000 {
        // Statistics arrive when a connection ends.
        let row = "SELECT n_tup_upd || ' ' || n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'workspaces'";
        writes = db.one(row).await;
        if writes.starts_with('1') {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(writes, "1 1");
}

/// Not by the trigger's function either, hung on a table of one's own.
#[tokio::test(flavor = "multi_thread")]
async fn no_service_writes_it() {
    let db = db().await;
    for role in ROLES {
        db.sql(&format!("SET ROLE {role}")).await;
        db.sql("CREATE TEMP TABLE mine (LIKE workspaces)").await;
        let hang = "DO $$ BEGIN
                 CREATE TRIGGER t AFTER INSERT ON mine REFERENCING NEW TABLE AS written
                 FOR EACH STATEMENT EXECUTE FUNCTION workspaces_changed();
                 RAISE 'it could be hung there';
             EXCEPTION WHEN insufficient_privilege THEN NULL; END $$";
        db.sql(hang).await;
        db.sql("DROP TABLE mine").await;
        db.sql("RESET ROLE").await;
    }
}
