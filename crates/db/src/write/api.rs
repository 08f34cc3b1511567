//! What api writes: the user's wishes, hosts, and the audit log of both.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    AsChangeset, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, SelectableHelper,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;
use windlass_domain::{DesiredState, HostId, UserId, WorkspaceId, control::Limits};

use crate::{
    audit,
    error::Result,
    pool::Pool,
    rows::{HostRecord, HostRow},
    schema::{hosts, workspaces},
};

/// How many workspaces there may be.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Workspaces of one user that are not deleted.
    pub per_user: i64,
    /// Workspaces of one user that are to run.
    pub running_per_user: i64,
    /// Workspaces of all users that are to run.
    pub running: i64,
}

/// Which limit stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverQuota {
    /// Workspaces of the user.
    PerUser,
    /// Running workspaces of the user.
    RunningPerUser,
    /// Running workspaces in all.
    Running,
}

/// A workspace to be.
#[derive(Clone, Debug)]
pub struct NewWorkspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its owner.
    pub owner: UserId,
    /// Idempotency key of the client.
    pub request_id: Option<Uuid>,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Its image.
    pub image: String,
    /// Its limits.
    pub limits: Limits,
    /// RUNNING to STANDBY.
    pub standby_ttl: Option<TimeDelta>,
    /// STANDBY to ARCHIVED.
    pub archive_ttl: Option<TimeDelta>,
    /// What it should be.
    pub desired: DesiredState,
}

/// What became of a create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there.
    New(WorkspaceId),
    /// The request_id was used before, for this workspace.
    Earlier(WorkspaceId),
    /// The owner has a workspace of that name.
    NameTaken,
    /// A limit stands in the way.
    OverQuota(OverQuota),
    /// No host takes workspaces.
    NoHost,
}

/// What to change; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Its image.
    pub image: Option<String>,
    /// What it should be.
    pub desired: Option<DesiredState>,
    /// RUNNING to STANDBY; `Some(None)`: the default again.
    pub standby_ttl: Option<Option<TimeDelta>>,
    /// STANDBY to ARCHIVED; `Some(None)`: the default again.
    pub archive_ttl: Option<Option<TimeDelta>>,
    /// Its limits.
    pub limits: Option<Limits>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is stored.
    Applied,
    /// The row has another generation than the caller saw.
    Stale,
    /// There is no such row (any more), or it is (not) deleted against expectation.
    Missing,
    /// The owner has another workspace of that name.
    NameTaken,
    /// A limit stands in the way.
    OverQuota(OverQuota),
}

#[derive(AsChangeset)]
#[diesel(table_name = workspaces)]
struct ChangeSet {
    name: Option<String>,
    description: Option<String>,
    image: Option<String>,
    desired_state: Option<&'static str>,
    standby_ttl_ms: Option<Option<i64>>,
    archive_ttl_ms: Option<Option<i64>>,
    cpu_millis: Option<Option<i32>>,
    memory_bytes: Option<Option<i64>>,
    pids: Option<Option<i32>>,
}

#[derive(Insertable)]
#[diesel(table_name = workspaces)]
struct NewRow {
    id: Uuid,
    owner_id: Uuid,
    host_id: Uuid,
    request_id: Option<Uuid>,
    name: String,
    description: String,
    image: String,
    cpu_millis: Option<i32>,
    memory_bytes: Option<i64>,
    pids: Option<i32>,
    standby_ttl_ms: Option<i64>,
    archive_ttl_ms: Option<i64>,
    desired_state: &'static str,
}

fn limit_columns(limits: Limits) -> (Option<i32>, Option<i64>, Option<i32>) {
    (
        limits.cpu_millis.and_then(|n| i32::try_from(n).ok()),
        limits.memory_bytes.and_then(|n| i64::try_from(n).ok()),
        limits.pids.and_then(|n| i32::try_from(n).ok()),
    )
}

impl Pool {
    /// Creates a workspace on the host that has the fewest.
    pub async fn create_workspace(&self, new: NewWorkspace, quota: Quota) -> Result<Created> {
        let created = self
            .transaction(move |conn| {
                Box::pin(async move {
                    lock_quota(conn, new.owner).await?;
                    if let Some(request) = new.request_id
                        && let Some(id) = find_request(conn, new.owner, request).await?
                    {
                        return Ok(Created::Earlier(id));
                    }
                    if let Some(over) = over_count(conn, new.owner, quota).await? {
                        return Ok(Created::OverQuota(over));
                    }
                    if new.desired == DesiredState::Running
                        && let Some(over) = over_running(conn, new.owner, None, quota).await?
                    {
                        return Ok(Created::OverQuota(over));
                    }
                    let Some(host) = roomiest_host(conn).await? else {
                        return Ok(Created::NoHost);
                    };
                    insert(conn, &new, host).await?;
                    Ok(Created::New(new.id))
                })
            })
            .await;
        match created {
            Err(e) if e.violates("workspaces_owner_name") => Ok(Created::NameTaken),
            other => other,
        }
    }

    /// Changes a workspace. `seen` is the generation the caller saw, if it cares.
    pub async fn update_workspace(
        &self,
        id: WorkspaceId,
        seen: Option<i64>,
        changes: Changes,
        quota: Quota,
    ) -> Result<Changed> {
        let changed = self
            .transaction(move |conn| {
                Box::pin(async move {
                    let Some(row) = lock_row(conn, id).await? else {
                        return Ok(Changed::Missing);
                    };
                    if row.deleted {
                        return Ok(Changed::Missing);
                    }
                    if seen.is_some_and(|g| g != row.generation) {
                        return Ok(Changed::Stale);
                    }
                    if changes.desired == Some(DesiredState::Running) {
                        lock_quota(conn, row.owner).await?;
                        if let Some(over) = over_running(conn, row.owner, Some(id), quota).await? {
                            return Ok(Changed::OverQuota(over));
                        }
                    }
                    apply(conn, id, changes).await?;
                    Ok(Changed::Applied)
                })
            })
            .await;
        match changed {
            Err(e) if e.violates("workspaces_owner_name") => Ok(Changed::NameTaken),
            other => other,
        }
    }

    /// Marks a workspace as deleted. Repeating it changes nothing, but may add `discard_home`.
    pub async fn delete_workspace(
        &self,
        id: WorkspaceId,
        seen: Option<i64>,
        discard_home: bool,
        actor: String,
    ) -> Result<Changed> {
        self.transaction(move |conn| {
            Box::pin(async move {
                let Some(row) = lock_row(conn, id).await? else {
                    return Ok(Changed::Missing);
                };
                if seen.is_some_and(|g| g != row.generation) {
                    return Ok(Changed::Stale);
                }
                if row.deleted && (row.discard_home || !discard_home) {
                    return Ok(Changed::Applied);
                }
                diesel::update(workspaces::table.find(id.0))
                    .set((
                        workspaces::desired_state.eq(DesiredState::Deleted.as_str()),
                        workspaces::deleted_at.eq(diesel::dsl::sql::<
                            diesel::sql_types::Nullable<diesel::sql_types::Timestamptz>,
                        >(
                            "coalesce(deleted_at, now())"
                        )),
                        workspaces::discard_home.eq(discard_home || row.discard_home),
                        workspaces::generation.eq(workspaces::generation + 1),
                    ))
                    .execute(conn)
                    .await?;
                let detail = if discard_home {
                    "discard_home: the home is given up without an archive"
                } else {
                    "a home that is only on a volume is archived first"
                };
                audit::add(conn, Some(id.0), &actor, "delete", detail).await?;
                Ok(Changed::Applied)
            })
        })
        .await
    }

    /// Takes a deletion back: the workspace is to be ARCHIVED.
    pub async fn undelete_workspace(
        &self,
        id: WorkspaceId,
        quota: Quota,
        actor: String,
    ) -> Result<Changed> {
        let changed = self
            .transaction(move |conn| {
                Box::pin(async move {
                    let Some(row) = lock_row(conn, id).await? else {
                        return Ok(Changed::Missing);
                    };
                    if !row.deleted {
                        return Ok(Changed::Stale);
                    }
                    lock_quota(conn, row.owner).await?;
                    if let Some(over) = over_count(conn, row.owner, quota).await? {
                        return Ok(Changed::OverQuota(over));
                    }
                    // wc never leaves DELETED: a row that is gone for good stays so.
                    let undeleted = diesel::update(
                        workspaces::table
                            .find(id.0)
                            .filter(workspaces::phase.ne("DELETED")),
                    )
                    .set((
                        workspaces::desired_state.eq(DesiredState::Archived.as_str()),
                        workspaces::deleted_at.eq(None::<DateTime<Utc>>),
                        workspaces::discard_home.eq(false),
                        workspaces::generation.eq(workspaces::generation + 1),
                    ))
                    .execute(conn)
                    .await?;
                    if undeleted == 0 {
                        return Ok(Changed::Missing);
                    }
                    audit::add(conn, Some(id.0), &actor, "undelete", "").await?;
                    Ok(Changed::Applied)
                })
            })
            .await;
        match changed {
            Err(e) if e.violates("workspaces_owner_name") => Ok(Changed::NameTaken),
            other => other,
        }
    }

    /// Holds or ends a lease against the TTL rules. Returns until when; `None`: no such workspace.
    pub async fn keep_awake(
        &self,
        id: WorkspaceId,
        duration: TimeDelta,
    ) -> Result<Option<DateTime<Utc>>> {
        let mut conn = self.get().await?;
        let until =
            diesel::dsl::sql::<diesel::sql_types::Nullable<diesel::sql_types::Timestamptz>>(
                "now() + make_interval(secs => ",
            )
            .bind::<diesel::sql_types::Double, _>(duration.num_milliseconds() as f64 / 1000.0)
            .sql(")");
        let row: Option<Option<DateTime<Utc>>> = diesel::update(
            workspaces::table
                .find(id.0)
                .filter(workspaces::deleted_at.is_null()),
        )
        .set(workspaces::keep_awake_until.eq(until))
        .returning(workspaces::keep_awake_until)
        .get_result(&mut conn)
        .await
        .optional()?;
        Ok(row.flatten())
    }

    /// Adds a host, or gives the host of that name a new address.
    pub async fn register_host(&self, name: &str, address: &str) -> Result<HostRecord> {
        let mut conn = self.get().await?;
        let row: HostRow = diesel::insert_into(hosts::table)
            .values((hosts::name.eq(name), hosts::address.eq(address)))
            .on_conflict(hosts::name)
            .do_update()
            .set(hosts::address.eq(address))
            .returning(HostRow::as_returning())
            .get_result(&mut conn)
            .await?;
        Ok(row.into())
    }

    /// Cordons or uncordons a host. `None`: no such host.
    pub async fn cordon_host(&self, id: HostId, cordoned: bool) -> Result<Option<HostRecord>> {
        let mut conn = self.get().await?;
        let row: Option<HostRow> = diesel::update(hosts::table.find(id.0))
            .set(hosts::cordoned.eq(cordoned))
            .returning(HostRow::as_returning())
            .get_result(&mut conn)
            .await
            .optional()?;
        Ok(row.map(HostRecord::from))
    }
}

struct LockedRow {
    owner: UserId,
    generation: i64,
    deleted: bool,
    discard_home: bool,
}

async fn lock_row(conn: &mut AsyncPgConnection, id: WorkspaceId) -> Result<Option<LockedRow>> {
    type Columns = (Uuid, i64, Option<DateTime<Utc>>, bool);
    let row: Option<Columns> = workspaces::table
        .find(id.0)
        .select((
            workspaces::owner_id,
            workspaces::generation,
            workspaces::deleted_at,
            workspaces::discard_home,
        ))
        .for_no_key_update()
        .first(conn)
        .await
        .optional()?;
    Ok(
        row.map(|(owner, generation, deleted_at, discard_home)| LockedRow {
            owner: UserId(owner),
            generation,
            deleted: deleted_at.is_some(),
            discard_home,
        }),
    )
}

/// Limits are counted under a lock, so that two requests cannot both take the last place. One lock for
/// all owners: there is a limit that counts them all.
async fn lock_quota(conn: &mut AsyncPgConnection, _owner: UserId) -> Result<()> {
    diesel::sql_query("SELECT pg_advisory_xact_lock(hashtext('windlass.quota'))")
        .execute(conn)
        .await?;
    Ok(())
}

async fn find_request(
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

async fn over_count(
    conn: &mut AsyncPgConnection,
    owner: UserId,
    quota: Quota,
) -> Result<Option<OverQuota>> {
    let count: i64 = workspaces::table
        .filter(workspaces::owner_id.eq(owner.0))
        .filter(workspaces::deleted_at.is_null())
        .count()
        .get_result(conn)
        .await?;
    Ok((count >= quota.per_user).then_some(OverQuota::PerUser))
}

/// Whether one more workspace may be told to run; `except` is the one that asks.
async fn over_running(
    conn: &mut AsyncPgConnection,
    owner: UserId,
    except: Option<WorkspaceId>,
    quota: Quota,
) -> Result<Option<OverQuota>> {
    let running = || {
        workspaces::table
            .filter(workspaces::deleted_at.is_null())
            .filter(workspaces::desired_state.eq(DesiredState::Running.as_str()))
            .filter(workspaces::id.ne(except.map_or_else(Uuid::nil, |id| id.0)))
            .count()
    };
    let all: i64 = running().get_result(conn).await?;
    if all >= quota.running {
        return Ok(Some(OverQuota::Running));
    }
    let own: i64 = running()
        .filter(workspaces::owner_id.eq(owner.0))
        .get_result(conn)
        .await?;
    Ok((own >= quota.running_per_user).then_some(OverQuota::RunningPerUser))
}

async fn roomiest_host(conn: &mut AsyncPgConnection) -> Result<Option<Uuid>> {
    let taken = workspaces::table
        .filter(workspaces::host_id.eq(hosts::id))
        .filter(workspaces::deleted_at.is_null())
        .count()
        .single_value();
    Ok(hosts::table
        .filter(hosts::cordoned.eq(false))
        .order((taken.asc(), hosts::name.asc()))
        .select(hosts::id)
        .first(conn)
        .await
        .optional()?)
}

async fn insert(conn: &mut AsyncPgConnection, new: &NewWorkspace, host: Uuid) -> Result<()> {
    let (cpu_millis, memory_bytes, pids) = limit_columns(new.limits);
    diesel::insert_into(workspaces::table)
        .values(NewRow {
            id: new.id.0,
            owner_id: new.owner.0,
            host_id: host,
            request_id: new.request_id,
            name: new.name.clone(),
            description: new.description.clone(),
            image: new.image.clone(),
            cpu_millis,
            memory_bytes,
            pids,
            standby_ttl_ms: new.standby_ttl.map(|t| t.num_milliseconds()),
            archive_ttl_ms: new.archive_ttl.map(|t| t.num_milliseconds()),
            desired_state: new.desired.as_str(),
        })
        .execute(conn)
        .await?;
    Ok(())
}

async fn apply(conn: &mut AsyncPgConnection, id: WorkspaceId, changes: Changes) -> Result<()> {
    let limits = changes.limits.map(limit_columns);
    diesel::update(workspaces::table.find(id.0))
        .set((
            ChangeSet {
                name: changes.name,
                description: changes.description,
                image: changes.image,
                desired_state: changes.desired.map(DesiredState::as_str),
                standby_ttl_ms: changes.standby_ttl.map(|t| t.map(|d| d.num_milliseconds())),
                archive_ttl_ms: changes.archive_ttl.map(|t| t.map(|d| d.num_milliseconds())),
                cpu_millis: limits.map(|l| l.0),
                memory_bytes: limits.map(|l| l.1),
                pids: limits.map(|l| l.2),
            },
            workspaces::generation.eq(workspaces::generation + 1),
        ))
        .execute(conn)
        .await?;
    Ok(())
}
