//! A page of workspaces costs a page, whatever the filter and the order, however many there are.

use windlass_db::{
    Pool,
    read::{Comparison, Field, Filter, ListQuery, Operator, OrderBy, PageStart},
};
use windlass_domain::UserId;

use crate::common::{Db, PASSWORD, db};

const ROWS: i64 = 20_000;
const PAGE: i64 = 50;
/// Rows of the table a page may read: some that a filter drops, or all that a rare state or one owner has.
const BOUND: i64 = 600;

/// 50 owners, 50 hosts, one in ten deleted, nearly all archived; updated and used at all times.
async fn filled() -> Db {
    let db = db().await;
    db.sql(&format!(
        "INSERT INTO users (name) SELECT 'u' || i FROM generate_series(1, 50) AS i;
         INSERT INTO hosts (name, address) SELECT 'host-' || i, 'http://h' FROM generate_series(1, 50) AS i;
         ALTER TABLE workspaces DISABLE TRIGGER ALL;
         INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state, phase, deleted_at,
                                 created_at, updated_at, last_access_at, change_xid)
         SELECT gen_random_uuid(), u.id, h.id, 'w' || i, 'busybox',
                CASE WHEN i % 10 = 0 THEN 'DELETED' WHEN i % 2000 = 1 THEN 'RUNNING' ELSE 'ARCHIVED' END,
                CASE WHEN i % 10 = 0 THEN CASE WHEN i % 1000 = 0 THEN 'DELETING' ELSE 'DELETED' END
                     WHEN i % 2000 = 1 THEN 'STANDBY' WHEN i % 4000 = 3 THEN 'ERROR' ELSE 'ARCHIVED' END,
                CASE WHEN i % 10 = 0 THEN now() END,
                now() - i * interval '1 s', now() - (i * 7919 % {ROWS}) * interval '1 s',
                CASE WHEN i % 3 = 0 THEN now() - (i * 7907 % {ROWS}) * interval '1 s' END, i
         FROM generate_series(1, {ROWS}) AS i
         JOIN (SELECT id, row_number() OVER () AS n FROM users WHERE name LIKE 'u%') AS u ON u.n = 1 + i / 10 % 50
         JOIN (SELECT id, row_number() OVER () AS n FROM hosts WHERE name LIKE 'host%') AS h ON h.n = 1 + i / 10 % 50;
         ALTER TABLE workspaces ENABLE TRIGGER ALL;
         INSERT INTO workspace_changes
         SELECT id, change_xid, updated_at, deleted_at IS NOT NULL, false FROM workspaces;"
    ))
    .await;
    db.sql("VACUUM ANALYZE workspaces, workspace_changes").await;
    // What filling read is told now, not while something is measured.
    db.sql("SELECT pg_stat_force_next_flush()").await;
    db
}

fn comparison(field: Field, operator: Operator, value: &str) -> Comparison {
    Comparison {
        field,
        operator,
        value: value.to_owned(),
    }
}

/// Rows of workspaces that were read, by any plan.
async fn rows_read(db: &Db) -> i64 {
    db.one(
        "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_user_tables
         WHERE relname IN ('workspaces', 'workspace_changes')",
    )
    .await
    .parse()
    .unwrap()
}

/// What two pages cost, in rows read. A connection of its own: it tells its numbers when it ends.
async fn cost(db: &Db, list: &ListQuery) -> i64 {
    let before = rows_read(db).await;
    let pool = Pool::new(&db.role_url("api", PASSWORD), 1).unwrap();
    let first = pool.list_workspaces(list).await.unwrap();
    if let Some(last) = first.last() {
        let next = ListQuery {
            after: Some(PageStart::after(last, list.order_by)),
            ..list.clone()
        };
        let next = pool.list_workspaces(&next).await.unwrap();
        assert!(next.iter().all(|n| !first.contains(n)));
    }
    drop(pool);
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'windlass_api'";
    while db.one(gone).await != "0" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    rows_read(db).await - before
}

/// A row is in the one part or in the other, however often it changes over.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_meanwhile_is_listed_once() {
    let db = db().await;
    let id = db.workspace("w", "").await;
    let pool = db.pool("api");
    let list = ListQuery {
        owner: None,
        filter: Vec::new(),
        order_by: OrderBy::Name,
        descending: false,
        show_deleted: true,
        after: None,
        limit: PAGE,
    };
    let to_and_fro = async {
        for _ in 0..1_000_000 {
            db.set(id, "deleted_at = now(), desired_state = 'DELETED'")
                .await;
            db.set(id, "deleted_at = NULL, desired_state = 'ARCHIVED'")
                .await;
        }
    };
    let listed = async {
        for _ in 0..500 {
            assert_eq!(pool.list_workspaces(&list).await.unwrap().len(), 1);
        }
    };
    tokio::select! {
        () = to_and_fro => {}
        () = listed => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_reads_a_page() {
    let db = filled().await;
    let host = db.host("host-7").await.0.to_string();
    let filters: Vec<Filter> = vec![
        vec![],
        vec![comparison(Field::Name, Operator::Equal, "w77")],
        vec![comparison(Field::Name, Operator::Prefix, "w199")],
        vec![comparison(Field::Name, Operator::NotEqual, "w77")],
        vec![comparison(Field::Owner, Operator::Equal, "u7")],
        vec![comparison(Field::Owner, Operator::Equal, "nobody")],
        vec![comparison(Field::Owner, Operator::NotEqual, "u7")],
        vec![comparison(Field::Phase, Operator::Equal, "ERROR")],
        vec![comparison(Field::Phase, Operator::Equal, "RUNNING")],
        vec![comparison(Field::DesiredState, Operator::Equal, "RUNNING")],
        vec![comparison(Field::DesiredState, Operator::Equal, "STANDBY")],
        vec![comparison(Field::HostId, Operator::Equal, &host)],
        vec![comparison(Field::HostId, Operator::NotEqual, &host)],
        vec![
            comparison(Field::Phase, Operator::Equal, "ARCHIVED"),
            comparison(Field::HostId, Operator::Equal, &host),
        ],
    ];
    // Not with show_deleted: deleted rows are ARCHIVED only until wc looks, which PostgreSQL does not know, so it
    // reads all that are deleted; and most of them are not ARCHIVED.
    let living = [
        vec![comparison(Field::Phase, Operator::Equal, "ARCHIVED")],
        vec![comparison(Field::Phase, Operator::NotEqual, "ARCHIVED")],
        vec![comparison(
            Field::DesiredState,
            Operator::NotEqual,
            "ARCHIVED",
        )],
    ];
    let orders = [
        OrderBy::CreateTime,
        OrderBy::Name,
        OrderBy::UpdateTime,
        OrderBy::LastAccessTime,
    ];
    let mut dear = Vec::new();
    let owner: UserId = db.user("u9").await;
    for order_by in orders {
        for (owner, show_deleted, descending) in [
            (None, false, false),
            (None, true, true),
            (Some(owner), true, false),
        ] {
            let all = filters
                .iter()
                .chain(living.iter().filter(|_| !show_deleted));
            for filter in all {
                let list = ListQuery {
                    owner,
                    filter: filter.clone(),
                    order_by,
                    descending,
                    show_deleted,
                    after: None,
                    limit: PAGE,
                };
                let read = cost(&db, &list).await;
                if read > 2 * BOUND {
                    dear.push(format!("{read} rows: {list:?}"));
                }
            }
        }
    }
    assert!(dear.is_empty(), "{}", dear.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_begins_page_by_page() {
    use windlass_db::read::WatchScope;

    let db = filled().await;
    let owner = Some(db.user("u9").await);
    for owner in [None, owner] {
        let before = rows_read(&db).await;
        let pool = Pool::new(&db.role_url("api", PASSWORD), 1).unwrap();
        let scope = WatchScope { owner, id: None };
        let page = pool.first_state(scope, None, PAGE).await.unwrap();
        assert_eq!(page.len() as i64, PAGE);
        drop(pool);
        let gone = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'windlass_api'";
        while db.one(gone).await != "0" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let read = rows_read(&db).await - before;
        assert!(read <= BOUND, "{read} rows for a page");
    }
}
