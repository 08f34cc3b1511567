//! What changed since: the feed behind WatchWorkspaces.
//!
//! Every row carries the id of the transaction that wrote it last, and `workspace_changes` has an index of them. All transactions below the oldest one
//! still running have ended, so rows of that id and above are all that a watcher may have missed. A row
//! may be seen twice; none is missed, in whatever order transactions commit.
//!
//! Nothing here loads everything at once: the first state comes in pages by id, and of what changed first
//! the ids come, then as many rows at a time as the caller asks for.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, QueryableByName, SelectableHelper,
    dsl::{exists, sql},
    sql_types::{BigInt, Bool, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;
use windlass_domain::{UserId, WorkspaceId};

use crate::{
    error::Result,
    pool::Pool,
    prepared::Prepare,
    rows::{WorkspaceRecord, WorkspaceRow},
    schema::{archive_store, hosts, users, workspace_changes, workspaces},
};

/// Where a watcher stands: every transaction below it has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchToken(pub i64);

/// Where a reader of changes stands, and in which life of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Every transaction below it has ended.
    pub token: WatchToken,
    /// When the server that told so was started.
    pub server: DateTime<Utc>,
}

impl Horizon {
    /// Whether what was read up to `earlier` may be what the database has lost since: it goes back, or was started
    /// anew, as after a failover or a crash with late commits lost, and may have given transactions' ids out again.
    pub fn voids(self, earlier: Self) -> bool {
        self.token < earlier.token || self.server != earlier.server
    }
}

/// Whose changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchScope {
    /// Only this user's.
    pub owner: Option<UserId>,
    /// Only this workspace.
    pub id: Option<WorkspaceId>,
}

/// Which of its states a row is in. The time belongs to it: a crash of a database with asynchronous commit
/// gives a transaction's id out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowVersion {
    /// The transaction that wrote it last.
    pub xid: i64,
    /// When that was.
    pub updated_at: DateTime<Utc>,
}

/// A row as it was committed by a transaction.
#[derive(Clone, Debug)]
pub struct Change {
    /// The row.
    pub record: WorkspaceRecord,
    /// The transaction that wrote it last.
    pub xid: i64,
}

impl Change {
    /// The row's version.
    pub fn version(&self) -> RowVersion {
        RowVersion {
            xid: self.xid,
            updated_at: self.record.updated_at,
        }
    }
}

/// Which rows changed, and where the watcher stands once it has seen them.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Rows in the order of their transactions.
    pub rows: Vec<(WorkspaceId, RowVersion)>,
    /// Where to go on, unless it voids what was read before.
    pub horizon: Horizon,
}

type ChangeRow = (
    WorkspaceRow,
    String,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
    i64,
);

macro_rules! change_rows {
    () => {
        workspaces::table
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
    };
}

impl Pool {
    /// A page of the first state, by id, after `after`: everything but what is gone for good, or the one
    /// workspace that is asked for, gone or not. A watcher takes [`watch_horizon`](Self::watch_horizon)
    /// before the first page: what changes while it reads is seen by that position.
    pub async fn first_state(
        &self,
        scope: WatchScope,
        after: Option<WorkspaceId>,
        limit: i64,
    ) -> Result<Vec<Change>> {
        let mut query = change_rows!()
            .order(workspaces::id)
            .limit(limit)
            .into_boxed();
        query = match scope.id {
            Some(id) => query.filter(workspaces::id.eq(id.0)),
            None => query.filter(sql::<Bool>("workspaces.phase <> 'DELETED'")),
        };
        if let Some(owner) = scope.owner {
            query = query.filter(workspaces::owner_id.eq(owner.0));
        }
        if let Some(after) = after {
            query = query.filter(workspaces::id.gt(after.0));
        }
        let mut conn = self.get().await?;
        changes(query.load(&mut conn).await?)
    }

    /// What changed at or after `since`. What is gone for good is a change.
    pub async fn changed(&self, since: WatchToken, scope: WatchScope) -> Result<Changed> {
        let mut conn = self.get().await?;
        // Taken before the rows: what commits in between is seen now and once more.
        let snapshot = snapshot(&mut conn).await?;
        let horizon = snapshot.horizon();
        if snapshot.xmax <= since.0 {
            // No transaction has begun since.
            return Ok(Changed {
                rows: Vec::new(),
                horizon,
            });
        }
        let mut query = workspace_changes::table
            .select((
                workspace_changes::workspace_id,
                workspace_changes::change_xid,
                workspace_changes::updated_at,
            ))
            .filter(workspace_changes::change_xid.ge(since.0))
            .order(workspace_changes::change_xid)
            .into_boxed();
        if let Some(owner) = scope.owner {
            let theirs = workspaces::table
                .filter(workspaces::id.eq(workspace_changes::workspace_id))
                .filter(workspaces::owner_id.eq(owner.0));
            query = query.filter(exists(theirs));
        }
        if let Some(id) = scope.id {
            query = query.filter(workspace_changes::workspace_id.eq(id.0));
        }
        let rows: Vec<(Uuid, i64, DateTime<Utc>)> = query.load(&mut conn).await?;
        let version = |(id, xid, updated_at)| (WorkspaceId(id), RowVersion { xid, updated_at });
        Ok(Changed {
            rows: rows.into_iter().map(version).collect(),
            horizon,
        })
    }

    /// These rows as they are now.
    pub async fn changes_of(&self, ids: &[WorkspaceId]) -> Result<Vec<Change>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let mut conn = self.get().await?;
        let rows = change_rows!().filter(workspaces::id.eq_any(ids));
        changes(rows.load(&mut conn).await?)
    }

    /// Where a watcher that has seen everything stands now. A token above it is of another database.
    pub async fn watch_horizon(&self) -> Result<Horizon> {
        let mut conn = self.get().await?;
        Ok(snapshot(&mut conn).await?.horizon())
    }
}

fn changes(rows: Vec<ChangeRow>) -> Result<Vec<Change>> {
    rows.into_iter()
        .map(|(row, owner, host, archives, xid)| {
            let record = WorkspaceRecord::from_row((row, owner, host, archives))?;
            Ok(Change { record, xid })
        })
        .collect()
}

#[derive(QueryableByName)]
struct Snapshot {
    /// All transactions below it have ended.
    #[diesel(sql_type = BigInt)]
    xmin: i64,
    /// None at or above it has begun.
    #[diesel(sql_type = BigInt)]
    xmax: i64,
    #[diesel(sql_type = Timestamptz)]
    server: DateTime<Utc>,
}

impl Snapshot {
    fn horizon(&self) -> Horizon {
        Horizon {
            token: WatchToken(self.xmin),
            server: self.server,
        }
    }
}

async fn snapshot(conn: &mut AsyncPgConnection) -> Result<Snapshot> {
    Ok(diesel::sql_query(
        "SELECT pg_snapshot_xmin(s)::text::bigint AS xmin, pg_snapshot_xmax(s)::text::bigint AS xmax,
                pg_postmaster_start_time() AS server
         FROM pg_current_snapshot() AS s",
    )
    .prepared()
    .get_result(conn)
    .await?)
}
