//! Several agents of one store: one lists it, the others tell what is their own.

use windlass_coordinator::Pass;
use windlass_db::Lease;
use windlass_domain::Shard;
use windlass_integration::sim_agent::{archive_op, ids, total};

use crate::fixture::{ARCHIVE, LONG, fixture, observe};

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_lists_the_store_and_another_takes_over() {
    let mut f = fixture(3).await;
    let all: Vec<_> = ids(1, 2).collect();
    f.rows(2, &all, "phase = 'ARCHIVED'");
    let named = |key: &str| format!("archive_key = '{key}'");
    for agent in &f.agents {
        let key = agent.list_archive(all[0], archive_op(all[0], 0));
        f.set(all[0], &named(&key));
    }
    f.pass().await;
    assert_eq!(f.status(all[0], ARCHIVE), "True");
    f.settle().await;
    let passes = total(&f.agents).list_changes / 3;
    assert_eq!(f.agents[0].counts().archive_all, passes);
    assert_eq!(
        total(&f.agents).archive_all,
        passes,
        "the others were not asked"
    );

    // What the second makes is seen before the first has listed it.
    let key = f.agents[1].make_archive(all[1], archive_op(all[1], 0));
    f.set(all[1], &named(&key));
    f.pass().await;
    assert_eq!(f.status(all[1], ARCHIVE), "True");
    // The third deletes it; the first has listed it in between.
    f.agents[0].list_archive(all[1], archive_op(all[1], 0));
    f.agents[0].list_store();
    f.settle().await;
    f.agents[2].delete_archive(&key);
    f.pass().await;
    assert_eq!(f.status(all[1], ARCHIVE), "False");
    // The next list settles it, and its time is the store's.
    let store = f.sql("SELECT last_observed_at FROM archive_store");
    f.agents[0].unlist_archive(&key);
    f.agents[0].list_store();
    f.pass().await;
    assert!(f.sql("SELECT last_observed_at FROM archive_store") > store);
    f.agents[2].restart();
    f.settle().await;
    assert_eq!(f.status(all[1], ARCHIVE), "False");

    // The first goes away: containers of others are seen all the same, and the second is asked for all.
    f.agents[0].behave(|b| b.refuse = true);
    f.pass().await;
    assert!(!f.sql("SELECT observe_error FROM archive_store").is_empty());
    f.agents[1].unlist_archive(&key);
    f.settle().await;
    assert!(f.agents[1].counts().archive_all > 0);
    assert_eq!(f.agents[2].counts().archive_all, 0);
    assert_eq!(f.sql("SELECT observe_error FROM archive_store"), "");
    assert_eq!(f.status(all[0], ARCHIVE), "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_confirm_nothing_for_each_other_and_leave_each_others_errors_alone() {
    let mut f = fixture(2).await;
    let lease = |index| Lease {
        shard: Shard::new(index, 2).unwrap(),
        ..f.lease.clone()
    };
    // By the last bytes of their ids, the first host is in shard 1 and the second in shard 0.
    let (one, two) = (lease(1), lease(0));
    let mut other = observe(&f.pool, &f.bell, LONG);
    for _ in 0..3 {
        f.observe.pass(&one, ()).await.unwrap();
        other.pass(&two, ()).await.unwrap();
        f.agents.iter().for_each(|agent| agent.list_store());
    }
    assert_eq!(f.agents[0].counts().archive_all, 3);
    assert_eq!(f.agents[1].counts().archive_all, 3);
    // Whose list would it be? What one of them lists says nothing of what the other saw to be absent.
    assert_eq!(f.sql("SELECT last_observed_at FROM archive_store"), "");

    f.agents[1].behave(|b| b.archive_error = Some("403".to_owned()));
    other.pass(&two, ()).await.unwrap();
    let row = "SELECT xmin || observe_error FROM archive_store";
    let told = f.sql(row);
    assert!(told.ends_with("403"), "{told}");
    for _ in 0..2 {
        f.observe.pass(&one, ()).await.unwrap();
        other.pass(&two, ()).await.unwrap();
    }
    assert_eq!(f.sql(row), told, "written once");
    f.agents[1].behave(|b| b.archive_error = None);
    other.pass(&two, ()).await.unwrap();
    assert_eq!(f.sql("SELECT observe_error FROM archive_store"), "");
}
