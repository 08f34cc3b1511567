//! The statements on one row of `workspaces`, within a transaction.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    AsChangeset, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, SelectableHelper,
    sql_types::{Nullable, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;
use windlass_domain::{DesiredState, UserId, WorkspaceId};

use super::{Author, Changes, NewWorkspace};
use crate::{
    error::Result,
    read::joined,
    rows::{JoinedRow, WorkspaceRecord},
    schema::workspaces,
};

#[derive(AsChangeset)]
#[diesel(table_name = workspaces)]
struct ChangeSet {
    name: Option<String>,
    description: Option<String>,
    image: Option<String>,
    desired_state: Option<&'static str>,
    standby_ttl_ms: Option<Option<i64>>,
    archive_ttl_ms: Option<Option<i64>>,
    checkpoint_interval_ms: Option<Option<i64>>,
    cpu_millis: Option<Option<i32>>,
    memory_bytes: Option<Option<i64>>,
    pids: Option<Option<i32>>,
}

#[derive(Insertable)]
#[diesel(table_name = workspaces)]
struct NewRow<'a> {
    id: Uuid,
    owner_id: Uuid,
    host_id: Uuid,
    request_id: Option<Uuid>,
    name: &'a str,
    description: &'a str,
    image: &'a str,
    cpu_millis: Option<i32>,
    memory_bytes: Option<i64>,
    pids: Option<i32>,
    standby_ttl_ms: Option<i64>,
    archive_ttl_ms: Option<i64>,
    checkpoint_interval_ms: Option<i64>,
    desired_state: &'static str,
    trace_context: Option<&'a str>,
}

/// Stands beside every write of a wish.
macro_rules! traced {
    ($author:expr) => {
        (
            workspaces::trace_context.eq($author.trace.as_deref()),
            trace_time!(),
        )
    };
}

macro_rules! trace_time {
    () => {
        workspaces::trace_context_at.eq(diesel::dsl::sql::<Nullable<Timestamptz>>("now()"))
    };
}

// Larger limits are refused where they come in; none is ever stored as "no limit".
fn small(n: Option<u32>) -> Option<i32> {
    n.map(|n| i32::try_from(n).unwrap_or(i32::MAX))
}

fn large(n: Option<u64>) -> Option<i64> {
    n.map(|n| i64::try_from(n).unwrap_or(i64::MAX))
}

fn milliseconds(ttl: Option<TimeDelta>) -> Option<i64> {
    ttl.map(|t| t.num_milliseconds())
}

/// What a write needs to know of the row it locked.
pub(super) struct Locked {
    pub owner: UserId,
    pub generation: i64,
    pub desired: String,
    pub deleted: bool,
    pub discard_home: bool,
}

/// Locks a row against other writers until the transaction ends.
pub(super) async fn lock(conn: &mut AsyncPgConnection, id: WorkspaceId) -> Result<Option<Locked>> {
    type Columns = (Uuid, i64, String, Option<DateTime<Utc>>, bool);
    let row: Option<Columns> = workspaces::table
        .find(id.0)
        .select((
            workspaces::owner_id,
            workspaces::generation,
            workspaces::desired_state,
            workspaces::deleted_at,
            workspaces::discard_home,
        ))
        .for_no_key_update()
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(
        |(owner, generation, desired, deleted_at, discard_home)| Locked {
            owner: UserId(owner),
            generation,
            desired,
            deleted: deleted_at.is_some(),
            discard_home,
        },
    ))
}

/// The row as it is within the transaction.
pub(super) async fn record(
    conn: &mut AsyncPgConnection,
    id: WorkspaceId,
) -> Result<Option<WorkspaceRecord>> {
    let row: Option<JoinedRow> = joined!()
        .filter(workspaces::id.eq(id.0))
        .first(conn)
        .await
        .optional()?;
    row.map(WorkspaceRecord::from_row).transpose()
}

pub(super) async fn find_request(
    conn: &mut AsyncPgConnection,
    owner: UserId,
    request: Uuid,
) -> Result<Option<WorkspaceId>> {
    let id: Option<Uuid> = workspaces::table
        .filter(workspaces::owner_id.eq(owner.0))
        .filter(workspaces::request_id.eq(request))
        .select(workspaces::id)
        .first(conn)
        .await
        .optional()?;
    Ok(id.map(WorkspaceId))
}

pub(super) async fn insert(
    conn: &mut AsyncPgConnection,
    new: &NewWorkspace,
    host: Uuid,
) -> Result<()> {
    diesel::insert_into(workspaces::table)
        .values((
            NewRow {
                id: new.id.0,
                owner_id: new.owner.0,
                host_id: host,
                request_id: new.request_id,
                name: &new.name,
                description: &new.description,
                image: &new.image,
                cpu_millis: small(new.limits.cpu_millis),
                memory_bytes: large(new.limits.memory_bytes),
                pids: small(new.limits.pids),
                standby_ttl_ms: milliseconds(new.standby_ttl),
                archive_ttl_ms: milliseconds(new.archive_ttl),
                checkpoint_interval_ms: milliseconds(new.checkpoint_interval),
                desired_state: new.desired.as_str(),
                trace_context: new.author.trace.as_deref(),
            },
            trace_time!(),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn apply(
    conn: &mut AsyncPgConnection,
    id: WorkspaceId,
    changes: Changes,
    author: &Author,
) -> Result<()> {
    // A new name gives nobody anything to do.
    let wish = changes.desired.is_some() || changes.image.is_some();
    diesel::update(workspaces::table.find(id.0))
        .set((
            ChangeSet {
                name: changes.name,
                description: changes.description,
                image: changes.image,
                desired_state: changes.desired.map(DesiredState::as_str),
                standby_ttl_ms: changes.standby_ttl.map(milliseconds),
                archive_ttl_ms: changes.archive_ttl.map(milliseconds),
                checkpoint_interval_ms: changes.checkpoint_interval.map(milliseconds),
                cpu_millis: changes.cpu_millis.map(small),
                memory_bytes: changes.memory_bytes.map(large),
                pids: changes.pids.map(small),
            },
            wish.then(|| traced!(author)),
            workspaces::generation.eq(workspaces::generation + 1),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn mark_deleted(
    conn: &mut AsyncPgConnection,
    id: WorkspaceId,
    discard_home: bool,
    author: &Author,
) -> Result<()> {
    let deleted_at = diesel::dsl::sql::<Nullable<Timestamptz>>("coalesce(deleted_at, now())");
    diesel::update(workspaces::table.find(id.0))
        .set((
            workspaces::desired_state.eq(DesiredState::Deleted.as_str()),
            workspaces::deleted_at.eq(deleted_at),
            workspaces::discard_home.eq(discard_home),
            traced!(author),
            workspaces::generation.eq(workspaces::generation + 1),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn unmark_deleted(
    conn: &mut AsyncPgConnection,
    id: WorkspaceId,
    author: &Author,
) -> Result<()> {
    diesel::update(workspaces::table.find(id.0))
        .set((
            workspaces::desired_state.eq(DesiredState::Archived.as_str()),
            workspaces::deleted_at.eq(None::<DateTime<Utc>>),
            workspaces::discard_home.eq(false),
            traced!(author),
            workspaces::generation.eq(workspaces::generation + 1),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn wish_restore(
    conn: &mut AsyncPgConnection,
    id: WorkspaceId,
    key: &str,
    author: &Author,
) -> Result<()> {
    diesel::update(workspaces::table.find(id.0))
        .set((
            workspaces::restore_request.eq(Uuid::new_v4()),
            workspaces::restore_key.eq(key),
            traced!(author),
            workspaces::generation.eq(workspaces::generation + 1),
        ))
        .execute(conn)
        .await?;
    Ok(())
}
