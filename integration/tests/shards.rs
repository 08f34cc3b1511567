//! wc and observer divided into shards over two replicas.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use windlass_domain::Shard;
use windlass_integration::{Name, World, wait};
use windlass_proto::v1::{GetStatusRequest, Phase, ReconcileRequest, ServiceStatus};

async fn status(world: &World, address: &str) -> Option<ServiceStatus> {
    let mut wc = world.wc_at(address);
    let status = wc.get_status(GetStatusRequest {}).await.ok()?;
    status.into_inner().status
}

/// How many shards the wc at an address leads.
async fn led(world: &World, address: &str) -> usize {
    let status = status(world, address).await.unwrap_or_default();
    status.shards.iter().filter(|s| s.leader).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_with_two_shards_do_a_life() {
    let world = World::options()
        .env("WINDLASS_SHARDS", "2")
        .env("WINDLASS_LEASE_TTL", "3s")
        .start()
        .await;
    let first = world.services.address(Name::Wc);
    let (other, second) = world.services.start_beside(Name::Wc);
    wait::until(
        "one shard each",
        async || (led(&world, &first).await, led(&world, &second).await),
        |led| *led == (1, 1),
    )
    .await;

    // Workspaces of both shards.
    let mut ids = Vec::new();
    let mut seen = [0, 0];
    while seen.contains(&0) {
        let id = world.create(&format!("w{}", ids.len())).await.id;
        seen[Shard::of(id.parse().unwrap(), 2) as usize] += 1;
        ids.push(id);
    }
    for id in &ids {
        world.phase(id, Phase::Running).await;
    }
    // The loop that owns it answers; the other replica names it. (A replica that is slow may lose its shard for a
    // moment.)
    for id in &ids {
        let ask = async |address| {
            let request = ReconcileRequest { id: id.clone() };
            world.wc_at(address).reconcile(request).await
        };
        let refused = wait::until(
            "one refusal",
            async || {
                let answers = [ask(&first).await, ask(&second).await];
                answers.into_iter().filter_map(Result::err).collect()
            },
            |refused: &Vec<_>| refused.len() == 1,
        )
        .await;
        let reason = windlass_service::reason_of(&refused[0]);
        assert_eq!(reason.as_deref(), Some("NOT_LEADER"));
        assert!(refused[0].message().contains("does shard"), "{refused:?}");
    }

    // One dies: the other goes on with both shards, the agent lets its new epochs in.
    other.signal(rustix::process::Signal::KILL);
    other.wait().await;
    wait::until(
        "both shards",
        async || led(&world, &first).await,
        |led| *led == 2,
    )
    .await;
    for id in &ids {
        world
            .desire(id, windlass_proto::v1::DesiredState::Standby)
            .await;
    }
    for id in &ids {
        world.phase(id, Phase::Standby).await;
    }
}
