//! Whoever writes many workspaces at once takes their rows in one order, so that no two wait for each other.

use std::{future::Future, sync::Arc};

use chrono::TimeDelta;
use windlass_db::write::{
    observer::Observation,
    wc::{ControlChange, Outcome},
};
use windlass_domain::{Conditions, WorkspaceId};

use crate::common::{Db, db};

/// Nine workspaces, the lowest id last: in the order in which PostgreSQL finds them. Due to become STANDBY.
async fn nine(db: &Db) -> Vec<WorkspaceId> {
    let ids = db
        .sql(
            "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state, phase, phase_changed_at)
             SELECT ('00000000-0000-4000-8000-00000000000' || n)::uuid, u.id, h.id, 'w' || n, 'i', 'RUNNING',
                 'RUNNING', now() - interval '1 h'
             FROM users u, hosts h, generate_series(1, 9) n WHERE u.name = 'ann' ORDER BY n DESC RETURNING id",
        )
        .await;
    let ids: Vec<WorkspaceId> = ids.iter().map(|id| id.parse().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a > b));
    ids
}

/// While `write` waits for the lowest row it holds no other.
async fn waits_for_the_lowest_first<T: Send + 'static>(
    db: &Db,
    write: impl Future<Output = T> + Send + 'static,
) -> T {
    let other = db.client().await;
    other
        .batch_execute("BEGIN; SELECT 1 FROM workspaces ORDER BY id LIMIT 1 FOR UPDATE")
        .await
        .unwrap();
    let write = tokio::spawn(write);
    db.somebody_waits_for_a_lock().await;
    other
        .batch_execute("SELECT 1 FROM workspaces FOR UPDATE NOWAIT; COMMIT")
        .await
        .expect("it holds a higher row");
    write.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn wc_takes_rows_by_their_ids_and_compares_them_as_they_are_then() {
    let db = db().await;
    let ids = nine(&db).await;
    let (pool, lease) = db.lead("wc").await;
    let mut changes = Vec::new();
    for id in &ids {
        let ws = db.record(*id).await.workspace;
        changes.push(ControlChange::new(&ws, ws.control.clone()));
    }
    let write = async move { pool.store_control(&lease, changes).await };
    let stored = waits_for_the_lowest_first(&db, write).await.unwrap();
    assert_eq!(stored.len(), 9);
    assert!(stored.iter().all(|(_, o)| *o == Outcome::Applied));
}

#[tokio::test(flavor = "multi_thread")]
async fn observer_takes_rows_by_their_ids() {
    let db = db().await;
    let conditions = Arc::new(Conditions::default());
    let changed = nine(&db).await.into_iter();
    let seen = Observation {
        changed: changed.map(|id| (id, conditions.clone())).collect(),
        ..Observation::default()
    };
    let (pool, lease) = db.lead("observer").await;
    let write = async move { pool.store_observation(&lease, seen).await };
    let stored = waits_for_the_lowest_first(&db, write).await;
    assert_eq!(stored.unwrap().rows, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn ttl_takes_rows_by_their_ids() {
    let db = db().await;
    let ids = nine(&db).await;
    let (pool, lease) = db.lead("ttl").await;
    let long_ago = pool.now().await.unwrap() - TimeDelta::hours(1);
    let activity: Vec<_> = ids.into_iter().map(|id| (id, long_ago)).collect();
    let write = {
        let (pool, lease) = (pool.clone(), lease.clone());
        async move { pool.store_activity(&lease, activity).await }
    };
    let stored = waits_for_the_lowest_first(&db, write).await;
    assert_eq!(stored.unwrap(), 9);
    let ttl = TimeDelta::minutes(10);
    let write = async move { pool.expire(&lease, ttl, ttl).await };
    let expired = waits_for_the_lowest_first(&db, write).await.unwrap();
    assert_eq!((expired.to_standby, expired.to_archived), (9, 0));
}
