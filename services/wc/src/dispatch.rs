//! Calls to agents, made outside the loop: a slow host or a slow kind of call holds up nothing else. What
//! failed comes back to the loop, which stores it; the calls themselves write nothing.

use std::{
    collections::{HashMap, HashSet},
    mem::Discriminant,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, Semaphore};
use tracing::{Instrument, Span};
use windlass_coordinator::{Agents, Channel, Hints, Lease};
use windlass_db::WorkspaceRecord;
use windlass_domain::{
    OpId, WorkspaceId,
    error_reason::Failure,
    planner::{Action, Call},
};

use crate::{
    account,
    call::{Answer, Order},
};

/// A failure that a call told.
#[derive(Clone, Debug)]
pub struct CallFailure {
    /// The operation it belongs to.
    pub op_id: OpId,
    /// The attempt that failed.
    pub attempt: u32,
    /// What failed.
    pub failure: Failure,
}

/// Makes calls to agents.
#[derive(Debug)]
pub struct Dispatcher {
    agents: Arc<Agents>,
    hints: Hints,
    bell: Arc<Notify>,
    stop_grace: Duration,
    calls_per_host: usize,
    limits: HashMap<(String, Discriminant<Action>), Arc<Semaphore>>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    in_flight: HashSet<WorkspaceId>,
    failures: HashMap<WorkspaceId, CallFailure>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Both collections are valid after any panic.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dispatcher {
    /// A dispatcher that rings `bell` when something failed.
    pub fn new(
        agents: Arc<Agents>,
        hints: Hints,
        bell: Arc<Notify>,
        stop_grace: Duration,
        calls_per_host: usize,
    ) -> Self {
        Self {
            agents,
            hints,
            bell,
            stop_grace,
            calls_per_host,
            limits: HashMap::new(),
            shared: Arc::default(),
        }
    }

    /// Asks for another pass.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// What failed since the last pass.
    pub fn failures(&self) -> HashMap<WorkspaceId, CallFailure> {
        std::mem::take(&mut lock(&self.shared).failures)
    }

    /// Those are not counted yet: they are for the next pass again, unless something newer was told.
    pub fn put_back(&self, failures: impl Iterator<Item = (WorkspaceId, CallFailure)>) {
        let mut shared = lock(&self.shared);
        for (id, failure) in failures {
            shared.failures.entry(id).or_insert(failure);
        }
    }

    /// Makes a call in the background, unless one for this workspace is still on its way, or failed since this
    /// pass began. `span`: that of the operation, if it is traced.
    pub fn call(
        &mut self,
        address: &str,
        record: &WorkspaceRecord,
        call: Call,
        lease: &Lease,
        span: Option<Span>,
    ) -> bool {
        let id = record.workspace.id;
        {
            let mut shared = lock(&self.shared);
            // A call that failed meanwhile is for the next pass to count: nothing runs for it till then.
            if shared.failures.contains_key(&id) || !shared.in_flight.insert(id) {
                return false;
            }
        }
        let kind = std::mem::discriminant(&call.action);
        let places = self.calls_per_host;
        let limit = self
            .limits
            .entry((address.to_owned(), kind))
            .or_insert_with(|| Arc::new(Semaphore::new(places)));
        let limit = Arc::clone(limit);
        let operation = record.workspace.control.operation;
        let span = span.unwrap_or_else(|| account::call_span(id, call.op_id, operation));
        let order = Order::new(record, call, lease, self.stop_grace);
        let (agents, address) = (Arc::clone(&self.agents), address.to_owned());
        let (hints, bell) = (self.hints.clone(), Arc::clone(&self.bell));
        let shared = Arc::clone(&self.shared);
        let placed = async move {
            let waiting = metrics::gauge!("windlass_wc_calls_waiting");
            waiting.increment(1.0);
            // The semaphore is never closed; without a permit the call would only be less limited.
            let _permit = limit.acquire().await;
            waiting.decrement(1.0);
            let in_flight = InFlight { shared, id };
            match order.place(&agents, &address).await {
                Answer::Done => hints.publish(Channel::Observer),
                Answer::UnderWay | Answer::NotNow => {}
                Answer::Failed(failure) => {
                    let failure = CallFailure {
                        op_id: order.op_id,
                        attempt: order.attempt,
                        failure,
                    };
                    lock(&in_flight.shared).failures.insert(id, failure);
                    drop(in_flight);
                    bell.notify_one();
                }
            }
        };
        tokio::spawn(placed.instrument(span));
        true
    }
}

/// Takes the workspace out of the set when the call ends, however it ends.
struct InFlight {
    shared: Arc<Mutex<Shared>>,
    id: WorkspaceId,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        lock(&self.shared).in_flight.remove(&self.id);
    }
}
