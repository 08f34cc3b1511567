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

/// A workspace and what is planned for it.
#[derive(Debug)]
pub struct Planned {
    /// The workspace.
    pub record: WorkspaceRecord,
    /// Its plan.
    pub plan: Plan,
}

impl Planned {
    /// Whether nothing is stored or called for it, and it neither holds a place nor waits for one: so nothing that
    /// is planned for another one concerns it.
    pub fn is_at_rest(&self) -> bool {
        let Plan {
            next,
            call,
            held_back,
            ..
        } = &self.plan;
        *next == self.record.workspace.control
            && call.is_none()
            && held_back.is_none()
            && !in_progress(next)
    }
}

/// Plans the workspaces of one pass, each by itself.
#[derive(Debug)]
pub struct Planner<'a> {
    policy: &'a Policy,
    failures: &'a HashMap<WorkspaceId, CallFailure>,
    ids: OpIds,
}

impl<'a> Planner<'a> {
    /// `failures` are what calls have told.
    pub fn new(policy: &'a Policy, failures: &'a HashMap<WorkspaceId, CallFailure>) -> Self {
        Self {
            policy,
            failures,
            ids: OpIds::new(),
        }
    }

    /// Plans a workspace as it was read at `now`.
    pub fn plan(&mut self, record: WorkspaceRecord, now: DateTime<Utc>) -> Planned {
        let cx = Context {
            fresh: &record.fresh,
            policy: self.policy,
            now,
            new_op: self.ids.draw(),
        };
        let plan = decide(&record, &cx, self.failures.get(&record.workspace.id));
        Planned { record, plan }
    }
}

/// Has those wait that would begin something and find no place, and tells how long the queue is. All that are at
/// work have to be among them.
pub fn queue(planned: &mut [Planned], places: &Places) -> Depths {
    let (depths, waiting) = {
        let mut queue = Queue::default();
        for Planned { record, plan } in planned.iter() {
            queue.add(&record.workspace, plan);
        }
        let places = |operation| places.of(operation);
        (queue.depths(places), queue.left_waiting(places))
    };
    for Planned { record, plan } in planned {
        if waiting.contains(&record.workspace.id) {
            plan.wait();
        }
    }
    depths
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

/// Ids for the operations that may begin in one pass: random, but asked for once.
#[derive(Debug)]
struct OpIds(u128);

impl OpIds {
    fn new() -> Self {
        Self(Uuid::new_v4().as_u128())
    }

    fn draw(&mut self) -> OpId {
        let bytes = self.0.to_be_bytes();
        self.0 = self.0.wrapping_add(1);
        OpId(Builder::from_random_bytes(bytes).into_uuid())
    }
}
