//! What is told of a pass beside what it stores: how old the view of each host is, as metrics, and that a row
//! changed on the way to what a user's call asked for, as a span in that call's trace.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use tracing::{Span, field::Empty};
use windlass_db::{HostRecord, WorkspaceRecord};
use windlass_domain::{Conditions, Operation, WorkspaceId};
use windlass_service::{TraceContext, trace};

use crate::look::HostView;

/// Spans that one pass makes at most.
const MAX_SPANS: usize = 100;

/// A span for each changed row whose call is traced; it covers what is done until it is dropped. None in a
/// pass that changes nothing.
pub fn spans(
    records: &[WorkspaceRecord],
    changed: &[(WorkspaceId, Conditions)],
    now: DateTime<Utc>,
) -> Vec<Span> {
    if !trace::enabled() || changed.is_empty() {
        return Vec::new();
    }
    let changed: HashSet<WorkspaceId> = changed.iter().map(|(id, _)| *id).collect();
    records
        .iter()
        .filter(|record| changed.contains(&record.workspace.id))
        .filter_map(|record| span(record, now))
        .take(MAX_SPANS)
        .collect()
}

fn span(record: &WorkspaceRecord, now: DateTime<Utc>) -> Option<Span> {
    let ws = &record.workspace;
    // Nobody asked for a checkpoint now.
    if ws.control.operation == Operation::Checkpointing {
        return None;
    }
    let began = ws.control.op_started_at.unwrap_or(now);
    let parent: TraceContext = record.trace_at(began)?.parse().ok()?;
    let span = tracing::info_span!(
        parent: None,
        "observe",
        workspace_id = %ws.id,
        trace_id = Empty
    );
    trace::join(&span, &parent);
    trace::attribute(&span, "host_id", ws.host_id.to_string());
    trace::attribute(&span, "phase", ws.control.phase.as_str());
    trace::attribute(&span, "operation", ws.control.operation.as_str());
    if let Some(op_id) = ws.control.op_id {
        trace::attribute(&span, "op_id", op_id.to_string());
    }
    Some(span)
}

/// Tells when each host was last observed completely: just now, or as `hosts` have it from before the pass.
pub fn seen(hosts: &[HostRecord], views: &[HostView], now: DateTime<Utc>) {
    for host in hosts {
        let complete = views
            .iter()
            .any(|view| view.host_id == host.id && view.resources.is_ok());
        let at = if complete {
            Some(now)
        } else {
            host.last_observed_at
        };
        // A host that was never observed is as old as its registration.
        let at = at.unwrap_or(host.created_at);
        metrics::gauge!("windlass_host_observed_timestamp_seconds", "host" => host.name.clone())
            .set(at.timestamp_millis() as f64 / 1000.0);
    }
}
