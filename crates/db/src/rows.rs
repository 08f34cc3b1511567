//! Rows as they are stored, and as the rest of Windlass knows them.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    Queryable, Selectable,
    deserialize::{self, FromSql, FromSqlRow},
    pg::{Pg, PgValue},
    sql_types::Jsonb,
};
use serde::de::DeserializeOwned;
use uuid::Uuid;
use windlass_domain::{
    Control, Freshness, HostId, OpId, RestoreWish, Spec, UserId, Workspace, WorkspaceId,
    control::Limits,
};

use crate::{
    error::{DbError, Result},
    schema::{hosts, workspaces},
};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// Their id.
    pub id: UserId,
    /// Their name.
    pub name: String,
    /// Whether they may see and do everything.
    pub admin: bool,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRecord {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// URL of its agent.
    pub address: String,
    /// Whether new workspaces are kept away from it.
    pub cordoned: bool,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// When it was last observed completely.
    pub last_observed_at: Option<DateTime<Utc>>,
    /// Why the last observation failed; empty if it did not.
    pub observe_error: String,
}

/// A workspace with everything its row holds.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkspaceRecord {
    /// What judge and planner see.
    pub workspace: Workspace,
    /// How fresh its observations are.
    pub fresh: Freshness,
    /// Its owner.
    pub owner_id: UserId,
    /// Free text.
    pub description: String,
    /// RUNNING to STANDBY; `None`: the default, zero: never.
    pub standby_ttl: Option<TimeDelta>,
    /// STANDBY to ARCHIVED; `None`: the default, zero: never.
    pub archive_ttl: Option<TimeDelta>,
    /// Until when the TTL rules leave it alone.
    pub keep_awake_until: Option<DateTime<Utc>>,
    /// When it was deleted.
    pub deleted_at: Option<DateTime<Utc>>,
    /// Grows with every change of what a user may write.
    pub generation: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its row last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was last used.
    pub last_access_at: Option<DateTime<Utc>>,
    /// The trace of the call that set its desired state, a W3C traceparent, and when that was.
    pub trace: Option<(String, DateTime<Utc>)>,
}

/// How long after a call what is done about it may be told in its trace. What happens to a workspace later,
/// such as a crash, is not on that call's account.
pub(crate) const TRACE_LIFE: TimeDelta = TimeDelta::hours(1);

impl WorkspaceRecord {
    /// The trace that something belongs to which began at `began`.
    pub fn trace_at(&self, began: DateTime<Utc>) -> Option<&str> {
        let (context, since) = self.trace.as_ref()?;
        (began - since < TRACE_LIFE).then_some(context.as_str())
    }
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = hosts)]
pub(crate) struct HostRow {
    pub id: Uuid,
    pub name: String,
    pub address: String,
    pub cordoned: bool,
    pub created_at: DateTime<Utc>,
    pub last_observed_at: Option<DateTime<Utc>>,
    pub observe_error: String,
}

impl From<HostRow> for HostRecord {
    fn from(row: HostRow) -> Self {
        Self {
            id: HostId(row.id),
            name: row.name,
            address: row.address,
            cordoned: row.cordoned,
            created_at: row.created_at,
            last_observed_at: row.last_observed_at,
            observe_error: row.observe_error,
        }
    }
}

/// A jsonb value as PostgreSQL sent it: what it means is read at once, and only where it is asked for.
#[derive(Debug, FromSqlRow)]
pub(crate) struct Json(Box<[u8]>);

impl FromSql<Jsonb, Pg> for Json {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        // A byte before the text tells the format's version, of which there has been one.
        match value.as_bytes().split_first() {
            Some((1, text)) => Ok(Self(text.into())),
            Some(_) | None => Err("jsonb of an unknown version".into()),
        }
    }
}

impl Json {
    fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.0)
    }
}

#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = workspaces)]
pub(crate) struct WorkspaceRow {
    pub id: Uuid,
    pub owner_id: Uuid,
    pub host_id: Uuid,
    pub name: String,
    pub description: String,
    pub image: String,
    pub cpu_millis: Option<i32>,
    pub memory_bytes: Option<i64>,
    pub pids: Option<i32>,
    pub standby_ttl_ms: Option<i64>,
    pub archive_ttl_ms: Option<i64>,
    pub checkpoint_interval_ms: Option<i64>,
    pub keep_awake_until: Option<DateTime<Utc>>,
    pub desired_state: String,
    pub deleted_at: Option<DateTime<Utc>>,
    pub discard_home: bool,
    pub restore_request: Option<Uuid>,
    pub restore_key: Option<String>,
    pub generation: i64,
    pub created_at: DateTime<Utc>,
    pub last_access_at: Option<DateTime<Utc>>,
    pub phase: String,
    pub phase_changed_at: DateTime<Utc>,
    pub operation: String,
    pub op_id: Option<Uuid>,
    pub op_started_at: Option<DateTime<Utc>>,
    pub archive_op_id: Option<Uuid>,
    pub archive_key: Option<String>,
    pub error_count: i32,
    pub error_reason: Option<String>,
    pub error_message: Option<String>,
    pub retry_at: Option<DateTime<Utc>>,
    pub home_ctx: Json,
    pub started_image: Option<String>,
    pub restore_applied: Option<Uuid>,
    pub conditions: Json,
    pub observed_at: Option<DateTime<Utc>>,
    pub updated_at: DateTime<Utc>,
    pub trace_context: Option<String>,
    pub trace_context_at: Option<DateTime<Utc>>,
}

/// What a workspace query selects: the row, its owner's name, and when its host and the store were last
/// observed.
pub(crate) type JoinedRow = (
    WorkspaceRow,
    String,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
);

impl WorkspaceRecord {
    pub(crate) fn from_row((row, owner, host, archives): JoinedRow) -> Result<Self> {
        let id = row.id;
        let corrupt = |what: String| DbError::Corrupt {
            id: id.to_string(),
            what,
        };
        macro_rules! word {
            ($text:expr) => {
                $text
                    .parse()
                    .map_err(|e: windlass_domain::phase::UnknownWord| corrupt(e.to_string()))?
            };
        }
        let error_reason = match row.error_reason.as_deref() {
            Some(reason) => Some(word!(reason)),
            None => None,
        };
        let control = Control {
            phase: word!(row.phase),
            phase_changed_at: row.phase_changed_at,
            operation: word!(row.operation),
            op_id: row.op_id.map(OpId),
            op_started_at: row.op_started_at,
            archive_op_id: row.archive_op_id.map(OpId),
            archive_key: row.archive_key,
            error_count: u32::try_from(row.error_count).map_err(|e| corrupt(e.to_string()))?,
            error_reason,
            error_message: row.error_message,
            retry_at: row.retry_at,
            home: row
                .home_ctx
                .read()
                .map_err(|e| corrupt(format!("home_ctx: {e}")))?,
            started_image: row.started_image,
            restore_applied: row.restore_applied,
        };
        let spec = Spec {
            name: row.name,
            owner,
            image: row.image,
            limits: Limits {
                cpu_millis: row.cpu_millis.and_then(|n| u32::try_from(n).ok()),
                memory_bytes: row.memory_bytes.and_then(|n| u64::try_from(n).ok()),
                pids: row.pids.and_then(|n| u32::try_from(n).ok()),
            },
            desired: word!(row.desired_state),
            deleted: row.deleted_at.is_some(),
            discard_home: row.discard_home,
            restore: row
                .restore_request
                .zip(row.restore_key)
                .map(|(request, key)| RestoreWish { request, key }),
            checkpoint_interval: row.checkpoint_interval_ms.map(TimeDelta::milliseconds),
        };
        Ok(Self {
            workspace: Workspace {
                id: WorkspaceId(row.id),
                host_id: HostId(row.host_id),
                spec,
                control,
                conditions: row
                    .conditions
                    .read()
                    .map_err(|e| corrupt(format!("conditions: {e}")))?,
                observed_at: row.observed_at,
            },
            fresh: Freshness { host, archives },
            owner_id: UserId(row.owner_id),
            description: row.description,
            standby_ttl: row.standby_ttl_ms.map(TimeDelta::milliseconds),
            archive_ttl: row.archive_ttl_ms.map(TimeDelta::milliseconds),
            keep_awake_until: row.keep_awake_until,
            deleted_at: row.deleted_at,
            generation: row.generation,
            created_at: row.created_at,
            updated_at: row.updated_at,
            last_access_at: row.last_access_at,
            trace: row.trace_context.zip(row.trace_context_at),
        })
    }
}
