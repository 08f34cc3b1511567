//! GetWorkspace, ExplainWorkspace, ListWorkspaceArchives: what a client sees of a row.

use tonic::Code;
use windlass_domain::Shard;
use windlass_proto::v1;

use crate::common::{NOBODYS_ID, Workspaces, create, delete, env, env_with, get, invalid, refused};

const OP: &str = "11111111-1111-4111-8111-111111111111";
const VOLUME: &str = "22222222-2222-4222-8222-222222222222";

#[tokio::test(flavor = "multi_thread")]
async fn others_workspaces_are_not_there() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    let mut bob = env.bob.clone();
    for id in [made.id.as_str(), NOBODYS_ID] {
        let id = || id.to_owned();
        let not_found = "WORKSPACE_NOT_FOUND";
        refused(get(&env.bob, &id()).await, Code::NotFound, not_found);
        let explain = v1::ExplainWorkspaceRequest { id: id() };
        refused(
            bob.explain_workspace(explain).await,
            Code::NotFound,
            not_found,
        );
        let archives = v1::ListWorkspaceArchivesRequest { id: id() };
        refused(
            bob.list_workspace_archives(archives).await,
            Code::NotFound,
            not_found,
        );
        let watch = v1::WatchWorkspacesRequest {
            id: id(),
            ..Default::default()
        };
        refused(
            bob.watch_workspaces(watch).await.map(|_| ()),
            Code::NotFound,
            not_found,
        );
    }
    assert_eq!(get(&env.root, &made.id).await.unwrap(), made);
    for id in ["", "x", "11111111-1111-4111-8111-11111111111"] {
        invalid(get(&env.ann, id).await, "id");
    }
    delete(&env.ann, &made.id).await.unwrap();
    env.db.set(&made.id, "phase = 'DELETED'").await;
    assert_eq!(
        get(&env.ann, &made.id).await.unwrap().phase(),
        v1::Phase::Deleted
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_row_holds_is_shown() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    env.db
        .sql("UPDATE hosts SET last_observed_at = '2026-01-05T00:00:05Z'")
        .await;
    env.db
        .set(
            &made.id,
            &format!(
                r#"phase = 'STANDBY', operation = 'ARCHIVING', op_id = '{OP}', error_count = 2,
                error_reason = 'StoreUnavailable', error_message = 'no route', archive_key = 'k2',
                retry_at = '2026-01-06T00:00:06Z', last_access_at = '2026-01-07T00:00:07Z',
                home_ctx = '{{"location": "volume", "volume_id": "{VOLUME}", "restored_from": "k1"}}',
                conditions = '{{
                  "infra.container_ready": {{"status": "False", "reason": "ContainerAbsent",
                    "message": "gone", "last_transition_time": "2026-01-01T00:00:01Z"}},
                  "storage.archive_ready": {{"status": "Unknown", "reason": "StoreUnreachable",
                    "message": "", "last_transition_time": "2026-01-02T00:00:02Z"}},
                  "evidence": {{
                    "archives": [
                      {{"archive_op_id": "{VOLUME}", "key": "k1", "bytes": 5, "sha256": "aa",
                        "created_at": "2026-01-03T00:00:00Z", "uncompressed_bytes": 6, "entries": 7}},
                      {{"archive_op_id": "{OP}", "key": "k2", "bytes": 8, "sha256": "bb",
                        "created_at": "2026-01-04T00:00:00Z"}}],
                    "job": {{"op_id": "{OP}", "stage": "packing", "done_bytes": 3, "total_bytes": 9,
                      "updated_at": "2026-01-08T00:00:08.5Z"}}
                  }}}}'"#
            ),
        )
        .await;
    let shown = get(&env.ann, &made.id).await.unwrap();
    assert_eq!(shown.operation(), v1::Operation::Archiving);
    assert_eq!(shown.error_reason, "StoreUnavailable");
    assert_eq!(
        (shown.error_message.as_str(), shown.error_count),
        ("no route", 2)
    );
    let progress = shown.progress.unwrap();
    assert_eq!(
        (
            progress.stage.as_str(),
            progress.done_bytes,
            progress.total_bytes
        ),
        ("packing", 3, 9)
    );
    let moved = progress.update_time.unwrap();
    assert_eq!((moved.seconds, moved.nanos), (1_767_830_408, 500_000_000));
    let home = shown.home.unwrap();
    assert_eq!(home.location(), v1::HomeLocation::Volume);
    assert_eq!(
        (home.volume_id.as_str(), home.restored_from.as_str()),
        (VOLUME, "k1")
    );
    assert_eq!(home.last_archive_time.unwrap().seconds, 1_767_484_800);
    assert_eq!(shown.observe_time.unwrap().seconds, 1_767_571_205);
    assert_eq!(shown.retry_time.unwrap().seconds, 1_767_657_606);
    assert_eq!(shown.last_access_time.unwrap().seconds, 1_767_744_007);
    let conditions: Vec<_> = shown
        .conditions
        .iter()
        .map(|c| (c.r#type.as_str(), c.status(), c.reason.as_str()))
        .collect();
    use v1::ConditionStatus::{False, Unknown};
    assert_eq!(
        conditions,
        [
            ("infra.container_ready", False, "ContainerAbsent"),
            ("storage.archive_ready", Unknown, "StoreUnreachable"),
        ]
    );

    let request = v1::ListWorkspaceArchivesRequest {
        id: made.id.clone(),
    };
    let archives = env.ann.clone().list_workspace_archives(request).await;
    let archives = archives.unwrap().into_inner().archives;
    let keys: Vec<_> = archives.iter().map(|a| a.key.as_str()).collect();
    assert_eq!(keys, ["k2", "k1"]);
    assert_eq!(archives[1].entries, 7);
    assert_eq!(archives[0].workspace_id, made.id);

    // The job of another operation is no progress of this one.
    env.db.set(&made.id, &format!("op_id = '{VOLUME}'")).await;
    assert_eq!(get(&env.ann, &made.id).await.unwrap().progress, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_explained_why_and_what_comes_next() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    let explain = async || {
        let request = v1::ExplainWorkspaceRequest {
            id: made.id.clone(),
        };
        let explained = env.ann.clone().explain_workspace(request).await;
        explained.unwrap().into_inner()
    };
    let new = explain().await;
    assert!(new.why.contains("no home yet"), "{}", new.why);
    assert!(new.next.contains("PROVISIONING"), "{}", new.next);
    assert!(new.blockers[0].contains("never observed"));
    assert_eq!(new.history.len(), 1);
    assert_eq!(new.history[0].actor, "ann");
    assert_eq!(new.workspace.unwrap().id, made.id);

    // At rest, ttl is next: by the defaults the api was told, or the workspace's own.
    env.db
        .sql("UPDATE hosts SET last_observed_at = now()")
        .await;
    env.db
        .set(
            &made.id,
            &format!(
                r#"phase = 'RUNNING', home_ctx = '{{"location": "volume", "volume_id": "{VOLUME}"}}',
                phase_changed_at = '2126-01-01T00:00:00Z', conditions = '{{"evidence": {{
                  "container": {{"id": "c", "image": "i", "state": "running"}},
                  "volume": {{"name": "n", "volume_id": "{VOLUME}", "owned": true}}}}}}'"#
            ),
        )
        .await;
    let start = 4_922_899_200;
    let running = explain().await;
    assert!(running.next.contains("STANDBY"), "{}", running.next);
    assert_eq!(running.next_time.unwrap().seconds, start + 600);
    assert_eq!(running.blockers, Vec::<String>::new());
    env.db.set(&made.id, "standby_ttl_ms = 5000").await;
    assert_eq!(explain().await.next_time.unwrap().seconds, start + 5);
    env.db.set(&made.id, "standby_ttl_ms = 0").await;
    assert_eq!(explain().await.next_time, None);

    for n in 0..25 {
        env.db
            .sql(&format!(
                "INSERT INTO audit_log (workspace_id, actor, action, detail)
                 VALUES ('{}', 'wc', 'x', '{n}')",
                made.id
            ))
            .await;
    }
    let history = explain().await.history;
    assert_eq!(history.len(), 20);
    assert_eq!(history[0].detail, "24");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_place_in_the_queue_is_told_by_the_rule_that_wc_goes_by() {
    let env = env().await;
    let queued = async |client: &Workspaces, id: &str| {
        let request = v1::ExplainWorkspaceRequest { id: id.to_owned() };
        let told = client.clone().explain_workspace(request).await.unwrap();
        let told = told.into_inner();
        (told.queue_position, told.queue_length, told.blockers)
    };
    env.db
        .sql("UPDATE hosts SET last_observed_at = now()")
        .await;
    let mut anns = Vec::new();
    for n in 0..3 {
        anns.push(create(&env.ann, &format!("a{n}")).await.id);
    }
    let bobs = create(&env.bob, "b").await.id;
    // One of ann's is at work, two wait, bob's came last.
    env.db
        .set(
            &anns[0],
            &format!("operation = 'PROVISIONING', op_id = '{OP}', op_started_at = now()"),
        )
        .await;
    for (n, id) in [&anns[1], &anns[2], &bobs].into_iter().enumerate() {
        let since = format!("op_started_at = now() - interval '{} s'", 30 - n);
        env.db.set(id, &since).await;
    }
    assert_eq!(queued(&env.ann, &anns[0]).await.0, 0, "it is at work");
    let (position, length, blockers) = queued(&env.bob, &bobs).await;
    assert_eq!((position, length), (1, 3), "ann has had a turn");
    assert_eq!(
        blockers[0],
        "it waits for a place: 1st of 3 to be provisioned on host h1"
    );
    assert_eq!(queued(&env.ann, &anns[1]).await.0, 2);
    assert_eq!(queued(&env.ann, &anns[2]).await.0, 3);
    // Each shard of wc has a queue of its own.
    env.db
        .sql("UPDATE leader SET shards = 2, epoch = 1 WHERE name = 'wc'")
        .await;
    let shard = |id: &str| Shard::of(id.parse().unwrap(), 2);
    let waiting = [&anns[1], &anns[2], &bobs];
    let beside = waiting.iter().filter(|id| shard(id) == shard(&bobs));
    let (_, length, _) = queued(&env.bob, &bobs).await;
    assert_eq!(length as usize, beside.count());
    // What wc has not made wait stands nowhere.
    let new = create(&env.bob, "new").await.id;
    let (position, length, blockers) = queued(&env.bob, &new).await;
    assert_eq!((position, length), (0, 0), "{blockers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_explained_by_the_numbers_that_wc_goes_by() {
    let env = env_with(|config| {
        config.max_retries = 7;
        config.stale_after = std::time::Duration::from_secs(3);
    })
    .await;
    let made = create(&env.ann, "demo").await;
    env.db
        .sql("UPDATE hosts SET last_observed_at = now() - interval '10 s'")
        .await;
    env.db
        .set(
            &made.id,
            "error_count = 1, error_reason = 'ActionFailed', error_message = 'x'",
        )
        .await;
    let request = v1::ExplainWorkspaceRequest { id: made.id };
    let told = env.ann.clone().explain_workspace(request).await.unwrap();
    let blockers = told.into_inner().blockers.join("; ");
    assert!(blockers.contains("1 of 7"), "{blockers}");
    let (_, ago) = blockers.split_once("was last observed ").unwrap();
    let seconds: u32 = ago.split_once(" s ago").unwrap().0.parse().unwrap();
    assert!((10..60).contains(&seconds), "{blockers}");
}
