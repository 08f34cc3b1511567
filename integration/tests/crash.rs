//! `kill -9` in the middle: whatever dies, the result is the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use windlass_integration::{Name, World, home, wait};
use windlass_proto::v1::{DesiredState, Job, JobState, ListJobsRequest, Operation, Phase};

/// Waits until bytes of the home have moved, and not all of them.
async fn in_the_middle(world: &World, id: &str) {
    let mut agent = world.agent();
    let began = Instant::now();
    loop {
        let request = ListJobsRequest {
            workspace_id: id.to_owned(),
        };
        let jobs = agent.list_jobs(request).await.unwrap().into_inner().jobs;
        let moved = |job: &Job| job.progress.as_ref().is_some_and(|p| p.done_bytes > 0);
        if jobs
            .iter()
            .any(|job| job.state() == JobState::Running && moved(job))
        {
            return;
        }
        assert!(began.elapsed() < wait::PATIENCE, "no bytes move: {jobs:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Kills `names` in the middle of an archive and of a restore, and starts them again.
async fn survives(names: &[Name]) {
    let mut world = World::start().await;
    let id = world.create("crash").await.id;
    world.phase(&id, Phase::Running).await;
    home::fill(&world.home(&id), 9);
    home::ballast(&world.home(&id), 300);
    let before = home::picture(&world.home(&id));
    world.desire(&id, DesiredState::Standby).await;
    world.phase(&id, Phase::Standby).await;

    for (wish, operation, phase) in [
        (
            DesiredState::Archived,
            Operation::Archiving,
            Phase::Archived,
        ),
        (DesiredState::Standby, Operation::Restoring, Phase::Standby),
    ] {
        world.desire(&id, wish).await;
        world
            .until(&id, "the operation at work", |ws| {
                ws.operation() == operation
            })
            .await;
        in_the_middle(&world, &id).await;
        for &name in names {
            world.services.kill(name).await;
        }
        for &name in names {
            world.services.start(name);
        }
        let ws = world.phase(&id, phase).await;
        assert_eq!(ws.error_reason, "", "{}", ws.error_message);
    }
    assert_eq!(home::picture(&world.home(&id)), before);
    // The archive that the restore came from is still there, complete, and the only one.
    let keys = world.keys().await;
    assert_eq!(
        keys.iter().filter(|k| k.ends_with(".meta")).count(),
        1,
        "{keys:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn observer() {
    survives(&[Name::Observer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wc() {
    survives(&[Name::Wc]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agent() {
    survives(&[Name::Agent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything() {
    survives(&Name::ALL).await;
}
