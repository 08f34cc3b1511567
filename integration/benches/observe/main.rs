//! Observation of real containers: `just bench observe [--quick] [--sizes 10,100,300,1000]`.
//!
//! The engine's own two list calls are the floor, in the same run, in turn with what is measured:
//!
//! - `bulk`: one observation of a whole host through its agent
//! - `individual`: the way that bulk observation replaced, one call after the other for each workspace
//! - `steady`: the observer with nothing to tell, what it asks of PostgreSQL and S3, and what idling costs
//!
//! Every workspace has a running container, a volume and an archive.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bulk;
mod individual;
mod steady;

use std::panic::AssertUnwindSafe;

use futures::{FutureExt, StreamExt, stream};
use uuid::Uuid;
use windlass_integration::{
    Name,
    bench::{
        Args, Plane, Report,
        plane::{CONTROL, Setup},
        raw::{Model, Raw},
        rows::{self, Seed},
    },
    wait,
    world::IMAGE,
};
use windlass_local::{docker::Engine, image};
use windlass_proto::v1::{CreateEmptyArchiveRequest, GetHostRequest, WorkContext};

const OPTIONS: [(&str, &str); 3] = [
    ("sizes", "numbers of containers [10,100,300,1000]"),
    ("runs", "times that each is measured [9]"),
    ("idle", "seconds of idling for each size [60]"),
];

#[tokio::main]
async fn main() {
    let args = Args::parse("observe", &OPTIONS);
    let sizes = args.list("sizes", "10,100,300,1000", "3,10");
    let engine = Engine::locate(None).await.expect("a Docker engine");
    image::ensure_demo_image(&engine, IMAGE).await.unwrap();
    let mut report = Report::new("observe", args.quick);
    report.by_case();
    report.note("containers without network, which sleep; one archive for each workspace");
    let mut plane = Plane::prepare(Setup::default().engine(engine.host())).await;
    let raw = Raw::new(engine.host(), &plane.prefix);
    let measuring = measure(&args, &sizes, &engine, &mut plane, &raw, &mut report);
    // Whatever happens, a thousand containers are not left behind.
    let measured = AssertUnwindSafe(measuring).catch_unwind().await;
    eprintln!("removing the containers");
    raw.remove_all().await;
    if let Err(panic) = measured {
        eprintln!("{}", plane.services.logs());
        std::panic::resume_unwind(panic);
    }
    plane.stop().await;
    report.finish();
}

async fn measure(
    args: &Args,
    sizes: &[usize],
    engine: &Engine,
    plane: &mut Plane,
    raw: &Raw,
    report: &mut Report,
) {
    let runs = args.get("runs", 9, 3);
    plane.start(&[Name::Agent]).await;
    plane.start(&CONTROL).await;
    plane.leads(Name::Wc).await;
    let mut ids: Vec<Uuid> = Vec::new();
    for &size in sizes {
        eprintln!("{size} containers: making them");
        let more: Vec<Uuid> = (ids.len()..size).map(|_| Uuid::new_v4()).collect();
        populate(plane, raw, &more).await;
        ids.extend(more);
        // Its jobs are forgotten, as after any start; what it knows of containers, too.
        plane.services.kill(Name::Agent).await;
        plane.start(&[Name::Agent]).await;
        eprintln!("{size} containers: measuring");
        bulk::first(plane, report, size).await;
        settle(plane, size).await;
        bulk::measure(plane, raw, report, size, runs).await;
        let host = engine.host();
        individual::measure(plane, raw, host, report, &ids, runs.min(3)).await;
        steady::measure(plane, report, size, args.get("runs", 21, 5)).await;
        let all = [CONTROL.as_slice(), &[Name::Agent]].concat();
        eprintln!("{size} containers: idling");
        plane
            .idle(report, &size.to_string(), &all, args.get("idle", 60, 3))
            .await;
    }
}

/// Containers, volumes, archives and rows of these workspaces.
async fn populate(plane: &Plane, raw: &Raw, ids: &[Uuid]) {
    let model = Model {
        image: IMAGE.to_owned(),
        command: Some(vec!["sleep".to_owned(), "2147483647".to_owned()]),
        whole: false,
    };
    raw.make_many(ids, &model).await;
    let agent = plane.agent();
    let host = agent.clone().get_host(GetHostRequest {}).await.unwrap();
    let epoch = host.into_inner().wc_epoch.max(1);
    stream::iter(ids)
        .map(|id| {
            let mut agent = agent.clone();
            let request = CreateEmptyArchiveRequest {
                context: Some(WorkContext {
                    workspace_id: id.to_string(),
                    op_id: Uuid::new_v4().to_string(),
                    attempt: 0,
                    epoch,
                    ..WorkContext::default()
                }),
                label: None,
            };
            async move { agent.create_empty_archive(request).await.expect("accepted") }
        })
        .buffer_unordered(8)
        .for_each(async |_| wait_for_a_place(plane).await)
        .await;
    wait_for_jobs(plane, 0).await;

    let host = rows::host_at(&plane.sql, &plane.services.address(Name::Agent)).await;
    rows::add_users(&plane.sql, 100).await;
    let seed = |&id: &Uuid| Seed {
        id,
        host,
        volume: id,
    };
    let seeds: Vec<Seed> = ids.iter().map(seed).collect();
    rows::add_workspaces(&plane.sql, &seeds, IMAGE, 100).await;
}

/// The agent lets 256 jobs wait.
async fn wait_for_a_place(plane: &Plane) {
    wait_for_jobs(plane, 128).await;
}

async fn wait_for_jobs(plane: &Plane, at_most: u32) {
    wait::until(
        "the agent's jobs",
        async || {
            let host = plane.agent().get_host(GetHostRequest {}).await;
            host.expect("an answer").into_inner().active_jobs
        },
        |&active| active <= at_most,
    )
    .await;
}

/// Until everything is observed and nothing moves any more.
async fn settle(plane: &Plane, size: usize) {
    wait::until(
        "everything to be observed",
        async || {
            let seen = plane.observe().await.answer;
            let host = seen.hosts.first().cloned().unwrap_or_default();
            let running = plane
                .count("SELECT count(*) FROM workspaces WHERE phase = 'RUNNING' AND operation = 'NONE'")
                .await;
            (host, seen.changed, usize::try_from(running).unwrap())
        },
        |(host, changed, running)| {
            let whole = [host.containers, host.volumes, host.archives];
            whole.iter().all(|&n| n as usize == size) && *changed == 0 && *running == size
        },
    )
    .await;
}
