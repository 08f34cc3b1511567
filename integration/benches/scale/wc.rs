//! wc's passes, by hints.

use std::time::Duration;

use windlass_integration::{
    Name,
    bench::{Goal, Plane, Report, ms},
};

use crate::{Fleet, memory};

/// Runs it.
pub async fn measure(plane: &mut Plane, report: &mut Report, fleet: &Fleet, runs: usize) {
    let size = fleet.size;
    plane.start(&[Name::Wc]).await;
    plane.leads(Name::Wc).await;
    let status = plane.status(Name::Wc).await;
    let took = status.last_tick_duration.unwrap_or_default();
    let took = ms(took.try_into().expect("forwards"));
    report.add(size, "wc: first pass after a start", "ms", took);
    settle(plane, "RUNNING", size).await;

    let ticks = plane.status(Name::Wc).await.ticks;
    let statements = plane.statements(Name::Wc).await;
    for _ in 0..runs {
        let own = plane.hinted_pass().await;
        let row = report.add(size, "wc: pass, nothing to do", "ms", own);
        if size <= 1_000 {
            row.goal(Goal::AtMost(5.0));
        }
    }
    let after = plane.statements(Name::Wc).await;
    let ticks = (plane.status(Name::Wc).await.ticks - ticks) as f64;
    let mut each = |what: &str, sum: i64| {
        let what = format!("wc: {what} for each pass, nothing to do");
        report.add(size, what, "", sum as f64 / ticks);
    };
    each("statements", after.calls - statements.calls);
    each("rows", after.rows - statements.rows);

    let part = (size / 100).max(1);
    for _ in 0..runs.div_ceil(4) {
        for phase in ["STANDBY", "RUNNING"] {
            let took = move_some(plane, fleet, part, phase).await;
            if let Some(took) = took {
                report.add(size, "wc: pass, one percent to move", "ms", took);
            }
            settle(
                plane,
                phase,
                part.max(if phase == "RUNNING" { size } else { 0 }),
            )
            .await;
        }
    }
    memory(plane, report, size, Name::Wc);
}

/// `None` if another pass followed too closely to tell.
async fn move_some(plane: &Plane, fleet: &Fleet, count: usize, phase: &str) -> Option<f64> {
    let ids: Vec<String> = fleet.workspaces[..count]
        .iter()
        .map(|(id, _)| id.to_string())
        .collect();
    let wish = "UPDATE workspaces SET desired_state = $1 WHERE id = ANY ($2::text[]::uuid[])";
    plane.sql.execute(wish, &[&phase, &ids]).await.unwrap();
    let ticks = plane.status(Name::Wc).await.ticks;
    let own = plane.hinted_pass().await;
    (plane.status(Name::Wc).await.ticks == ticks + 1).then_some(own)
}

/// Until so many are in a phase with nothing in progress, and nothing moves any more.
async fn settle(plane: &Plane, phase: &str, count: usize) {
    let there =
        format!("SELECT count(*) FROM workspaces WHERE phase = '{phase}' AND operation = 'NONE'");
    let newest = "SELECT coalesce(max(change_xid), 0) FROM workspaces";
    let mut last = -1;
    loop {
        plane.observe().await;
        plane.hinted_pass().await;
        let now = plane.count(newest).await;
        let arrived = usize::try_from(plane.count(&there).await).unwrap() == count;
        if arrived && now == last {
            return;
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
