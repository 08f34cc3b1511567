//! RestoreWorkspace.

use tonic::{Code, Response, Status};
use windlass_proto::v1;

use crate::common::{NOBODYS_ID, Workspaces, create, delete, env, get, invalid, refused};

async fn restore(
    client: &Workspaces,
    id: &str,
    key: &str,
    etag: &str,
) -> Result<Response<v1::Workspace>, Status> {
    let request = v1::RestoreWorkspaceRequest {
        id: id.to_owned(),
        archive_key: key.to_owned(),
        etag: etag.to_owned(),
    };
    client.clone().restore_workspace(request).await
}

const ARCHIVES: &str = r#"conditions = '{"evidence": {"archives": [
    {"archive_op_id": "22222222-2222-4222-8222-222222222222", "key": "k2", "bytes": 1, "sha256": "00",
     "created_at": "2026-01-02T00:00:00Z"},
    {"archive_op_id": "33333333-3333-4333-8333-333333333333", "key": "k1", "bytes": 1, "sha256": "00",
     "created_at": "2026-01-01T00:00:00Z"}]}}'"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_wish_is_kept_until_it_is_fulfilled() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    env.db.set(&made.id, ARCHIVES).await;
    let wished = restore(&env.ann, &made.id, "k1", &made.etag).await.unwrap();
    let wished = wished.into_inner();
    assert_eq!(wished.restore_key, "k1");
    assert_ne!(wished.etag, made.etag);
    assert_eq!(wished.desired_state, made.desired_state);
    // Asked again while it is open: the same wish.
    let again = restore(&env.ann, &made.id, "k1", "").await.unwrap();
    assert_eq!(again.into_inner(), wished);
    // Another archive replaces it.
    let other = restore(&env.ann, &made.id, "k2", "").await.unwrap();
    assert_eq!(other.into_inner().restore_key, "k2");
    env.db
        .set(&made.id, "restore_applied = restore_request")
        .await;
    assert_eq!(get(&env.ann, &made.id).await.unwrap().restore_key, "");
    // Fulfilled, it can be wished for again.
    let anew = restore(&env.ann, &made.id, "k2", "").await.unwrap();
    assert_eq!(anew.into_inner().restore_key, "k2");
    let log = "SELECT actor || ' ' || detail FROM audit_log WHERE action = 'restore' ORDER BY id";
    assert_eq!(env.db.sql(log).await, ["ann k1", "ann k2", "ann k2"]);
    // The archive vanished meanwhile: said so.
    env.db.set(&made.id, "conditions = '{}'").await;
    let request = v1::ExplainWorkspaceRequest {
        id: made.id.clone(),
    };
    let explained = env.ann.clone().explain_workspace(request).await.unwrap();
    let blockers = explained.into_inner().blockers;
    assert!(blockers.iter().any(|b| b.contains("k2")), "{blockers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_refuses() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    refused(
        restore(&env.ann, &made.id, "k1", "").await,
        Code::FailedPrecondition,
        "ARCHIVE_NOT_FOUND",
    );
    env.db.set(&made.id, ARCHIVES).await;
    refused(
        restore(&env.ann, &made.id, "k3", "").await,
        Code::FailedPrecondition,
        "ARCHIVE_NOT_FOUND",
    );
    invalid(restore(&env.ann, &made.id, "", "").await, "archive_key");
    invalid(restore(&env.ann, "x", "k1", "").await, "id");
    invalid(restore(&env.ann, &made.id, "k1", "?").await, "etag");
    refused(
        restore(&env.ann, &made.id, "k1", "ff").await,
        Code::Aborted,
        "ETAG_MISMATCH",
    );
    for (client, id) in [(&env.ann, NOBODYS_ID), (&env.bob, made.id.as_str())] {
        refused(
            restore(client, id, "k1", "").await,
            Code::NotFound,
            "WORKSPACE_NOT_FOUND",
        );
    }
    assert_eq!(get(&env.ann, &made.id).await.unwrap().etag, made.etag);
    delete(&env.ann, &made.id).await.unwrap();
    refused(
        restore(&env.ann, &made.id, "k1", "").await,
        Code::FailedPrecondition,
        "WORKSPACE_DELETED",
    );
}
