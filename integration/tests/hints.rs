//! Hints are for speed only: without any, or over PostgreSQL instead of Redis, everything converges.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use windlass_integration::{World, home, world::Options};
use windlass_proto::v1::{DesiredState, Phase};

async fn converges(options: Options) {
    let world = options.start().await;
    let id = world.create("demo").await.id;
    world.phase(&id, Phase::Running).await;
    home::fill(&world.home(&id), 2);
    let before = home::picture(&world.home(&id));
    world.desire(&id, DesiredState::Archived).await;
    world.phase(&id, Phase::Archived).await;
    world.desire(&id, DesiredState::Running).await;
    world.phase(&id, Phase::Running).await;
    assert_eq!(home::picture(&world.home(&id)), before);
    world.delete(&id, true).await;
    windlass_integration::wait::until("no volume", async || world.has_volume(&id), |there| !there)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_off() {
    let polling = World::options()
        .env("WINDLASS_NO_HINTS", "true")
        .env("WINDLASS_IDLE_PERIOD", "1s");
    converges(polling).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_postgresql() {
    // What begins, begins on a hint: nobody looks by himself for an hour unless an operation is in progress.
    let hinted = World::options()
        .without_redis()
        .env("WINDLASS_IDLE_PERIOD", "1h")
        .env("WINDLASS_ACTIVE_FOR", "0s")
        .env("WINDLASS_STALE_AFTER", "3h");
    converges(hinted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_lost_in_the_middle() {
    let mut world = World::options()
        .env("WINDLASS_IDLE_PERIOD", "2s")
        .start()
        .await;
    let id = world.create("demo").await.id;
    world.phase(&id, Phase::Running).await;
    world.stop_redis().await;
    world.desire(&id, DesiredState::Archived).await;
    world.phase(&id, Phase::Archived).await;
}
