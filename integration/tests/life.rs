//! The whole life of a workspace: created, run, stopped, archived, brought back, deleted; and its home is
//! the same, file by file, all along.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use windlass_integration::{World, home, wait};
use windlass_proto::v1::{
    ConditionStatus, DesiredState, HomeLocation, ListWorkspaceArchivesRequest, Phase, Workspace,
};

fn holds(ws: &Workspace, condition: &str) -> bool {
    let found = ws.conditions.iter().find(|c| c.r#type == condition);
    found.is_some_and(|c| c.status() == ConditionStatus::True)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_survives_archive_and_restore() {
    let world = World::start().await;
    let id = world.create("demo").await.id;
    let running = world.phase(&id, Phase::Running).await;
    assert!(holds(&running, "infra.container_ready"));
    assert!(holds(&running, "storage.volume_ready"));
    assert_eq!(
        running.home.as_ref().unwrap().location(),
        HomeLocation::Volume
    );

    // Written by the user, through the container, and by us for the kinds a shell does not make.
    world.exec(
        &id,
        "echo mine > /home/coder/mine && mkdir -p /home/coder/d",
    );
    home::fill(&world.home(&id), 7);
    let before = home::picture(&world.home(&id));

    world.desire(&id, DesiredState::Standby).await;
    let standby = world.phase(&id, Phase::Standby).await;
    assert!(!world.has_container(&id));
    assert!(world.has_volume(&id));
    assert!(!holds(&standby, "infra.container_ready"));
    assert_eq!(home::picture(&world.home(&id)), before);

    world.desire(&id, DesiredState::Archived).await;
    let archived = world.phase(&id, Phase::Archived).await;
    assert!(!world.has_volume(&id));
    assert_eq!(
        archived.home.as_ref().unwrap().location(),
        HomeLocation::Archive
    );
    let keys = world.keys().await;
    assert!(keys.contains(&archived.archive_key), "{keys:?}");
    assert!(
        keys.contains(&format!("{}.meta", archived.archive_key)),
        "{keys:?}"
    );

    let request = ListWorkspaceArchivesRequest { id: id.clone() };
    let archives = world
        .workspaces()
        .list_workspace_archives(request)
        .await
        .unwrap();
    let archives = archives.into_inner().archives;
    assert_eq!(archives.len(), 1);
    assert_eq!(archives[0].key, archived.archive_key);
    assert_eq!(archives[0].sha256.len(), 64);

    // One step at a time: ARCHIVED, STANDBY, RUNNING.
    world.desire(&id, DesiredState::Running).await;
    let back = world.phase(&id, Phase::Running).await;
    assert_eq!(
        back.home.as_ref().unwrap().restored_from,
        archived.archive_key
    );
    assert_eq!(home::picture(&world.home(&id)), before);
    assert_eq!(world.exec(&id, "cat /home/coder/mine"), "mine");

    // Down and up once more, with something changed in between: the second archive is another one.
    world.exec(&id, "echo changed > /home/coder/mine");
    let changed = home::picture(&world.home(&id));
    world.desire(&id, DesiredState::Archived).await;
    let again = world.phase(&id, Phase::Archived).await;
    assert_ne!(again.archive_key, archived.archive_key);
    world.desire(&id, DesiredState::Standby).await;
    world.phase(&id, Phase::Standby).await;
    assert_eq!(home::picture(&world.home(&id)), changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_may_begin_in_any_state() {
    let world = World::start().await;
    let archived = world.create_as("cold", DesiredState::Archived).await.id;
    let standby = world.create_as("warm", DesiredState::Standby).await.id;
    world.phase(&archived, Phase::Archived).await;
    world.phase(&standby, Phase::Standby).await;
    assert!(!world.has_volume(&archived));
    assert!(world.has_volume(&standby));
    assert!(!world.has_container(&standby));

    world.desire(&archived, DesiredState::Running).await;
    world.phase(&archived, Phase::Running).await;
    // An empty home gets what the image has there, and belongs to its user.
    assert_eq!(world.exec(&archived, "ls -A /home/coder"), "index.html");
    assert_eq!(world.exec(&archived, "echo ok > ~/f; cat ~/f"), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once() {
    let world = World::start().await;
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(world.create(&format!("ws-{n}")).await.id);
    }
    for id in &ids {
        world.phase(id, Phase::Running).await;
    }
    for id in &ids {
        world.desire(id, DesiredState::Archived).await;
    }
    for id in &ids {
        world.phase(id, Phase::Archived).await;
    }
    wait::until(
        "no container and no volume left",
        async || {
            let filter = format!("name={}", world.prefix);
            world.docker(&["ps", "-aq", "--filter", &filter])
                + &world.docker(&["volume", "ls", "-q", "--filter", &filter])
        },
        String::is_empty,
    )
    .await;
}
