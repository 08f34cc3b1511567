//! One pass: read what changed of the rows, ask all hosts what changed there, decide about what was touched,
//! store it and wake wc.
//!
//! An idle pass costs two statements and a call per host. Conditions are compared with what is stored, never
//! with what was meant to be stored: the rows in memory change when a write is committed, and what could not
//! be written is decided about again (docs/adr/020).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::{sync::Notify, time::Instant};
use windlass_coordinator::{Agents, Channel, Hints, Lease, Pass, PassError, Verdict};
use windlass_db::{
    Pool,
    read::{ObservedHost, ObservedHosts},
    write::observer::{Noted, Observation},
};
use windlass_domain::{Conditions, HostId, WorkspaceId, observation};
use windlass_proto::{
    convert,
    v1::{ArchiveScope, HostObservation, ObserveResponse},
};

use crate::{
    account,
    events::Events,
    hosts::Hosts,
    look::Ask,
    looks::{Looked, Looks},
    pending::Pending,
    rows::Rows,
    store::Store,
};

/// The numbers of the observer.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a host may take to answer.
    pub timeout: Duration,
    /// How long a pass waits for hosts that were as quick the last time.
    pub grace: Duration,
    /// An observation of a host older than this starts nothing in wc. One half as old is asked to be proven
    /// anew, whatever interval the agent goes by.
    pub stale_after: Duration,
}

/// The observer's pass.
#[derive(Debug)]
pub struct Observe {
    pool: Pool,
    hints: Hints,
    events: Option<Events>,
    settings: Settings,
    rows: Rows,
    looks: Looks,
    hosts: Hosts,
    store: Store,
    pending: Pending,
}

/// Which units were observed in a pass, and what they concern.
#[derive(Debug, Default)]
struct Seen {
    hosts: HashSet<HostId>,
    store: bool,
    job_ended: bool,
    touched: HashSet<WorkspaceId>,
}

impl Observe {
    /// A pass over all hosts. `nudge` is notified when an answer comes late.
    pub fn new(
        pool: Pool,
        agents: Arc<Agents>,
        hints: Hints,
        events: Option<Events>,
        nudge: Arc<Notify>,
        settings: Settings,
    ) -> Self {
        Self {
            pool,
            hints,
            events,
            settings,
            rows: Rows::default(),
            looks: Looks::new(agents, settings.timeout, settings.grace, nudge),
            hosts: Hosts::default(),
            store: Store::default(),
            pending: Pending::default(),
        }
    }
}

impl Pass for Observe {
    type Request = ();
    type Report = ObserveResponse;

    async fn pass(
        &mut self,
        lease: &Lease,
        (): Self::Request,
    ) -> Result<Verdict<ObserveResponse>, PassError> {
        let began = Instant::now();

        // Load.
        let (now, stored) = self.load(lease).await?;
        let seen = self.look(now, &stored).await;

        // Decide.
        let changed = self.changed(now, &seen);
        let observation = self.observation(lease, &stored, changed);
        let proven = self.proves(&stored, &observation.hosts);

        // Act.
        self.pending
            .write(observation.changed.iter().map(|(id, _)| *id));
        let changed = observation.changed.clone();
        let spans = account::spans(&self.rows, &changed, now);
        let done = self.pool.store_observation(lease, observation).await?;
        let written = done.rows;
        drop(spans);
        self.pending.written();
        self.store.noted();
        self.rows.committed(done.version, changed);
        if written > 0 || proven || seen.job_ended {
            self.hints.publish(Channel::Wc);
        }
        if written > 0 {
            self.hints.publish(Channel::Watch);
        }

        account::seen(&stored.hosts, &self.hosts);
        let mut report = self.report(&stored);
        report.changed = written as u32;
        report.duration = TimeDelta::from_std(began.elapsed())
            .ok()
            .map(convert::duration);
        let waits = self.waiting(&stored, now, |host| seen.hosts.contains(&host));
        Ok(Verdict {
            report,
            active: self.rows.is_active() || written > 0 || !waits.is_empty(),
        })
    }

    /// Whoever leads next begins anew, so nothing of it is of use any more.
    fn over(&mut self, _lease: &Lease) {
        self.rows = Rows::default();
        self.forget_hosts();
        if let Some(events) = &mut self.events {
            events.follow(&[]);
        }
    }
}

impl Observe {
    async fn load(&mut self, lease: &Lease) -> Result<(DateTime<Utc>, ObservedHosts), PassError> {
        let (now, stored) = futures::join!(
            self.rows.read(&self.pool, lease),
            self.pool.observed_hosts()
        );
        let (now, mut stored) = (now?, stored?);
        stored.hosts.retain(|h| lease.shard.owns(h.id.0));
        if self.rows.take_anew() {
            self.forget_hosts();
        }
        let new = self.looks.keep(&stored.hosts);
        self.hosts.keep(&stored.hosts, &new);
        // Of a host at a new address, the first answer does not tell what is gone with the old one.
        self.rows.undecide(&new);
        let known: Vec<HostId> = ids(&stored).filter(|id| !new.contains(id)).collect();
        self.store.keep(&known);
        self.store.keep(&ids(&stored).collect::<Vec<_>>());
        if let Some(events) = &mut self.events {
            events.follow(&stored.hosts);
        }
        Ok((now, stored))
    }

    fn forget_hosts(&mut self) {
        self.looks.clear();
        self.hosts = Hosts::default();
        self.store = Store::default();
        self.pending = Pending::default();
    }

    /// Asks all hosts, and takes what they answer in time, or answered since the last pass.
    async fn look(&mut self, now: DateTime<Utc>, stored: &ObservedHosts) -> Seen {
        let mut seen = Seen::default();
        let late = self.looks.take();
        let answered: HashSet<HostId> = late.iter().map(|l| l.host).collect();
        self.apply(late, stored, &mut seen);
        let prove = self.to_prove(stored, now);
        for host in ids(stored).filter(|id| !answered.contains(id)) {
            let (scope, archive_position) = self.store.question(host);
            let ask = Ask {
                host_position: self.hosts.position(host),
                archive_position,
                scope,
                prove: prove.contains(&host),
            };
            self.looks.begin(host, ask, now);
        }
        self.looks.wait().await;
        let looked = self.looks.take();
        self.apply(looked, stored, &mut seen);
        seen
    }

    fn apply(&mut self, looked: Vec<Looked>, stored: &ObservedHosts, seen: &mut Seen) {
        let hosts: Vec<HostId> = ids(stored).collect();
        for Looked {
            host,
            began_at,
            answer,
        } in looked
        {
            let mut reached = true;
            match answer.host {
                Ok(news) => {
                    seen.job_ended |= news.tells_an_end();
                    let touched = self.hosts.answered(host, news, began_at, answer.proved);
                    seen.touched.extend(touched);
                    seen.hosts.insert(host);
                }
                Err(error) => {
                    reached = answer.archives.is_ok();
                    self.hosts.failed(host, error);
                }
            }
            match answer.archives {
                Ok(news) => {
                    let is_all = answer.scope == ArchiveScope::All;
                    seen.store |= is_all && self.store.asked() == Some(host);
                    let touched = self.store.apply(host, answer.scope, news, began_at);
                    seen.touched.extend(touched);
                }
                Err(error) => self.store.failed(host, reached, &error, &hosts),
            }
        }
    }

    /// Hosts to be listed in full now: a decision waits for it, or the last list is getting old.
    fn to_prove(&self, stored: &ObservedHosts, now: DateTime<Utc>) -> HashSet<HostId> {
        let half = TimeDelta::from_std(self.settings.stale_after / 2).unwrap_or(TimeDelta::MAX);
        let old = |h: &&ObservedHost| h.observed_at.is_some_and(|at| now - at > half);
        let mut prove = self.waiting(stored, now, |_| true);
        prove.extend(stored.hosts.iter().filter(old).map(|h| h.id));
        prove
    }

    /// Hosts, of those that `of` admits, of which some decision waits for a full list that can be had by now.
    fn waiting(
        &self,
        stored: &ObservedHosts,
        now: DateTime<Utc>,
        of: impl Fn(HostId) -> bool,
    ) -> HashSet<HostId> {
        let observed: HashMap<HostId, Option<DateTime<Utc>>> =
            stored.hosts.iter().map(|h| (h.id, h.observed_at)).collect();
        let waits = |host: HostId, after: DateTime<Utc>| {
            let at = observed.get(&host).copied().flatten();
            after < now && at.is_none_or(|at| at <= after)
        };
        self.rows
            .awaiting()
            .filter(|(host, after)| of(*host) && waits(*host, *after))
            .map(|(host, _)| host)
            .collect()
    }

    /// Whether what is about to be stored of the hosts is what some decision waits for.
    fn proves(&self, stored: &ObservedHosts, notes: &[(HostId, Noted)]) -> bool {
        self.rows.awaiting().any(|(host, after)| {
            let before = stored.hosts.iter().find(|h| h.id == host);
            let note = notes.iter().find(|(id, _)| *id == host);
            let is = note.and_then(|(_, n)| n.observed_at);
            let was = before.and_then(|h| h.observed_at);
            is.is_some_and(|at| at > after) && was.is_none_or(|at| at <= after)
        })
    }

    /// The conditions that changed, of what was touched.
    fn changed(&mut self, now: DateTime<Utc>, seen: &Seen) -> Vec<(WorkspaceId, Arc<Conditions>)> {
        let mut touched = self.pending.due(&seen.hosts, seen.store);
        touched.extend(&seen.touched);
        touched.extend(self.rows.take_undecided());
        let mut changed = Vec::new();
        for id in touched {
            let Some(row) = self.rows.get(id) else {
                continue; // its row comes with a later read, or never
            };
            let host = seen.hosts.contains(&row.host_id);
            let host = host.then(|| self.hosts.seen(row.host_id, id));
            let archives = seen.store.then(|| self.store.seen(id));
            if host.is_none() {
                self.pending.unseen(row.host_id, id);
            }
            if archives.is_none() {
                self.pending.unlisted(id);
            }
            let next = observation::conditions(
                &row.conditions,
                host,
                archives,
                row.archive_key.as_deref(),
                row.restore_key.as_deref(),
                now,
            );
            if next == *row.conditions {
                self.rows.confirmed(id, next);
            } else {
                changed.push((id, Arc::new(next)));
            }
        }
        changed
    }

    fn observation(
        &self,
        lease: &Lease,
        stored: &ObservedHosts,
        changed: Vec<(WorkspaceId, Arc<Conditions>)>,
    ) -> Observation {
        let hosts = stored.hosts.iter();
        Observation {
            hosts: hosts
                .filter_map(|h| Some((h.id, self.hosts.note(h)?)))
                .collect(),
            store: self.store.note(stored, lease.shard),
            changed,
        }
    }

    fn report(&self, stored: &ObservedHosts) -> ObserveResponse {
        let hosts = ids(stored)
            .map(|host| {
                let (containers, volumes) = self.hosts.counts(host);
                let is_asked = self.store.asked() == Some(host);
                let error = self.hosts.error(host).unwrap_or("it has not answered yet");
                HostObservation {
                    host_id: host.to_string(),
                    containers: containers as u32,
                    volumes: volumes as u32,
                    archives: if is_asked {
                        self.store.count() as u32
                    } else {
                        0
                    },
                    host_error: error.to_owned(),
                    archive_error: match is_asked {
                        true => self.store.error().to_owned(),
                        false => String::new(),
                    },
                }
            })
            .collect();
        ObserveResponse {
            hosts,
            workspaces: self.rows.len() as u32,
            changed: 0,
            duration: None,
        }
    }
}

fn ids(stored: &ObservedHosts) -> impl Iterator<Item = HostId> {
    stored.hosts.iter().map(|h| h.id)
}
