//! Going back to an older archive, and forth again: nothing that was ever the home is lost on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use windlass_integration::{World, home};
use windlass_proto::v1::{
    ArchiveInfo, DesiredState, ExplainWorkspaceRequest, HomeLocation, ListWorkspaceArchivesRequest,
    Phase, RestoreWorkspaceRequest, Workspace,
};

async fn archives(world: &World, id: &str) -> Vec<ArchiveInfo> {
    let request = ListWorkspaceArchivesRequest { id: id.to_owned() };
    let answer = world.workspaces().list_workspace_archives(request).await;
    answer.unwrap().into_inner().archives
}

async fn restore(world: &World, id: &str, key: &str) -> Workspace {
    let request = RestoreWorkspaceRequest {
        id: id.to_owned(),
        archive_key: key.to_owned(),
        etag: String::new(),
    };
    let answer = world.workspaces().restore_workspace(request).await;
    answer.unwrap().into_inner()
}

async fn restored(world: &World, id: &str, key: &str, phase: Phase) -> Workspace {
    let what = format!("{phase:?}, restored from {key},");
    world
        .until(id, &what, |ws| {
            ws.restore_key.is_empty()
                && ws.phase() == phase
                && ws.operation() == windlass_proto::v1::Operation::None
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_archive_becomes_the_home_and_the_newer_one_stays() {
    let world = World::start().await;
    let id = world.create("demo").await.id;
    world.phase(&id, Phase::Running).await;

    // Two archives with different content, and a third one that is only on the volume yet.
    let mut pictures = Vec::new();
    let mut keys = Vec::new();
    for seed in [1, 2] {
        match seed {
            1 => home::fill(&world.home(&id), 1),
            _ => std::fs::remove_dir_all(world.home(&id).join("src")).unwrap(),
        }
        world.exec(&id, &format!("echo {seed} > /home/coder/version"));
        pictures.push(home::picture(&world.home(&id)));
        world.desire(&id, DesiredState::Archived).await;
        keys.push(world.phase(&id, Phase::Archived).await.archive_key);
        world.desire(&id, DesiredState::Running).await;
        world.phase(&id, Phase::Running).await;
    }
    world.exec(&id, "echo 3 > /home/coder/version");
    pictures.push(home::picture(&world.home(&id)));

    // While it is RUNNING: down, archived, and up again with the oldest.
    let wished = restore(&world, &id, &keys[0]).await;
    assert_eq!(wished.restore_key, keys[0]);
    assert_eq!(wished.desired_state(), DesiredState::Running);
    let back = restored(&world, &id, &keys[0], Phase::Running).await;
    assert_eq!(back.home.as_ref().unwrap().restored_from, keys[0]);
    assert_eq!(home::picture(&world.home(&id)), pictures[0]);
    assert_eq!(world.exec(&id, "cat /home/coder/version"), "1");

    // What was only on the volume is an archive now, the newest; the others are still there.
    let listed = archives(&world, &id).await;
    assert_eq!(listed.len(), 3, "{listed:?}");
    assert_eq!([&listed[2].key, &listed[1].key], [&keys[0], &keys[1]]);
    keys.push(listed[0].key.clone());

    // In STANDBY it stays in STANDBY. By the real command line, which waits.
    world.desire(&id, DesiredState::Standby).await;
    world.phase(&id, Phase::Standby).await;
    world.windlass(&["ws", "restore", "demo", "--latest"]);
    let back = world.get(&id).await;
    assert_eq!(back.phase(), Phase::Standby, "it waits until that is done");
    assert_eq!(back.home.as_ref().unwrap().restored_from, keys[2]);
    assert_eq!(home::picture(&world.home(&id)), pictures[2]);

    // ARCHIVED, nothing is moved at all.
    world.desire(&id, DesiredState::Archived).await;
    world.phase(&id, Phase::Archived).await;
    let before = archives(&world, &id).await.len();
    restore(&world, &id, &keys[1]).await;
    let back = restored(&world, &id, &keys[1], Phase::Archived).await;
    assert_eq!(back.archive_key, keys[1]);
    assert_eq!(
        back.home.as_ref().unwrap().location(),
        HomeLocation::Archive
    );
    assert_eq!(archives(&world, &id).await.len(), before);
    world.desire(&id, DesiredState::Running).await;
    world.phase(&id, Phase::Running).await;
    assert_eq!(home::picture(&world.home(&id)), pictures[1]);

    let request = ExplainWorkspaceRequest { id: id.clone() };
    let explained = world.workspaces().explain_workspace(request).await.unwrap();
    let history = explained.into_inner().history;
    let log: Vec<_> = history.iter().filter(|e| e.action == "restore").collect();
    assert_eq!(log.len(), 3);
    assert_eq!(log[0].detail, keys[1]);
}
