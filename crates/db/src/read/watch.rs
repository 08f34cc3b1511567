//! What changed since: the feed behind WatchWorkspaces.
//!
//! Every row carries the id of the transaction that wrote it last. All transactions below the oldest one
//! still running have ended, so rows of that id and above are all that a watcher may have missed. A row
//! may be seen twice; none is missed, in whatever order transactions commit.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, QueryableByName, SelectableHelper, dsl::sql, sql_types::BigInt,
    sql_types::Bool,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use windlass_domain::{UserId, WorkspaceId};

use crate::{
    error::Result,
    pool::Pool,
    rows::{WorkspaceRecord, WorkspaceRow},
    schema::{archive_store, hosts, users, workspaces},
};

/// Where a watcher stands: every transaction below it has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchToken(pub i64);

/// Whose changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchScope {
    /// Only this user's.
    pub owner: Option<UserId>,
    /// Only this workspace.
    pub id: Option<WorkspaceId>,
}

/// A row as it was committed by a transaction; the same pair is the same row.
#[derive(Clone, Debug)]
pub struct Change {
    /// The row.
    pub record: WorkspaceRecord,
    /// The transaction that wrote it last.
    pub xid: i64,
}

/// What changed, and where the watcher stands after it.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Changed rows.
    pub changes: Vec<Change>,
    /// Where to go on. Lower than `since` only if the database lost transactions: then `since` is void.
    pub token: WatchToken,
}

type ChangeRow = (
    WorkspaceRow,
    String,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
    i64,
);

impl Pool {
    /// What changed at or after `since`; `None`: everything there is, for a first state. What is gone for
    /// good is a change, but not part of a first state unless it is asked for by its id.
    pub async fn changes(&self, since: Option<WatchToken>, scope: WatchScope) -> Result<Changes> {
        let mut conn = self.get().await?;
        // Taken before the rows: what commits in between is seen now and once more.
        let token = horizon(&mut conn).await?;
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
                sql::<BigInt>("workspaces.change_xid"),
            ))
            .into_boxed();
        query = match since {
            Some(token) => {
                query.filter(sql::<Bool>("workspaces.change_xid >= ").bind::<BigInt, _>(token.0))
            }
            None if scope.id.is_none() => query.filter(workspaces::phase.ne("DELETED")),
            None => query,
        };
        if let Some(owner) = scope.owner {
            query = query.filter(workspaces::owner_id.eq(owner.0));
        }
        if let Some(id) = scope.id {
            query = query.filter(workspaces::id.eq(id.0));
        }
        let rows: Vec<ChangeRow> = query.load(&mut conn).await?;
        let changes = rows
            .into_iter()
            .map(|(row, owner, host, archives, xid)| {
                let record = WorkspaceRecord::from_row((row, owner, host, archives))?;
                Ok(Change { record, xid })
            })
            .collect::<Result<_>>()?;
        Ok(Changes { changes, token })
    }

    /// Where a watcher that has seen everything stands now. A token above it is of another database.
    pub async fn watch_horizon(&self) -> Result<WatchToken> {
        let mut conn = self.get().await?;
        horizon(&mut conn).await
    }
}

async fn horizon(conn: &mut AsyncPgConnection) -> Result<WatchToken> {
    #[derive(QueryableByName)]
    struct Horizon {
        #[diesel(sql_type = BigInt)]
        xmin: i64,
    }
    let horizon: Horizon =
        diesel::sql_query("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin")
            .get_result(conn)
            .await?;
    Ok(WatchToken(horizon.xmin))
}
