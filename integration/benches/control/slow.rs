//! Containers that ignore SIGTERM take the whole grace to stop. Somebody else's workspace must not notice.

use windlass_integration::{
    bench::{Goal, Plane, Report, timed},
    world::IMAGE,
};
use windlass_local::docker::Engine;
use windlass_proto::v1::DesiredState;

use crate::wishes;

const NAME: &str = "stubborn";
const OTHER: &str = "unrelated";
const IMAGE_NAME: &str = "windlass/stubborn:bench";
/// As much as noise.
const NO_EFFECT: f64 = 1.25;

/// An image whose process ignores SIGTERM.
pub async fn image(engine: &Engine) -> String {
    let id = engine.cli(["create", IMAGE]).await.unwrap();
    let command = r#"CMD ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"]"#;
    let commit = ["commit", "--change", command, &id, IMAGE_NAME];
    engine.cli(commit).await.unwrap();
    engine.cli(["rm", &id]).await.unwrap();
    IMAGE_NAME.to_owned()
}

/// Runs it.
pub async fn measure(plane: &Plane, report: &mut Report, image: &str, size: usize, runs: usize) {
    let case = format!("{size} slow stops");
    const ALONE: &str = "unrelated: created -> RUNNING, nothing else going on";
    let stubborn = wishes::create(plane, NAME, image, size).await;
    wishes::until(plane, NAME, "RUNNING", size).await;
    unrelated(plane).await;
    let mut api = plane.workspaces();
    for _ in 0..runs {
        let took = unrelated(plane).await;
        report.add(&case, ALONE, "ms", took);

        let (all, (stopping, beside)) = timed(async {
            for workspace in &stubborn {
                wishes::desire(&mut api, &workspace.id, DesiredState::Standby).await;
            }
            let begun = format!(
                "SELECT least(count(*), 1) FROM workspaces
                 WHERE name LIKE '{NAME}-%' AND operation = 'STOPPING'"
            );
            plane.count_until(&begun, 1).await;
            // Until the engine has been asked to stop as many as are let through.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            let beside = unrelated(plane).await;
            let stopping = format!(
                "SELECT count(*) FROM workspaces
                 WHERE name LIKE '{NAME}-%' AND operation = 'STOPPING'"
            );
            let stopping = plane.count(&stopping).await;
            wishes::until(plane, NAME, "STANDBY", size).await;
            (stopping, beside)
        })
        .await;
        assert!(stopping > 0, "the others were no longer stopping");
        let goal = Goal::Within(NO_EFFECT, ALONE.to_owned());
        report
            .add(
                &case,
                "unrelated: the same, beside the slow stops",
                "ms",
                beside,
            )
            .goal(goal);
        report.add(&case, "all slow stops", "ms", all);
        for workspace in &stubborn {
            wishes::desire(&mut api, &workspace.id, DesiredState::Running).await;
        }
        wishes::until(plane, NAME, "RUNNING", size).await;
    }
}

async fn unrelated(plane: &Plane) -> f64 {
    let (took, workspaces) = timed(async {
        let workspaces = wishes::create(plane, OTHER, IMAGE, 1).await;
        wishes::until(plane, OTHER, "RUNNING", 1).await;
        workspaces
    })
    .await;
    wishes::delete(plane, OTHER, &workspaces).await;
    took
}
