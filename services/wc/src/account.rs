//! What is told of a pass beside what it stores: how operations went and how many workspaces are in which
//! phase, as metrics; and the spans of operations that a user's call led to.
//!
//! A span of an operation lives here as long as the operation, across passes, and in memory only: a process that
//! takes over goes on in the same trace with a span of its own. Rows whose call is in no sampled trace, or was
//! long ago, cost a look at one column.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use tracing::{Span, field::Empty};
use windlass_db::WorkspaceRecord;
use windlass_domain::{
    Control, ErrorReason, OpId, Operation, Phase, Shard, Workspace, WorkspaceId, planner,
};
use windlass_service::{TraceContext, trace};

use crate::plan::Depths;

/// Spans of changed rows that one pass makes at most.
const MAX_SPANS: usize = 100;

/// The books of wc's passes.
#[derive(Debug, Default)]
pub struct Account {
    operations: HashMap<WorkspaceId, (OpId, Span)>,
    pass: Vec<Entry>,
    /// Every workspace of the shard that is not gone for good.
    living: HashMap<WorkspaceId, Counted>,
}

/// What is counted of a workspace.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    phase: Phase,
    reason: Option<ErrorReason>,
    late: bool,
}

impl Counted {
    /// Of a workspace that was read at `now`, with what it is from now on.
    pub fn of(ws: &Workspace, next: &Control, now: DateTime<Utc>) -> Self {
        Self {
            phase: next.phase,
            reason: next.error_reason,
            late: planner::checkpoint_is_late(ws, now),
        }
    }
}

/// What a pass decided for a row, until it is stored.
#[derive(Debug)]
struct Entry {
    id: WorkspaceId,
    ended: Option<Ended>,
    failed: Option<(Operation, ErrorReason)>,
    /// Ends with the entry: it covers what is stored.
    _reconcile: Span,
}

#[derive(Debug)]
struct Ended {
    operation: Operation,
    result: &'static str,
    seconds: f64,
}

/// How many workspaces of a shard there are, of each kind that is told.
#[derive(Debug, Default)]
struct Census {
    phases: HashMap<Phase, u32>,
    reasons: HashMap<ErrorReason, u32>,
    late: u32,
}

impl Census {
    fn tell(&self, shard: Shard) {
        let shard = shard.index().to_string();
        for &phase in Phase::ALL {
            let count = self.phases.get(&phase).copied().unwrap_or(0);
            let labels = [
                ("phase", phase.as_str().to_owned()),
                ("shard", shard.clone()),
            ];
            metrics::gauge!("windlass_workspaces", &labels).set(count);
        }
        for &reason in ErrorReason::ALL {
            let count = self.reasons.get(&reason).copied().unwrap_or(0);
            let labels = [
                ("reason", reason.as_str().to_owned()),
                ("shard", shard.clone()),
            ];
            metrics::gauge!("windlass_workspaces_with_error", &labels).set(count);
        }
        metrics::gauge!("windlass_checkpoints_late", "shard" => shard).set(self.late);
    }
}

/// Counters of failures begin at 0: of one that is born with the first failure, no increase is seen.
pub fn begin_counting() {
    for operation in Operation::ALL {
        for reason in ErrorReason::ALL {
            metrics::counter!(
                "windlass_operation_failures_total",
                "operation" => operation.as_str(), "reason" => reason.as_str()
            )
            .increment(0);
        }
    }
}

/// Tells how many operations of a shard are at work and how many wait.
pub fn tell_queue(shard: Shard, depths: &Depths) {
    for &operation in Operation::ALL {
        if operation == Operation::None {
            continue;
        }
        let depth = depths.get(&operation).copied().unwrap_or_default();
        let labels = [
            ("operation", operation.as_str().to_owned()),
            ("shard", shard.index().to_string()),
        ];
        metrics::gauge!("windlass_operations_at_work", &labels).set(depth.at_work as f64);
        metrics::gauge!("windlass_operations_waiting", &labels).set(depth.waiting as f64);
    }
}

impl Account {
    /// Notes what was decided for a row, and returns the span of its operation: calls for it are made in it.
    pub fn decided(
        &mut self,
        record: &WorkspaceRecord,
        next: &Control,
        now: DateTime<Utc>,
    ) -> Option<Span> {
        let before = &record.workspace.control;
        let parent = parent_of(record, next, now);
        let span = self.operation_span(record, next, parent.as_ref());
        if next == before {
            return span;
        }
        let reconcile = match &parent {
            Some(parent) if self.pass.len() < MAX_SPANS => {
                reconcile_span(record, next, span.as_ref(), parent)
            }
            Some(_) | None => Span::none(),
        };
        self.pass.push(Entry {
            id: record.workspace.id,
            ended: ended(before, next, now),
            failed: failure(before, next),
            _reconcile: reconcile,
        });
        span
    }

    /// Counts what was stored; for workspaces in `held_back` nothing was.
    pub fn stored(&mut self, held_back: &HashSet<WorkspaceId>) {
        for entry in self.pass.drain(..) {
            if held_back.contains(&entry.id) {
                continue;
            }
            if let Some((operation, reason)) = entry.failed {
                metrics::counter!(
                    "windlass_operation_failures_total",
                    "operation" => operation.as_str(), "reason" => reason.as_str()
                )
                .increment(1);
            }
            let Some(ended) = entry.ended else { continue };
            metrics::histogram!(
                "windlass_operation_duration_seconds",
                "operation" => ended.operation.as_str(), "result" => ended.result
            )
            .record(ended.seconds);
        }
    }

    /// Forgets what an earlier pass that failed left here. To be called when one begins.
    pub fn begin(&mut self) {
        self.pass.clear();
    }

    /// Counts the workspaces of a shard: by phase, those with an error by its reason, and those whose checkpoint
    /// is late; and forgets spans of those that are gone. `looked_at` are the rows of this pass, with what
    /// they are from now on: every change of a row is looked at, and so is an overdue checkpoint, so the
    /// others are as they were. A `whole` pass begins anew.
    pub fn census(
        &mut self,
        shard: Shard,
        whole: bool,
        looked_at: impl Iterator<Item = (WorkspaceId, Counted)>,
    ) {
        let mut ids = HashSet::new();
        if whole {
            self.living.clear();
        }
        for (id, counted) in looked_at {
            ids.insert(id);
            match counted.phase {
                Phase::Deleted => self.living.remove(&id),
                _ => self.living.insert(id, counted),
            };
        }
        // What is at work is looked at in every pass.
        self.operations.retain(|id, _| ids.contains(id));
        let mut census = Census::default();
        for counted in self.living.values() {
            *census.phases.entry(counted.phase).or_default() += 1;
            if let Some(reason) = counted.reason {
                *census.reasons.entry(reason).or_default() += 1;
            }
            census.late += u32::from(counted.late);
        }
        census.tell(shard);
    }

    /// Another replica counts the shard from now on.
    pub fn over(&mut self, shard: Shard) {
        Census::default().tell(shard);
        tell_queue(shard, &Depths::default());
        self.living.clear();
        self.operations.clear();
    }

    fn operation_span(
        &mut self,
        record: &WorkspaceRecord,
        next: &Control,
        parent: Option<&TraceContext>,
    ) -> Option<Span> {
        if !trace::enabled() {
            return None;
        }
        let id = record.workspace.id;
        if let Some((op_id, span)) = self.operations.get(&id) {
            if next.op_id == Some(*op_id) && next.operation != Operation::None {
                return Some(span.clone());
            }
            end(span, next);
            self.operations.remove(&id);
        }
        let op_id = next.op_id.filter(|_| next.operation != Operation::None)?;
        let span = call_span(id, op_id, next.operation);
        trace::join(&span, parent?);
        trace::name(&span, format!("operation {}", next.operation));
        trace::attribute(&span, "host_id", record.workspace.host_id.to_string());
        trace::attribute(&span, "phase", next.phase.as_str());
        self.operations.insert(id, (op_id, span.clone()));
        Some(span)
    }
}

/// The span that calls for an operation are made in: the log shows it, traced or not.
pub fn call_span(id: WorkspaceId, op_id: OpId, operation: Operation) -> Span {
    tracing::info_span!(
        parent: None,
        "operation",
        workspace_id = %id,
        op_id = %op_id,
        operation = operation.as_str(),
        trace_id = Empty
    )
}

/// The trace that what happens to the row now belongs to: it counts from when the operation began.
fn parent_of(record: &WorkspaceRecord, next: &Control, now: DateTime<Utc>) -> Option<TraceContext> {
    if !trace::enabled() {
        return None;
    }
    // Nobody asked for a checkpoint now.
    if next.operation == Operation::Checkpointing {
        return None;
    }
    let before = &record.workspace.control;
    let began = next.op_started_at.or(before.op_started_at).unwrap_or(now);
    record.trace_at(began)?.parse().ok()
}

fn reconcile_span(
    record: &WorkspaceRecord,
    next: &Control,
    operation: Option<&Span>,
    parent: &TraceContext,
) -> Span {
    let span = tracing::info_span!(
        parent: None,
        "reconcile",
        workspace_id = %record.workspace.id,
        trace_id = Empty
    );
    let within = operation.and_then(TraceContext::of);
    trace::join(&span, within.as_ref().unwrap_or(parent));
    trace::attribute(&span, "phase", next.phase.as_str());
    trace::attribute(&span, "operation", next.operation.as_str());
    if let Some(op_id) = next.op_id {
        trace::attribute(&span, "op_id", op_id.to_string());
    }
    span
}

/// Ends the span of an operation: entering it last is what gives it its end.
fn end(span: &Span, next: &Control) {
    if next.phase == Phase::Error {
        let reason = next.error_reason.map_or("?", ErrorReason::as_str);
        trace::failed(span, reason);
    }
    span.in_scope(|| tracing::debug!(phase = next.phase.as_str(), "the operation is over"));
}

fn ended(before: &Control, next: &Control, now: DateTime<Utc>) -> Option<Ended> {
    let going_on = next.operation != Operation::None && next.op_id == before.op_id;
    if before.operation == Operation::None || going_on {
        return None;
    }
    let result = match (next.phase, next.error_reason) {
        (Phase::Error, _) => "failed",
        (_, Some(_)) => "given_up",
        (_, None) => "succeeded",
    };
    let took = now - before.op_started_at?;
    Some(Ended {
        operation: before.operation,
        result,
        seconds: took.as_seconds_f64().max(0.0),
    })
}

/// A failed attempt: one more was counted, or a reason came that needs no counting.
fn failure(before: &Control, next: &Control) -> Option<(Operation, ErrorReason)> {
    let reason = next.error_reason?;
    let counted = next.error_count > before.error_count;
    (counted || before.error_reason != Some(reason)).then_some((before.operation, reason))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use uuid::Uuid;

    use super::*;

    fn control(operation: Operation, op: Option<u128>, now: DateTime<Utc>) -> Control {
        Control {
            operation,
            op_id: op.map(|op| OpId(Uuid::from_u128(op))),
            op_started_at: op.map(|_| now),
            ..Control::new(now)
        }
    }

    #[test]
    fn an_operation_ends_once_with_its_result() {
        let began = Utc::now();
        let now = began + TimeDelta::seconds(3);
        let running = control(Operation::Starting, Some(1), began);
        assert!(ended(&running, &running, now).is_none());
        assert!(ended(&control(Operation::None, None, began), &running, now).is_none());

        let done = control(Operation::None, None, began);
        let told = ended(&running, &done, now).unwrap();
        assert_eq!(
            (told.operation, told.result),
            (Operation::Starting, "succeeded")
        );
        assert!((told.seconds - 3.0).abs() < 1e-9);
        // The next one may begin at once.
        let next = control(Operation::Stopping, Some(2), now);
        assert_eq!(ended(&running, &next, now).unwrap().result, "succeeded");

        let mut broken = done.clone();
        broken.error_reason = Some(ErrorReason::Timeout);
        assert_eq!(ended(&running, &broken, now).unwrap().result, "given_up");
        broken.phase = Phase::Error;
        assert_eq!(ended(&running, &broken, now).unwrap().result, "failed");
    }

    #[test]
    fn each_failed_attempt_counts_once() {
        let now = Utc::now();
        let running = control(Operation::Starting, Some(1), now);
        assert_eq!(failure(&running, &running), None);
        let mut failed = running.clone();
        (failed.error_count, failed.error_reason) = (1, Some(ErrorReason::CrashLoop));
        let told = Some((Operation::Starting, ErrorReason::CrashLoop));
        assert_eq!(failure(&running, &failed), told);
        assert_eq!(failure(&failed, &failed), None);
        let mut again = failed.clone();
        again.error_count = 2;
        assert_eq!(failure(&failed, &again), told);
    }
}
