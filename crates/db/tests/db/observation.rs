//! observer's bulk write, and what freshness comes of it.

use uuid::Uuid;
use windlass_db::write::observer::{Observation, StoreFreshness};
use windlass_domain::{Conditions, HostId, WorkspaceId, observation};

use crate::common::db;

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_is_one_instant_and_writes_what_changed() {
    let db = db().await;
    let (pool, lease) = db.lead("observer").await;
    let host = db.host("h1").await;
    let seen = db.workspace("seen", "").await;
    let unseen = db.workspace("unseen", "").await;
    let record = db.record(seen).await;
    assert_eq!(record.workspace.conditions, Conditions::default());
    assert_eq!((record.fresh.host, record.fresh.archives), (None, None));

    let now = pool.now().await.unwrap();
    let conditions = observation::conditions(
        &Conditions::default(),
        Some(observation::HostSeen::default()),
        Some(observation::ArchivesSeen::default()),
        None,
        None,
        now,
    );
    let pass = Observation {
        began_at: pool.now().await.unwrap(),
        hosts: vec![(host, None)],
        store: StoreFreshness::Listed,
        changed: vec![(seen, conditions.clone())],
    };
    assert_eq!(pool.store_observation(&lease, pass).await.unwrap(), 1);
    let first = db.record(seen).await;
    assert_eq!(first.workspace.conditions, conditions);
    assert_eq!(first.workspace.observed_at, first.fresh.host);
    assert_eq!(first.workspace.observed_at, first.fresh.archives);
    assert!(first.fresh.host.unwrap() >= now);
    assert_eq!(db.record(unseen).await.workspace.observed_at, None);

    // A later pass that saw no change is fresher than the conditions.
    let pass = Observation {
        began_at: pool.now().await.unwrap(),
        hosts: vec![(host, None)],
        store: StoreFreshness::Unchanged,
        changed: Vec::new(),
    };
    assert_eq!(pool.store_observation(&lease, pass).await.unwrap(), 0);
    let second = db.record(seen).await;
    assert_eq!(second.workspace.observed_at, first.workspace.observed_at);
    assert!(second.fresh.host > first.fresh.host);
    assert_eq!(second.fresh.archives, first.fresh.archives);
    assert_eq!(second.updated_at, first.updated_at);

    // What could not be observed keeps its time and gets its error; unknown ids are nobody's.
    let pass = Observation {
        began_at: pool.now().await.unwrap(),
        hosts: vec![
            (host, Some("connection refused".to_owned())),
            (HostId(Uuid::new_v4()), None),
        ],
        store: StoreFreshness::Failed("403".to_owned()),
        changed: vec![(WorkspaceId(Uuid::new_v4()), Conditions::default())],
    };
    assert_eq!(pool.store_observation(&lease, pass).await.unwrap(), 0);
    let third = db.record(seen).await;
    assert_eq!(third.fresh, second.fresh);
    let hosts = pool.hosts().await.unwrap();
    assert_eq!(hosts[0].observe_error, "connection refused");
    assert_eq!(
        db.one("SELECT observe_error FROM archive_store").await,
        "403"
    );
    let pass = Observation {
        began_at: pool.now().await.unwrap(),
        hosts: vec![(host, None)],
        store: StoreFreshness::Listed,
        changed: Vec::new(),
    };
    pool.store_observation(&lease, pass).await.unwrap();
    assert_eq!(pool.hosts().await.unwrap()[0].observe_error, "");
    assert_eq!(db.one("SELECT observe_error FROM archive_store").await, "");
}
