//! The change feed: nothing is missed, in whatever order transactions commit.

use windlass_db::read::{WatchScope, WatchToken};
use windlass_domain::WorkspaceId;

use crate::common::{Db, db};

async fn changed(db: &Db, since: WatchToken) -> (Vec<WorkspaceId>, WatchToken) {
    let api = db.pool("api");
    let changed = api.changed(since, WatchScope::default()).await.unwrap();
    let mut ids: Vec<_> = changed.rows.iter().map(|(id, _)| *id).collect();
    ids.sort();
    let rows = api.changes_of(&ids).await.unwrap();
    assert_eq!(rows.len(), ids.len());
    for row in rows {
        let seen = (row.record.workspace.id, row.version());
        assert!(changed.rows.contains(&seen));
    }
    (ids, changed.horizon.token)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_state_is_what_is_not_gone() {
    let db = db().await;
    let api = db.pool("api");
    db.sql("INSERT INTO users (name) VALUES ('bob')").await;
    let here = db.workspace("here", "").await;
    let bobs = db.workspace("bobs", "").await;
    db.sql(&format!(
        "UPDATE workspaces SET owner_id = (SELECT id FROM users WHERE name = 'bob') WHERE id = '{bobs}'"
    ))
    .await;
    let gone = db
        .workspace(
            "gone",
            "phase = 'DELETED', desired_state = 'DELETED', deleted_at = now()",
        )
        .await;
    let ids = async |scope| -> Vec<WorkspaceId> {
        let mut ids: Vec<WorkspaceId> = Vec::new();
        loop {
            let page = api.first_state(scope, ids.last().copied(), 1).await;
            let page = page.unwrap();
            assert!(page.len() <= 1);
            match page.first() {
                Some(change) => ids.push(change.record.workspace.id),
                None => return ids,
            }
        }
    };
    let mut all = vec![here, bobs];
    all.sort();
    assert_eq!(ids(WatchScope::default()).await, all);
    let owner = Some(db.user("ann").await);
    assert_eq!(ids(WatchScope { owner, id: None }).await, [here]);
    for (id, found) in [(here, true), (gone, true), (bobs, false)] {
        let scope = WatchScope {
            owner,
            id: Some(id),
        };
        assert_eq!(!ids(scope).await.is_empty(), found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_commits_late_is_not_missed() {
    let db = db().await;
    let api = db.pool("api");
    let slow = db.workspace("slow", "").await;
    let fast = db.workspace("fast", "").await;
    let start = api.watch_horizon().await.unwrap().token;
    assert_eq!(changed(&db, start).await.0, []);

    let writer = db.client().await;
    writer
        .batch_execute(&format!(
            "BEGIN; UPDATE workspaces SET description = 'late' WHERE id = '{slow}'"
        ))
        .await
        .unwrap();
    db.set(fast, "description = 'early'").await;
    let (ids, token) = changed(&db, start).await;
    assert_eq!(ids, [fast]);
    writer.batch_execute("COMMIT").await.unwrap();
    let (ids, after) = changed(&db, token).await;
    assert!(ids.contains(&slow), "{ids:?}");
    assert_eq!(changed(&db, after).await.0, []);
    assert!(after > start && api.watch_horizon().await.unwrap().token >= after);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_writer_is_seen() {
    let db = db().await;
    let id = db.workspace("w", "").await;
    let client = db.client().await;
    for (role, columns) in [
        ("windlass_api", "description = 'x'"),
        ("windlass_observer", "observed_at = now()"),
        ("windlass_wc", "error_message = 'x'"),
        ("windlass_ttl", "last_access_at = now()"),
    ] {
        let start = db.pool("api").watch_horizon().await.unwrap().token;
        client
            .batch_execute(&format!(
                "SET ROLE {role}; UPDATE workspaces SET {columns}; RESET ROLE"
            ))
            .await
            .unwrap();
        assert_eq!(changed(&db, start).await.0, [id], "{role}");
    }
}
