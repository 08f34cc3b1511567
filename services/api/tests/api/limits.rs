//! Quotas, also when everybody comes at once.

use tonic::{Code, Status};
use windlass_proto::v1;
use windlass_service::error::{metadata_of, reason_of};

use crate::common::{Workspaces, create, delete, env_with, named, refused, try_create, update};

/// More than there are connections to PostgreSQL, and than may be made.
const AT_ONCE: usize = 25;

async fn many(client: &Workspaces, desired: v1::DesiredState) -> (usize, Vec<Status>) {
    let many = (0..AT_ONCE).map(|n| {
        let workspace = v1::Workspace {
            desired_state: desired.into(),
            ..named(&format!(
                "{}-{n}",
                desired.as_str_name().to_lowercase().replace('_', "-")
            ))
        };
        try_create(client, workspace)
    });
    let made = futures::future::join_all(many).await;
    let refusals: Vec<Status> = made.into_iter().filter_map(Result::err).collect();
    (AT_ONCE - refusals.len(), refusals)
}

#[track_caller]
fn all_refused(refusals: &[Status], reason: &str, scope: &str, limit: &str) {
    for status in refusals {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert_eq!(reason_of(status).as_deref(), Some(reason), "{status:?}");
        assert_eq!(metadata_of(status, "scope").as_deref(), Some(scope));
        assert_eq!(metadata_of(status, "limit").as_deref(), Some(limit));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_stop_at_the_limits() {
    let env = env_with(|config| {
        config.max_running_per_user = 3;
        config.max_workspaces_per_user = 20;
        config.max_running = 5;
    })
    .await;
    let (made, refusals) = many(&env.ann, v1::DesiredState::Running).await;
    assert_eq!(made, 3);
    all_refused(&refusals, "RUNNING_LIMIT", "user", "3");
    let (made, refusals) = many(&env.ann, v1::DesiredState::Standby).await;
    assert_eq!(made, 17);
    all_refused(&refusals, "WORKSPACE_LIMIT", "user", "20");
    let (made, refusals) = many(&env.bob, v1::DesiredState::Running).await;
    assert_eq!(made, 2);
    all_refused(&refusals, "RUNNING_LIMIT", "all", "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_counts_and_stopping_frees() {
    let env = env_with(|config| {
        config.max_running_per_user = 2;
        config.max_workspaces_per_user = 3;
    })
    .await;
    let to = |id: &str, desired: v1::DesiredState| {
        let workspace = v1::Workspace {
            id: id.to_owned(),
            desired_state: desired.into(),
            ..Default::default()
        };
        update(&env.ann, workspace, &["desired_state"])
    };
    use v1::DesiredState::{Archived, Running, Standby};
    let a = create(&env.ann, "a").await;
    let b = create(&env.ann, "b").await;
    let standby = v1::Workspace {
        desired_state: Standby.into(),
        ..named("c")
    };
    let c = try_create(&env.ann, standby).await.unwrap();
    refused(
        to(&c.id, Running).await,
        Code::ResourceExhausted,
        "RUNNING_LIMIT",
    );
    // One that is to run already may be told so again.
    to(&a.id, Running).await.unwrap();
    to(&a.id, Archived).await.unwrap();
    let both = futures::future::join(to(&c.id, Running), to(&a.id, Running)).await;
    assert!(both.0.is_ok() != both.1.is_ok(), "{both:?}");
    delete(&env.ann, &b.id).await.unwrap();
    to(&c.id, Running).await.unwrap();
    to(&a.id, Running).await.unwrap();

    // A deleted one has no place; it needs one to come back.
    create_standby(&env.ann, "d").await;
    let request = v1::UndeleteWorkspaceRequest { id: b.id.clone() };
    let home = r#"home_ctx = '{"location": "archive"}', archive_key = 'k', conditions = '{"evidence":
        {"archives": [{"archive_op_id": "22222222-2222-4222-8222-222222222222", "key": "k", "bytes": 1,
        "sha256": "00", "created_at": "2026-01-01T00:00:00Z"}]}}'"#;
    env.db.set(&b.id, home).await;
    let mut ann = env.ann.clone();
    refused(
        ann.undelete_workspace(request.clone()).await,
        Code::ResourceExhausted,
        "WORKSPACE_LIMIT",
    );
    delete(&env.ann, &c.id).await.unwrap();
    ann.undelete_workspace(request).await.unwrap();
}

async fn create_standby(client: &Workspaces, name: &str) {
    let workspace = v1::Workspace {
        desired_state: v1::DesiredState::Standby.into(),
        ..named(name)
    };
    try_create(client, workspace).await.unwrap();
}
