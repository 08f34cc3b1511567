//! Answers that break off, repeat and mix; hosts that fail and hang; writes that fail; old agents.

use std::time::{Duration, Instant};

use windlass_coordinator::Pass;
use windlass_integration::{
    sim_agent::{Shape, ids, volume_id},
    wait,
};
use windlass_proto::v1::{ContainerState, Job, JobState, Operation};

use crate::fixture::{ARCHIVE, CONTAINER, LONG, VOLUME, fixture, fixture_that_waits, host};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_counts_for_nothing_and_is_asked_again() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 2_500).collect();
    f.rows(1, &all, "phase = 'RUNNING'");
    f.settle().await;
    f.populate(1, &all, &Shape::RUNNING);
    f.agents[0].behave(|b| b.cut = 2);
    for _ in 0..2 {
        assert_eq!(f.pass().await, 0);
        assert_eq!(f.count_true(CONTAINER), 0);
        assert!(
            f.sql("SELECT observe_error FROM hosts")
                .contains("broke off")
        );
    }
    assert_eq!(f.pass().await, 2_500);
    assert_eq!(f.sql("SELECT observe_error FROM hosts"), "");
    assert_eq!(f.count_true(CONTAINER), 2_500);
    assert_eq!(f.agents[0].counts().wholes, 1, "only what changed was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_mixed_and_repeatedly_whole_answers_end_in_the_same() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 1_500).collect();
    f.rows(1, &all, "phase = 'RUNNING'");
    let agent = &f.agents[0];
    f.populate(1, &all, &Shape::RUNNING);
    agent.behave(|b| (b.duplicate, b.reverse) = (true, true));
    assert_eq!(f.pass().await, 1_500);
    assert_eq!(f.pass().await, 0);
    let agent = &f.agents[0];
    agent.remove_container(all[0]);
    agent.set_container(all[1], ContainerState::Exited);
    agent.set_volume(all[2], uuid::Uuid::from_u128(99));
    assert_eq!(f.pass().await, 3);
    assert_eq!(f.status(all[0], CONTAINER), "False");
    assert_eq!(f.evidence(all[1], "container,state"), "exited");
    f.settle().await;
    // The whole again, and a life that knows no position: no row has changed. (Its host may be fresher.)
    let rows = "SELECT md5(string_agg(xmin || '/' || id, ' ' ORDER BY id)) FROM workspaces";
    let versions = f.sql(rows);
    f.agents[0].behave(|b| b.forgetful = true);
    assert_eq!(f.pass().await, 0);
    assert_eq!(f.sql(rows), versions);
    f.agents[0].behave(|b| b.forgetful = false);
    f.agents[0].restart();
    assert_eq!(f.pass().await, 0);
    // What a new life has lost is seen to be gone.
    f.agents[0].remove_volume(all[3]);
    f.agents[0].restart();
    assert_eq!(f.pass().await, 1);
    assert_eq!(f.status(all[3], VOLUME), "False");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_written_is_written_by_the_next_pass() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 2).collect();
    f.rows(1, &all, "phase = 'RUNNING'");
    f.settle().await;
    f.agents[0].populate(all[0], &Shape::RUNNING);
    f.agents[0].list_host();
    let observed = f.sql("SELECT last_observed_at FROM hosts");
    f.sql("REVOKE UPDATE (conditions) ON workspaces FROM windlass_observer");
    for _ in 0..2 {
        f.try_pass().await.unwrap_err();
    }
    // Nor is the host said to be observed without what was seen there.
    assert_eq!(f.sql("SELECT last_observed_at FROM hosts"), observed);
    f.sql("GRANT UPDATE (conditions) ON workspaces TO windlass_observer");
    let told = f.agents[0].counts().entries;
    assert_eq!(f.pass().await, 1);
    assert_eq!(f.agents[0].counts().entries, told, "it was told once");
    assert_eq!(f.status(all[0], CONTAINER), "True");
    assert!(f.sql("SELECT last_observed_at FROM hosts") > observed);
    f.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pass_that_failed_has_read_is_decided_about_by_the_next() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 3).collect();
    f.populate(1, &all, &Shape::RUNNING);
    f.rows(1, &all[..1], "phase = 'RUNNING'");
    f.settle().await;
    // The rows can be read, the hosts cannot.
    f.rows(1, &all[1..], "phase = 'RUNNING'");
    f.sql("REVOKE SELECT ON hosts FROM windlass_observer");
    for _ in 0..2 {
        f.try_pass().await.unwrap_err();
    }
    f.sql("GRANT SELECT ON hosts TO windlass_observer");
    assert_eq!(f.pass().await, 2);
    assert_eq!(f.count_true(CONTAINER), 3);
    f.settle().await;
    // The same where everything is read anew: what is known of hosts is forgotten all the same.
    f.lead_anew().await;
    f.sql("REVOKE SELECT ON hosts FROM windlass_observer");
    f.try_pass().await.unwrap_err();
    f.sql("GRANT SELECT ON hosts TO windlass_observer");
    let wholes = f.agents[0].counts().wholes;
    assert_eq!(f.pass().await, 0);
    assert_eq!(f.agents[0].counts().wholes, wholes + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_at_another_address_is_seen_as_it_is_there() {
    let mut f = fixture(2).await;
    let all: Vec<_> = ids(1, 2).collect();
    f.populate(1, &all, &Shape::RUNNING);
    f.agents[1].populate(all[0], &Shape::RUNNING);
    f.rows(1, &all, "phase = 'RUNNING'");
    f.settle().await;
    assert_eq!(f.count_true(CONTAINER), 2);
    f.sql(&format!(
        "UPDATE hosts SET address = '{}' WHERE id = '{}'",
        f.agents[1].address(),
        host(1)
    ));
    f.pass().await;
    assert_eq!(f.status(all[0], CONTAINER), "True");
    assert_eq!(f.status(all[1], CONTAINER), "False");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_away_blinds_nobody_and_is_made_up_for() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 2).collect();
    f.rows(1, &all, "phase = 'STANDBY'");
    f.agents[0].populate(all[0], &Shape::RUNNING);
    let key = f.agents[0].list_archive(all[1], volume_id(all[1]));
    f.set(all[1], &format!("archive_key = '{key}'"));
    f.agents[0].behave(|b| b.archive_error = Some("403".to_owned()));
    assert_eq!(f.pass().await, 2);
    assert_eq!(f.status(all[0], CONTAINER), "True");
    assert_eq!(f.status(all[1], ARCHIVE), "Unknown");
    assert_eq!(f.sql("SELECT observe_error FROM archive_store"), "403");
    f.settle().await;
    // It comes back with nothing new to tell of the host.
    f.agents[0].behave(|b| b.archive_error = None);
    assert_eq!(f.pass().await, 2);
    assert_eq!(f.status(all[1], ARCHIVE), "True");
    assert_eq!(f.status(all[0], ARCHIVE), "False");
    assert_eq!(f.sql("SELECT observe_error FROM archive_store"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_fails_is_said_to_fail_once_and_keeps_its_last_conditions() {
    let mut f = fixture(2).await;
    let (one, two): (Vec<_>, Vec<_>) = (ids(1, 3).collect(), ids(2, 3).collect());
    f.rows(1, &one, "phase = 'RUNNING'");
    f.rows(2, &two, "phase = 'RUNNING'");
    f.populate(1, &one, &Shape::RUNNING);
    f.populate(2, &two, &Shape::RUNNING);
    f.settle().await;
    f.agents[1].behave(|b| b.host_error = Some("the engine is away".to_owned()));
    f.agents[0].remove_container(one[0]);
    f.agents[1].remove_container(two[0]);
    let report = f.try_pass().await.unwrap().report;
    assert_eq!(report.changed, 1);
    assert_eq!(report.hosts[1].host_error, "the engine is away");
    assert_eq!(f.host_error(2), "the engine is away");
    assert_eq!(f.status(one[0], CONTAINER), "False");
    assert_eq!(f.status(two[0], CONTAINER), "True");
    // A row that appears meanwhile waits for its host; nothing is written again and again.
    let late = [uuid::Uuid::from_u128(77)];
    f.agents[1].populate(late[0], &Shape::STANDBY);
    f.rows(2, &late, "phase = 'STANDBY'");
    f.settle().await;
    let versions = f.versions();
    for _ in 0..3 {
        assert_eq!(f.pass().await, 0);
    }
    assert_eq!(f.versions(), versions);
    // Refused calls are another failure; then it is well again.
    f.agents[1].behave(|b| (b.host_error, b.refuse) = (None, true));
    f.pass().await;
    assert!(f.host_error(2).contains("refused"), "{}", f.host_error(2));
    f.agents[1].behave(|b| b.refuse = false);
    assert_eq!(f.pass().await, 2);
    assert_eq!(f.host_error(2), "");
    assert_eq!(f.status(two[0], CONTAINER), "False");
    assert_eq!(f.status(late[0], VOLUME), "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hangs_keeps_nobody_waiting() {
    // A host may take a day here: a pass that waited for its answer would not end.
    let mut f = fixture_that_waits(2, Duration::from_secs(5)).await;
    let (one, two): (Vec<_>, Vec<_>) = (ids(1, 3).collect(), ids(2, 3).collect());
    f.rows(1, &one, "phase = 'RUNNING'");
    f.rows(2, &two, "phase = 'RUNNING'");
    f.agents[1].behave(|b| b.hang = true);
    f.populate(1, &one, &Shape::RUNNING);
    f.populate(2, &two, &Shape::RUNNING);
    // All rows get a condition, those of the hanging host of the store alone.
    f.pass().await;
    assert_eq!(f.count_true(CONTAINER), 3);
    f.settle().await;
    for id in &one {
        f.agents[0].remove_container(*id);
        assert_eq!(f.pass().await, 1);
    }
    assert_eq!(f.agents[1].counts().list_changes, 1, "asked once");
    let report = f.try_pass().await.unwrap().report;
    assert_eq!(report.hosts[1].host_error, "it has not answered yet");
    // It answers: the observer is woken, and the answer counts although it is old.
    f.agents[1].behave(|b| b.hang = false);
    f.woken().await;
    assert_eq!(f.pass().await, 3);
    assert_eq!(f.count_true(CONTAINER), 3);
    assert_eq!(
        f.agents[1].counts().list_changes,
        1,
        "not asked by that pass"
    );
    // It is asked again, and what it says counts, though nobody waits for it.
    f.agents[1].remove_container(two[0]);
    wait::until("its next answer", async || f.pass().await, |n| *n == 1).await;
    assert_eq!(f.agents[1].counts().list_changes, 2);
    // That one was quick: it is waited for again.
    f.agents[1].remove_container(two[1]);
    assert_eq!(f.pass().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_slow_every_time_keeps_nobody_waiting_either() {
    const GRACE: Duration = Duration::from_secs(3);
    let mut f = fixture_that_waits(2, GRACE).await;
    f.settle().await;
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        f.agents[1].behave(|b| b.hang = true);
        let began = Instant::now();
        f.pass().await;
        quickest = quickest.min(began.elapsed());
        // It takes longer than a pass waits for anybody.
        tokio::time::sleep(GRACE + Duration::from_millis(200)).await;
        f.agents[1].behave(|b| b.hang = false);
        f.woken().await;
        // This pass takes the answer, and does not ask anew.
        f.pass().await;
    }
    assert!(quickest < GRACE, "{quickest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_an_earlier_version_is_looked_at_by_its_lists() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 1_200).collect();
    f.rows(1, &all, "phase = 'RUNNING'");
    let agent = &f.agents[0];
    f.populate(1, &all, &Shape::RUNNING);
    let key = agent.list_archive(all[5], volume_id(all[5]));
    f.set(all[5], &format!("archive_key = '{key}'"));
    agent.behave(|b| b.old = true);
    assert_eq!(f.pass().await, 1_200);
    assert_eq!(f.status(all[5], ARCHIVE), "True");
    let first = f.sql("SELECT last_observed_at FROM hosts");
    f.agents[0].remove_container(all[0]);
    assert_eq!(f.pass().await, 1);
    // Each of its lists is a full one.
    assert!(f.sql("SELECT last_observed_at FROM hosts") > first);
    assert_eq!(f.agents[0].counts().lists, 6);
    // It is replaced by one that knows ListChanges, and back.
    f.agents[0].behave(|b| b.old = false);
    assert_eq!(f.pass().await, 0);
    f.agents[0].remove_container(all[1]);
    assert_eq!(f.pass().await, 1);
    assert_eq!(f.agents[0].counts().lists, 6);
    f.agents[0].behave(|b| b.old = true);
    f.agents[0].remove_container(all[2]);
    assert_eq!(f.pass().await, 1);
    assert_eq!(f.count_true(CONTAINER), 1_197);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_after_their_containers_and_rows_that_go() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 2).collect();
    f.populate(1, &all, &Shape::RUNNING);
    f.settle().await;
    f.rows(1, &all, "phase = 'RUNNING'");
    assert_eq!(f.pass().await, 2);
    f.set(
        all[0],
        "phase = 'DELETED', desired_state = 'DELETED', deleted_at = now()",
    );
    f.agents[0].remove_container(all[0]);
    f.agents[0].remove_container(all[1]);
    assert_eq!(
        f.pass().await,
        1,
        "nothing is observed of what is gone for good"
    );
    // Another leadership, and another observer: everything is read anew, nothing is written anew.
    f.settle().await;
    let versions = f.versions();
    f.observe = crate::fixture::observe(&f.pool, &f.bell, LONG);
    assert_eq!(f.pass().await, 0);
    f.lead_anew().await;
    let wholes = f.agents[0].counts().wholes;
    assert_eq!(f.pass().await, 0);
    assert_eq!(f.agents[0].counts().wholes, wholes + 1);
    assert_eq!(f.versions().split(' ').count(), versions.split(' ').count());
    // A leadership that is over is forgotten at once, not when the next one begins.
    f.observe.over(&f.lease);
    assert_eq!(f.pass().await, 0);
    assert_eq!(f.agents[0].counts().wholes, wholes + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_evidence_while_they_run_and_when_they_fail() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 1).collect();
    f.rows(1, &all, "phase = 'STANDBY'");
    f.agents[0].populate(all[0], &Shape::STANDBY);
    f.settle().await;
    let job = |state: JobState| Job {
        workspace_id: all[0].to_string(),
        op_id: volume_id(all[0]).to_string(),
        operation: Operation::Archiving.into(),
        state: state.into(),
        reason: "ActionFailed".to_owned(),
        end_time: Some(prost_types::Timestamp::default()),
        ..Job::default()
    };
    f.agents[0].set_job(job(JobState::Running));
    assert_eq!(f.pass().await, 1);
    assert_eq!(f.evidence(all[0], "job,stage"), "running");
    f.agents[0].set_job(job(JobState::Failed));
    assert_eq!(f.pass().await, 1);
    assert_eq!(f.evidence(all[0], "job"), "");
    assert_eq!(f.evidence(all[0], "failed_job,reason"), "ActionFailed");
    f.agents[0].remove_job(all[0]);
    assert_eq!(f.pass().await, 1);
    assert_eq!(f.evidence(all[0], "failed_job"), "");
    f.settle().await;
}

/// As after a failover, or a crash with late commits lost: a row is as it was before, and no transaction id tells.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_that_was_started_anew_has_lost_is_written_again() {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, 3).collect();
    f.rows(1, &all, "phase = 'RUNNING'");
    f.populate(1, &all, &Shape::RUNNING);
    f.settle().await;
    assert_eq!(f.count_true(CONTAINER), 3);
    f.restart_postgres().await;
    f.sql(&format!(
        "SET session_replication_role = replica;
         UPDATE workspaces SET conditions = '{{}}' WHERE id = '{}'",
        all[1]
    ));
    assert_eq!(f.pass().await, 1);
    assert_eq!(f.count_true(CONTAINER), 3);
}
