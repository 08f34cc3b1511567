//! Leadership: one holder, and a fence that a deposed leader's write does not pass.

use std::time::Duration;

use windlass_db::{DbErrorKind, write::wc::ControlChange, write::wc::Outcome};
use windlass_domain::Epoch;

use crate::common::{TTL, db};

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_until_its_lease_is_over() {
    let db = db().await;
    let pool = db.pool("wc");
    let a = pool.try_lead("wc", "a", TTL).await.unwrap().unwrap();
    assert_eq!(a.epoch, Epoch(1));
    assert_eq!(pool.try_lead("wc", "b", TTL).await.unwrap(), None);
    assert!(pool.renew(&a, TTL).await.unwrap());

    // The same holder is the dead predecessor's address: it takes over at once.
    let again = pool.try_lead("wc", "a", TTL).await.unwrap().unwrap();
    assert_eq!(again.epoch, Epoch(2));
    assert!(!pool.renew(&a, TTL).await.unwrap());
    assert!(!pool.release(&a).await.unwrap());

    assert!(pool.release(&again).await.unwrap());
    let row = pool.leader("wc").await.unwrap().unwrap();
    assert_eq!((row.holder.as_str(), row.epoch), ("", 2));
    let b = pool
        .try_lead("wc", "b", Duration::ZERO)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(b.epoch, Epoch(3));
    // Its lease has run out.
    let c = pool.try_lead("wc", "c", TTL).await.unwrap().unwrap();
    assert_eq!(c.epoch, Epoch(4));
    assert_eq!(pool.leader("wc").await.unwrap().unwrap().holder, "c");
    assert_eq!(pool.leader("nobody").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_candidates_one_wins() {
    let db = db().await;
    let pool = db.pool("ttl");
    let candidates = (0..20).map(|n| {
        let pool = pool.clone();
        async move { pool.try_lead("ttl", &format!("c{n}"), TTL).await.unwrap() }
    });
    let won = futures::future::join_all(candidates).await;
    assert_eq!(won.iter().flatten().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_leads_under_its_own_name_only() {
    let db = db().await;
    for service in ["observer", "wc", "ttl", "gc"] {
        let pool = db.pool(service);
        for name in ["observer", "wc", "ttl", "gc"] {
            let lease = pool.try_lead(name, "x", TTL).await.unwrap();
            assert_eq!(lease.is_some(), name == service, "{service} leads {name}");
            assert!(pool.leader(name).await.unwrap().is_some());
        }
    }
    let error = db.pool("api").try_lead("wc", "x", TTL).await.unwrap_err();
    assert_eq!(error.kind(), DbErrorKind::Forbidden);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_waits_for_writes_in_flight_and_fences_later_ones() {
    let db = db().await;
    let id = db.workspace("w", "").await;
    let pool = db.pool("wc");
    let old = pool
        .try_lead("wc", "old", Duration::ZERO)
        .await
        .unwrap()
        .unwrap();
    let ws = db.record(id).await.workspace;
    let mut next = ws.control.clone();
    next.error_message = Some("written by the old leader".to_owned());

    // Somebody holds the row: the write has its fence and waits.
    let blocker = db.client().await;
    blocker
        .batch_execute("BEGIN; SELECT 1 FROM workspaces FOR UPDATE")
        .await
        .unwrap();
    let write = tokio::spawn({
        let (pool, old, change) = (
            pool.clone(),
            old.clone(),
            ControlChange::new(&ws, next.clone()),
        );
        async move { pool.store_control(&old, vec![change]).await }
    });
    db.somebody_waits_for_a_lock().await;
    let takeover = tokio::spawn({
        let pool = pool.clone();
        async move { pool.try_lead("wc", "new", TTL).await }
    });
    let two_wait =
        "SELECT (count(*) = 2)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while db.one(two_wait).await != "true" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!takeover.is_finished());

    blocker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(write.await.unwrap().unwrap(), [(id, Outcome::Applied)]);
    let new = takeover.await.unwrap().unwrap().unwrap();
    assert_eq!(new.epoch, Epoch(old.epoch.0 + 1));

    let ws = db.record(id).await.workspace;
    assert_eq!(ws.control.error_message, next.error_message);
    let change = || vec![ControlChange::new(&ws, ws.control.clone())];
    let error = pool.store_control(&old, change()).await.unwrap_err();
    assert_eq!(error.kind(), DbErrorKind::Fenced, "{error}");
    assert_eq!(
        pool.store_control(&new, change()).await.unwrap(),
        [(id, Outcome::Applied)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_leaves_nothing_half_done() {
    let db = db().await;
    let id = db.workspace("w", "").await;
    let (pool, lease) = db.lead("wc").await;
    let ws = db.record(id).await.workspace;
    let mut next = ws.control.clone();
    next.error_message = Some("finished all the same".to_owned());
    let blocker = db.client().await;
    blocker
        .batch_execute("BEGIN; SELECT 1 FROM workspaces FOR UPDATE")
        .await
        .unwrap();
    let caller = tokio::spawn(async move {
        pool.store_control(&lease, vec![ControlChange::new(&ws, next)])
            .await
    });
    db.somebody_waits_for_a_lock().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    blocker.batch_execute("COMMIT").await.unwrap();
    while db
        .record(id)
        .await
        .workspace
        .control
        .error_message
        .is_none()
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
