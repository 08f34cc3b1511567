//! What changed since: the feed behind WatchWorkspaces.
//!
//! Every row carries the id of the transaction that wrote it last. All transactions below the oldest one
//! still running have ended, so rows of that id and above are all that a watcher may have missed. A row
//! may be seen twice; none is missed, in whatever order transactions commit.

use diesel::{
    ExpressionMethods, QueryDsl, QueryableByName, SelectableHelper, dsl::sql, sql_types::BigInt,
    sql_types::Bool,
};
use diesel_async::RunQueryDsl;

use super::{joined, records};
use crate::{
    error::Result,
    pool::Pool,
    rows::{JoinedRow, WorkspaceRecord},
    schema::workspaces,
};

/// Where a watcher stands: every transaction below it has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchToken(pub i64);

/// What changed, and where the watcher stands after it.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Changed rows, each with the transaction that wrote it last.
    pub records: Vec<WorkspaceRecord>,
    /// Where to go on.
    pub token: WatchToken,
}

impl Pool {
    /// What changed at or after `since`; `None`: everything there is, for a first state.
    pub async fn changes(&self, since: Option<WatchToken>) -> Result<Changes> {
        #[derive(QueryableByName)]
        struct Horizon {
            #[diesel(sql_type = BigInt)]
            xmin: i64,
        }
        let mut conn = self.get().await?;
        // Taken before the rows: what commits in between is seen now and once more.
        let horizon: Horizon = diesel::sql_query(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin",
        )
        .get_result(&mut conn)
        .await?;
        let query = joined!().into_boxed();
        let query = match since {
            Some(token) => {
                query.filter(sql::<Bool>("workspaces.change_xid >= ").bind::<BigInt, _>(token.0))
            }
            None => query.filter(workspaces::phase.ne("DELETED")),
        };
        Ok(Changes {
            records: records(query.load::<JoinedRow>(&mut conn).await?)?,
            token: WatchToken(horizon.xmin),
        })
    }
}
