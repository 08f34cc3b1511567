//! Deletion, from every phase.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use windlass_integration::{World, home, world::IMAGE};
use windlass_proto::v1::{DesiredState, Operation, Phase, UndeleteWorkspaceRequest, Workspace};

/// Container and volume are gone, and nothing is in progress.
async fn gone(world: &World, id: &str) -> Workspace {
    let ws = world
        .until(id, "nothing but archives left", |ws| {
            matches!(ws.phase(), Phase::Deleting | Phase::Deleted)
                && ws.operation() == Operation::None
                && ws.conditions.iter().all(|c| {
                    c.r#type == "storage.archive_ready"
                        || c.status() != windlass_proto::v1::ConditionStatus::True
                })
        })
        .await;
    assert!(!world.has_container(id));
    assert!(!world.has_volume(id));
    ws
}

#[tokio::test(flavor = "multi_thread")]
async fn from_every_phase() {
    let world = World::start().await;
    let running = world.create("running").await.id;
    let standby = world.create_as("standby", DesiredState::Standby).await.id;
    let archived = world.create_as("archived", DesiredState::Archived).await.id;
    let broken = world.create("broken").await.id;
    world.phase(&running, Phase::Running).await;
    world.phase(&standby, Phase::Standby).await;
    world.phase(&archived, Phase::Archived).await;
    world.phase(&broken, Phase::Running).await;
    world.docker(&["rm", "-f", &world.container(&broken)]);
    world.desire(&broken, DesiredState::Standby).await;
    world.phase(&broken, Phase::Standby).await;
    world.docker(&["volume", "rm", &world.volume(&broken)]);
    world.phase(&broken, Phase::Error).await;
    // And from PENDING: deleted before anything was made.
    let pending = world.create("pending").await.id;
    world.delete(&pending, true).await;

    for id in [&running, &standby, &archived, &broken] {
        world.delete(id, true).await;
    }
    for id in [&running, &standby, &archived, &broken, &pending] {
        gone(&world, id).await;
    }
    // What never had an archive is gone for good.
    world.phase(&running, Phase::Deleted).await;
    world.phase(&pending, Phase::Deleted).await;
    // Their names are free again.
    world.create("running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_is_archived_before_it_is_deleted_unless_it_is_given_up() {
    let world = World::start().await;
    let id = world.create("kept").await.id;
    world.phase(&id, Phase::Running).await;
    home::fill(&world.home(&id), 3);
    let before = home::picture(&world.home(&id));

    world.delete(&id, false).await;
    let deleted = gone(&world, &id).await;
    assert!(world.keys().await.contains(&deleted.archive_key));

    let undelete = UndeleteWorkspaceRequest { id: id.clone() };
    world
        .workspaces()
        .undelete_workspace(undelete)
        .await
        .unwrap();
    world.phase(&id, Phase::Archived).await;
    world.desire(&id, DesiredState::Standby).await;
    world.phase(&id, Phase::Standby).await;
    assert_eq!(home::picture(&world.home(&id)), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_image_ends_in_error_and_a_known_one_gets_out_of_it() {
    let world = World::start().await;
    let workspace = |name: &str| Workspace {
        name: name.to_owned(),
        image: "windlass/no-such-image:1".to_owned(),
        ..Workspace::default()
    };
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let request = windlass_proto::v1::CreateWorkspaceRequest {
            workspace: Some(workspace(name)),
            request_id: String::new(),
        };
        let created = world.workspaces().create_workspace(request).await.unwrap();
        ids.push(created.into_inner().id);
    }
    for id in &ids {
        let ws = world.phase(id, Phase::Error).await;
        assert_eq!(ws.error_reason, "ImagePullFailed");
        assert!(
            ws.error_message.contains("no-such-image"),
            "{}",
            ws.error_message
        );
    }
    let known = Workspace {
        id: ids[0].clone(),
        image: IMAGE.to_owned(),
        ..Workspace::default()
    };
    world.update(known, &["image"]).await;
    let ws = world.phase(&ids[0], Phase::Running).await;
    assert_eq!(ws.error_reason, "");
    world.delete(&ids[1], true).await;
    gone(&world, &ids[1]).await;
}
