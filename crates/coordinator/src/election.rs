//! Holding leases: one task per process renews what it holds, takes what is free up to its share, and gives
//! up what is more, so that replicas that come and go divide the shards anew. That a leader may still write
//! is never concluded from this; the fence in PostgreSQL decides.
//!
//! Invariant: a shard's loop has ended its pass before its lease is given up or offered to it again.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use windlass_db::{Candidacy, DbError, Lease, Pool, Roster};
use windlass_domain::Shard;
use windlass_service::{Backoff, Readiness};

/// The name of the check in readiness.
const CHECK: &str = "election";

/// A shard's term: its loop makes passes until it is over, and drops it when it has ended.
#[derive(Debug)]
pub(crate) struct Term {
    /// The lease to write under.
    pub lease: Lease,
    over: CancellationToken,
    ended: CancellationToken,
    bell: Arc<Notify>,
}

impl Term {
    /// Waits until the lease is lost or to be given up.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        self.ended.cancel();
        self.bell.notify_one();
    }
}

/// What a process knows of the leadership.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Who leads what, as last seen.
    pub roster: Roster,
    /// Whether any election was seen.
    pub seen: bool,
    /// Why the last one failed, or why this replica waits; empty otherwise.
    pub error: String,
}

impl View {
    /// Who leads a shard, for people.
    pub fn leader(&self, shard: Shard) -> String {
        let lease = usize::try_from(shard.index())
            .ok()
            .and_then(|n| self.roster.leases.get(n));
        let what = match shard.count() {
            1 => String::new(),
            count => format!(" shard {} of {count}", shard.index()),
        };
        match lease {
            Some(lease) if !lease.holder.is_empty() => format!("{} does{what}", lease.holder),
            _ => format!("nobody does{what} right now"),
        }
    }
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    over: CancellationToken,
    ended: CancellationToken,
    lost: bool,
}

#[derive(Debug)]
struct Seat {
    shard: Shard,
    offers: mpsc::Sender<Term>,
    held: Option<Held>,
}

impl Seat {
    /// Whether it is held and to be kept.
    fn kept(&self) -> bool {
        self.held.as_ref().is_some_and(|h| !h.over.is_cancelled())
    }
}

/// Who stands for what.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// The service.
    pub service: &'static str,
    /// This process.
    pub holder: String,
    /// The database.
    pub pool: Pool,
    /// How long a lease is held without being renewed.
    pub ttl: Duration,
}

/// The task.
#[derive(Debug)]
pub(crate) struct Election {
    candidate: Candidate,
    seats: Vec<Seat>,
    view: watch::Sender<View>,
    readiness: Readiness,
    shutdown: CancellationToken,
    bell: Arc<Notify>,
    renewed: Instant,
}

/// How many of `shards` a replica should hold among those that live (in order, itself included): all add up
/// to `shards`. With one shard everybody stands for it.
fn share(replicas: &[String], holder: &str, shards: usize) -> usize {
    if shards <= 1 {
        return shards;
    }
    let rank = replicas.iter().position(|r| r == holder).unwrap_or(0);
    let live = replicas.len().max(1);
    shards / live + usize::from(rank < shards % live)
}

impl Election {
    /// Terms go to `offers`, one sender per shard.
    pub fn new(
        candidate: Candidate,
        offers: Vec<(Shard, mpsc::Sender<Term>)>,
        view: watch::Sender<View>,
        readiness: Readiness,
        shutdown: CancellationToken,
    ) -> Self {
        readiness.expect(CHECK);
        let seat = |(shard, offers)| Seat {
            shard,
            offers,
            held: None,
        };
        Self {
            candidate,
            seats: offers.into_iter().map(seat).collect(),
            view,
            readiness,
            shutdown,
            bell: Arc::default(),
            renewed: Instant::now(),
        }
    }

    /// Runs until shutdown, then gives everything up once the loops have ended.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        while !self.shutdown.is_cancelled() {
            let pause = match self.turn().await {
                Ok(waits) => {
                    failures = 0;
                    self.readiness.set(CHECK, true, waits.as_str());
                    self.tell(waits);
                    self.candidate.ttl / 3
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "election failed");
                    self.readiness.set(CHECK, false, error.to_string());
                    self.tell(error.to_string());
                    Backoff::RECONNECT
                        .after(failures)
                        .min(self.candidate.ttl / 3)
                }
            };
            self.count();
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = self.bell.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.resign().await;
        Ok(())
    }

    fn count(&self) {
        let led = self.seats.iter().filter(|s| s.kept()).count();
        metrics::gauge!("windlass_leader").set(if led > 0 { 1.0 } else { 0.0 });
        metrics::gauge!("windlass_shards_led").set(led as f64);
        metrics::gauge!("windlass_shards").set(self.seats.len() as f64);
    }

    fn tell(&self, error: String) {
        self.view.send_modify(|view| {
            view.seen = true;
            if view.error != error && !error.is_empty() {
                tracing::warn!("{error}");
            }
            view.error = error;
        });
    }

    /// Renews, gives up and takes. Returns why this replica cannot take anything; empty if it could.
    async fn turn(&mut self) -> Result<String, DbError> {
        self.release_ended().await;
        self.renew().await?;
        let shards = self.seats.len();
        if shards == 1 && self.seats.iter().all(Seat::kept) {
            return Ok(String::new());
        }
        let count = u32::try_from(shards).unwrap_or(u32::MAX);
        let roster = self
            .candidate
            .pool
            .roster(
                self.candidate.service,
                count,
                &self.candidate.holder,
                self.candidate.ttl,
            )
            .await?;
        let share = share(&roster.replicas, &self.candidate.holder, shards);
        self.view.send_modify(|view| view.roster = roster.clone());
        let kept = self.seats.iter().filter(|s| s.kept()).count();
        let surplus = kept.saturating_sub(share);
        for seat in self.seats.iter().rev().filter(|s| s.kept()).take(surplus) {
            if let Some(held) = &seat.held {
                tracing::info!(lease = held.lease.name, "giving up: others have less");
                held.over.cancel();
            }
        }
        self.take(&roster, share.saturating_sub(kept)).await
    }

    async fn take(&mut self, roster: &Roster, mut missing: usize) -> Result<String, DbError> {
        for (seat, seen) in self.seats.iter_mut().zip(&roster.leases) {
            let free = !seen.held || seen.holder == self.candidate.holder;
            if missing == 0 {
                break;
            }
            if seat.held.is_some() || !free {
                continue;
            }
            let stood = self
                .candidate
                .pool
                .try_lead_shard(
                    self.candidate.service,
                    seat.shard,
                    &self.candidate.holder,
                    self.candidate.ttl,
                )
                .await?;
            match stood {
                Candidacy::Held => {}
                Candidacy::OtherShards { holder, shards } => {
                    return Ok(format!(
                        "{holder} leads with WINDLASS_SHARDS={shards}, this replica has {}: it waits \
                         until no replica with another number leads",
                        seat.shard.count()
                    ));
                }
                Candidacy::Elected(lease) => {
                    missing -= 1;
                    self.view.send_modify(|view| {
                        let n = seat.shard.index() as usize;
                        if let Some(entry) = view.roster.leases.get_mut(n) {
                            entry.holder.clone_from(&lease.holder);
                            entry.epoch = lease.epoch.0;
                            entry.held = true;
                        }
                    });
                    let (over, ended) = (CancellationToken::new(), CancellationToken::new());
                    let term = Term {
                        lease: lease.clone(),
                        over: over.clone(),
                        ended: ended.clone(),
                        bell: Arc::clone(&self.bell),
                    };
                    // A loop that is gone drops its term, which is then released.
                    let _ = seat.offers.send(term).await;
                    seat.held = Some(Held {
                        lease,
                        over,
                        ended,
                        lost: false,
                    });
                }
            }
        }
        Ok(String::new())
    }

    /// Prolongs what is held; what was lost is over.
    async fn renew(&mut self) -> Result<(), DbError> {
        let held = self.seats.iter().filter_map(|s| s.held.as_ref());
        let leases: Vec<Lease> = held.filter(|h| !h.lost).map(|h| h.lease.clone()).collect();
        let asked = Instant::now();
        match self.candidate.pool.renew(&leases, self.candidate.ttl).await {
            Ok(names) => {
                self.renewed = asked;
                self.lose(|held| !names.contains(&held.lease.name));
                Ok(())
            }
            Err(error) => {
                if self.renewed.elapsed() > self.candidate.ttl {
                    self.lose(|_| true);
                }
                Err(error)
            }
        }
    }

    fn lose(&mut self, is_lost: impl Fn(&Held) -> bool) {
        for held in self.seats.iter_mut().filter_map(|s| s.held.as_mut()) {
            if is_lost(held) {
                held.lost = true;
                held.over.cancel();
            }
        }
    }

    /// Gives up the leases whose loops have ended, so that another replica takes over at once.
    async fn release_ended(&mut self) {
        for seat in &mut self.seats {
            if let Some(held) = seat.held.take_if(|h| h.ended.is_cancelled())
                && !held.lost
                && let Err(error) = self.candidate.pool.release(&held.lease).await
            {
                tracing::warn!(%error, "could not release the leadership; it expires by itself");
            }
        }
    }

    async fn resign(&mut self) {
        for held in self.seats.iter().filter_map(|s| s.held.as_ref()) {
            held.over.cancel();
        }
        for held in self.seats.iter().filter_map(|s| s.held.as_ref()) {
            held.ended.cancelled().await;
        }
        self.release_ended().await;
        self.count();
        if self.seats.len() > 1
            && let Err(error) = self
                .candidate
                .pool
                .leave(self.candidate.service, &self.candidate.holder)
                .await
        {
            tracing::warn!(%error, "could not leave the other replicas; they notice by themselves");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        let replicas: Vec<String> = (0..70).map(|n| format!("r{n:02}")).collect();
        for shards in 2..=64 {
            for live in 1..=replicas.len() {
                let live = &replicas[..live];
                let shares: Vec<usize> = live.iter().map(|r| share(live, r, shards)).collect();
                assert_eq!(shares.iter().sum::<usize>(), shards);
                let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
                assert!(most - least <= 1, "{shares:?}");
            }
        }
        assert_eq!(share(&[], "a", 1), 1);
    }
}
