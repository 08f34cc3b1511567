//! Looks at all hosts at once, each with its own deadline.
//!
//! A pass waits for its looks for a moment only (the grace). A host that has not answered by then is looked at in
//! the background until its deadline, and from then on no pass waits for it until it has answered within a
//! moment again. Late answers ask for a pass; that pass asks the same host nothing new, so that a slow host
//! cannot keep the observer busy.
//!
//! Invariant: at most one look per host is under way, so answers are applied in the order of the questions.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures::future::join_all;
use tokio::sync::{
    Notify,
    oneshot::{self, error::TryRecvError},
};
use tokio_util::task::AbortOnDropHandle;
use windlass_coordinator::Agents;
use windlass_db::read::ObservedHost;
use windlass_domain::HostId;

use crate::look::{Answer, Ask, look};

/// The looks of one observer.
#[derive(Debug)]
pub struct Looks {
    agents: Arc<Agents>,
    timeout: Duration,
    grace: Duration,
    nudge: Arc<Notify>,
    hosts: HashMap<HostId, Slot>,
}

#[derive(Debug)]
struct Slot {
    address: String,
    under_way: Option<UnderWay>,
    /// Its last good answer outlived the grace, or it has not answered since it did.
    tardy: bool,
}

#[derive(Debug)]
struct UnderWay {
    began_at: DateTime<Utc>,
    late: Arc<AtomicBool>,
    answer: oneshot::Receiver<Answer>,
    /// `Err`: the look panicked.
    ended: Option<Result<Answer, ()>>,
    _task: AbortOnDropHandle<()>,
}

impl UnderWay {
    async fn wait(&mut self) {
        if self.ended.is_none() {
            let answer = (&mut self.answer).await;
            self.ended = Some(answer.map_err(drop));
        }
    }

    fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = match self.answer.try_recv() {
                Ok(answer) => Some(Ok(answer)),
                Err(TryRecvError::Closed) => Some(Err(())),
                Err(TryRecvError::Empty) => None,
            };
        }
        self.ended.is_some()
    }
}

/// An answer that came in.
#[derive(Debug)]
pub struct Looked {
    /// Whose.
    pub host: HostId,
    /// When the pass began that asked, by PostgreSQL's clock.
    pub began_at: DateTime<Utc>,
    /// What it said.
    pub answer: Answer,
}

impl Looks {
    /// Looks that take `timeout` at most, and are waited for as long as `grace`; `nudge` is notified when a late one
    /// ends well.
    pub fn new(
        agents: Arc<Agents>,
        timeout: Duration,
        grace: Duration,
        nudge: Arc<Notify>,
    ) -> Self {
        Self {
            agents,
            timeout,
            grace,
            nudge,
            hosts: HashMap::new(),
        }
    }

    /// Goes on with exactly these hosts. Returns those that are new or have another address: nothing that
    /// was known of them counts.
    pub fn keep(&mut self, hosts: &[ObservedHost]) -> Vec<HostId> {
        self.hosts.retain(|id, slot| {
            hosts
                .iter()
                .any(|h| h.id == *id && h.address == slot.address)
        });
        let mut new = Vec::new();
        for host in hosts {
            self.hosts.entry(host.id).or_insert_with(|| {
                new.push(host.id);
                Slot {
                    address: host.address.clone(),
                    under_way: None,
                    tardy: false,
                }
            });
        }
        new
    }

    /// Forgets all looks under way.
    pub fn clear(&mut self) {
        self.hosts.clear();
    }

    /// Begins a look, unless one is under way.
    pub fn begin(&mut self, host: HostId, ask: Ask, began_at: DateTime<Utc>) {
        let Some(slot) = self.hosts.get_mut(&host).filter(|s| s.under_way.is_none()) else {
            return;
        };
        let late = Arc::new(AtomicBool::new(false));
        let is_late = Arc::clone(&late);
        let (client, timeout) = (self.agents.client(&slot.address), self.timeout);
        let nudge = Arc::clone(&self.nudge);
        let (told, answer) = oneshot::channel();
        let task = tokio::spawn(async move {
            let answer = match client {
                Ok(client) => look(client, ask, timeout).await,
                Err(error) => Answer {
                    host: Err(error.to_string()),
                    archives: Err(error.to_string()),
                    scope: ask.scope,
                    proved: ask.prove,
                    took: Duration::ZERO,
                },
            };
            let is_good = answer.host.is_ok();
            // The observer may have forgotten this look.
            let _ = told.send(answer);
            if is_late.load(Ordering::SeqCst) && is_good {
                nudge.notify_one();
            }
        });
        slot.under_way = Some(UnderWay {
            began_at,
            late,
            answer,
            ended: None,
            _task: AbortOnDropHandle::new(task),
        });
    }

    /// Waits until everybody has answered who is waited for, or for the grace.
    pub async fn wait(&mut self) {
        let waited_for = self.hosts.values_mut().filter(|slot| !slot.tardy);
        let looks = waited_for.filter_map(|slot| slot.under_way.as_mut().map(UnderWay::wait));
        // What came in until then is kept.
        let _ = tokio::time::timeout(self.grace, join_all(looks)).await;
        for slot in self.hosts.values_mut() {
            if let Some(under_way) = &mut slot.under_way
                && !under_way.has_ended()
            {
                under_way.late.store(true, Ordering::SeqCst);
                // One that has ended meanwhile need not have seen that it is late.
                slot.tardy |= !under_way.has_ended();
            }
        }
    }

    /// Takes the answers that are there.
    pub fn take(&mut self) -> Vec<Looked> {
        let mut taken = Vec::new();
        for (host, slot) in &mut self.hosts {
            let Some(under_way) = slot.under_way.take_if(UnderWay::has_ended) else {
                continue;
            };
            // A look that panicked is a bug; the next one may do better.
            if let Some(Ok(answer)) = under_way.ended {
                slot.tardy &= answer.host.is_err() || answer.took > self.grace;
                taken.push(Looked {
                    host: *host,
                    began_at: under_way.began_at,
                    answer,
                });
            }
        }
        taken
    }
}
