//! Orphans go, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use windlass_integration::{World, home, wait};
use windlass_proto::v1::{
    DesiredState, GcServiceRunOnceRequest, GcServiceRunOnceResponse, GcVerdict, Phase, PlanRequest,
};

async fn collect(world: &World, override_breaker: bool) -> GcServiceRunOnceResponse {
    let request = GcServiceRunOnceRequest { override_breaker };
    wait::until(
        "a pass of gc",
        async || world.gc().run_once(request).await.map(|r| r.into_inner()),
        Result::is_ok,
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_archives_go_after_their_grace_and_the_newest_stay() {
    let world = World::options()
        .env("WINDLASS_GC_RETENTION", "2")
        .env("WINDLASS_GC_GRACE", "0s")
        .start()
        .await;
    let id = world.create_as("kept", DesiredState::Standby).await.id;
    world.phase(&id, Phase::Standby).await;
    home::fill(&world.home(&id), 4);
    for round in 0..4 {
        std::fs::write(world.home(&id).join("round"), format!("{round}")).unwrap();
        world.desire(&id, DesiredState::Archived).await;
        world.phase(&id, Phase::Archived).await;
        world.desire(&id, DesiredState::Standby).await;
        world.phase(&id, Phase::Standby).await;
    }
    let before = home::picture(&world.home(&id));
    // A stranger in the bucket, of a workspace nobody knows.
    let stranger = format!(
        "{}/{}/home.tar.zst",
        uuid::Uuid::new_v4(),
        uuid::Uuid::new_v4()
    );
    world.store().await.put_small(&stranger, "?").await.unwrap();

    // Seen for the first time: nothing goes, whatever the grace.
    let first = collect(&world, true).await;
    assert!(first.deleted_keys.is_empty(), "{first:?}");
    let plan = world
        .gc()
        .plan(PlanRequest {})
        .await
        .unwrap()
        .into_inner()
        .pass
        .unwrap();
    let doomed = |v: GcVerdict| plan.items.iter().filter(|i| i.verdict() == v).count();
    assert!(doomed(GcVerdict::Delete) >= 2, "{plan:#?}");
    assert_eq!(doomed(GcVerdict::Unknown), 1, "{plan:#?}");

    // Too many at once: the breaker holds, and says why.
    let refused = collect(&world, false).await;
    assert!(refused.deleted_keys.is_empty());
    assert!(refused.pass.unwrap().refusal.contains("20 %"));

    let second = collect(&world, true).await;
    assert!(!second.deleted_keys.is_empty());
    let keys = world.keys().await;
    let archives = keys
        .iter()
        .filter(|k| k.starts_with(&id) && k.ends_with(".meta"));
    assert_eq!(archives.count(), 2, "{keys:?}");
    assert!(keys.contains(&stranger));
    assert!(keys.contains(&world.get(&id).await.archive_key));
    // And the home is what it was, through one more round.
    world.desire(&id, DesiredState::Archived).await;
    world.phase(&id, Phase::Archived).await;
    world.desire(&id, DesiredState::Standby).await;
    world.phase(&id, Phase::Standby).await;
    assert_eq!(home::picture(&world.home(&id)), before);
    assert!(world.sql("SELECT count(*) FROM audit_log WHERE action = 'gc.delete'") != "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_deletes_nothing() {
    let mut world = World::options()
        .env("WINDLASS_GC_GRACE", "0s")
        .env("WINDLASS_GC_UNKNOWN_GRACE", "0s")
        .start()
        .await;
    let id = world
        .create_as("forgotten", DesiredState::Archived)
        .await
        .id;
    world.phase(&id, Phase::Archived).await;
    let before = world.keys().await;
    world.services.stop(windlass_integration::Name::Wc).await;
    world.sql("DELETE FROM workspaces");
    collect(&world, true).await;
    let pass = collect(&world, true).await.pass.unwrap();
    assert!(pass.refusal.contains("no workspaces"), "{}", pass.refusal);
    assert_eq!(world.keys().await, before);
}
