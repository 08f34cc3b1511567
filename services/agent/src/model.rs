//! What this agent knows of its host: a cache of reality, never its replacement.
//!
//! [`HostModel`] holds containers, volumes and jobs, each with the revision at which it last changed.
//! One task ([`crate::feed`]) writes it; everybody reads. Invariants: what is told was read from the
//! engine, and says how old the last full list is that proved it; while the engine cannot be listed,
//! nothing is told of the host but why.

mod host;
mod ledger;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;
use windlass_proto::v1;

use crate::error::{Failure, Reason};
use crate::feed::Dirty;

pub use host::{Found, HostEntry, HostKey, HostModel};
pub use ledger::{Delta, Ledger, MAX_REMOVED, NoPosition, Position};

/// A full list that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Grows with every one, from 1.
    pub number: u64,
    /// When it began.
    pub began: Instant,
}

/// The model, shared; cheap to clone.
#[derive(Debug, Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dirty: Dirty,
    state: Mutex<State>,
    /// Full lists that ended, well or not.
    ended: watch::Sender<Ended>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ended {
    lists: u64,
    /// The last ask that had come before the last of them began.
    asks: u64,
    /// There will be no more.
    closed: bool,
}

#[derive(Debug)]
struct State {
    host: HostModel,
    proof: Option<Proof>,
    /// Why the last full list failed.
    failure: Option<Failure>,
}

impl Model {
    /// Nothing is known yet. What is asked for goes to `dirty`.
    pub fn new(dirty: Dirty) -> Self {
        Self {
            inner: Arc::new(Inner {
                dirty,
                state: Mutex::new(State {
                    host: HostModel::new(Uuid::new_v4()),
                    proof: None,
                    failure: None,
                }),
                ended: watch::Sender::default(),
            }),
        }
    }

    /// Has the engine listed in full by a list that begins after this call. Calls that come before one
    /// begins share it.
    ///
    /// # Errors
    /// When that list failed, or there will be none.
    pub async fn prove(&self) -> Result<(), Failure> {
        self.asked(self.inner.dirty.ask(false)).await
    }

    /// The same for who asks for containers or for volumes only: the list waits a moment for who asks for the
    /// others, so that both share it.
    ///
    /// # Errors
    /// As [`Model::prove`].
    pub async fn prove_half(&self) -> Result<(), Failure> {
        self.asked(self.inner.dirty.ask(true)).await
    }

    async fn asked(&self, ask: u64) -> Result<(), Failure> {
        let mut ended = self.inner.ended.subscribe();
        let answered = ended
            .wait_for(|ended| ended.closed || ended.asks >= ask)
            .await
            .is_ok_and(|ended| ended.asks >= ask);
        if !answered {
            return Err(Failure::new(Reason::Stopping, "the agent is stopping"));
        }
        self.lock().failure.clone().map_or(Ok(()), Err)
    }

    /// Waits for the first list to end, so long at most.
    pub async fn ready(&self, wait: Duration) {
        let mut ended = self.inner.ended.subscribe();
        let first = ended.wait_for(|ended| ended.lists > 0);
        // What it came to is told by `since`.
        let _ = tokio::time::timeout(wait, first).await;
    }

    /// What changed after a position.
    ///
    /// # Errors
    /// When nothing can be told: the engine was not listed yet, or could not be when last tried.
    pub fn since(&self, position: Option<Position>) -> Result<Delta<HostKey, HostEntry>, Failure> {
        Ok(self.proven_state()?.host.since(position))
    }

    /// All containers.
    ///
    /// # Errors
    /// As [`Model::since`].
    pub fn containers(&self) -> Result<Vec<v1::Container>, Failure> {
        let state = self.proven_state()?;
        let containers = state.host.iter().filter_map(|(_, entry)| match &**entry {
            HostEntry::Container(container) => Some(container.clone()),
            HostEntry::Volume(_) | HostEntry::Jobs(_) => None,
        });
        Ok(containers.collect())
    }

    /// All volumes.
    ///
    /// # Errors
    /// As [`Model::since`].
    pub fn volumes(&self) -> Result<Vec<v1::Volume>, Failure> {
        let state = self.proven_state()?;
        let volumes = state.host.iter().filter_map(|(_, entry)| match &**entry {
            HostEntry::Volume(volume) => Some(volume.clone()),
            HostEntry::Container(_) | HostEntry::Jobs(_) => None,
        });
        Ok(volumes.collect())
    }

    /// The last full list that succeeded.
    pub fn proof(&self) -> Option<Proof> {
        self.lock().proof
    }

    /// What is known of one thing, whatever became of the last list.
    pub fn get(&self, key: &HostKey) -> Option<Arc<HostEntry>> {
        self.lock().host.get(key).cloned()
    }

    /// Whether the last list failed.
    pub fn is_failing(&self) -> bool {
        self.lock().failure.is_some()
    }

    /// The feed changes the model.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut HostModel) -> T) -> T {
        change(&mut self.lock().host)
    }

    /// A full list that began at `began`, after `asks` asks, succeeded and is in the model.
    pub(crate) fn proven(&self, began: Instant, asks: u64) {
        {
            let mut state = self.lock();
            let number = state.proof.map_or(1, |proof| proof.number + 1);
            state.proof = Some(Proof { number, began });
            state.failure = None;
        }
        self.end_list(asks);
    }

    /// A full list that began after `asks` asks failed.
    pub(crate) fn failed(&self, failure: Failure, asks: u64) {
        self.lock().failure = Some(failure);
        self.end_list(asks);
    }

    /// There will be no more lists.
    pub(crate) fn close(&self) {
        self.inner.ended.send_modify(|ended| ended.closed = true);
    }

    fn proven_state(&self) -> Result<MutexGuard<'_, State>, Failure> {
        let state = self.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if state.proof.is_none() {
            return Err(Failure::new(
                Reason::EngineUnavailable,
                "the engine has not answered the first list yet",
            ));
        }
        Ok(state)
    }

    fn end_list(&self, asks: u64) {
        self.inner.ended.send_modify(|ended| {
            ended.lists += 1;
            ended.asks = asks;
        });
    }

    // Every change leaves a whole state behind, so a panic elsewhere does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
