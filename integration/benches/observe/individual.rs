//! The way that bulk observation replaced: for each workspace, one after the other, its container and its
//! volume are inspected and its archive is looked up. Over one connection, and with nothing between us and
//! the engine, which is as quick as that way can be; and by the docker program, as many a script does it.

use std::process::Command;

use uuid::Uuid;
use windlass_archive::layout;
use windlass_integration::bench::{Goal, Plane, Report, raw::Raw, timed};

use crate::bulk::BULK;

/// How much faster bulk has to be.
const FASTER: f64 = 80.0;
/// Of more workspaces the docker program is not asked: it would take minutes.
const PATIENT: usize = 100;

/// Runs it.
pub async fn measure(
    plane: &Plane,
    raw: &Raw,
    host: &str,
    report: &mut Report,
    ids: &[Uuid],
    runs: usize,
) {
    if ids.len() <= PATIENT {
        let (took, ()) = timed(async { by_program(raw, host, ids) }).await;
        report
            .add(
                ids.len(),
                "individual: two inspects for each, by docker",
                "ms",
                took,
            )
            .goal(Goal::Beside(BULK.to_owned()));
    }
    let store = plane.store().await;
    let keys = markers(plane).await;
    for _ in 0..runs {
        let mut engine = raw.connect().await;
        let (took, ()) = timed(async {
            for &id in ids {
                engine
                    .get(&format!("/containers/{}/json", raw.container(id)))
                    .await;
                engine.get(&format!("/volumes/{}", raw.volume(id))).await;
            }
        })
        .await;
        let what = "individual: two inspects for each";
        report
            .add(ids.len(), what, "ms", took)
            .goal(Goal::Beside(BULK.to_owned()));

        let (took, ()) = timed(async {
            for (&id, key) in ids.iter().zip(&keys) {
                engine
                    .get(&format!("/containers/{}/json", raw.container(id)))
                    .await;
                engine.get(&format!("/volumes/{}", raw.volume(id))).await;
                store.head(key).await.expect("the marker");
            }
        })
        .await;
        let what = "individual: and one look at its archive";
        report
            .add(ids.len(), what, "ms", took)
            .goal(Goal::Beyond(FASTER, BULK.to_owned()));
    }
}

fn by_program(raw: &Raw, host: &str, ids: &[Uuid]) {
    for &id in ids {
        for (kind, name) in [("container", raw.container(id)), ("volume", raw.volume(id))] {
            let mut docker = Command::new("docker");
            docker
                .args([kind, "inspect", &name])
                .env("DOCKER_HOST", host);
            let answer = docker.output().expect("the docker program");
            assert!(answer.status.success(), "{answer:?}");
        }
    }
}

async fn markers(plane: &Plane) -> Vec<String> {
    let objects = plane.store().await.list("").await.expect("a listing");
    let keys = objects.into_iter().map(|o| o.key);
    keys.filter(|key| key.ends_with(layout::MARKER_SUFFIX))
        .collect()
}
