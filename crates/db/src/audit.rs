//! The audit log: what was done on somebody's word. Entries are only ever added.

use chrono::{DateTime, Utc};
use diesel::{ExpressionMethods, QueryDsl, Queryable};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;
use windlass_domain::WorkspaceId;

use crate::{error::Result, pool::Pool, schema::audit_log};

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct AuditEntry {
    /// When.
    pub at: DateTime<Utc>,
    /// By which user or service.
    pub actor: String,
    /// What.
    pub action: String,
    /// Details.
    pub detail: String,
}

pub(crate) async fn add(
    conn: &mut AsyncPgConnection,
    workspace: Option<Uuid>,
    actor: &str,
    action: &str,
    detail: &str,
) -> Result<()> {
    diesel::insert_into(audit_log::table)
        .values((
            audit_log::workspace_id.eq(workspace),
            audit_log::actor.eq(actor),
            audit_log::action.eq(action),
            audit_log::detail.eq(detail),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

impl Pool {
    /// The newest entries of a workspace, newest first.
    pub async fn history(&self, id: WorkspaceId, limit: i64) -> Result<Vec<AuditEntry>> {
        let mut conn = self.get().await?;
        Ok(audit_log::table
            .filter(audit_log::workspace_id.eq(id.0))
            .order(audit_log::id.desc())
            .limit(limit)
            .select((
                audit_log::at,
                audit_log::actor,
                audit_log::action,
                audit_log::detail,
            ))
            .load(&mut conn)
            .await?)
    }
}
