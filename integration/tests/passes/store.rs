//! Several agents of one store: one lists it, the others tell what is their own.

use windlass_integration::sim_agent::{archive_op, ids, total};

use crate::fixture::{ARCHIVE, fixture};

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_lists_the_store_and_another_takes_over() {
    let mut f = fixture(3).await;
    let all: Vec<_> = ids(1, 2).collect();
    f.rows(2, &all, "phase = 'ARCHIVED'");
    let set_key = |f: &crate::fixture::Fixture, n: usize, key: &str| {
        f.sql(&format!(
            "UPDATE workspaces SET archive_key = '{key}' WHERE id = '{}'",
            all[n]
        ));
    };
    for agent in &f.agents {
        let key = agent.list_archive(all[0], archive_op(all[0], 0));
        set_key(&f, 0, &key);
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
    set_key(&f, 1, &key);
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
