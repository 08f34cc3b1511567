//! Many workspaces created at once until the database says that all run, against the engine's own create
//! and start of as many, in turn.

use uuid::Uuid;
use windlass_integration::{
    Name,
    bench::{
        Goal, Plane, Report,
        raw::{Model, Raw},
        timed,
    },
    world::IMAGE,
};

use crate::wishes;

const NAME: &str = "burst";

/// Runs it.
pub async fn measure(plane: &Plane, floor: &Raw, report: &mut Report, size: usize, runs: usize) {
    let case = format!("{size} at once");
    let model = Model {
        image: IMAGE.to_owned(),
        command: None,
        whole: true,
    };
    // Nothing of the first round counts.
    for run in 0..=runs {
        let mut add = |what: &str, took: f64, goal: Option<Goal>| {
            if run > 0 {
                let row = report.add(&case, what, "ms", took);
                if let Some(goal) = goal {
                    row.goal(goal);
                }
            }
        };
        const FLOOR: &str = "engine: volume, create, start, raw";
        let ids: Vec<Uuid> = (0..size).map(|_| Uuid::new_v4()).collect();
        let (took, ()) = timed(floor.make(&ids, &model, size)).await;
        add(FLOOR, took, None);
        floor.remove_all().await;
        let (took, ()) = timed(floor.make(&ids, &model, 8)).await;
        let beside = Goal::Beside(FLOOR.to_owned());
        add("engine: the same, 8 at a time", took, Some(beside));
        floor.remove_all().await;

        let passes = async || {
            let of = async |name| plane.status(name).await.ticks as f64;
            [of(Name::Observer).await, of(Name::Wc).await]
        };
        let before = passes().await;
        let (took, workspaces) = timed(async {
            let workspaces = wishes::create(plane, NAME, IMAGE, size).await;
            wishes::until(plane, NAME, "RUNNING", size).await;
            workspaces
        })
        .await;
        let goal = Goal::Within(1.1, FLOOR.to_owned());
        add("created -> all RUNNING in the database", took, Some(goal));
        let after = passes().await;
        for (i, who) in ["observer", "wc"].iter().enumerate() {
            report.add(
                &case,
                format!("passes of {who} meanwhile"),
                "",
                after[i] - before[i],
            );
        }
        wishes::delete(plane, NAME, &workspaces).await;
    }
}
