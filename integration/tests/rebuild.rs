//! PostgreSQL is lost, and the bucket is not: the rows come back from what the markers say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use windlass_integration::{Name, World, home, wait};
use windlass_proto::v1::{
    DesiredState, GcServiceRunOnceRequest, HomeLocation, Phase, RebuildWorkspacesRequest,
};

/// What `windlass rebuild` tells.
#[track_caller]
fn rebuild(world: &World, args: &[&str]) -> serde_json::Value {
    let rebuild = ["rebuild", "--from-bucket", "-o", "json"];
    let told = world.windlass(&[&rebuild[..], args].concat());
    serde_json::from_slice(&told).unwrap()
}

/// (name, owner, action) of each workspace, by name.
fn actions(told: &serde_json::Value) -> Vec<(String, String, String)> {
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    let workspaces = told["workspaces"].as_array().unwrap();
    let mut rows: Vec<_> = workspaces
        .iter()
        .map(|w| {
            let action = text(&w["action"]).replace("REBUILD_ACTION_", "");
            (text(&w["name"]), text(&w["owner"]), action)
        })
        .collect();
    rows.sort();
    rows
}

fn row(name: &str, owner: &str, action: &str) -> (String, String, String) {
    (name.to_owned(), owner.to_owned(), action.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_back_from_the_bucket_and_homes_with_them() {
    let mut world = World::start().await;
    world.sql("INSERT INTO users (name) VALUES ('bob')");
    let mut ids = Vec::new();
    let mut pictures = Vec::new();
    for (n, name) in ["one", "two", "volume", "damaged"].into_iter().enumerate() {
        let id = world.create_as(name, DesiredState::Standby).await.id;
        world.phase(&id, Phase::Standby).await;
        if name == "two" {
            // Named in the marker, as it is when the archive is made.
            world.sql(&format!(
                "UPDATE workspaces SET image = 'busybox:2',
                     owner_id = (SELECT id FROM users WHERE name = 'bob') WHERE id = '{id}'"
            ));
        }
        home::fill(&world.home(&id), n as u8);
        pictures.push(home::picture(&world.home(&id)));
        world.desire(&id, DesiredState::Archived).await;
        world.phase(&id, Phase::Archived).await;
        ids.push(id);
    }
    // One has gone on since: its volume is newer than its archive.
    world.desire(&ids[2], DesiredState::Standby).await;
    world.phase(&ids[2], Phase::Standby).await;
    std::fs::write(world.home(&ids[2]).join("newer"), "than the archive").unwrap();
    let newer = home::picture(&world.home(&ids[2]));
    let volume_id = world.get(&ids[2]).await.home.unwrap().volume_id;
    let marker = format!("{}.meta", world.get(&ids[3]).await.archive_key);
    let store = world.store().await;
    store.put_small(&marker, "no marker").await.unwrap();

    world.lose_database().await;
    // As docs/operations.md says: the agents have seen higher epochs.
    world.sql("UPDATE leader SET epoch = epoch + 1000000, expires_at = 'epoch'");
    world.start_services().await;
    let before = world.keys().await;
    // With no row at all, nothing is garbage.
    let request = GcServiceRunOnceRequest {
        override_breaker: true,
    };
    let collected = wait::until(
        "a pass of gc",
        async || world.gc().run_once(request).await.map(|r| r.into_inner()),
        Result::is_ok,
    )
    .await
    .unwrap();
    assert!(collected.deleted_keys.is_empty(), "{collected:?}");

    // Told, and nothing done.
    let told = rebuild(&world, &[]);
    let rows = [
        row("one", "admin", "CREATE"),
        row("two", "bob", "CREATE"),
        row("volume", "admin", "CONFLICT"),
    ];
    assert_eq!(actions(&told), rows, "{told:#}");
    assert_eq!(told["applied"], false);
    assert_eq!(told["damaged_markers"], serde_json::json!([marker]));
    assert_eq!(told["unknown_volumes"][0]["workspace_id"], ids[2]);
    assert_eq!(world.sql("SELECT count(*) FROM workspaces"), "0");
    assert_eq!(world.sql("SELECT count(*) FROM users"), "1");

    // Done, and nothing more when repeated.
    assert_eq!(actions(&rebuild(&world, &["--apply"])), rows);
    for (n, (name, owner)) in [("one", "admin"), ("two", "bob")].into_iter().enumerate() {
        let back = world.phase(&ids[n], Phase::Archived).await;
        assert_eq!((back.name.as_str(), back.owner.as_str()), (name, owner));
        assert_eq!(back.home.unwrap().location(), HomeLocation::Archive);
        assert_eq!(back.restore_key, "");
        assert!(!world.has_volume(&ids[n]));
    }
    assert_eq!(world.get(&ids[1]).await.image, "busybox:2");
    let again = rebuild(&world, &["--apply", "--include-deleted"]);
    let rows = [
        row("one", "admin", "EXISTS"),
        row("two", "bob", "EXISTS"),
        row("volume", "admin", "CONFLICT"),
    ];
    assert_eq!(actions(&again), rows);
    let log = "SELECT count(*) FROM audit_log WHERE action = 'rebuild'";
    assert_eq!(world.sql(log), "3", "two workspaces and a user");
    assert_eq!(world.keys().await, before, "the bucket is as it was");

    // The homes are what they were.
    for n in [0, 1] {
        world.desire(&ids[n], DesiredState::Standby).await;
        world.phase(&ids[n], Phase::Standby).await;
        assert_eq!(home::picture(&world.home(&ids[n])), pictures[n]);
    }

    // The volume is taken for the home by hand, as docs/operations.md says.
    world.sql(&format!(
        "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state, phase, home_ctx)
         SELECT '{}', u.id, h.id, 'volume', 'windlass/demo:latest', 'STANDBY', 'STANDBY',
                jsonb_build_object('location', 'volume', 'volume_id', '{volume_id}')
         FROM users AS u, hosts AS h WHERE u.name = 'admin' AND h.name = 'default'",
        ids[2]
    ));
    world.desire(&ids[2], DesiredState::Running).await;
    world.phase(&ids[2], Phase::Running).await;
    assert_eq!(home::picture(&world.home(&ids[2])), newer);
    let told = rebuild(&world, &[]);
    assert_eq!(told["unknown_volumes"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_rebuilds_and_every_host_has_to_answer() {
    let world = World::start().await;
    world.sql(
        "INSERT INTO users (name) VALUES ('bob');
         INSERT INTO tokens (user_id, sha256)
            SELECT id, sha256('bobs-token') FROM users WHERE name = 'bob'",
    );
    let channel = windlass_service::connect(
        &world.address(Name::Api),
        &windlass_service::Secret::new("bobs-token"),
    );
    let mut bob =
        windlass_proto::v1::workspace_service_client::WorkspaceServiceClient::new(channel.unwrap());
    let request = RebuildWorkspacesRequest::default();
    let refused = bob.rebuild_workspaces(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);

    world.sql("INSERT INTO hosts (name, address) VALUES ('away', 'http://127.0.0.1:1')");
    let request = RebuildWorkspacesRequest::default();
    let refused = world.workspaces().rebuild_workspaces(request).await;
    let refused = refused.unwrap_err();
    let reason = windlass_service::reason_of(&refused);
    assert_eq!(reason.as_deref(), Some("AGENT_UNAVAILABLE"), "{refused:?}");
    assert!(refused.message().contains("away"), "{refused:?}");
}
