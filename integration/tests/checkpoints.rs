//! A running home that is archived without a stop: what a lost host costs is what was written since.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use windlass_integration::{Name, World, home};
use windlass_proto::v1::{
    ArchiveInfo, DesiredState, ExplainWorkspaceRequest, ListWorkspaceArchivesRequest, Operation,
    Phase, RecoverRequest, Workspace, recover_request::Accept,
};

async fn checkpoints(world: &World, id: &str) -> Vec<ArchiveInfo> {
    let request = ListWorkspaceArchivesRequest { id: id.to_owned() };
    let answer = world.workspaces().list_workspace_archives(request).await;
    let mut archives = answer.unwrap().into_inner().archives;
    archives.retain(|a| a.crash_consistent);
    archives
}

/// Shorter than a user may ask for.
fn interval(world: &World, id: &str, milliseconds: u32) {
    world.sql(&format!(
        "UPDATE workspaces SET checkpoint_interval_ms = {milliseconds} WHERE id = '{id}'"
    ));
}

async fn newer_checkpoint(
    world: &World,
    id: &str,
    than: Option<prost_types::Timestamp>,
) -> Workspace {
    world
        .until(id, "a newer checkpoint", |ws| {
            let home = ws.home.clone().unwrap_or_default();
            let at = |t: prost_types::Timestamp| (t.seconds, t.nanos);
            home.last_archive_crash_consistent
                && home.last_archive_time.map(at) > than.map(at)
                && ws.operation() == Operation::None
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_host_costs_no_more_than_the_interval() {
    let world = World::start().await;
    let wish = Workspace {
        checkpoint_interval: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        ..world.create("demo").await
    };
    let id = wish.id.clone();
    let shown = world.update(wish, &["checkpoint_interval"]).await;
    assert_eq!(shown.checkpoint_interval.unwrap().seconds, 3600);
    world.phase(&id, Phase::Running).await;
    home::fill(&world.home(&id), 5);
    world.exec(&id, "echo mine > /home/coder/mine");
    let kept = home::picture(&world.home(&id));
    let container = world.docker(&["inspect", "-f", "{{.Id}}", &world.container(&id)]);

    // Not by any other way than the clock.
    assert!(checkpoints(&world, &id).await.is_empty());
    interval(&world, &id, 2_000);
    let first = newer_checkpoint(&world, &id, None).await;
    assert_eq!(first.phase(), Phase::Running);
    assert_eq!(first.archive_key, "", "no archive was the home yet");
    let second = newer_checkpoint(&world, &id, first.home.unwrap().last_archive_time).await;
    interval(&world, &id, 0);
    let same = world.docker(&["inspect", "-f", "{{.Id}}", &world.container(&id)]);
    assert_eq!(same, container, "it ran all the time");
    let request = ExplainWorkspaceRequest { id: id.clone() };
    let explained = world.workspaces().explain_workspace(request).await.unwrap();
    let told = explained.into_inner().last_safe_copy;
    assert!(told.ends_with("ago (checkpoint)"), "{told}");
    world
        .until(&id, "rest", |ws| ws.operation() == Operation::None)
        .await;
    drop(second);

    // The host's disk is gone behind our back.
    world.lose_home(&id).await;
    // A list that saw the container before and the volume after may say ContainerWithoutVolume for a moment.
    world
        .until(&id, "DataLost", |ws| {
            ws.phase() == Phase::Error && ws.error_reason == "DataLost"
        })
        .await;
    let key = checkpoints(&world, &id).await[0].key.clone();
    let request = RecoverRequest {
        id: id.clone(),
        accept: Some(Accept::ArchiveKey(key.clone())),
        actor: "test".to_owned(),
    };
    world.wc().recover(request).await.unwrap();
    let back = world.phase(&id, Phase::Running).await;
    assert_eq!(back.home.unwrap().restored_from, key);
    assert_eq!(home::picture(&world.home(&id)), kept);
    assert_eq!(world.exec(&id, "cat /home/coder/mine"), "mine");

    // And on the way down an archive is made at rest, whatever checkpoints there are.
    world.desire(&id, DesiredState::Archived).await;
    let archived = world.phase(&id, Phase::Archived).await;
    let all = checkpoints(&world, &id).await;
    assert!(all.iter().all(|a| a.key != archived.archive_key), "{all:?}");
    assert!(!archived.home.unwrap().last_archive_crash_consistent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_fails_is_told_and_harms_nothing() {
    let mut world = World::start().await;
    let id = world.create("demo").await.id;
    world.phase(&id, Phase::Running).await;
    world.exec(&id, "echo mine > /home/coder/mine");
    world.stop_s3().await;
    interval(&world, &id, 1_000);
    let failing = world
        .until(&id, "checkpoints that failed", |ws| ws.error_count >= 2)
        .await;
    assert_eq!(failing.error_reason, "CheckpointFailed");
    assert!(
        failing.error_message.contains("StoreUnavailable"),
        "{failing:?}"
    );
    assert_eq!(failing.phase(), Phase::Running);
    let request = ExplainWorkspaceRequest { id: id.clone() };
    let explained = world.workspaces().explain_workspace(request).await.unwrap();
    let blockers = explained.into_inner().blockers;
    assert!(
        blockers[0].starts_with("last checkpoint failed"),
        "{blockers:?}"
    );
    // It stands in no one's way.
    world.desire(&id, DesiredState::Standby).await;
    let stopped = world.phase(&id, Phase::Standby).await;
    assert_eq!(stopped.error_reason, "");
    world.start_s3().await;
    world.desire(&id, DesiredState::Running).await;
    newer_checkpoint(&world, &id, None).await;
    assert_eq!(world.exec(&id, "cat /home/coder/mine"), "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_is_taken_all_the_same() {
    let mut world = World::start().await;
    let id = world.create("demo").await.id;
    world.phase(&id, Phase::Running).await;
    home::ballast(&world.home(&id), 150);
    let container = world.docker(&["inspect", "-f", "{{.Id}}", &world.container(&id)]);
    // Long enough for rest between two to be seen.
    interval(&world, &id, 5_000);
    for names in [&[Name::Agent][..], &[Name::Wc], &[Name::Agent, Name::Wc]] {
        let at_work = world
            .until(&id, "a checkpoint at work", |ws| {
                ws.operation() == Operation::Checkpointing
            })
            .await;
        for &name in names {
            world.services.kill(name).await;
        }
        for &name in names {
            world.services.start(name);
        }
        let than = at_work.home.unwrap().last_archive_time;
        newer_checkpoint(&world, &id, than).await;
    }
    // Whoever wants it stopped waits for the one at work, and no longer.
    world
        .until(&id, "a checkpoint at work", |ws| {
            ws.operation() == Operation::Checkpointing
        })
        .await;
    let same = world.docker(&["inspect", "-f", "{{.Id}}", &world.container(&id)]);
    assert_eq!(same, container, "it ran all the time");
    world.desire(&id, DesiredState::Standby).await;
    world.phase(&id, Phase::Standby).await;
}
