//! UpdateWorkspace, DeleteWorkspace, UndeleteWorkspace, KeepAwake.

use tonic::Code;
use windlass_proto::v1;

use crate::common::{
    NOBODYS_ID, create, delete, describe, env, get, invalid, named, refused, update,
};

fn with_id(workspace: v1::Workspace, id: &str) -> v1::Workspace {
    v1::Workspace {
        id: id.to_owned(),
        ..workspace
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_mask_names_changes() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    let ttl = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let wish = v1::Workspace {
        id: made.id.clone(),
        description: "new".to_owned(),
        image: "busybox:2".to_owned(),
        desired_state: v1::DesiredState::Standby.into(),
        standby_ttl: ttl(60),
        archive_ttl: ttl(0),
        checkpoint_interval: ttl(900),
        limits: Some(v1::Limits {
            cpu_millis: 500,
            memory_bytes: 1 << 29,
            pids: 64,
        }),
        ..named("renamed")
    };
    let mut expected = made.clone();
    let mut generation = 1;
    type Take = fn(&mut v1::Workspace, &v1::Workspace);
    let fields: [(&str, Take); 8] = [
        ("name", |w, x| w.name.clone_from(&x.name)),
        ("description", |w, x| {
            w.description.clone_from(&x.description);
        }),
        ("image", |w, x| w.image.clone_from(&x.image)),
        ("desired_state", |w, x| w.desired_state = x.desired_state),
        ("standby_ttl", |w, x| w.standby_ttl = x.standby_ttl),
        ("archive_ttl", |w, x| w.archive_ttl = x.archive_ttl),
        ("checkpoint_interval", |w, x| {
            w.checkpoint_interval = x.checkpoint_interval;
        }),
        ("limits.pids", |w, x| {
            w.limits.as_mut().unwrap().pids = x.limits.unwrap().pids;
        }),
    ];
    for (path, take) in fields {
        let updated = update(&env.ann, wish.clone(), &[path]).await.unwrap();
        take(&mut expected, &wish);
        generation += 1;
        expected.etag = format!("{generation:x}");
        expected.update_time = updated.update_time;
        assert_eq!(updated, expected, "{path}");
    }
    assert!(expected.update_time.unwrap().seconds >= made.update_time.unwrap().seconds);
    // Absent in the workspace and named by the mask: the default again.
    let bare = with_id(named("x"), &made.id);
    let paths = [
        "standby_ttl",
        "archive_ttl",
        "checkpoint_interval",
        "limits",
    ];
    let updated = update(&env.ann, bare, &paths).await.unwrap();
    assert_eq!((updated.standby_ttl, updated.archive_ttl), (None, None));
    assert_eq!(updated.checkpoint_interval, None);
    assert_eq!(updated.limits, Some(v1::Limits::default()));
    assert_eq!(updated.name, "renamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_update_refuses() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    create(&env.ann, "other").await;
    let mine = |workspace: v1::Workspace| with_id(workspace, &made.id);
    let mask: &[(&[&str], &str)] = &[
        (&[], "update_mask"),
        (&["owner"], "update_mask"),
        (&["*"], "update_mask"),
        (&["name", "limits.disk"], "update_mask"),
        (&["desired_state"], "workspace.desired_state"),
    ];
    for (paths, field) in mask {
        invalid(update(&env.ann, mine(named("x")), paths).await, field);
    }
    let no_image = v1::Workspace {
        image: "NOT AN IMAGE".to_owned(),
        ..mine(named("x"))
    };
    invalid(
        update(&env.ann, no_image, &["image"]).await,
        "workspace.image",
    );
    let deleted = v1::Workspace {
        desired_state: v1::DesiredState::Deleted.into(),
        ..mine(named("x"))
    };
    invalid(
        update(&env.ann, deleted, &["desired_state"]).await,
        "workspace.desired_state",
    );
    invalid(
        update(&env.ann, named("x"), &["name"]).await,
        "workspace.id",
    );
    let nothing = v1::UpdateWorkspaceRequest::default();
    invalid(env.ann.clone().update_workspace(nothing).await, "workspace");
    refused(
        update(&env.ann, mine(named("other")), &["name"]).await,
        Code::AlreadyExists,
        "NAME_TAKEN",
    );
    for (client, id) in [(&env.ann, NOBODYS_ID), (&env.bob, made.id.as_str())] {
        refused(
            update(client, with_id(named("x"), id), &["name"]).await,
            Code::NotFound,
            "WORKSPACE_NOT_FOUND",
        );
    }
    update(&env.root, mine(named("by-root")), &["name"])
        .await
        .unwrap();
    delete(&env.ann, &made.id).await.unwrap();
    refused(
        update(&env.ann, mine(named("x")), &["name"]).await,
        Code::FailedPrecondition,
        "WORKSPACE_DELETED",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etag_refuses_lost_updates() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    let many = (0..10).map(|n| {
        let workspace = v1::Workspace {
            description: format!("by {n}"),
            ..made.clone()
        };
        update(&env.ann, workspace, &["description"])
    });
    let updated = futures::future::join_all(many).await;
    assert_eq!(updated.iter().filter(|u| u.is_ok()).count(), 1);
    for lost in updated.into_iter().filter(Result::is_err) {
        refused(lost, Code::Aborted, "ETAG_MISMATCH");
    }
    let wrong = v1::Workspace {
        etag: "not an etag".to_owned(),
        ..made.clone()
    };
    invalid(
        update(&env.ann, wrong, &["description"]).await,
        "workspace.etag",
    );
    // What others write leaves it alone; a wish that ttl changed does not.
    let now = get(&env.ann, &made.id).await.unwrap();
    env.db
        .set(&made.id, "observed_at = now(), phase = 'RUNNING'")
        .await;
    assert_eq!(get(&env.ann, &made.id).await.unwrap().etag, now.etag);
    env.db.set(&made.id, "desired_state = 'STANDBY'").await;
    assert_ne!(get(&env.ann, &made.id).await.unwrap().etag, now.etag);

    let mut ann = env.ann.clone();
    let mut delete = async |etag: &str| {
        let request = v1::DeleteWorkspaceRequest {
            id: made.id.clone(),
            etag: etag.to_owned(),
            discard_home: false,
        };
        ann.delete_workspace(request).await
    };
    refused(delete(&now.etag).await, Code::Aborted, "ETAG_MISMATCH");
    invalid(delete("?").await, "etag");
    let current = get(&env.ann, &made.id).await.unwrap().etag;
    delete(&current).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_can_be_repeated_and_may_give_the_home_up() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    let first = delete(&env.ann, &made.id).await.unwrap();
    assert_eq!(first.desired_state(), v1::DesiredState::Deleted);
    assert!(first.delete_time.is_some());
    let second = delete(&env.ann, &made.id).await.unwrap();
    assert_eq!(second, first);
    let discard = v1::DeleteWorkspaceRequest {
        id: made.id.clone(),
        discard_home: true,
        ..Default::default()
    };
    let third = env.ann.clone().delete_workspace(discard.clone()).await;
    let third = third.unwrap().into_inner();
    assert_eq!(third.delete_time, first.delete_time);
    assert_ne!(third.etag, first.etag);
    env.ann.clone().delete_workspace(discard).await.unwrap();
    assert_eq!(
        env.db
            .sql("SELECT discard_home::text FROM workspaces")
            .await,
        ["true"]
    );
    let detail = "SELECT detail FROM audit_log WHERE action = 'delete' ORDER BY id";
    let log = env.db.sql(detail).await;
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log[1].contains("discard_home"));
    assert!(get(&env.ann, &made.id).await.is_ok());
    for (client, id) in [(&env.ann, NOBODYS_ID), (&env.bob, made.id.as_str())] {
        refused(
            delete(client, id).await,
            Code::NotFound,
            "WORKSPACE_NOT_FOUND",
        );
    }
    invalid(delete(&env.ann, "x").await, "id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_taken_back_while_the_home_is_left() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    let mut ann = env.ann.clone();
    let request = v1::UndeleteWorkspaceRequest {
        id: made.id.clone(),
    };
    refused(
        ann.undelete_workspace(request.clone()).await,
        Code::FailedPrecondition,
        "NOT_DELETED",
    );
    delete(&env.ann, &made.id).await.unwrap();
    refused(
        ann.undelete_workspace(request.clone()).await,
        Code::FailedPrecondition,
        "HOME_GONE",
    );
    let volume = r#"home_ctx = '{"location": "volume", "volume_id": "22222222-2222-4222-8222-222222222222"}',
        conditions = '{"evidence": {"volume": {"name": "n",
        "volume_id": "22222222-2222-4222-8222-222222222222", "owned": true}}}'"#;
    env.db.set(&made.id, volume).await;
    refused(
        env.bob.clone().undelete_workspace(request.clone()).await,
        Code::NotFound,
        "WORKSPACE_NOT_FOUND",
    );
    let taken = create(&env.ann, "demo").await;
    refused(
        ann.undelete_workspace(request.clone()).await,
        Code::AlreadyExists,
        "NAME_TAKEN",
    );
    delete(&env.ann, &taken.id).await.unwrap();
    let back = ann.undelete_workspace(request).await.unwrap().into_inner();
    assert_eq!(back.desired_state(), v1::DesiredState::Archived);
    assert_eq!(back.delete_time, None);
    let wrong = v1::UndeleteWorkspaceRequest { id: String::new() };
    invalid(ann.undelete_workspace(wrong).await, "id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_holds_until_it_is_ended() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    let mut ann = env.ann.clone();
    let request = |seconds: i64| v1::KeepAwakeRequest {
        id: made.id.clone(),
        duration: Some(prost_types::Duration { seconds, nanos: 0 }),
    };
    let until = ann.keep_awake(request(3600)).await.unwrap().into_inner();
    let shown = get(&env.ann, &made.id).await.unwrap();
    assert_eq!(shown.keep_awake_until, until.expire_time);
    assert_eq!(shown.etag, made.etag);
    let from_now = until.expire_time.unwrap().seconds - made.create_time.unwrap().seconds;
    assert!((3600..3660).contains(&from_now), "{from_now}");
    let longer = ann.keep_awake(request(7 * 86400)).await.unwrap();
    assert!(longer.into_inner().expire_time.unwrap().seconds > until.expire_time.unwrap().seconds);
    let ended = ann.keep_awake(request(0)).await.unwrap().into_inner();
    assert_eq!(ended.expire_time, None);
    assert_eq!(
        get(&env.ann, &made.id).await.unwrap().keep_awake_until,
        None
    );

    for wrong in [
        request(-1),
        request(7 * 86400 + 1),
        v1::KeepAwakeRequest {
            duration: None,
            ..request(0)
        },
    ] {
        invalid(ann.keep_awake(wrong).await, "duration");
    }
    refused(
        env.bob.clone().keep_awake(request(1)).await,
        Code::NotFound,
        "WORKSPACE_NOT_FOUND",
    );
    delete(&env.ann, &made.id).await.unwrap();
    refused(
        ann.keep_awake(request(1)).await,
        Code::FailedPrecondition,
        "WORKSPACE_DELETED",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_what_is_on_record() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    describe(&env.root, &made.id, "x").await;
    let stop = v1::Workspace {
        desired_state: v1::DesiredState::Standby.into(),
        ..with_id(named(""), &made.id)
    };
    update(&env.ann, stop, &["desired_state"]).await.unwrap();
    delete(&env.ann, &made.id).await.unwrap();
    let log = "SELECT actor || ' ' || action || ' ' || detail FROM audit_log ORDER BY id";
    assert_eq!(
        env.db.sql(log).await,
        [
            "ann create windlass/demo:latest, to be RUNNING",
            "root update description",
            "ann update desired_state: STANDBY",
            "ann delete a home that is only on a volume is archived first",
        ]
    );
}
