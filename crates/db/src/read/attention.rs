//! The rows that wc has to look at: those that changed since it looked last, those whose own columns say
//! that they are not at rest, and those it could not judge for good. All of them come by an index, and a
//! pass with nothing to do is one query without a row, however many workspaces there are.
//!
//! Which columns tell is said once, in SQL: by the trigger that keeps `workspace_changes.attention`, which the
//! function `workspaces_attention` reads. `windlass_domain::attention::by_columns` says the same in Rust, and a
//! test compares them.
//! The ids are an array to PostgreSQL, of which it expects few: so it takes them one by one from an index, and
//! does not walk the table, whatever its statistics say.
//!
//! Rows, PostgreSQL's time and the token of the next look are of one snapshot. As in the watch feed
//! (docs/adr/006) the token is the oldest transaction still running: a row may be seen twice, none is missed.
//! A whole look comes in pages, so that not all rows are in memory twice. The token is that of the first: what
//! changes in a page that was read is seen again. The time is that of the last.
//!
//! A row that this version cannot read is told of and left out: it stands in no other's way.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, SelectableHelper,
    dsl::sql,
    sql_types::{Array, BigInt, Bool, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;
use windlass_domain::{HostId, Shard, WorkspaceId};

use super::{WatchToken, shard::owns};
use crate::{
    error::Result,
    pool::Pool,
    prepared::Prepare,
    rows::{WorkspaceRecord, WorkspaceRow},
    schema::{archive_store, hosts, users, workspaces},
};

/// Which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Every living workspace.
    Whole,
    /// What changed at or after the token, what is not at rest by its columns, and these.
    Since(WatchToken, &'a [WorkspaceId]),
    /// What is not at rest by its columns on this host.
    Host(HostId),
}

/// Rows and what belongs to them.
#[derive(Clone, Debug)]
pub struct Attention {
    /// The rows.
    pub records: Vec<WorkspaceRecord>,
    /// Name and agent's address of each of their hosts.
    pub hosts: HashMap<HostId, HostRef>,
    /// PostgreSQL's time when they, or the last page of them, were read.
    pub now: DateTime<Utc>,
    /// Where the next look goes on.
    pub token: WatchToken,
    /// Rows that cannot be read.
    pub unreadable: usize,
}

/// How a host is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRef {
    /// Its name.
    pub name: String,
    /// URL of its agent.
    pub address: String,
}

type Row = (
    WorkspaceRow,
    String,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
    (String, String),
    (DateTime<Utc>, i64),
);

/// Rows of a whole look in one statement: some ten megabytes.
const PAGE: usize = 5_000;

impl Pool {
    /// The living workspaces of `shard` in `scope`, in one statement; of a whole look, in one for each page. `None`:
    /// there is none, and the token of the last look still stands.
    pub async fn attention(&self, shard: Shard, scope: Scope<'_>) -> Result<Option<Attention>> {
        let mut conn = self.get().await?;
        let mut attention: Option<Attention> = None;
        let mut after = None;
        loop {
            let rows = page(&mut conn, shard, scope, after).await?;
            let Some((last, .., (now, xmin))) = rows.last() else {
                break;
            };
            after = Some(last.id);
            let (now, token) = (*now, WatchToken(*xmin));
            let goes_on = scope == Scope::Whole && rows.len() == PAGE;
            let so_far = attention.get_or_insert_with(|| Attention {
                records: Vec::new(),
                hosts: HashMap::new(),
                now,
                token,
                unreadable: 0,
            });
            // No earlier than what any row tells.
            so_far.now = now;
            so_far.add(rows);
            if !goes_on {
                break;
            }
        }
        Ok(attention)
    }
}

impl Attention {
    fn add(&mut self, rows: Vec<Row>) {
        for (row, owner, host, archives, (name, address), _) in rows {
            let id = HostId(row.host_id);
            self.hosts.entry(id).or_insert(HostRef { name, address });
            match WorkspaceRecord::from_row((row, owner, host, archives)) {
                Ok(record) => self.records.push(record),
                Err(error) => {
                    tracing::error!(%error, "a workspace cannot be read: nothing is done for it");
                    self.unreadable += 1;
                }
            }
        }
    }
}

/// The rows in `scope`; of a whole look the first ones `after` this id, in order.
async fn page(
    conn: &mut AsyncPgConnection,
    shard: Shard,
    scope: Scope<'_>,
    after: Option<Uuid>,
) -> Result<Vec<Row>> {
    let mut query = workspaces::table
        .inner_join(users::table)
        .inner_join(hosts::table)
        .select((
            WorkspaceRow::as_select(),
            users::name,
            hosts::last_observed_at,
            archive_store::table
                .select(archive_store::last_observed_at)
                .single_value(),
            (hosts::name, hosts::address),
            (
                sql::<Timestamptz>("now()"),
                sql::<BigInt>("pg_snapshot_xmin(pg_current_snapshot())::text::bigint"),
            ),
        ))
        .filter(sql::<Bool>("workspaces.phase <> 'DELETED'"))
        .filter(sql::<Bool>(&owns("workspaces.id", shard)))
        .into_boxed();
    query = match scope {
        Scope::Whole => {
            let first = query.order(workspaces::id).limit(PAGE as i64);
            match after {
                None => first,
                Some(id) => first.filter(workspaces::id.gt(id)),
            }
        }
        Scope::Since(token, also) => {
            let also: Vec<Uuid> = also.iter().map(|id| id.0).collect();
            query.filter(
                sql::<Bool>("workspaces.id = ANY(ARRAY(SELECT workspaces_attention(")
                    .bind::<BigInt, _>(token.0)
                    .sql(") UNION ALL SELECT unnest(")
                    .bind::<Array<SqlUuid>, _>(also)
                    .sql(")))"),
            )
        }
        Scope::Host(host) => query.filter(
            sql::<Bool>(
                "workspaces.id = ANY(ARRAY(SELECT workspaces_attention(NULL))) AND workspaces.host_id = ",
            )
            .bind::<SqlUuid, _>(host.0),
        ),
    };
    Ok(query.prepared().load(conn).await?)
}
