//! Reads. Every role may make them; each is one statement.

mod attention;
mod list;
mod observed;
pub(crate) mod shard;
mod users;
mod watch;

pub use attention::{Attended, Attention, HostRef, Scope};
pub use list::{Comparison, Field, Filter, ListQuery, Operator, OrderBy, PageStart};
pub use observed::{ObservedHost, ObservedHosts, ObservedRow, ObservedTrace, ObservedUntil};
pub use watch::{Change, Changed, Horizon, RowVersion, WatchScope, WatchToken};

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName, SelectableHelper,
    dsl::sql,
    sql_types::{Bool, Timestamptz},
};
use diesel_async::RunQueryDsl;
use windlass_domain::{HostId, OpId, Phase, Shard, WorkspaceId, gc};

use crate::{
    error::Result,
    pool::Pool,
    rows::{HostRecord, HostRow, JoinedRow, WorkspaceRecord},
    schema::{hosts, users as owners, workspaces},
};

/// A workspace that has a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownWorkspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Name of its owner.
    pub owner: String,
    /// Its name.
    pub name: String,
    /// Whether it is deleted.
    pub deleted: bool,
    /// Whether nothing is left of it that could come back.
    pub gone: bool,
}

/// A workspace query before its filter: `joined!()`, selected as [`JoinedRow`].
macro_rules! joined {
    () => {
        $crate::read::joined!($crate::schema::workspaces::table)
    };
    ($workspaces:expr) => {
        $workspaces
            .inner_join($crate::schema::users::table)
            .inner_join($crate::schema::hosts::table)
            .select((
                $crate::rows::WorkspaceRow::as_select(),
                $crate::schema::users::name,
                $crate::schema::hosts::last_observed_at,
                $crate::schema::archive_store::table
                    .select($crate::schema::archive_store::last_observed_at)
                    .single_value(),
            ))
    };
}
pub(crate) use joined;

fn records(rows: Vec<JoinedRow>) -> Result<Vec<WorkspaceRecord>> {
    rows.into_iter().map(WorkspaceRecord::from_row).collect()
}

impl Pool {
    /// One workspace.
    pub async fn workspace(&self, id: WorkspaceId) -> Result<Option<WorkspaceRecord>> {
        let mut conn = self.get().await?;
        let row: Option<JoinedRow> = joined!()
            .filter(workspaces::id.eq(id.0))
            .first(&mut conn)
            .await
            .optional()?;
        row.map(WorkspaceRecord::from_row).transpose()
    }

    /// Every workspace that is not gone for good: what observer and wc go through.
    pub async fn living_workspaces(&self) -> Result<Vec<WorkspaceRecord>> {
        let mut conn = self.get().await?;
        let rows = joined!()
            .filter(workspaces::phase.ne("DELETED"))
            .load::<JoinedRow>(&mut conn)
            .await?;
        records(rows)
    }

    /// Those of them whose id is in a shard: wc's.
    pub async fn living_workspaces_of(&self, shard: Shard) -> Result<Vec<WorkspaceRecord>> {
        self.living(&shard::owns("workspaces.id", shard)).await
    }

    /// Those of them whose host is in a shard: the observer's.
    pub async fn living_workspaces_on(&self, shard: Shard) -> Result<Vec<WorkspaceRecord>> {
        self.living(&shard::owns("workspaces.host_id", shard)).await
    }

    async fn living(&self, condition: &str) -> Result<Vec<WorkspaceRecord>> {
        let mut conn = self.get().await?;
        let rows = joined!()
            .filter(workspaces::phase.ne("DELETED"))
            .filter(sql::<Bool>(condition))
            .load::<JoinedRow>(&mut conn)
            .await?;
        records(rows)
    }

    /// Every host, by name.
    pub async fn hosts(&self) -> Result<Vec<HostRecord>> {
        let mut conn = self.get().await?;
        let rows: Vec<HostRow> = hosts::table
            .order(hosts::name)
            .select(HostRow::as_select())
            .load(&mut conn)
            .await?;
        Ok(rows.into_iter().map(HostRecord::from).collect())
    }

    /// How many workspaces that are not deleted each host has.
    pub async fn workspaces_per_host(&self) -> Result<Vec<(HostId, i64)>> {
        let mut conn = self.get().await?;
        let counts: Vec<(uuid::Uuid, i64)> = workspaces::table
            .filter(workspaces::deleted_at.is_null())
            .group_by(workspaces::host_id)
            .select((workspaces::host_id, diesel::dsl::count_star()))
            .load(&mut conn)
            .await?;
        Ok(counts.into_iter().map(|(id, n)| (HostId(id), n)).collect())
    }

    /// Every workspace that has a row, deleted and gone ones included.
    pub async fn known_workspaces(&self) -> Result<Vec<KnownWorkspace>> {
        let mut conn = self.get().await?;
        type Columns = (uuid::Uuid, String, String, Option<DateTime<Utc>>, String);
        let rows: Vec<Columns> = workspaces::table
            .inner_join(owners::table)
            .select((
                workspaces::id,
                owners::name,
                workspaces::name,
                workspaces::deleted_at,
                workspaces::phase,
            ))
            .load(&mut conn)
            .await?;
        let known = |(id, owner, name, deleted_at, phase): Columns| KnownWorkspace {
            id: WorkspaceId(id),
            owner,
            name,
            deleted: deleted_at.is_some(),
            gone: phase == Phase::Deleted.as_str(),
        };
        Ok(rows.into_iter().map(known).collect())
    }

    /// PostgreSQL's clock, by which every stored time goes.
    pub async fn now(&self) -> Result<DateTime<Utc>> {
        #[derive(QueryableByName)]
        struct Now {
            #[diesel(sql_type = Timestamptz)]
            now: DateTime<Utc>,
        }
        let mut conn = self.get().await?;
        let row: Now = diesel::sql_query("SELECT clock_timestamp() AS now")
            .get_result(&mut conn)
            .await?;
        Ok(row.now)
    }

    /// What gc needs to know of every row that is there, deleted ones included.
    pub async fn gc_rows(&self) -> Result<Vec<gc::Row>> {
        type Columns = (
            uuid::Uuid,
            Option<String>,
            (Option<uuid::Uuid>, Option<uuid::Uuid>, Option<String>),
            Option<uuid::Uuid>,
            Option<uuid::Uuid>,
            String,
            String,
            serde_json::Value,
            Option<DateTime<Utc>>,
        );
        let mut conn = self.get().await?;
        let rows: Vec<Columns> = workspaces::table
            .select((
                workspaces::id,
                workspaces::archive_key,
                (
                    workspaces::restore_request,
                    workspaces::restore_applied,
                    workspaces::restore_key,
                ),
                workspaces::archive_op_id,
                workspaces::op_id,
                workspaces::operation,
                workspaces::phase,
                workspaces::home_ctx,
                workspaces::deleted_at,
            ))
            .load(&mut conn)
            .await?;
        Ok(rows
            .into_iter()
            .map(
                |(id, archive_key, restore, archive_op, op, operation, phase, home, deleted_at)| {
                    let busy = operation != "NONE" || phase == "ERROR";
                    let home_volume = home
                        .get("volume_id")
                        .and_then(|v| v.as_str())
                        .and_then(|v| v.parse().ok());
                    let (request, applied, restore_key) = restore;
                    gc::Row {
                        id: WorkspaceId(id),
                        archive_key,
                        restore_key: restore_key.filter(|_| request != applied),
                        busy_archive_op: archive_op.filter(|_| busy).map(OpId),
                        restores: op.into_iter().chain(home_volume).map(OpId).collect(),
                        deleted_at,
                    }
                },
            )
            .collect())
    }
}
