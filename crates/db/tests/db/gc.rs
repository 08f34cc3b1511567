//! gc's memory of orphans, and what it reads.

use windlass_domain::OpId;

use crate::common::db;

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_is_remembered_while_it_is_one() {
    let db = db().await;
    let (pool, lease) = db.lead("gc").await;
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    pool.store_sightings(&lease, names(&["a", "b"]))
        .await
        .unwrap();
    let first = pool.sightings().await.unwrap();
    pool.store_sightings(&lease, names(&["b", "c"]))
        .await
        .unwrap();
    let second = pool.sightings().await.unwrap();
    assert_eq!(second.len(), 2);
    assert_eq!(second["b"], first["b"]);
    assert!(second["c"] > first["a"]);
    pool.store_sightings(&lease, names(&["a"])).await.unwrap();
    assert!(pool.sightings().await.unwrap()["a"] > first["a"]);
    pool.store_sightings(&lease, Vec::new()).await.unwrap();
    assert!(pool.sightings().await.unwrap().is_empty());

    pool.audit_gc(&lease, "delete", "k1".to_owned())
        .await
        .unwrap();
    assert_eq!(
        db.one("SELECT actor || ' ' || action || ' ' || detail FROM audit_log")
            .await,
        "gc delete k1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_reads_what_each_row_still_needs() {
    let db = db().await;
    let pool = db.pool("gc");
    let op = "11111111-1111-4111-8111-111111111111";
    let volume = "22222222-2222-4222-8222-222222222222";
    let idle = db
        .workspace(
            "idle",
            &format!(
                "archive_key = 'k', archive_op_id = '{op}',
                 home_ctx = '{{\"location\": \"volume\", \"volume_id\": \"{volume}\"}}'"
            ),
        )
        .await;
    let busy = db
        .workspace(
            "busy",
            &format!("operation = 'ARCHIVING', op_id = '{op}', archive_op_id = '{op}'"),
        )
        .await;
    let error = db
        .workspace("error", &format!("phase = 'ERROR', archive_op_id = '{op}'"))
        .await;
    let gone = db
        .workspace(
            "gone",
            "phase = 'DELETED', desired_state = 'DELETED', deleted_at = now()",
        )
        .await;
    let request = "restore_request = gen_random_uuid(), restore_key = 'old'";
    let wishing = db.workspace("wishing", request).await;
    let fulfilled = db.workspace("fulfilled", request).await;
    db.set(fulfilled, "restore_applied = restore_request").await;
    let rows = pool.gc_rows().await.unwrap();
    let row = |id| rows.iter().find(|r| r.id == id).unwrap();
    let op = OpId(op.parse().unwrap());
    assert_eq!(row(idle).archive_key.as_deref(), Some("k"));
    assert_eq!(row(idle).busy_archive_op, None);
    assert_eq!(row(idle).restores, [OpId(volume.parse().unwrap())]);
    assert_eq!(row(busy).busy_archive_op, Some(op));
    assert_eq!(row(busy).restores, [op]);
    assert_eq!(row(error).busy_archive_op, Some(op));
    assert_eq!(row(idle).restore_key, None);
    assert_eq!(row(wishing).restore_key.as_deref(), Some("old"));
    assert_eq!(row(fulfilled).restore_key, None);
    assert!(row(gone).deleted_at.is_some());
}
