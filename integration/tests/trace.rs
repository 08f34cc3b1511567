//! One trace tells what a user's call led to, in every process; and what nobody asked for leaves none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use windlass_integration::{
    Name, World,
    otlp::{Collector, Span},
    wait,
};
use windlass_proto::v1::{DesiredState, Phase};

/// Names of spans that a create leads to, by service.
const EXPECTED: &[(&str, &str)] = &[
    (
        "windlass-api",
        "windlass.v1.WorkspaceService/CreateWorkspace",
    ),
    ("windlass-wc", "reconcile"),
    ("windlass-wc", "operation PROVISIONING"),
    ("windlass-wc", "operation STARTING"),
    ("windlass-wc", "windlass.v1.AgentService/Provision"),
    ("windlass-agent", "windlass.v1.AgentService/Provision"),
    ("windlass-agent", "agent job provision"),
    ("windlass-agent", "engine create_volume"),
    ("windlass-agent", "agent job start"),
    ("windlass-agent", "engine create_container"),
    ("windlass-observer", "observe"),
];

async fn traced_world(collector: &Collector) -> World {
    World::options()
        .env("WINDLASS_OTLP_ENDPOINT", &collector.endpoint())
        // How often spans are sent.
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_is_one_trace_through_api_wc_agent_and_observer() {
    let collector = Collector::start().await;
    let world = traced_world(&collector).await;
    let id = world.create("demo").await.id;
    world.phase(&id, Phase::Running).await;

    let root = "windlass.v1.WorkspaceService/CreateWorkspace";
    let spans = wait::until(
        "the spans of the create",
        async || {
            let spans = collector.spans();
            let create = spans.iter().find(|s| s.name == root);
            let trace = create.map(|s| s.trace_id.clone()).unwrap_or_default();
            let of_trace = spans.into_iter().filter(|s| s.trace_id == trace);
            of_trace.collect::<Vec<_>>()
        },
        // One tree: every parent is a span of this trace.
        |spans| {
            let ids: BTreeSet<_> = spans.iter().map(|s| s.span_id.as_str()).collect();
            EXPECTED.iter().all(|(service, name)| {
                let is_it = |s: &Span| s.service == *service && s.name == *name;
                spans.iter().any(is_it)
            }) && spans
                .iter()
                .all(|s| s.name == root || ids.contains(s.parent_id.as_str()))
        },
    )
    .await;
    // What it is about.
    for span in spans
        .iter()
        .filter(|s| ["observe", "job", "reconcile"].contains(&s.name.as_str()))
    {
        assert_eq!(
            span.attribute("workspace_id"),
            Some(id.as_str()),
            "{span:?}"
        );
    }
    let by_name: BTreeMap<_, _> = spans.iter().map(|s| (s.name.as_str(), s)).collect();
    let create = by_name[root];
    assert_eq!(create.attribute("rpc.system"), Some("grpc"));
    assert_eq!(
        create.attribute("rpc.service"),
        Some("windlass.v1.WorkspaceService")
    );
    assert_eq!(create.attribute("rpc.method"), Some("CreateWorkspace"));
    assert_eq!(create.attribute("workspace_id"), Some(id.as_str()));
    assert!(
        create.resource.contains_key("service.version"),
        "{create:?}"
    );
    assert!(
        create.resource.contains_key("service.instance.id"),
        "{create:?}"
    );
    let provisioning = by_name["operation PROVISIONING"];
    assert_eq!(provisioning.attribute("operation"), Some("PROVISIONING"));
    assert!(provisioning.attribute("host_id").is_some());
    let op_id = provisioning.attribute("op_id");
    assert!(op_id.is_some());
    assert_eq!(by_name["agent job provision"].attribute("op_id"), op_id);

    // The log of each process names the trace too.
    let log = std::fs::read_to_string(world.dir().join("agent.log")).unwrap();
    let named = |line: &&str| line.contains(&create.trace_id) && line.contains(&id);
    assert!(log.lines().any(|line| named(&line)), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_user_asked_for_leaves_no_spans() {
    let collector = Collector::start().await;
    let mut world = traced_world(&collector).await;
    let id = world.create("demo").await.id;
    world.phase(&id, Phase::Running).await;
    // A later wish of ttl is not on the user's account.
    let lower = "UPDATE workspaces SET desired_state = 'STANDBY', trace_context = NULL";
    world.sql_as("ttl", lower).unwrap();
    world.phase(&id, Phase::Standby).await;
    world.desire(&id, DesiredState::Running).await;
    world.phase(&id, Phase::Running).await;
    // Stopping sends what is left.
    for name in Name::ALL {
        world.services.stop(name).await;
    }
    let spans = collector.spans();
    let names: BTreeSet<_> = spans.iter().map(|s| s.name.as_str()).collect();
    assert!(names.contains("operation STARTING"), "{names:?}");
    assert!(!names.contains("operation STOPPING"), "{names:?}");
    let roots: BTreeSet<_> = spans
        .iter()
        .filter(|s| s.parent_id.is_empty())
        .map(|s| (s.service.as_str(), s.name.as_str()))
        .collect();
    let begun_elsewhere = roots.iter().find(|(service, _)| *service != "windlass-api");
    assert_eq!(begun_elsewhere, None, "{roots:?}");
    let observations = spans.iter().filter(|s| s.name.contains("ListChanges"));
    assert_eq!(observations.count(), 0);
}
