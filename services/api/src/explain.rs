//! ExplainWorkspace: the domain's words, with the defaults that ttl goes by.

use chrono::{DateTime, Utc};
use windlass_db::{AuditEntry, WorkspaceRecord};
use windlass_domain::{Policy, explain::explain, ttl::Idle};
use windlass_proto::{convert::timestamp, v1};

use crate::{config::Settings, present};

/// Audit entries in an answer at most.
pub const HISTORY: i64 = 20;

pub fn response(
    record: &WorkspaceRecord,
    history: Vec<AuditEntry>,
    settings: &Settings,
    now: DateTime<Utc>,
) -> v1::ExplainWorkspaceResponse {
    let ws = &record.workspace;
    let idle = Idle {
        phase: ws.control.phase,
        desired: ws.spec.desired,
        operation: ws.control.operation,
        deleted: ws.spec.deleted,
        phase_changed_at: ws.control.phase_changed_at,
        last_access_at: record.last_access_at,
        keep_awake_until: record.keep_awake_until,
        standby_ttl: record.standby_ttl.unwrap_or(settings.standby_ttl),
        archive_ttl: record.archive_ttl.unwrap_or(settings.archive_ttl),
    };
    let explanation = explain(ws, &idle, &record.fresh, &Policy::default(), now);
    v1::ExplainWorkspaceResponse {
        workspace: Some(present::workspace(record)),
        why: explanation.why,
        next: explanation.next,
        next_time: explanation.next_at.map(timestamp),
        blockers: explanation.blockers,
        last_safe_copy: explanation.last_safe_copy,
        history: history.into_iter().map(present::audit_entry).collect(),
    }
}
