//! One workspace that is wished up and down: how long each way between wish, engine and database takes.

use std::time::SystemTime;

use windlass_integration::{
    bench::{Goal, Plane, Report, raw::Raw, recorder::Recorder},
    world::IMAGE,
};
use windlass_proto::v1::DesiredState;

use crate::wishes::{self, between};

const NAME: &str = "latency";
const CASE: &str = "one workspace";

/// Runs it.
pub async fn measure(
    plane: &Plane,
    raw: &Raw,
    recorder: &Recorder,
    report: &mut Report,
    runs: usize,
) {
    report.note("one workspace: the agent speaks to the engine through a recorder, a socket more");
    let workspaces = wishes::create(plane, NAME, IMAGE, 1).await;
    let id = workspaces[0].id.clone();
    let mut api = plane.workspaces();
    wishes::until(plane, NAME, "RUNNING", 1).await;
    // Nothing of the first round counts.
    for run in 0..=runs {
        wishes::desire(&mut api, &id, DesiredState::Standby).await;
        wishes::until(plane, NAME, "STANDBY", 1).await;
        until_quiet(plane).await;

        let sent = SystemTime::now();
        let stored = wishes::desire(&mut api, &id, DesiredState::Running).await;
        wishes::until(plane, NAME, "RUNNING", 1).await;
        let running = SystemTime::now();
        if run == 0 {
            continue;
        }
        let committed = stored.update_time.expect("a time");
        let committed = wishes::at(committed.seconds, committed.nanos);
        let (called, _) = recorder.first(sent, &id).expect("a call to the engine");
        let started = started_at(raw, &id).await;
        let mut add = |what: &str, from, to, goal: Option<f64>| {
            let row = report.add(CASE, what, "ms", between(from, to));
            if let Some(goal) = goal {
                row.goal(Goal::AtMost(goal));
            }
        };
        // The row's time is that of its transaction's begin, which is before the commit.
        add(
            "wish stored -> first engine call",
            committed,
            called,
            Some(10.0),
        );
        add("wish sent -> first engine call", sent, called, None);
        add(
            "first engine call -> container running",
            called,
            started,
            None,
        );
        let what = "container running -> RUNNING in the database";
        add(what, started, running, Some(50.0));
        add("wish sent -> RUNNING in the database", sent, running, None);
    }
    wishes::delete(plane, NAME, &workspaces).await;
}

/// Until no service writes to the workspace any more.
async fn until_quiet(plane: &Plane) {
    let query = "SELECT coalesce(max(change_xid), 0) FROM workspaces";
    let mut last = plane.count(query).await;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        let now = plane.count(query).await;
        if now == last {
            return;
        }
        last = now;
    }
}

async fn started_at(raw: &Raw, id: &str) -> SystemTime {
    let name = raw.container(id.parse().unwrap());
    let answer = raw
        .connect()
        .await
        .get(&format!("/containers/{name}/json"))
        .await;
    let container: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let text = container["State"]["StartedAt"].as_str().expect("a time");
    let time = chrono::DateTime::parse_from_rfc3339(text).expect("a time");
    SystemTime::from(time)
}
