//! What a pass decides, pure: each workspace is planned by itself, and then the queue says which of those
//! that would begin something find a place.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::{Builder, Uuid};
use windlass_db::WorkspaceRecord;
use windlass_domain::{
    Control, OpId, Operation, Policy, WorkspaceId,
    planner::{self, Context, Plan},
    queue::{Depth, Queue},
};

use crate::{dispatch::CallFailure, places::Places};

/// The numbers that a pass goes by.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// Limits and periods.
    pub policy: Policy,
    /// Operations at work at a time on one host.
    pub places: Places,
}

/// How many operations of each kind are at work and wait.
pub type Depths = HashMap<Operation, Depth>;

/// Plans every workspace of a pass, and tells how long the queue is. All that are at work have to be among
/// `records`.
pub fn plan(
    records: &[WorkspaceRecord],
    failures: &HashMap<WorkspaceId, CallFailure>,
    numbers: &Numbers,
    now: DateTime<Utc>,
) -> (Vec<Plan>, Depths) {
    let ids = OpIds::new();
    let mut plans: Vec<Plan> = (0..)
        .zip(records)
        .map(|(n, record)| {
            let cx = Context {
                fresh: &record.fresh,
                policy: &numbers.policy,
                now,
                new_op: ids.nth(n),
            };
            decide(record, &cx, failures.get(&record.workspace.id))
        })
        .collect();
    let mut queue = Queue::default();
    for (record, plan) in records.iter().zip(&plans) {
        queue.add(&record.workspace, plan);
    }
    let places = |operation| numbers.places.of(operation);
    let depths = queue.depths(places);
    let waiting = queue.left_waiting(places);
    for (record, plan) in records.iter().zip(&mut plans) {
        if waiting.contains(&record.workspace.id) {
            plan.wait();
        }
    }
    (plans, depths)
}

/// A failure that a call told goes before everything else.
fn decide(record: &WorkspaceRecord, cx: &Context, failure: Option<&CallFailure>) -> Plan {
    let ws = &record.workspace;
    let failed = failure
        .and_then(|f| planner::record_failure(ws, cx, f.op_id, f.attempt, f.failure.clone()));
    match failed {
        Some(next) => Plan::nothing_more(next),
        None => planner::reconcile(ws, cx),
    }
}

/// Whether something is at work, waits for its place, or is to be tried again.
pub fn in_progress(control: &Control) -> bool {
    control.operation != Operation::None || control.op_started_at.is_some()
}

/// Ids for the operations that may begin in one pass: random, but drawn once.
struct OpIds(u128);

impl OpIds {
    fn new() -> Self {
        Self(Uuid::new_v4().as_u128())
    }

    fn nth(&self, n: u128) -> OpId {
        let bytes = self.0.wrapping_add(n).to_be_bytes();
        OpId(Builder::from_random_bytes(bytes).into_uuid())
    }
}
