//! The rows that wc looks at: none is missed, none is there without a reason, and none costs a walk over the
//! whole table.

use std::collections::HashSet;

use windlass_db::Pool;
use windlass_db::read::{Attended, Attention, Scope, WatchToken};
use windlass_domain::{Shard, WorkspaceId, attention};

use crate::common::{Db, db};

const NEVER: WatchToken = WatchToken(i64::MAX);

async fn look(pool: &Pool, scope: Scope<'_>) -> (Vec<Attended>, Option<Attention>) {
    let mut rows = Vec::new();
    let seen = pool.attention(Shard::WHOLE, scope, |row| rows.push(row));
    let seen = seen.await.unwrap();
    (rows, seen)
}

fn ids_of(rows: &[Attended]) -> Vec<WorkspaceId> {
    rows.iter().map(|row| row.record.workspace.id).collect()
}

async fn found(pool: &Pool, scope: Scope<'_>) -> (HashSet<WorkspaceId>, Option<WatchToken>) {
    let (rows, seen) = look(pool, scope).await;
    let ids = ids_of(&rows);
    let set: HashSet<_> = ids.iter().copied().collect();
    assert_eq!(set.len(), ids.len(), "each row once");
    (set, seen.map(|seen| seen.token))
}

async fn at_rest(db: &Db, name: &str) -> WorkspaceId {
    db.workspace(name, "phase = 'RUNNING'").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_what_is_not_at_rest_and_what_is_asked_for() {
    let db = db().await;
    let pool = db.pool("wc");
    assert_eq!(found(&pool, Scope::Whole).await, (HashSet::new(), None));
    let [changed, asked, other] = [
        at_rest(&db, "changed").await,
        at_rest(&db, "asked").await,
        at_rest(&db, "other").await,
    ];
    let busy = db.workspace("busy", "phase = 'STANDBY'").await;
    let gone = db
        .workspace(
            "gone",
            "phase = 'DELETED', desired_state = 'DELETED', deleted_at = now()",
        )
        .await;
    let (all, token) = found(&pool, Scope::Whole).await;
    assert_eq!(all, HashSet::from([changed, asked, other, busy]));
    let token = token.unwrap();

    let (rows, seen) = look(&pool, Scope::Whole).await;
    let host = db.host("h1").await;
    for row in rows {
        assert_eq!(row.record.workspace.host_id, host);
        assert_eq!(row.host.name, "h1");
        assert_eq!(row.host.address, "http://127.0.0.1:1");
        assert_eq!(Some(row.now), seen.map(|seen| seen.now));
    }
    let (now, seen) = (pool.now().await.unwrap(), seen.unwrap());
    assert!((now - seen.now).num_seconds() < 60 && seen.now <= now);

    let ids = [asked, gone];
    let since = |token| Scope::Since(token, &ids);
    assert_eq!(
        found(&pool, since(token)).await.0,
        HashSet::from([busy, asked])
    );
    db.set(changed, "description = 'x'").await;
    db.set(gone, "description = 'x'").await;
    let (now_found, later) = found(&pool, since(token)).await;
    assert_eq!(now_found, HashSet::from([busy, asked, changed]));
    assert_eq!(
        found(&pool, since(later.unwrap())).await.0,
        HashSet::from([busy, asked])
    );
    assert_eq!(
        found(&pool, Scope::Host(host)).await.0,
        HashSet::from([busy])
    );

    // With nothing to look at the old token stands, and goes on to find what comes later.
    db.set(busy, "phase = 'RUNNING'").await;
    let (_, token) = found(&pool, Scope::Since(later.unwrap(), &[])).await;
    let token = token.unwrap();
    assert_eq!(
        found(&pool, Scope::Since(token, &[])).await,
        (HashSet::new(), None)
    );
    db.set(other, "observed_at = now()").await;
    assert_eq!(
        found(&pool, Scope::Since(token, &[])).await.0,
        HashSet::from([other])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_commits_late_is_not_overlooked() {
    let db = db().await;
    let pool = db.pool("wc");
    let [slow, fast] = [at_rest(&db, "slow").await, at_rest(&db, "fast").await];
    let (_, start) = found(&pool, Scope::Whole).await;
    let writer = db.client().await;
    writer
        .batch_execute(&format!(
            "BEGIN; UPDATE workspaces SET description = 'late' WHERE id = '{slow}'"
        ))
        .await
        .unwrap();
    db.set(fast, "description = 'early'").await;
    let (ids, token) = found(&pool, Scope::Since(start.unwrap(), &[])).await;
    assert_eq!(ids, HashSet::from([fast]));
    writer.batch_execute("COMMIT").await.unwrap();
    let (ids, _) = found(&pool, Scope::Since(token.unwrap(), &[])).await;
    assert!(ids.contains(&slow));
}

/// One that a later version wrote, or a hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_stands_in_no_others_way() {
    let db = db().await;
    let pool = db.pool("wc");
    let good = at_rest(&db, "good").await;
    let bad = db
        .workspace("bad", r#"conditions = '{"evidence": "none"}'"#)
        .await;
    for scope in [Scope::Whole, Scope::Since(NEVER, &[good, bad])] {
        let (rows, seen) = look(&pool, scope).await;
        assert_eq!((ids_of(&rows), seen.unwrap().unreadable), (vec![good], 1));
    }
    assert!(pool.workspace(bad).await.is_err());
}

/// Pages of 5,000, the last one full.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_look_has_every_row_once() {
    let db = db().await;
    let pool = db.pool("wc");
    db.sql(
        "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state)
         SELECT gen_random_uuid(), u.id, h.id, 'w' || n, 'i', 'RUNNING'
         FROM users u, hosts h, generate_series(1, 10000) n WHERE u.name = 'ann'",
    )
    .await;
    let began = db
        .one("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
        .await;
    let (all, token) = found(&pool, Scope::Whole).await;
    assert_eq!(all.len(), 10_000);
    assert!(token.unwrap().0 >= began.parse().unwrap());
}

/// Every combination of the columns that count, judged by PostgreSQL and by the domain.
#[tokio::test(flavor = "multi_thread")]
async fn the_trigger_and_the_domain_mean_the_same_rows() {
    let db = db().await;
    db.sql(
        "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state, deleted_at, phase, operation,
             op_id, error_count, error_reason, retry_at, op_started_at, restore_request, restore_key, restore_applied)
         SELECT gen_random_uuid(), u.id, h.id, 'w' || row_number() OVER (), 'i', d,
             CASE WHEN d = 'DELETED' THEN now() END, p, o, CASE WHEN o <> 'NONE' THEN gen_random_uuid() END,
             e, CASE WHEN e > 0 THEN 'ActionFailed' END, r, s, w, CASE WHEN w IS NOT NULL THEN 'k' END, a
         FROM users u, hosts h, unnest(ARRAY['ARCHIVED', 'STANDBY', 'RUNNING', 'DELETED']) d,
             unnest(ARRAY['PENDING', 'ARCHIVED', 'STANDBY', 'RUNNING', 'ERROR', 'DELETING', 'DELETED']) p,
             unnest(ARRAY['NONE', 'STARTING']) o, unnest(ARRAY[0, 1]) e,
             unnest(ARRAY[NULL, now()]) r, unnest(ARRAY[NULL, now()]) s,
             unnest(ARRAY[NULL, '00000000-0000-0000-0000-000000000001'::uuid]) w,
             unnest(ARRAY[NULL, '00000000-0000-0000-0000-000000000001'::uuid]) a
         WHERE u.name = 'ann' AND (p <> 'ERROR' OR o = 'NONE')",
    )
    .await;
    let pool = db.pool("wc");
    let (rows, _) = look(&pool, Scope::Whole).await;
    assert!(rows.len() > 1_000);
    let workspaces = rows.iter().map(|row| &row.record.workspace);
    let meant: HashSet<_> = workspaces
        .filter(|ws| attention::by_columns(ws))
        .map(|ws| ws.id)
        .collect();
    assert!(meant.len() < rows.len());
    assert_eq!(found(&pool, Scope::Since(NEVER, &[])).await.0, meant);
    let host = db.host("h1").await;
    assert_eq!(found(&pool, Scope::Host(host)).await.0, meant);
}

/// What PostgreSQL did, by its own statistics, not by a plan it might have made: with 20,000 rows that are
/// analysed no look walks over the table, however often the statement was prepared before.
#[tokio::test(flavor = "multi_thread")]
async fn no_look_reads_the_whole_table() {
    const LOOKS: usize = 12;
    let db = db().await;
    db.sql(
        "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state, phase, operation, op_id)
         SELECT gen_random_uuid(), u.id, h.id, 'w' || n, 'i', 'RUNNING', 'RUNNING',
             CASE WHEN n % 1000 = 0 THEN 'STARTING' ELSE 'NONE' END,
             CASE WHEN n % 1000 = 0 THEN gen_random_uuid() END
         FROM users u, hosts h, generate_series(1, 20000) n WHERE u.name = 'ann'",
    )
    .await;
    db.sql("VACUUM ANALYZE workspaces, workspace_changes").await;
    let reader = db.pool("wc");
    let (rows, seen) = look(&reader, Scope::Whole).await;
    assert_eq!(rows.len(), 20_000);
    let (asked, token) = (ids_of(&rows[..50]), seen.unwrap().token);
    drop(reader);
    let reads = async || -> (u64, u64) {
        let row = "SELECT sum(seq_scan) || ' ' || sum(idx_scan) FROM pg_stat_user_tables
                   WHERE relname IN ('workspaces', 'workspace_changes')";
        let row = db.one(row).await;
        let (seq, idx) = row.split_once(' ').unwrap();
        (seq.parse().unwrap(), idx.parse().unwrap())
    };
    // Statistics arrive when a connection ends, and nobody is told.
    let settled = async || {
        let mine = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'windlass_wc'";
        while db.one(mine).await != "0" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    settled().await;
    let (seq_before, idx_before) = reads().await;

    let pool = db.pool("wc");
    let host = db.host("h1").await;
    for _ in 0..LOOKS {
        assert_eq!(found(&pool, Scope::Since(NEVER, &[])).await.0.len(), 20);
        let some = found(&pool, Scope::Since(token, &asked)).await.0.len();
        assert!((50..=70).contains(&some), "{some}");
        assert_eq!(found(&pool, Scope::Host(host)).await.0.len(), 20);
    }
    drop(pool);
    settled().await;
    let (seq_after, idx_after) = reads().await;
    assert_eq!(seq_after - seq_before, 0, "a look read the whole table");
    assert!(idx_after - idx_before >= 3 * LOOKS as u64);
}
