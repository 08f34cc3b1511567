//! ExplainWorkspace: the domain's words, with the defaults that ttl goes by and the numbers of wc's.

use chrono::{DateTime, Utc};
use uuid::Uuid;
use windlass_db::{
    AuditEntry, DbError, Pool, WorkspaceRecord,
    read::{Attended, Scope},
};
use windlass_domain::{
    OpId, Operation, Policy, Shard,
    explain::{explain, waits_for_a_place},
    planner::{Context, reconcile},
    queue::{Position, Queue},
    ttl::Idle,
};
use windlass_proto::{convert::timestamp, v1};

use crate::{config::Settings, present};

/// Audit entries in an answer at most.
pub const HISTORY: i64 = 20;

/// A workspace in the queue of its host.
#[derive(Debug)]
pub struct Place {
    position: Position,
    host: String,
}

/// Where a workspace stands in the queue of its host; `None` if wc has not made it wait. By what wc decides
/// by: every row of the host that is not at rest and in the same shard, planned by the same function and queued by
/// the same rule.
pub async fn place(
    pool: &Pool,
    record: &WorkspaceRecord,
    policy: &Policy,
) -> Result<Option<Place>, DbError> {
    let ws = &record.workspace;
    let c = &ws.control;
    let may_wait = c.operation == Operation::None || c.retry_at.is_some();
    if !may_wait || c.op_started_at.is_none() {
        return Ok(None);
    }
    let shards = pool.shards("wc").await?;
    let shard = Shard::new(Shard::of(ws.id.0, shards), shards).unwrap_or(Shard::WHOLE);
    let mut rows = Vec::new();
    let of_host = Scope::Host(ws.host_id);
    pool.attention(shard, of_host, |row| rows.push(row)).await?;
    let mut queue = Queue::default();
    for Attended { record, now, .. } in &rows {
        let cx = Context {
            fresh: &record.fresh,
            policy,
            now: *now,
            new_op: OpId(Uuid::nil()), // nothing is stored
        };
        queue.add(&record.workspace, &reconcile(&record.workspace, &cx));
    }
    let host = rows.first().map(|row| row.host.name.clone());
    Ok(queue
        .position(ws.id)
        .zip(host)
        .map(|(position, host)| Place { position, host }))
}

pub fn response(
    record: &WorkspaceRecord,
    place: Option<Place>,
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
    let mut explanation = explain(ws, &idle, &record.fresh, &settings.policy, now);
    let number = |n| u32::try_from(n).unwrap_or(u32::MAX);
    let (mut queue_position, mut queue_length) = (0, 0);
    if let Some(Place { position, host }) = place {
        queue_position = number(position.position);
        queue_length = number(position.length);
        let words = waits_for_a_place(&position, &host);
        explanation.blockers.insert(0, words);
    }
    v1::ExplainWorkspaceResponse {
        workspace: Some(present::workspace(record)),
        why: explanation.why,
        next: explanation.next,
        next_time: explanation.next_at.map(timestamp),
        blockers: explanation.blockers,
        last_safe_copy: explanation.last_safe_copy,
        history: history.into_iter().map(present::audit_entry).collect(),
        queue_position,
        queue_length,
    }
}
