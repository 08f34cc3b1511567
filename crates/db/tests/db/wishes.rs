//! api's writes where they differ from what its own tests can reach: races and rows in rare states.

use chrono::TimeDelta;
use uuid::Uuid;
use windlass_db::write::api::{Author, Changed, Changes, Created, NewWorkspace, OverQuota, Quota};
use windlass_domain::{DesiredState, WorkspaceId, control::Limits};

use crate::common::{Db, STALE_AFTER, db, generous};

async fn new(db: &Db, name: &str) -> NewWorkspace {
    NewWorkspace {
        id: WorkspaceId(Uuid::new_v4()),
        owner: db.user("ann").await,
        author: "ann".to_owned().into(),
        request_id: None,
        name: name.to_owned(),
        description: String::new(),
        image: "busybox".to_owned(),
        limits: Limits::default(),
        standby_ttl: None,
        archive_ttl: None,
        checkpoint_interval: None,
        desired: DesiredState::Running,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emptiest_host_that_is_not_cordoned_is_chosen() {
    let db = db().await;
    let api = db.pool("api");
    let h2 = api.register_host("h2", "http://127.0.0.1:2").await.unwrap();
    let mut placed = Vec::new();
    for n in 0..4 {
        let new = new(&db, &format!("w{n}")).await;
        let id = new.id;
        assert_eq!(
            api.create_workspace(new, generous(), STALE_AFTER)
                .await
                .unwrap(),
            Created::New(id)
        );
        placed.push(db.record(id).await.workspace.host_id);
    }
    let h1 = db.host("h1").await;
    assert_eq!(placed, [h1, h2.id, h1, h2.id]);
    assert!(api.cordon_host(h1, true).await.unwrap().unwrap().cordoned);
    for n in 4..6 {
        let new = new(&db, &format!("w{n}")).await;
        let id = new.id;
        api.create_workspace(new, generous(), STALE_AFTER)
            .await
            .unwrap();
        assert_eq!(db.record(id).await.workspace.host_id, h2.id);
    }
    api.cordon_host(h2.id, true).await.unwrap();
    let refused = api
        .create_workspace(new(&db, "w6").await, generous(), STALE_AFTER)
        .await;
    assert_eq!(refused.unwrap(), Created::NoHost);
    let mut counts = api.workspaces_per_host().await.unwrap();
    counts.sort_by_key(|(_, n)| *n);
    assert_eq!(counts, [(h1, 2), (h2.id, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_away_is_the_last_choice() {
    let db = db().await;
    let api = db.pool("api");
    let h1 = db.host("h1").await;
    let h2 = api.register_host("h2", "http://127.0.0.1:2").await.unwrap();
    let seen = async |host: &str, age: &str| {
        db.sql(&format!(
            "UPDATE hosts SET last_observed_at = now() - interval '{age}' WHERE name = '{host}'"
        ))
        .await;
    };
    let place = async |name: &str, stale_after| {
        let new = new(&db, name).await;
        let id = new.id;
        let made = api.create_workspace(new, generous(), stale_after).await;
        assert_eq!(made.unwrap(), Created::New(id));
        db.record(id).await.workspace.host_id
    };
    seen("h1", "70 s").await;
    seen("h2", "0 s").await;
    for name in ["w0", "w1"] {
        assert_eq!(place(name, STALE_AFTER).await, h2.id);
    }
    // For whom 70 s is no age, and where all are away: the emptiest.
    assert_eq!(place("w2", TimeDelta::MAX).await, h1);
    seen("h2", "70 s").await;
    assert_eq!(place("w3", STALE_AFTER).await, h1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_limit_stops_new_ones_only() {
    let db = db().await;
    let api = db.pool("api");
    let first = new(&db, "first").await;
    let id = first.id;
    api.create_workspace(first, generous(), STALE_AFTER)
        .await
        .unwrap();
    let none = Quota {
        running_per_user: 0,
        ..generous()
    };
    let to = |desired| Changes {
        desired: Some(desired),
        ..Changes::default()
    };
    let update =
        |desired, quota| api.update_workspace(id, None, to(desired), quota, "ann".to_owned());
    use DesiredState::{Running, Standby};
    assert_eq!(update(Running, none).await.unwrap(), Changed::Applied);
    assert_eq!(update(Standby, none).await.unwrap(), Changed::Applied);
    assert_eq!(
        update(Running, none).await.unwrap(),
        Changed::OverQuota(OverQuota::RunningPerUser)
    );
    let full = Quota {
        running: 0,
        ..generous()
    };
    assert_eq!(
        update(Running, full).await.unwrap(),
        Changed::OverQuota(OverQuota::Running)
    );
}

/// What is left decides whether a deletion can be taken back.
#[tokio::test(flavor = "multi_thread")]
async fn undelete_needs_a_home() {
    let db = db().await;
    let api = db.pool("api");
    let v = "22222222-2222-4222-8222-222222222222";
    let volume = format!(
        r#"home_ctx = '{{"location": "volume", "volume_id": "{v}"}}', conditions =
        '{{"evidence": {{"volume": {{"name": "n", "volume_id": "{v}", "owned": true}}}}}}'"#
    );
    let archive = format!(
        r#"home_ctx = '{{"location": "archive"}}', archive_key = 'k', conditions =
        '{{"evidence": {{"archives": [{{"archive_op_id": "{v}", "key": "k", "bytes": 1, "sha256": "00",
           "created_at": "2026-01-01T00:00:00Z"}}]}}}}'"#
    );
    let other = r#"home_ctx = '{"location": "volume", "volume_id": "33333333-3333-4333-8333-333333333333"}'"#;
    let deleting = "phase = 'DELETING', desired_state = 'DELETED', deleted_at = now()";
    for (n, (columns, result)) in [
        (format!("{deleting}, {volume}"), Changed::Applied),
        (
            format!("{deleting}, discard_home = true, {volume}"),
            Changed::HomeGone,
        ),
        (format!("{deleting}, {archive}"), Changed::Applied),
        (
            format!("{deleting}, discard_home = true, {archive}"),
            Changed::Applied,
        ),
        (
            format!("{deleting}, {archive}").replace("'k',", "'k2',"),
            Changed::HomeGone,
        ),
        (format!("{deleting}, {other}"), Changed::HomeGone),
        (deleting.to_owned(), Changed::HomeGone),
        (
            format!("{deleting}, {archive}").replace("DELETING", "DELETED"),
            Changed::HomeGone,
        ),
        (volume.clone(), Changed::NotDeleted),
    ]
    .into_iter()
    .enumerate()
    {
        let id = db.workspace(&format!("w{n}"), &columns).await;
        let undeleted = api.undelete_workspace(id, generous(), "ann".to_owned());
        assert_eq!(undeleted.await.unwrap(), result, "{columns}");
        let record = db.record(id).await;
        if result == Changed::Applied {
            assert_eq!(record.workspace.spec.desired, DesiredState::Archived);
            assert!(!record.workspace.spec.discard_home && record.deleted_at.is_none());
        }
    }
    let missing = WorkspaceId(Uuid::new_v4());
    assert_eq!(
        api.undelete_workspace(missing, generous(), "ann".to_owned())
            .await
            .unwrap(),
        Changed::Missing
    );
}

/// Whoever writes desired_state writes the trace it belongs to.
#[tokio::test(flavor = "multi_thread")]
async fn a_wish_brings_its_trace() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let db = db().await;
    let api = db.pool("api");
    let traced = |trace: &str| Author {
        name: "ann".to_owned(),
        trace: Some(trace.to_owned()),
    };
    let mut first = new(&db, "first").await;
    first.author = traced(TRACE);
    let id = first.id;
    api.create_workspace(first, generous(), STALE_AFTER)
        .await
        .unwrap();
    let trace = async || db.record(id).await.trace.map(|(context, _)| context);
    assert_eq!(trace().await.as_deref(), Some(TRACE));

    let to = |desired| Changes {
        desired: Some(desired),
        ..Changes::default()
    };
    let named = Changes {
        name: Some("renamed".to_owned()),
        ..Changes::default()
    };
    let update = |changes, author| api.update_workspace(id, None, changes, generous(), author);
    // A name gives nobody anything to do.
    update(named, Author::default()).await.unwrap();
    assert_eq!(trace().await.as_deref(), Some(TRACE));
    let second = TRACE.replace("0af7", "1bf8");
    update(to(DesiredState::Standby), traced(&second))
        .await
        .unwrap();
    assert_eq!(trace().await.as_deref(), Some(second.as_str()));
    // What belongs to it, and what comes much later.
    let (_, since) = db.record(id).await.trace.unwrap();
    let later = since + chrono::TimeDelta::hours(2);
    assert!(db.record(id).await.trace_at(since).is_some());
    assert_eq!(db.record(id).await.trace_at(later), None);
    update(to(DesiredState::Running), Author::default())
        .await
        .unwrap();
    assert_eq!(trace().await, None);

    api.delete_workspace(id, None, false, traced(TRACE))
        .await
        .unwrap();
    assert_eq!(trace().await.as_deref(), Some(TRACE));
    // ttl's wish is in no trace.
    let idle = "deleted_at = NULL, phase = 'RUNNING', desired_state = 'RUNNING', \
                phase_changed_at = now() - interval '1 day'";
    db.set(id, idle).await;
    let (ttl, lease) = db.lead("ttl").await;
    let day = chrono::TimeDelta::days(1);
    let expired = ttl.expire(&lease, chrono::TimeDelta::minutes(1), day).await;
    assert_eq!(expired.unwrap().to_standby, 1);
    assert_eq!(trace().await, None);
}
