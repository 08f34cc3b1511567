//! What a pass costs, in statements, calls and writes: as much as what changed.

use windlass_coordinator::{Coordinator, Hints, Periods};
use windlass_integration::{
    sim_agent::{Shape, ids},
    wait,
};
use windlass_proto::v1::ContainerState;
use windlass_service::Readiness;

use crate::fixture::{CONTAINER, LONG, fixture};

/// Statements of an idle pass and of one in which one container changed, with so many workspaces.
async fn costs(count: u64) -> (u64, u64) {
    let mut f = fixture(1).await;
    let all: Vec<_> = ids(1, count).collect();
    f.populate(1, &all, &Shape::RUNNING);
    f.rows(1, &all, "phase = 'RUNNING'");
    assert_eq!(u64::from(f.pass().await), count);
    assert_eq!(f.count_true(CONTAINER) as u64, count);
    f.settle().await;

    let (before, versions, asked) = (
        windlass_db::statements(),
        f.versions(),
        f.agents[0].counts(),
    );
    assert_eq!(f.pass().await, 0);
    let idle = windlass_db::statements() - before;
    let now = f.agents[0].counts();
    assert_eq!(now.list_changes - asked.list_changes, 1);
    assert_eq!((now.entries, now.lists), (asked.entries, 0));
    assert_eq!(f.versions(), versions, "an idle pass wrote something");

    f.agents[0].set_container(all[0], ContainerState::Exited);
    let before = windlass_db::statements();
    assert_eq!(f.pass().await, 1);
    let one = windlass_db::statements() - before;
    assert_eq!(f.count_true(CONTAINER) as u64, count - 1);
    assert_eq!(f.agents[0].counts().entries - now.entries, 1);
    (idle, one)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_costs_what_changed_and_not_what_there_is() {
    let few = costs(10).await;
    let many = costs(1_000).await;
    assert_eq!(few, many);
    // Rows and hosts, and for each whether its connection lives; begin, fence, update, commit, and again.
    let (idle, one) = many;
    assert!(idle <= 4 && one <= idle + 5, "{idle} {one}");
}

#[tokio::test(flavor = "multi_thread")]
async fn freshness_is_written_when_the_host_was_listed_and_only_then() {
    let mut f = fixture(2).await;
    f.settle().await;
    let observed = |f: &crate::fixture::Fixture| {
        f.sql("SELECT string_agg(last_observed_at::text, ',' ORDER BY id) FROM hosts")
    };
    let first = observed(&f);
    assert_eq!(first.split(',').count(), 2, "{first}");
    f.pass().await;
    assert_eq!(observed(&f), first);
    f.agents.iter().for_each(|agent| agent.list_host());
    f.pass().await;
    // Both hosts in one statement, which is one transaction.
    let writers = f.sql("SELECT count(DISTINCT xmin::text) FROM hosts");
    assert_eq!(writers, "1");
    let second = observed(&f);
    assert!(
        second.split(',').zip(first.split(',')).all(|(b, a)| b >= a) && second != first,
        "{first} {second}"
    );
    // Never later than the pass began.
    assert_eq!(
        f.sql("SELECT count(*) FROM hosts WHERE last_observed_at > now()"),
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_hints_during_a_pass_is_one_more_pass() {
    let mut f = fixture(1).await;
    let agent = f.agents.remove(0);
    agent.behave(|b| b.hang = true);
    let waker = Hints::off().subscribe(windlass_coordinator::Channel::Observer);
    let bell = waker.bell();
    let pass = crate::fixture::observe(&f.pool, &bell, LONG);
    let coordinator = Coordinator {
        name: "observer",
        holder: "test".to_owned(),
        pool: f.pool.clone(),
        lease_ttl: LONG,
        periods: Periods::steady(LONG),
        passes: vec![(waker, pass)],
    };
    let shutdown = tokio_util::sync::CancellationToken::new();
    let (handle, task) = coordinator.start(Readiness::new(), shutdown.clone());
    let running = tokio::spawn(task);
    let asked = async || agent.counts().list_changes;
    wait::until("the first pass", asked, |n| *n == 1).await;
    for _ in 0..1_000 {
        bell.notify_one();
        tokio::task::yield_now().await;
    }
    assert_eq!(handle.status().ticks, 0);
    agent.behave(|b| b.hang = false);
    // A request is taken before a hint, so the second one finds the loop after all hints.
    handle.run_now(()).await.unwrap();
    wait::until(
        "the hinted pass",
        async || handle.status().ticks,
        |ticks| *ticks >= 3,
    )
    .await;
    handle.run_now(()).await.unwrap();
    // The first; what rang while it was under way; the two requests.
    assert_eq!(handle.status().ticks, 4, "{:?}", handle.status());
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
