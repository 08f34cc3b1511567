//! wc with many workspaces of a simulated agent, which does at once what it is told. Passes are made by
//! hints; the timers are out of the way.

use tokio::time::{Duration, sleep};
use windlass_integration::{
    Name,
    bench::{
        Goal, Plane, Report,
        plane::{CONTROL, Setup},
        rows::{self, Seed},
    },
    sim_agent::{self, Shape, SimAgent},
    world::IMAGE,
};

/// Runs it.
pub async fn measure(report: &mut Report, size: usize, runs: usize, idle: u64) {
    let case = format!("{size} workspaces, simulated agent");
    let agent = SimAgent::start().await;
    agent.behave(|b| b.obey = true);
    // Everything may be at work at once, or there would not be this many to move.
    let setup = Setup::default()
        .env("WINDLASS_OPERATIONS_PER_HOST", "100000")
        .env("WINDLASS_CALLS_PER_HOST", "64");
    let mut plane = Plane::prepare(setup).await;
    let host = rows::add_host(&plane.sql, "sim-0", agent.address()).await;
    let seeds: Vec<Seed> = sim_agent::ids(1, size as u64)
        .map(|id| {
            agent.populate(id, &Shape::RUNNING);
            let volume = sim_agent::volume_id(id);
            Seed { id, host, volume }
        })
        .collect();
    rows::add_users(&plane.sql, 100).await;
    rows::add_workspaces(&plane.sql, &seeds, IMAGE, 100).await;
    plane.start(&CONTROL).await;
    plane.leads(Name::Observer).await;
    plane.leads(Name::Wc).await;
    settle(&plane, "RUNNING", size).await;
    plane.idle(report, &case, &CONTROL, idle).await;

    for (key, value) in [
        ("ACTIVE_PERIOD", "60s"),
        ("IDLE_PERIOD", "60s"),
        ("STALE_AFTER", "10m"),
    ] {
        plane.services.set_env(&format!("WINDLASS_{key}"), value);
    }
    for name in [Name::Observer, Name::Wc] {
        plane.services.stop(name).await;
        plane.start(&[name]).await;
        plane.leads(name).await;
    }
    settle(&plane, "RUNNING", size).await;
    nothing_to_do(&plane, report, &case, runs).await;
    // Half of the moves go down, half up.
    for _ in 0..runs.div_ceil(4) {
        move_all(&plane, report, &case, size, "STANDBY").await;
        move_all(&plane, report, &case, size, "RUNNING").await;
    }
    plane.stop().await;
}

async fn nothing_to_do(plane: &Plane, report: &mut Report, case: &str, runs: usize) {
    let query = "SELECT coalesce(max(change_xid), 0) FROM workspaces";
    let newest = plane.count(query).await;
    let (statements, ticks) = (
        plane.statements(Name::Wc).await,
        plane.status(Name::Wc).await.ticks,
    );
    for _ in 0..runs {
        let own = plane.hinted_pass().await;
        report
            .add(case, "wc: pass, nothing to do", "ms", own)
            .goal(Goal::AtMost(5.0));
    }
    let after = plane.statements(Name::Wc).await;
    let ticks = (plane.status(Name::Wc).await.ticks - ticks) as f64;
    let calls = (after.calls - statements.calls) as f64 / ticks;
    report.add(case, "wc: statements for each pass", "", calls);
    let rows = (after.rows - statements.rows) as f64 / ticks;
    report.add(case, "wc: rows for each pass", "", rows);
    let written = format!("SELECT count(*) FROM workspaces WHERE change_xid > {newest}");
    let written = plane.count(&written).await as f64;
    report
        .add(case, "wc: rows written by all these passes", "", written)
        .goal(Goal::AtMost(0.0));

    for _ in 0..runs.div_ceil(4) {
        let took = plane.reconcile().await;
        report.add(case, "wc: pass on request (Reconcile)", "ms", took.own);
    }
}

/// Everything is wished into another phase at once, and one pass plans it all and stores it.
async fn move_all(plane: &Plane, report: &mut Report, case: &str, size: usize, phase: &str) {
    let wish = format!("UPDATE workspaces SET desired_state = '{phase}'");
    plane.sql.batch_execute(&wish).await.expect("the wishes");
    let ticks = plane.status(Name::Wc).await.ticks;
    let own = plane.hinted_pass().await;
    if plane.status(Name::Wc).await.ticks == ticks + 1 {
        report
            .add(case, "wc: pass, all to move", "ms", own)
            .goal(Goal::AtMost(50.0));
    } else {
        report.note("a pass with all to move was missed: another followed too closely");
    }
    settle(plane, phase, size).await;
}

/// Until all are in `phase`, observed as such, and nothing moves any more.
async fn settle(plane: &Plane, phase: &str, size: usize) {
    let there = format!(
        "SELECT count(*) FROM workspaces WHERE phase = '{phase}' AND operation = 'NONE'
         AND observed_at IS NOT NULL"
    );
    let newest = "SELECT coalesce(max(change_xid), 0) FROM workspaces";
    let mut last = -1;
    loop {
        plane.observe().await;
        let now = plane.count(newest).await;
        let arrived = usize::try_from(plane.count(&there).await).unwrap() == size;
        if arrived && now == last {
            return;
        }
        last = now;
        sleep(Duration::from_millis(300)).await;
    }
}
