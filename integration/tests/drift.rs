//! Reality changed behind our back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use windlass_integration::{World, home};
use windlass_proto::v1::{DesiredState, Phase, RecoverRequest, recover_request::Accept};

/// A workspace that was used and is archived now, and the key of its archive.
async fn archived(world: &World) -> (String, String) {
    let id = world.create("lost").await.id;
    world.phase(&id, Phase::Running).await;
    world.exec(&id, "echo mine > /home/coder/mine");
    world.desire(&id, DesiredState::Archived).await;
    let key = world.phase(&id, Phase::Archived).await.archive_key;
    (id, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_or_removed_container_comes_back() {
    let world = World::start().await;
    let id = world.create("phoenix").await.id;
    world.phase(&id, Phase::Running).await;
    world.exec(&id, "echo mine > /home/coder/mine");
    let container = || world.docker(&["inspect", "-f", "{{.Id}}", &world.container(&id)]);

    for how in [["kill", "-s", "KILL"].as_slice(), ["rm", "-f"].as_slice()] {
        let first = container();
        let name = world.container(&id);
        let args: Vec<&str> = how.iter().copied().chain([name.as_str()]).collect();
        world.docker(&args);
        windlass_integration::wait::until(
            "another container",
            async || world.try_docker(&["inspect", "-f", "{{.Id}}", &world.container(&id)]),
            |now| now.as_ref().is_ok_and(|now| *now != first),
        )
        .await
        .unwrap();
        world.phase(&id, Phase::Running).await;
        assert_eq!(world.exec(&id, "cat /home/coder/mine"), "mine");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_volume_is_data_lost_and_never_an_empty_home() {
    let world = World::start().await;
    // One archive exists, so that there is something to go back to.
    let (id, key) = archived(&world).await;
    world.desire(&id, DesiredState::Standby).await;
    world.phase(&id, Phase::Standby).await;
    let kept = home::picture(&world.home(&id));

    world.docker(&["volume", "rm", &world.volume(&id)]);
    world.desire(&id, DesiredState::Running).await;
    // Where starts fail before the loss is proven, that is the reason for a moment.
    world
        .until(&id, "DataLost", |ws| {
            ws.phase() == Phase::Error && ws.error_reason == "DataLost"
        })
        .await;
    assert!(
        !world.has_volume(&id),
        "a lost home was replaced by an empty one"
    );
    assert!(!world.has_container(&id));

    // Recovery must say what to accept.
    let recover = |accept| RecoverRequest {
        id: id.clone(),
        accept,
        actor: "test".to_owned(),
    };
    let refused = world.wc().recover(recover(None)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert_eq!(
        windlass_service::reason_of(&refused).as_deref(),
        Some("ACCEPT_REQUIRED")
    );
    world
        .wc()
        .recover(recover(Some(Accept::ArchiveKey(key))))
        .await
        .unwrap();
    world.phase(&id, Phase::Running).await;
    assert_eq!(home::picture(&world.home(&id)), kept);
    let choice = world.sql("SELECT detail FROM audit_log WHERE action = 'recover'");
    assert!(choice.contains("accepted: archive"), "{choice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_archive_is_data_lost() {
    let world = World::start().await;
    let (id, key) = archived(&world).await;
    let store = world.store().await;
    for (key, deleted) in store.delete(&[format!("{key}.meta"), key]).await {
        deleted.unwrap_or_else(|e| panic!("{key}: {e}"));
    }
    let broken = world.phase(&id, Phase::Error).await;
    assert_eq!(broken.error_reason, "DataLost");
    world.desire(&id, DesiredState::Running).await;
    let start_empty = RecoverRequest {
        id: id.clone(),
        accept: Some(Accept::StartEmpty(true)),
        actor: String::new(),
    };
    world.wc().recover(start_empty).await.unwrap();
    world.phase(&id, Phase::Running).await;
    assert_eq!(world.exec(&id, "ls -A /home/coder"), "index.html");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_away_leaves_workspaces_running_and_archives_waiting() {
    let mut world = World::start().await;
    let runs = world.create("runs").await.id;
    let waits = world.create("waits").await.id;
    world.phase(&runs, Phase::Running).await;
    world.phase(&waits, Phase::Running).await;
    home::fill(&world.home(&waits), 5);
    let before = home::picture(&world.home(&waits));

    world.stop_s3().await;
    world.desire(&waits, DesiredState::Archived).await;
    let waiting = world
        .until(&waits, "an archive that waits", |ws| {
            ws.error_reason == "StoreUnavailable"
        })
        .await;
    assert_ne!(waiting.phase(), Phase::Error);
    assert!(world.has_volume(&waits));
    // Everything that needs no store goes on.
    let fresh = world.create("fresh").await.id;
    world.phase(&fresh, Phase::Running).await;
    assert_eq!(world.get(&runs).await.phase(), Phase::Running);

    world.start_s3().await;
    world.phase(&waits, Phase::Archived).await;
    world.desire(&waits, DesiredState::Standby).await;
    world.phase(&waits, Phase::Standby).await;
    assert_eq!(home::picture(&world.home(&waits)), before);
}
