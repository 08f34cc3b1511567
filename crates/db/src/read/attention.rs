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
//! A whole look comes in pages. The token is that of the first: what changes in a page that was read is seen again.
//! Rows are handed over one by one, so that nobody needs to hold them all.
//!
//! A row that this version cannot read is told of and left out: it stands in no other's way.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, QueryResult, SelectableHelper,
    dsl::sql,
    sql_types::{Array, BigInt, Bool, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::{Stream, TryStreamExt};
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

/// A row and what belongs to it.
#[derive(Clone, Debug)]
pub struct Attended {
    /// The row.
    pub record: WorkspaceRecord,
    /// Its host.
    pub host: HostRef,
    /// PostgreSQL's time when it was read.
    pub now: DateTime<Utc>,
}

/// What there is to know of a look beside its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
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

/// Rows of a whole look in one statement: some megabytes.
const PAGE: usize = 5_000;

impl Pool {
    /// Hands over the living workspaces of `shard` in `scope`. They are of one statement; those of a whole look, of
    /// one for each page. `None`: there is none, and the token of the last look still stands.
    pub async fn attention(
        &self,
        shard: Shard,
        scope: Scope<'_>,
        mut each: impl FnMut(Attended),
    ) -> Result<Option<Attention>> {
        let mut conn = self.get().await?;
        let mut attention: Option<Attention> = None;
        let mut after = None;
        loop {
            let mut rows = rows(&mut conn, shard, scope, after).await?;
            let mut read = 0;
            while let Some(row) = rows.try_next().await? {
                let (row, owner, host, archives, (name, address), (now, xmin)) = row;
                after = Some(row.id);
                read += 1;
                let so_far = attention.get_or_insert(Attention {
                    now,
                    token: WatchToken(xmin),
                    unreadable: 0,
                });
                so_far.now = now;
                match WorkspaceRecord::from_row((row, owner, host, archives)) {
                    Ok(record) => each(Attended {
                        record,
                        host: HostRef { name, address },
                        now,
                    }),
                    Err(error) => {
                        tracing::error!(%error, "a workspace cannot be read: nothing is done for it");
                        so_far.unreadable += 1;
                    }
                }
            }
            if scope != Scope::Whole || read < PAGE {
                return Ok(attention);
            }
        }
    }
}

/// The rows in `scope`; of a whole look the first ones `after` this id, in order.
async fn rows(
    conn: &mut AsyncPgConnection,
    shard: Shard,
    scope: Scope<'_>,
    after: Option<Uuid>,
) -> Result<impl Stream<Item = QueryResult<Row>> + Unpin> {
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
    Ok(query.prepared().load_stream::<Row>(conn).await?)
}
