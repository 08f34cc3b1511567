//! ttl's statements, clause by clause.

use chrono::TimeDelta;
use windlass_db::write::ttl::Expired;
use windlass_domain::{DesiredState, ttl};

use crate::common::db;

/// Due to become STANDBY with the default of 600 s, and with 1800 s to become ARCHIVED.
const RUNNING: &str =
    "phase = 'RUNNING', desired_state = 'RUNNING', phase_changed_at = now() - interval '601 s'";
const STANDBY: &str =
    "phase = 'STANDBY', desired_state = 'STANDBY', phase_changed_at = now() - interval '1801 s'";

/// (name, columns on top of being due, is due all the same)
const RUNNING_CASES: &[(&str, &str, bool)] = &[
    ("plain", "", true),
    (
        "used-long-ago",
        "last_access_at = now() - interval '602 s'",
        true,
    ),
    (
        "used-lately",
        "last_access_at = now() - interval '300 s'",
        false,
    ),
    (
        "young",
        "phase_changed_at = now() - interval '300 s'",
        false,
    ),
    (
        "young-and-used-before",
        "phase_changed_at = now() - interval '300 s', last_access_at = now() - interval '1 h'",
        false,
    ),
    ("never", "standby_ttl_ms = 0", false),
    ("longer", "standby_ttl_ms = 7000000", false),
    (
        "shorter",
        "standby_ttl_ms = 1500, phase_changed_at = now() - interval '1600 ms'",
        true,
    ),
    (
        "shorter-not-yet",
        "standby_ttl_ms = 60000, phase_changed_at = now() - interval '5 s'",
        false,
    ),
    ("ten-years", "standby_ttl_ms = 315360000000", false),
    ("awake", "keep_awake_until = now() + interval '1 h'", false),
    (
        "was-awake",
        "keep_awake_until = now() - interval '1 s'",
        true,
    ),
    (
        "busy",
        "operation = 'STOPPING', op_id = gen_random_uuid()",
        false,
    ),
    (
        "deleted",
        "desired_state = 'DELETED', deleted_at = now()",
        false,
    ),
    ("newer-wish", "desired_state = 'ARCHIVED'", false),
    ("climbing", "phase = 'STANDBY'", false),
    ("error", "phase = 'ERROR'", false),
];

const STANDBY_CASES: &[(&str, &str, bool)] = &[
    ("s-plain", "", true),
    ("s-used-lately", "last_access_at = now()", true),
    (
        "s-young",
        "phase_changed_at = now() - interval '900 s'",
        false,
    ),
    ("s-never", "archive_ttl_ms = 0", false),
    ("s-longer", "archive_ttl_ms = 19000000", false),
    (
        "s-shorter",
        "archive_ttl_ms = 1500, phase_changed_at = now() - interval '1600 ms'",
        true,
    ),
    ("s-other-ttl", "standby_ttl_ms = 0", true),
    (
        "s-awake",
        "keep_awake_until = now() + interval '1 h'",
        false,
    ),
    (
        "s-busy",
        "operation = 'STARTING', op_id = gen_random_uuid()",
        false,
    ),
    (
        "s-deleted",
        "desired_state = 'DELETED', deleted_at = now()",
        false,
    ),
    ("s-newer-wish", "desired_state = 'RUNNING'", false),
    (
        "s-archived",
        "phase = 'ARCHIVED', desired_state = 'ARCHIVED'",
        false,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_clause_of_both_rules() {
    let db = db().await;
    let (pool, lease) = db.lead("ttl").await;
    let mut cases = Vec::new();
    for (due, all, to) in [
        (RUNNING, RUNNING_CASES, DesiredState::Standby),
        (STANDBY, STANDBY_CASES, DesiredState::Archived),
    ] {
        for (name, columns, moves) in all {
            let id = db.workspace(name, due).await;
            if !columns.is_empty() {
                db.set(id, columns).await;
            }
            let before = db.record(id).await;
            cases.push((*name, id, before, moves.then_some(to)));
        }
    }
    // Zero defaults: only those with a TTL of their own.
    let zero = TimeDelta::zero();
    let expired = pool.expire(&lease, zero, zero).await.unwrap();
    let own = Expired {
        to_standby: 1,
        to_archived: 1,
    };
    assert_eq!(expired, own);
    let expired = pool
        .expire(&lease, ttl::DEFAULT_STANDBY_TTL, ttl::DEFAULT_ARCHIVE_TTL)
        .await
        .unwrap();
    for (name, id, before, to) in cases {
        let after = db.record(id).await;
        let is = after.workspace.spec.desired;
        assert_eq!(is, to.unwrap_or(before.workspace.spec.desired), "{name}");
        // The etag moves with it, though ttl may not write the generation itself.
        let moved = i64::from(to.is_some());
        assert_eq!(after.generation, before.generation + moved, "{name}");
    }
    let due = |cases: &[(&str, &str, bool)]| cases.iter().filter(|(_, _, due)| *due).count();
    assert_eq!(expired.to_standby, due(RUNNING_CASES) - 1);
    assert_eq!(expired.to_archived, due(STANDBY_CASES) - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_access_moves_forward_only() {
    let db = db().await;
    let (pool, lease) = db.lead("ttl").await;
    let id = db.workspace("w", "").await;
    let gone = windlass_domain::WorkspaceId(uuid::Uuid::new_v4());
    let now = pool.now().await.unwrap();
    let earlier = now - TimeDelta::seconds(5);
    for (at, moved) in [(earlier, 1), (now, 1), (earlier, 0), (now, 0)] {
        let stored = pool
            .store_activity(&lease, vec![(id, at), (gone, at)])
            .await
            .unwrap();
        assert_eq!(stored, moved);
    }
    assert_eq!(db.record(id).await.last_access_at, Some(now));
    assert_eq!(pool.store_activity(&lease, Vec::new()).await.unwrap(), 0);
}
