//! What is told of a pass beside what it stores: how old the view of each host is, as metrics, and that a row
//! changed on the way to what a user's call asked for, as a span in that call's trace.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tracing::{Span, field::Empty};
use windlass_db::read::ObservedHost;
use windlass_domain::{Conditions, Operation, WorkspaceId};
use windlass_service::{TraceContext, trace};

use crate::{
    hosts::Hosts,
    rows::{Row, Rows},
};

/// Spans that one pass makes at most.
const MAX_SPANS: usize = 100;

/// A span for each changed row whose call is traced; it covers what is done until it is dropped. None in a
/// pass that changes nothing.
pub fn spans(
    rows: &Rows,
    changed: &[(WorkspaceId, Arc<Conditions>)],
    now: DateTime<Utc>,
) -> Vec<Span> {
    if !trace::enabled() || changed.is_empty() {
        return Vec::new();
    }
    changed
        .iter()
        .filter_map(|(id, _)| span(*id, rows.get(*id)?, now))
        .take(MAX_SPANS)
        .collect()
}

fn span(id: WorkspaceId, row: &Row, now: DateTime<Utc>) -> Option<Span> {
    // Nobody asked for a checkpoint now.
    let traced = row.trace.as_ref();
    let traced = traced.filter(|t| t.operation != Operation::Checkpointing)?;
    let began = traced.op_started_at.unwrap_or(now);
    let parent: TraceContext = traced.at(began)?.parse().ok()?;
    let span = tracing::info_span!(
        parent: None,
        "observe",
        workspace_id = %id,
        trace_id = Empty
    );
    trace::join(&span, &parent);
    trace::attribute(&span, "host_id", row.host_id.to_string());
    trace::attribute(&span, "phase", traced.phase.as_str());
    trace::attribute(&span, "operation", traced.operation.as_str());
    if let Some(op_id) = traced.op_id {
        trace::attribute(&span, "op_id", op_id.to_string());
    }
    Some(span)
}

/// Tells when the last full list of each host began, as is stored by now.
pub fn seen(stored: &[ObservedHost], hosts: &Hosts) {
    for host in stored {
        // A host that was never observed is as old as its registration.
        let at = host.observed_at.max(hosts.fresh(host.id));
        let at = at.unwrap_or(host.created_at);
        metrics::gauge!("windlass_host_observed_timestamp_seconds", "host" => host.name.clone())
            .set(at.timestamp_millis() as f64 / 1000.0);
    }
}
