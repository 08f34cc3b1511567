//! Places are few and owners take turns; one kind of operation does not hold up another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sha2::Digest as _;
use windlass_integration::{Name, World, http, wait, world::IMAGE};
use windlass_proto::v1::{
    CreateWorkspaceRequest, DesiredState, ExplainWorkspaceRequest, ExplainWorkspaceResponse,
    Operation, Phase, Workspace,
};

const BOB: &str = "bobs-token";

/// A workspace of another user.
async fn create_bobs(world: &World, name: &str) -> String {
    world.sql("INSERT INTO users (name) VALUES ('bob')");
    let digest = hex::encode(sha2::Sha256::digest(BOB));
    world.sql(&format!(
        "INSERT INTO tokens (user_id, sha256) SELECT id, '\\x{digest}' FROM users WHERE name = 'bob'"
    ));
    let workspace = Workspace {
        name: name.to_owned(),
        desired_state: DesiredState::Standby.into(),
        ..Workspace::default()
    };
    let request = CreateWorkspaceRequest {
        workspace: Some(workspace),
        request_id: String::new(),
    };
    let made = world.workspaces_as(BOB).create_workspace(request).await;
    made.unwrap().into_inner().id
}

async fn explain(world: &World, id: &str) -> ExplainWorkspaceResponse {
    let request = ExplainWorkspaceRequest { id: id.to_owned() };
    let told = world.workspaces().explain_workspace(request).await;
    told.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_start_does_not_wait_for_thirty_of_another_owner() {
    let mut world = World::start().await;
    let mut anns = Vec::new();
    for n in 0..30 {
        let name = format!("a-{n}");
        let made = world.create_as(&name, DesiredState::Standby);
        anns.push(made.await.id);
    }
    let bobs = create_bobs(&world, "b").await;
    for id in anns.iter().chain([&bobs]) {
        world.phase(id, Phase::Standby).await;
    }

    // All at once, as wc sees it, the single one last; and one place.
    world.services.kill(Name::Wc).await;
    for id in anns.iter().chain([&bobs]) {
        world.desire(id, DesiredState::Running).await;
    }
    world.services.set_env("WINDLASS_OPERATIONS_PER_HOST", "1");
    world.services.start(Name::Wc);

    // The last of the thirty says where it stands, and nothing has failed meanwhile.
    let told = wait::until(
        "a position in the queue",
        async || {
            let mut last = ExplainWorkspaceResponse::default();
            for id in &anns {
                let told = explain(&world, id).await;
                if told.queue_position > last.queue_position {
                    last = told;
                }
            }
            last
        },
        |told| told.queue_position > 3,
    )
    .await;
    assert!(told.queue_position <= told.queue_length);
    let words = format!("of {} to start on host default", told.queue_length);
    assert!(told.blockers[0].contains(&words), "{:?}", told.blockers);
    let waiting = told.workspace.unwrap();
    assert_eq!(waiting.operation(), Operation::None);
    assert_eq!(waiting.error_reason, "");
    wait::until(
        "those that wait, in the metrics",
        async || http::get(world.http_address(Name::Wc), "/metrics").await,
        |text| {
            let series = "windlass_operations_waiting{operation=\"STARTING\",shard=\"0\"} ";
            let mut values = text.lines().filter_map(|line| line.strip_prefix(series));
            values.next().is_some_and(|value| value != "0")
        },
    )
    .await;

    world.phase(&bobs, Phase::Running).await;
    let before = world.sql(&format!(
        "SELECT count(*) FROM workspaces WHERE phase = 'RUNNING'
         AND phase_changed_at < (SELECT phase_changed_at FROM workspaces WHERE id = '{bobs}')"
    ));
    let before: u32 = before.parse().unwrap();
    assert!(before <= 2, "{before} of the thirty began before the one");
    let at_work = world.sql("SELECT count(*) FROM workspaces WHERE operation = 'STARTING'");
    assert!(at_work.parse::<u32>().unwrap() <= 1, "{at_work} at work");
}

/// An image whose container does not end when it is asked to; the world takes it away with itself.
fn stubborn_image(world: &World) -> String {
    let name = format!("{}stubborn", world.prefix);
    world.docker(&["create", "--name", &name, IMAGE]);
    let command = r#"CMD ["sh", "-c", "trap : TERM; while :; do sleep 1; done"]"#;
    world.docker(&["commit", "--change", command, &name, &name]);
    world.docker(&["rm", &name]);
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_stops_hold_up_nothing_else() {
    let world = World::options()
        .env("WINDLASS_OPERATIONS_PER_HOST", "2")
        .env("WINDLASS_STOP_GRACE", "60s")
        .start()
        .await;
    let stubborn = stubborn_image(&world);
    let mut slow = Vec::new();
    for n in 0..4 {
        let name = format!("slow-{n}");
        let id = world.create_as(&name, DesiredState::Standby);
        let id = id.await.id;
        let image = Workspace {
            id: id.clone(),
            image: stubborn.clone(),
            desired_state: DesiredState::Running.into(),
            ..Workspace::default()
        };
        world.update(image, &["image", "desired_state"]).await;
        slow.push(id);
    }
    for id in &slow {
        world.phase(id, Phase::Running).await;
    }
    for id in &slow {
        world.desire(id, DesiredState::Standby).await;
    }
    let stopping = || world.sql("SELECT count(*) FROM workspaces WHERE operation = 'STOPPING'");
    wait::until("both places taken", async || stopping(), |n| n == "2").await;

    let id = world.create("quick").await.id;
    world.phase(&id, Phase::Running).await;
    assert_eq!(stopping(), "2", "the stops still go on");
    let stopped = "SELECT count(*) FROM workspaces WHERE phase = 'STANDBY'";
    assert_eq!(world.sql(stopped), "0", "none has ended");
}
