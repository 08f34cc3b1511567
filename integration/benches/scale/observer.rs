//! The observer's passes, on request. wc does not run: nobody minds that containers come and go.

use windlass_integration::{
    Name,
    bench::{Goal, Plane, Report, ms, process},
};
use windlass_proto::v1::ContainerState;

use crate::{Fleet, memory};

/// What a pass with nothing to tell may take at this size, in ms.
fn steady_goal(size: usize) -> f64 {
    match size {
        0..=1_000 => 5.0,
        1_001..=10_000 => 100.0,
        _ => 1_000.0,
    }
}

/// Runs it.
pub async fn measure(plane: &mut Plane, report: &mut Report, fleet: &Fleet, runs: usize) {
    let size = fleet.size;
    // What a host answers too late for a pass is taken by the next one.
    let unseen = "SELECT count(*) FROM workspaces WHERE observed_at IS NULL";
    let mut took = 0.0;
    while plane.count(unseen).await > 0 {
        took += plane.observe().await.own;
    }
    let what = "observer: pass, everything new";
    report.add(size, what, "ms", took);
    memory(plane, report, size, Name::Observer);
    until_still(plane).await;

    steady(plane, report, size, runs).await;
    let part = (size / 100).max(1);
    changes(plane, report, fleet, part, runs, "one percent changed").await;
    changes(plane, report, fleet, size, runs.min(4), "all changed").await;

    plane.services.stop(Name::Observer).await;
    plane.start(&[Name::Observer]).await;
    plane.leads(Name::Observer).await;
    let status = plane.status(Name::Observer).await;
    let took = status.last_tick_duration.unwrap_or_default();
    let took = ms(took.try_into().expect("forwards"));
    report.add(size, "observer: first pass after a start", "ms", took);
    until_still(plane).await;
    let used = process::usage(plane.pid(Name::Observer));
    report
        .add(size, "observer: memory after a start", "MiB", used.rss)
        .with("peak MiB", used.peak);
}

async fn until_still(plane: &Plane) {
    while plane.observe().await.answer.changed > 0 {}
}

async fn steady(plane: &Plane, report: &mut Report, size: usize, runs: usize) {
    let statements = plane.statements(Name::Observer).await;
    let cpu = process::usage(plane.pid(Name::Observer));
    for _ in 0..runs {
        let took = plane.observe().await;
        assert_eq!(took.answer.changed, 0, "nothing changes");
        report
            .add(size, "observer: pass, nothing changed", "ms", took.own)
            .goal(Goal::AtMost(steady_goal(size)));
    }
    let used = process::usage(plane.pid(Name::Observer)) - cpu;
    let after = plane.statements(Name::Observer).await;
    let mut each = |what: &str, unit, sum: f64| {
        let what = format!("observer: {what} for each pass, nothing changed");
        report.add(size, what, unit, sum / runs as f64);
    };
    each("CPU", "ms", used.cpu * 1e3);
    each("statements", "", (after.calls - statements.calls) as f64);
    each("rows", "", (after.rows - statements.rows) as f64);
}

/// The first `count` containers, which are of all hosts, end and run again.
async fn changes(
    plane: &Plane,
    report: &mut Report,
    fleet: &Fleet,
    count: usize,
    runs: usize,
    what: &str,
) {
    let what = format!("observer: pass, {what}");
    let mut statements = 0;
    // An even number, so that all run in the end.
    for run in 0..runs.next_multiple_of(2) {
        let state = match run % 2 {
            0 => ContainerState::Exited,
            _ => ContainerState::Running,
        };
        for &(id, at) in &fleet.workspaces[..count] {
            fleet.agents[at].set_container(id, state);
        }
        let before = plane.statements(Name::Observer).await;
        let took = plane.observe().await;
        assert_eq!(took.answer.changed as usize, count, "what changed is seen");
        statements += plane.statements(Name::Observer).await.calls - before.calls;
        let row = report.add(fleet.size, &what, "ms", took.own);
        if count == fleet.size && fleet.size <= 1_000 {
            row.goal(Goal::AtMost(20.0));
        }
    }
    let each = statements as f64 / runs.next_multiple_of(2) as f64;
    let what = format!("{what}: statements");
    report.add(fleet.size, what, "", each);
}
