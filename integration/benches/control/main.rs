//! Control: `just bench control [--quick] [--runs N]`.
//!
//! - `ticks`: wc with 1,000 workspaces of a simulated agent: with nothing to do, and with all to move
//! - `latency`: from a wish to the engine, and from the engine to the database
//! - `burst`: 20 workspaces created at once, against the engine's own create and start
//! - `slow`: 20 containers that do not want to stop, and somebody else's workspace meanwhile
//!
//! All but `ticks` run on real containers with the network, port and limits that the agent gives them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod burst;
mod latency;
mod slow;
mod ticks;
mod wishes;

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use windlass_integration::{
    Name,
    bench::{
        Args, Plane, Report,
        plane::{CONTROL, Setup},
        raw::Raw,
        recorder::Recorder,
    },
    world::IMAGE,
};
use windlass_local::{docker::Engine, image};

const OPTIONS: [(&str, &str); 5] = [
    ("workspaces", "of the simulated agent [1000]"),
    ("runs", "times that latencies and passes are measured [21]"),
    (
        "bursts",
        "times that bursts and slow stops are measured [5]",
    ),
    ("size", "of a burst [20]"),
    ("idle", "seconds of idling [60]"),
];

#[tokio::main]
async fn main() {
    let args = Args::parse("control", &OPTIONS);
    let engine = Engine::locate(None).await.expect("a Docker engine");
    image::ensure_demo_image(&engine, IMAGE).await.unwrap();
    let mut report = Report::new("control", args.quick);
    let runs = args.get("runs", 21, 3);

    eprintln!("ticks");
    let workspaces = args.get("workspaces", 1000, 50);
    ticks::measure(&mut report, workspaces, runs, args.get("idle", 60, 3)).await;

    let mut plane = Plane::prepare(Setup::default().engine(engine.host())).await;
    let floor = Raw::new(engine.host(), &plane.prefix.replace("bench", "floor"));
    let raw = Raw::new(engine.host(), &plane.prefix);
    let measuring = real(&args, &engine, &mut plane, &raw, &floor, &mut report);
    // Whatever happens, no container is left behind.
    let measured = AssertUnwindSafe(measuring).catch_unwind().await;
    eprintln!("removing the containers");
    raw.remove_all().await;
    floor.remove_all().await;
    if let Err(panic) = measured {
        eprintln!("{}", plane.services.logs());
        std::panic::resume_unwind(panic);
    }
    plane.stop().await;
    report.finish();
}

async fn real(
    args: &Args,
    engine: &Engine,
    plane: &mut Plane,
    raw: &Raw,
    floor: &Raw,
    report: &mut Report,
) {
    // Only the latencies need the recorder between agent and engine.
    let recorder = Recorder::start(plane.dir(), engine.host());
    plane
        .services
        .set_env("WINDLASS_DOCKER_HOST", &recorder.host());
    plane.start(&[Name::Agent]).await;
    plane.start(&CONTROL).await;
    plane.leads(Name::Wc).await;
    wishes::until_observed(plane).await;
    eprintln!("latency");
    latency::measure(plane, raw, &recorder, report, args.get("runs", 21, 2)).await;

    plane.services.kill(Name::Agent).await;
    plane
        .services
        .set_env("WINDLASS_DOCKER_HOST", engine.host());
    plane.start(&[Name::Agent]).await;
    let (bursts, size) = (args.get("bursts", 5, 1), args.get("size", 20, 3));
    eprintln!("burst");
    burst::measure(plane, floor, report, size, bursts).await;
    eprintln!("slow stops");
    let stubborn = slow::image(engine).await;
    slow::measure(plane, report, &stubborn, size, bursts.min(3)).await;
}
