//! Decisions that wait for a full list: it is asked for at once, and only then.

use uuid::Uuid;
use windlass_integration::sim_agent::{Shape, ids, volume_id};

use crate::fixture::{VOLUME, fixture};

/// Whether the host is observed later than a column of the one row.
const PROVEN: &str = "SELECT h.last_observed_at > w.COLUMN FROM hosts AS h, workspaces AS w";

/// The column of a row whose home is the volume that it was populated with.
fn home_is_volume(id: Uuid) -> String {
    let volume_id = volume_id(id);
    format!(r#"home_ctx = '{{"location": "volume", "volume_id": "{volume_id}"}}'"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_proven_at_once() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 1).collect();
    f.rows(1, &all, "phase = 'STANDBY'");
    f.settle().await;
    assert_eq!(f.agents[0].counts().proofs, 0);
    f.sql(
        "UPDATE workspaces SET desired_state = 'DELETED', deleted_at = now(), phase = 'DELETING',
             phase_changed_at = now()",
    );
    let proven = PROVEN.replace("COLUMN", "phase_changed_at");
    assert_eq!(f.sql(&proven), "f");
    f.pass().await;
    assert_eq!(f.sql(&proven), "t");
    assert_eq!(f.agents[0].counts().proofs, 1);
    f.settle().await;
    assert_eq!(f.agents[0].counts().proofs, 1, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_still_has_an_archive_waits_for_nothing() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 1).collect();
    f.agents[0].populate(all[0], &Shape::ARCHIVED);
    f.rows(
        1,
        &all,
        "phase = 'DELETING', desired_state = 'DELETED', deleted_at = now(), phase_changed_at = now()",
    );
    f.settle().await;
    assert_eq!(f.agents[0].counts().proofs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_home_is_proven_by_a_list_that_began_after_its_absence_was_stored() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 1).collect();
    f.agents[0].populate(all[0], &Shape::STANDBY);
    f.rows(
        1,
        &all,
        &format!("phase = 'STANDBY', {}", home_is_volume(all[0])),
    );
    f.settle().await;
    assert_eq!(f.agents[0].counts().proofs, 0);
    f.agents[0].remove_volume(all[0]);
    f.agents[0].list_host();
    assert_eq!(f.pass().await, 1);
    assert_eq!(f.status(all[0], VOLUME), "False");
    // The list that came with the absence does not confirm it.
    let proven = PROVEN.replace("COLUMN", "observed_at");
    assert_eq!(f.sql(&proven), "f");
    let verdict = f.try_pass().await.unwrap();
    assert!(verdict.report.changed == 0);
    assert_eq!(f.sql(&proven), "t");
    assert_eq!(f.agents[0].counts().proofs, 1);
    f.settle().await;
    assert_eq!(f.agents[0].counts().proofs, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_to_be_lost_waits_for_no_proof() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 1).collect();
    f.agents[0].populate(all[0], &Shape::STANDBY);
    f.rows(
        1,
        &all,
        &format!(
            "phase = 'ERROR', error_reason = 'DataLost', {}",
            home_is_volume(all[0])
        ),
    );
    f.settle().await;
    f.agents[0].remove_volume(all[0]);
    assert_eq!(f.pass().await, 1);
    f.settle().await;
    assert_eq!(f.agents[0].counts().proofs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_could_not_be_reached_is_proven_when_its_host_answers() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 1).collect();
    f.rows(1, &all, "phase = 'STANDBY'");
    f.settle().await;
    f.agents[0].behave(|b| b.refuse = true);
    f.sql("UPDATE workspaces SET phase = 'ERROR', error_reason = 'Unreachable', phase_changed_at = now()");
    let proven = PROVEN.replace("COLUMN", "phase_changed_at");
    for _ in 0..2 {
        f.pass().await;
        assert_eq!(f.sql(&proven), "f");
    }
    assert!(
        !f.try_pass().await.unwrap().active,
        "nobody is hurried by a host that is away"
    );
    f.agents[0].behave(|b| b.refuse = false);
    f.pass().await;
    assert_eq!(f.sql(&proven), "t");
    f.settle().await;
}
