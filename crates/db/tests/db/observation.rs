//! What observer reads in a pass, its bulk write, and what freshness comes of it.

use std::sync::Arc;

use chrono::TimeDelta;
use uuid::Uuid;
use windlass_db::{
    Pool,
    read::{ObservedRow, ObservedUntil, RowVersion, WatchToken},
    write::observer::{Noted, Observation},
};
use windlass_domain::{Conditions, HostId, Shard, WorkspaceId, observation};

use crate::common::db;

type Rows = Vec<(WorkspaceId, Option<ObservedRow>)>;

async fn read(pool: &Pool, since: Option<WatchToken>) -> (Rows, ObservedUntil) {
    read_but(pool, since, None).await
}

/// Without the conditions of what the transaction `own` wrote.
async fn read_but(
    pool: &Pool,
    since: Option<WatchToken>,
    own: Option<RowVersion>,
) -> (Rows, ObservedUntil) {
    let mut rows = Vec::new();
    let reading = pool.observed_rows(Shard::WHOLE, since, own, |id, row| rows.push((id, row)));
    let until = reading.await.unwrap();
    (rows, until)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_writes_what_changed_and_when_that_was_seen() {
    let db = db().await;
    let (pool, lease) = db.lead("observer").await;
    let host = db.host("h1").await;
    let seen = db.workspace("seen", "").await;
    let unseen = db.workspace("unseen", "").await;
    let record = db.record(seen).await;
    assert_eq!(record.workspace.conditions, Conditions::default());
    assert_eq!((record.fresh.host, record.fresh.archives), (None, None));

    let began = pool.now().await.unwrap();
    let conditions = Arc::new(observation::conditions(
        &Conditions::default(),
        Some(observation::HostSeen::default()),
        Some(observation::ArchivesSeen::default()),
        None,
        None,
        began,
    ));
    let noted = |observed_at, error: &str| Noted {
        observed_at,
        error: error.to_owned(),
    };
    let pass = Observation {
        hosts: vec![(host, noted(Some(began), ""))],
        store: Some(noted(Some(began), "")),
        changed: vec![(seen, conditions.clone())],
    };
    assert_eq!(pool.store_observation(&lease, pass).await.unwrap().rows, 1);
    let first = db.record(seen).await;
    assert_eq!(first.workspace.conditions, *conditions);
    assert_eq!(first.fresh.host, Some(began));
    assert_eq!(first.fresh.archives, Some(began));
    // Conditions are of the moment at which they are stored: the list that came with them is older.
    assert!(first.workspace.observed_at > first.fresh.host);
    assert_eq!(db.record(unseen).await.workspace.observed_at, None);

    // A later list that changed nothing is fresher than the conditions; an earlier one takes nothing back.
    let later = pool.now().await.unwrap();
    for at in [later, later - TimeDelta::minutes(1)] {
        let pass = Observation {
            hosts: vec![(host, noted(Some(at), ""))],
            ..Observation::default()
        };
        assert_eq!(pool.store_observation(&lease, pass).await.unwrap().rows, 0);
        let second = db.record(seen).await;
        assert_eq!(second.workspace.observed_at, first.workspace.observed_at);
        assert_eq!(second.fresh.host, Some(later));
        assert_eq!(second.fresh.archives, first.fresh.archives);
        assert_eq!(second.updated_at, first.updated_at);
    }

    // What could not be observed keeps its time and gets its error; unknown ids are nobody's.
    let pass = Observation {
        hosts: vec![
            (host, noted(None, "connection refused")),
            (HostId(Uuid::new_v4()), noted(Some(later), "")),
        ],
        store: Some(noted(None, "403")),
        changed: vec![(WorkspaceId(Uuid::new_v4()), Arc::default())],
    };
    assert_eq!(pool.store_observation(&lease, pass).await.unwrap().rows, 0);
    let third = db.record(seen).await;
    assert_eq!(third.fresh.host, Some(later));
    assert_eq!(third.fresh.archives, Some(began));
    let hosts = pool.observed_hosts().await.unwrap();
    assert_eq!(hosts.hosts[0].error, "connection refused");
    assert_eq!(hosts.store_error, "403");
    let pass = Observation {
        hosts: vec![(host, noted(None, ""))],
        store: Some(noted(None, "")),
        ..Observation::default()
    };
    pool.store_observation(&lease, pass).await.unwrap();
    let hosts = pool.observed_hosts().await.unwrap();
    assert_eq!((&*hosts.hosts[0].error, &*hosts.store_error), ("", ""));
    assert_eq!(hosts.hosts[0].observed_at, Some(later));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_say_is_no_statement_and_bulk_is_few() {
    let db = db().await;
    let (pool, lease) = db.lead("observer").await;
    db.sql(
        "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state)
         SELECT gen_random_uuid(), u.id, h.id, 'w' || n, 'i', 'RUNNING'
         FROM generate_series(1, 6000) AS n, users u, hosts h WHERE u.name = 'ann'",
    )
    .await;
    let before = windlass_db::statements();
    let nothing = Observation::default();
    let stored = pool.store_observation(&lease, nothing).await.unwrap();
    assert_eq!((stored.rows, stored.version), (0, None));
    assert_eq!(windlass_db::statements(), before);

    // In pages; after that only what changed, with the clock, also if that is nothing.
    let (rows, all) = read(&pool, None).await;
    assert_eq!(rows.len(), 6_000);
    // Two pages; a connection that is used again is asked first whether it lives.
    assert!((2..=4).contains(&(windlass_db::statements() - before)));
    let (none, idle) = read(&pool, Some(all.horizon.token)).await;
    assert_eq!(none.len(), 0);
    assert!(idle.now > all.now && idle.horizon.token >= all.horizon.token);

    let conditions = Arc::new(observation::conditions(
        &Conditions::default(),
        Some(observation::HostSeen::default()),
        None,
        None,
        None,
        all.now,
    ));
    let pass = Observation {
        changed: rows
            .iter()
            .map(|(id, _)| (*id, conditions.clone()))
            .collect(),
        ..Observation::default()
    };
    let before = windlass_db::statements();
    let stored = pool.store_observation(&lease, pass).await.unwrap();
    assert_eq!(stored.rows, 6_000);
    // begin, fence, two of the rows and the locks before each, commit; and the connection.
    assert!((7..=8).contains(&(windlass_db::statements() - before)));
    let (changed, _) = read(&pool, Some(idle.horizon.token)).await;
    assert_eq!(changed.len(), 6_000);
    let stored_of = |row: &Option<ObservedRow>| row.clone().unwrap().conditions;
    let as_written = |(_, row): &_| stored_of(row).as_ref() == Some(&*conditions);
    assert!(changed.iter().all(as_written));

    // Who wrote it has it, until somebody else writes the row.
    let (other, _) = changed[7];
    db.set(other, "description = 'x'").await;
    let (changed, _) = read_but(&pool, Some(idle.horizon.token), stored.version).await;
    assert_eq!(changed.len(), 6_000);
    let told = changed.iter().filter(|(_, row)| stored_of(row).is_some());
    assert_eq!(told.map(|(id, _)| *id).collect::<Vec<_>>(), [other]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_read_as_far_as_the_observer_needs_it() {
    let db = db().await;
    let pool = db.pool("observer");
    let id = db
        .workspace(
            "w",
            "archive_key = 'k1', restore_request = gen_random_uuid(), restore_key = 'k2',
             operation = 'STARTING', op_id = gen_random_uuid()",
        )
        .await;
    let (rows, first) = read(&pool, None).await;
    let row = rows[0].1.as_ref().unwrap();
    assert_eq!((rows[0].0, row.host_id), (id, db.host("h1").await));
    assert!(row.in_progress);
    assert_eq!(row.archive_key.as_deref(), Some("k1"));
    assert_eq!(row.restore_key.as_deref(), Some("k2"));
    assert_eq!(
        row.subject
            .as_ref()
            .unwrap()
            .proof_after(&Conditions::default()),
        None
    );

    db.set(
        id,
        "restore_applied = restore_request, operation = 'NONE', op_id = NULL",
    )
    .await;
    let (rows, second) = read(&pool, Some(first.horizon.token)).await;
    assert_eq!(rows.len(), 1);
    let row = rows[0].1.as_ref().unwrap();
    assert!(!row.in_progress);
    assert_eq!(row.restore_key, None);

    let since = "phase_changed_at = '2026-01-05T00:00:05Z', observed_at = now()";
    let deleting =
        format!("phase = 'DELETING', desired_state = 'DELETED', deleted_at = now(), {since}");
    db.set(id, &deleting).await;
    let (rows, third) = read(&pool, Some(second.horizon.token)).await;
    let row = rows[0].1.as_ref().unwrap();
    let after = row
        .subject
        .as_ref()
        .unwrap()
        .proof_after(&Conditions::default())
        .unwrap();
    assert_eq!(after.to_rfc3339(), "2026-01-05T00:00:05+00:00");

    db.set(id, "phase = 'DELETED'").await;
    let (gone, _) = read(&pool, Some(third.horizon.token)).await;
    assert!(gone[0].0 == id && gone[0].1.is_none());
    assert!(read(&pool, None).await.0.is_empty());
}

/// One that a later version wrote, or a hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_stands_in_no_others_way() {
    let db = db().await;
    let pool = db.pool("observer");
    let good = db.workspace("good", "").await;
    let (_, before) = read(&pool, None).await;
    let bad = db
        .workspace("bad", r#"conditions = '{"evidence": "none"}'"#)
        .await;
    let (rows, until) = read(&pool, Some(before.horizon.token)).await;
    let of = |rows: &Rows, id| {
        let row = rows.iter().find(|(of, _)| *of == id);
        row.map(|(_, row)| row.is_some())
    };
    assert_eq!((of(&rows, bad), until.unreadable), (Some(false), 1));
    let (rows, until) = read(&pool, None).await;
    assert_eq!((of(&rows, good), of(&rows, bad)), (Some(true), Some(false)));
    assert_eq!(until.unreadable, 1);

    // A word that is not known: whoever knows it acts on what is observed.
    db.sql("ALTER TABLE workspaces DROP CONSTRAINT workspaces_operation_check")
        .await;
    db.set(good, "operation = 'POLISHING', op_id = id").await;
    let (rows, until) = read(&pool, Some(until.horizon.token)).await;
    let (_, row) = rows.iter().find(|(id, _)| *id == good).unwrap();
    let row = row.as_ref().unwrap();
    assert!(row.in_progress && row.conditions.is_some() && row.subject.is_none());
    assert_eq!(until.unreadable, 1);
}
