//! How cost grows with the number of workspaces: `just bench scale [--quick] [--sizes 1000,10000,100000]`.
//!
//! Hosts of at most 1,000 workspaces each are simulated agents, in this process; PostgreSQL, observer, wc
//! and api are real processes. Every workspace is RUNNING, with a container, a volume and an archive.
//!
//! - `observer`: passes with everything new, nothing, one percent and everything changed
//! - `wc`: passes with everything to look at, nothing to do, and one percent to move
//! - `api`: pages of ListWorkspaces
//! - `watch`: from a commit to the last of 1,000 watchers
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod observer;
mod watch;
mod wc;

use uuid::Uuid;
use windlass_integration::{
    Name,
    bench::{
        Args, Goal, Plane, Report,
        plane::Setup,
        process,
        rows::{self, Seed},
    },
    sim_agent::{self, Shape, SimAgent},
    world::IMAGE,
};

const OPTIONS: [(&str, &str); 4] = [
    ("sizes", "numbers of workspaces [1000,10000,100000]"),
    ("runs", "times that each is measured [11]"),
    ("watchers", "how many watch [1000]"),
    ("per-host", "workspaces of one host [1000]"),
];

#[tokio::main]
async fn main() {
    let args = Args::parse("scale", &OPTIONS);
    let mut report = Report::new("scale", args.quick);
    report.by_case();
    report.note("simulated agents share the machine's cores with what is measured");
    for size in args.list("sizes", "1000,10000,100000", "100,400") {
        measure(&args, &mut report, size).await;
    }
    report.finish();
}

/// What is observed: workspaces on simulated hosts.
#[derive(Debug)]
pub struct Fleet {
    pub size: usize,
    pub agents: Vec<SimAgent>,
    /// Each with its agent.
    pub workspaces: Vec<(Uuid, usize)>,
}

async fn measure(args: &Args, report: &mut Report, size: usize) {
    let runs = args.get("runs", 11, 3);
    let users = args.get("watchers", 1000, 20);
    let per_host = args.get("per-host", 1000, 100);
    // The timers are out of the way: passes are asked for. wc is let do everything at once.
    let setup = Setup::default()
        .env("WINDLASS_ACTIVE_PERIOD", "60s")
        .env("WINDLASS_IDLE_PERIOD", "60s")
        .env("WINDLASS_STALE_AFTER", "10m")
        .env("WINDLASS_OPERATIONS_PER_HOST", "100000")
        .env("WINDLASS_CALLS_PER_HOST", "64");
    let mut plane = Plane::prepare(setup).await;
    // What the agents tell is told when it is asked for.
    plane.services.set_env("WINDLASS_NO_HINTS", "true");
    plane.start(&[Name::Observer]).await;
    plane.leads(Name::Observer).await;

    eprintln!("{size} workspaces: making them");
    rows::add_users(&plane.sql, users).await;
    let fleet = fleet(&plane, size, per_host, users).await;
    eprintln!("{size} workspaces: observer");
    observer::measure(&mut plane, report, &fleet, runs).await;
    plane.services.set_env("WINDLASS_NO_HINTS", "false");
    eprintln!("{size} workspaces: wc");
    wc::measure(&mut plane, report, &fleet, runs).await;
    eprintln!("{size} workspaces: api");
    plane.start(&[Name::Api]).await;
    api::measure(&plane, report, size, runs).await;
    watch::measure(&plane, report, &fleet, users, runs).await;
    memory(&plane, report, size, Name::Api);
    plane.stop().await;
}

/// Hosts, what is on them, and rows.
async fn fleet(plane: &Plane, size: usize, per_host: usize, users: usize) -> Fleet {
    let mut agents = Vec::new();
    let mut hosts = Vec::new();
    for n in 0..size.div_ceil(per_host) {
        let agent = SimAgent::start().await;
        agent.behave(|b| b.obey = true);
        let name = format!("sim-{n}");
        hosts.push(rows::add_host(&plane.sql, &name, agent.address()).await);
        agents.push(agent);
    }
    // One agent is asked for the archives of all; one that knows no such question tells its own.
    plane.observe().await;
    let lister = agents.iter().position(|a| a.counts().archive_all > 0);
    let mut workspaces = Vec::with_capacity(size);
    let mut seeds = Vec::with_capacity(size);
    for n in 0..size {
        // Dealt out in turn, so that the first ones are of all hosts.
        let at = n % agents.len();
        let id = Uuid::from_u64_pair(at as u64 + 1, n as u64 + 1);
        agents[at].populate(id, &Shape::RUNNING);
        let keeper = &agents[lister.unwrap_or(at)];
        keeper.list_archive(id, sim_agent::archive_op(id, 0));
        workspaces.push((id, at));
        seeds.push(Seed {
            id,
            host: hosts[at],
            volume: sim_agent::volume_id(id),
        });
    }
    agents.iter().for_each(SimAgent::list_store);
    rows::add_workspaces(&plane.sql, &seeds, IMAGE, users).await;
    Fleet {
        size,
        agents,
        workspaces,
    }
}

/// Memory of a service, now and at its most.
pub fn memory(plane: &Plane, report: &mut Report, size: usize, name: Name) {
    let used = process::usage(plane.pid(name));
    let what = format!("{}: peak memory", name.as_str());
    report
        .add(size, what, "MiB", used.peak)
        .with("RSS MiB", used.rss)
        .goal(Goal::AtMost(300.0));
}
