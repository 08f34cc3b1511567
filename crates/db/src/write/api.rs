//! What api writes: the user's wishes, hosts, and the audit log of both.

mod hosts;
mod quota;
mod rebuild;
mod rows;

pub use quota::{OverQuota, Quota};
pub use rebuild::{Rebuild, Rebuilt};

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl,
    sql_types::{Double, Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use windlass_domain::{
    DesiredState, HomeLocation, Phase, UserId, Workspace, WorkspaceId,
    control::Limits,
    judge::{home_archive_present, home_volume_present},
};

use crate::{audit, error::Result, pool::Pool, schema::workspaces};

/// Who asks for a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// Their name, for the audit log.
    pub name: String,
    /// The trace of the call, a W3C traceparent: what is done about the wish is told in it.
    pub trace: Option<String>,
}

/// Outside of any trace.
impl From<String> for Author {
    fn from(name: String) -> Self {
        Self { name, trace: None }
    }
}

/// A workspace to be.
#[derive(Clone, Debug)]
pub struct NewWorkspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its owner.
    pub owner: UserId,
    /// Who asks.
    pub author: Author,
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
    /// How old its newest archive may become while it runs; `None` and zero: as old as it likes.
    pub checkpoint_interval: Option<TimeDelta>,
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

/// What to change; `None` stays. Where a value may be absent, `Some(None)` is the default again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Its image.
    pub image: Option<String>,
    /// What it should be.
    pub desired: Option<DesiredState>,
    /// RUNNING to STANDBY.
    pub standby_ttl: Option<Option<TimeDelta>>,
    /// STANDBY to ARCHIVED.
    pub archive_ttl: Option<Option<TimeDelta>>,
    /// How old its newest archive may become while it runs.
    pub checkpoint_interval: Option<Option<TimeDelta>>,
    /// Thousandths of a core.
    pub cpu_millis: Option<Option<u32>>,
    /// Bytes.
    pub memory_bytes: Option<Option<u64>>,
    /// Processes and threads.
    pub pids: Option<Option<u32>>,
}

impl Changes {
    /// What is changed, for the audit log: fields, and the state that is wished for.
    fn describe(&self) -> String {
        let field = |set: bool, name: &str| set.then(|| name.to_owned());
        let changed = [
            self.desired.map(|d| format!("desired_state: {d}")),
            self.name.as_ref().map(|n| format!("name: {n}")),
            self.image.as_ref().map(|i| format!("image: {i}")),
            field(self.description.is_some(), "description"),
            field(self.standby_ttl.is_some(), "standby_ttl"),
            field(self.archive_ttl.is_some(), "archive_ttl"),
            self.checkpoint_interval.map(|interval| {
                let seconds = interval.map_or(0, |i| i.num_seconds());
                format!("checkpoint_interval: {seconds} s")
            }),
            field(self.cpu_millis.is_some(), "limits.cpu_millis"),
            field(self.memory_bytes.is_some(), "limits.memory_bytes"),
            field(self.pids.is_some(), "limits.pids"),
        ];
        changed.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is stored, or was so already.
    Applied,
    /// The row has another generation than the caller saw.
    Stale,
    /// There is no such row.
    Missing,
    /// It is deleted.
    Deleted,
    /// It is not deleted.
    NotDeleted,
    /// Its home is not there any more.
    HomeGone,
    /// No complete archive of that key is observed.
    ArchiveNotFound,
    /// The owner has another workspace of that name.
    NameTaken,
    /// A limit stands in the way.
    OverQuota(OverQuota),
}

impl Pool {
    /// Creates a workspace on the host that has the fewest, rather on one observed within `stale_after`.
    pub async fn create_workspace(
        &self,
        new: NewWorkspace,
        quota: Quota,
        stale_after: TimeDelta,
    ) -> Result<Created> {
        let created = self
            .transaction(move |conn| {
                Box::pin(async move {
                    // Also what makes a repeated request_id wait for the first: it is looked up after.
                    quota::lock(conn).await?;
                    if let Some(request) = new.request_id
                        && let Some(id) = rows::find_request(conn, new.owner, request).await?
                    {
                        return Ok(Created::Earlier(id));
                    }
                    if let Some(over) = quota::over_count(conn, new.owner, quota).await? {
                        return Ok(Created::OverQuota(over));
                    }
                    if new.desired == DesiredState::Running
                        && let Some(over) = quota::over_running(conn, new.owner, quota).await?
                    {
                        return Ok(Created::OverQuota(over));
                    }
                    let Some(host) = hosts::roomiest(conn, stale_after).await? else {
                        return Ok(Created::NoHost);
                    };
                    rows::insert(conn, &new, host).await?;
                    let detail = format!("{}, to be {}", new.image, new.desired);
                    audit::add(conn, Some(new.id.0), &new.author.name, "create", &detail).await?;
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
        author: impl Into<Author> + Send,
    ) -> Result<Changed> {
        let author = author.into();
        let changed = self
            .transaction(move |conn| {
                Box::pin(async move {
                    let Some(row) = rows::lock(conn, id).await? else {
                        return Ok(Changed::Missing);
                    };
                    if seen.is_some_and(|g| g != row.generation) {
                        return Ok(Changed::Stale);
                    }
                    if row.deleted {
                        return Ok(Changed::Deleted);
                    }
                    // One that is to run already has its place.
                    if changes.desired == Some(DesiredState::Running)
                        && row.desired != DesiredState::Running.as_str()
                    {
                        quota::lock(conn).await?;
                        if let Some(over) = quota::over_running(conn, row.owner, quota).await? {
                            return Ok(Changed::OverQuota(over));
                        }
                    }
                    let detail = changes.describe();
                    rows::apply(conn, id, changes, &author).await?;
                    audit::add(conn, Some(id.0), &author.name, "update", &detail).await?;
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
        author: impl Into<Author> + Send,
    ) -> Result<Changed> {
        let author = author.into();
        self.transaction(move |conn| {
            Box::pin(async move {
                let Some(row) = rows::lock(conn, id).await? else {
                    return Ok(Changed::Missing);
                };
                if seen.is_some_and(|g| g != row.generation) {
                    return Ok(Changed::Stale);
                }
                if row.deleted && (row.discard_home || !discard_home) {
                    return Ok(Changed::Applied);
                }
                let discard = discard_home || row.discard_home;
                rows::mark_deleted(conn, id, discard, &author).await?;
                let detail = if discard_home {
                    "discard_home: the home is given up without an archive"
                } else {
                    "a home that is only on a volume is archived first"
                };
                audit::add(conn, Some(id.0), &author.name, "delete", detail).await?;
                Ok(Changed::Applied)
            })
        })
        .await
    }

    /// Takes a deletion back while the home of record is still there: the workspace is to be ARCHIVED.
    pub async fn undelete_workspace(
        &self,
        id: WorkspaceId,
        quota: Quota,
        author: impl Into<Author> + Send,
    ) -> Result<Changed> {
        let author = author.into();
        let changed = self
            .transaction(move |conn| {
                Box::pin(async move {
                    let Some(row) = rows::lock(conn, id).await? else {
                        return Ok(Changed::Missing);
                    };
                    if !row.deleted {
                        return Ok(Changed::NotDeleted);
                    }
                    let home_left = rows::record(conn, id)
                        .await?
                        .is_some_and(|r| home_left(&r.workspace));
                    if !home_left {
                        return Ok(Changed::HomeGone);
                    }
                    quota::lock(conn).await?;
                    if let Some(over) = quota::over_count(conn, row.owner, quota).await? {
                        return Ok(Changed::OverQuota(over));
                    }
                    rows::unmark_deleted(conn, id, &author).await?;
                    audit::add(conn, Some(id.0), &author.name, "undelete", "").await?;
                    Ok(Changed::Applied)
                })
            })
            .await;
        match changed {
            Err(e) if e.violates("workspaces_owner_name") => Ok(Changed::NameTaken),
            other => other,
        }
    }

    /// Stores the wish to go back to an archive of the workspace. Repeating one that is still open changes
    /// nothing.
    pub async fn restore_workspace(
        &self,
        id: WorkspaceId,
        seen: Option<i64>,
        key: String,
        author: impl Into<Author> + Send,
    ) -> Result<Changed> {
        let author = author.into();
        self.transaction(move |conn| {
            Box::pin(async move {
                let Some(row) = rows::lock(conn, id).await? else {
                    return Ok(Changed::Missing);
                };
                if seen.is_some_and(|g| g != row.generation) {
                    return Ok(Changed::Stale);
                }
                if row.deleted {
                    return Ok(Changed::Deleted);
                }
                let Some(record) = rows::record(conn, id).await? else {
                    return Ok(Changed::Missing);
                };
                let ws = &record.workspace;
                if ws.conditions.archive_at(&key).is_none() {
                    return Ok(Changed::ArchiveNotFound);
                }
                if ws.open_restore().is_some_and(|wish| wish.key == key) {
                    return Ok(Changed::Applied);
                }
                rows::wish_restore(conn, id, &key, &author).await?;
                audit::add(conn, Some(id.0), &author.name, "restore", &key).await?;
                Ok(Changed::Applied)
            })
        })
        .await
    }

    /// Holds a lease against the TTL rules until `duration` from now, or ends it (zero). Returns until when;
    /// the outer `None`: no such workspace, or it is deleted.
    pub async fn keep_awake(
        &self,
        id: WorkspaceId,
        duration: TimeDelta,
    ) -> Result<Option<Option<DateTime<Utc>>>> {
        let mut conn = self.get().await?;
        let until = diesel::dsl::sql::<Nullable<Timestamptz>>("now() + make_interval(secs => ")
            .bind::<Nullable<Double>, _>(
                (!duration.is_zero()).then(|| duration.num_milliseconds() as f64 / 1000.0),
            )
            .sql(")");
        Ok(diesel::update(
            workspaces::table
                .find(id.0)
                .filter(workspaces::deleted_at.is_null()),
        )
        .set(workspaces::keep_awake_until.eq(until))
        .returning(workspaces::keep_awake_until)
        .get_result(&mut conn)
        .await
        .optional()?)
    }
}

/// Whether a deleted workspace still has what it would come back with: its archive, or its volume as long
/// as it was not given up (then wc may be removing it at this moment).
fn home_left(ws: &Workspace) -> bool {
    let left = match ws.control.home.location {
        HomeLocation::None => false,
        HomeLocation::Archive => home_archive_present(ws),
        HomeLocation::Volume => !ws.spec.discard_home && home_volume_present(ws),
    };
    left && ws.control.phase != Phase::Deleted
}
