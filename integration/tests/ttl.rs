//! Idle workspaces go down by themselves, and come back when they are wanted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use windlass_integration::{World, home};
use windlass_proto::v1::{
    Activity, DesiredState, KeepAwakeRequest, Phase, RecordActivityRequest,
    TtlServiceRunOnceRequest, Workspace,
};

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[tokio::test(flavor = "multi_thread")]
async fn down_to_archived_by_itself_and_back() {
    let world = World::options()
        .env("WINDLASS_TTL_PERIOD", "1s")
        .env("WINDLASS_ARCHIVE_TTL", "3s")
        .start()
        .await;
    let id = world.create("idle").await.id;
    world.phase(&id, Phase::Running).await;
    home::fill(&world.home(&id), 1);
    let before = home::picture(&world.home(&id));
    let ttl = |standby| Workspace {
        id: id.clone(),
        standby_ttl: seconds(standby),
        ..Workspace::default()
    };
    world.update(ttl(1), &["standby_ttl"]).await;
    let archived = world.phase(&id, Phase::Archived).await;
    assert_eq!(archived.desired_state(), DesiredState::Archived);

    // It stays up this time, to be looked at.
    world.update(ttl(0), &["standby_ttl"]).await;
    world.desire(&id, DesiredState::Running).await;
    world.phase(&id, Phase::Running).await;
    assert_eq!(home::picture(&world.home(&id)), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn use_leases_and_zero_keep_it_awake() {
    let world = World::options()
        .env("WINDLASS_TTL_PERIOD", "1h")
        .start()
        .await;
    let used = world.create("used").await.id;
    let leased = world.create("leased").await.id;
    let never = world.create("never").await.id;
    let idle = world.create("idle").await.id;
    let overridden = Workspace {
        id: never.clone(),
        standby_ttl: seconds(0),
        ..Workspace::default()
    };
    world.update(overridden, &["standby_ttl"]).await;
    let lease = KeepAwakeRequest {
        id: leased.clone(),
        duration: seconds(3600),
    };
    world.workspaces().keep_awake(lease).await.unwrap();
    for id in [&used, &leased, &never, &idle] {
        world.phase(id, Phase::Running).await;
    }
    // The TTL of the idle one is over; the used one was used just now.
    world.sql("UPDATE workspaces SET phase_changed_at = now() - interval '1 hour'");
    let activity = RecordActivityRequest {
        activities: vec![Activity {
            workspace_id: used.clone(),
            time: None,
        }],
    };
    world.ttl().record_activity(activity).await.unwrap();
    let pass = world
        .ttl()
        .run_once(TtlServiceRunOnceRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((pass.accesses, pass.to_standby), (1, 1), "{pass:?}");
    world.phase(&idle, Phase::Standby).await;
    for id in [&used, &leased, &never] {
        assert_eq!(world.get(id).await.desired_state(), DesiredState::Running);
    }
    assert!(world.get(&used).await.last_access_time.is_some());
}
