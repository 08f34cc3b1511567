//! The loop of one shard of a coordinator: wait for a term, then make passes until it is over or the process
//! stops. Everything that asks for a pass - timer, hint, request - ends in the same call.

use std::{fmt, future::Future, time::Duration};

use chrono::Utc;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use windlass_db::{DbError, DbErrorKind, Lease};
use windlass_domain::Shard;
use windlass_service::{Backoff, Readiness};

use crate::{
    election::{Term, View},
    hints::Waker,
    status::LoopStatus,
};

/// What a coordinator does: load, decide, act.
pub trait Pass: Send + Sync + 'static {
    /// What somebody may ask of one pass; timers and hints ask for the default.
    type Request: Default + Send + 'static;
    /// What a pass tells.
    type Report: Send + 'static;

    /// Makes one pass under `lease`, over what is in its shard.
    fn pass(
        &mut self,
        lease: &Lease,
        request: Self::Request,
    ) -> impl Future<Output = Result<Verdict<Self::Report>, PassError>> + Send;

    /// Told when the term under `lease` is over: what it says of its shard does not hold any more.
    fn over(&mut self, _lease: &Lease) {}
}

/// What came of a pass.
#[derive(Debug)]
pub struct Verdict<R> {
    /// What it tells.
    pub report: R,
    /// Whether something is in progress, so that the next pass should come soon.
    pub active: bool,
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The database refused or is away.
    #[error(transparent)]
    Db(#[from] DbError),
    /// Something else it needs is away or refused: the pass ended before it changed anything.
    #[error("{0}")]
    Unavailable(String),
    /// The request was for something that is not there, or not so: (reason, message).
    #[error("{1}")]
    Refused(Refusal, String),
}

/// How a request of a pass was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such thing.
    NotFound,
    /// It is not in a state for that; the reason is a machine-readable word.
    Precondition(&'static str),
    /// It changed meanwhile.
    Stale,
}

/// Why a request got no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another process leads.
    #[error("this process does not lead; {0}")]
    NotLeader(String),
    /// The pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

/// How often passes are made.
#[derive(Clone, Copy, Debug)]
pub struct Periods {
    /// While something is in progress.
    pub active: Duration,
    /// Otherwise.
    pub idle: Duration,
    /// How long the active period goes on after the last reason for it.
    pub active_for: Duration,
}

impl Periods {
    /// The same period always.
    pub fn steady(period: Duration) -> Self {
        Self {
            active: period,
            idle: period,
            active_for: Duration::ZERO,
        }
    }
}

/// Of the time in which hints come all along, passes take a part in so many.
const SHARE: u32 = 5;
/// Longest rest after a pass before a hint makes another one.
const REST: Duration = Duration::from_millis(100);

/// When a hint may make the next pass. One that comes alone never waits; in a storm of them several share a pass,
/// and what they tell of gets the processor.
fn rested(began: Instant, took: Duration) -> Instant {
    began + took + (took * (SHARE - 1)).min(REST)
}

pub(crate) type Answer<R> = oneshot::Sender<Result<R, RunError>>;
pub(crate) type Requests<P> = mpsc::Receiver<(<P as Pass>::Request, Answer<<P as Pass>::Report>)>;

/// One shard's loop.
pub(crate) struct Loop<P: Pass> {
    pub shard: Shard,
    pub periods: Periods,
    pub waker: Waker,
    pub pass: P,
    pub requests: Requests<P>,
    pub terms: mpsc::Receiver<Term>,
    pub view: watch::Receiver<View>,
    pub status: watch::Sender<LoopStatus>,
    pub readiness: Readiness,
    pub shutdown: CancellationToken,
    /// Whether an election was seen.
    pub knows: bool,
    /// Whether it ever led.
    pub led: bool,
}

/// Waits until an election was seen.
async fn seen(view: &mut watch::Receiver<View>) {
    let _ = view.wait_for(|view| view.seen).await;
}

/// What made the loop stop waiting.
enum Event<P: Pass> {
    Shutdown,
    Over,
    Due,
    Hint,
    Request(P::Request, Answer<P::Report>),
}

impl<P: Pass> Loop<P> {
    pub async fn run(mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(()),
                Some(term) = self.terms.recv() => {
                    self.lead(term).await;
                    self.healthy();
                }
                Some((_, answer)) = self.requests.recv() => {
                    let leader = self.view.borrow().leader(self.shard);
                    // Whoever asked may have gone away.
                    let _ = answer.send(Err(RunError::NotLeader(leader)));
                }
                // A follower is ready once it knows that it is one.
                () = seen(&mut self.view), if !self.knows => {
                    self.knows = true;
                    if self.terms.is_empty() {
                        self.healthy();
                    }
                }
            }
        }
    }

    async fn lead(&mut self, term: Term) {
        let epoch = term.lease.epoch.0;
        tracing::info!(lease = term.lease.name, epoch, "leading");
        metrics::gauge!("windlass_leader_epoch").set(epoch as f64);
        self.status.send_modify(|s| {
            s.lease = Some(term.lease.clone());
        });
        // Or nothing would ever be late where the very first pass hangs.
        if !std::mem::replace(&mut self.led, true) {
            self.succeeded_now();
        }
        self.passes(&term).await;
        self.pass.over(&term.lease);
        self.status.send_modify(|s| {
            s.lease = None;
            s.active = false;
        });
        tracing::info!(lease = term.lease.name, epoch, "not leading any more");
    }

    /// Makes passes until the term is over or the service stops.
    async fn passes(&mut self, term: &Term) {
        let periods = self.periods;
        let mut due = Instant::now();
        let mut active_until = Instant::now() + periods.active_for;
        let mut failures = 0;
        let mut rest = Instant::now();
        loop {
            let (request, answer, hinted) =
                match self.next_event(term, due, rest, failures > 0).await {
                    Event::Shutdown | Event::Over => return,
                    Event::Due => (P::Request::default(), None, false),
                    Event::Hint => (P::Request::default(), None, true),
                    Event::Request(request, answer) => (request, Some(answer), true),
                };
            let began = Instant::now();
            let result = self.pass.pass(&term.lease, request).await;
            let took = began.elapsed();
            rest = rested(began, took);
            self.account(&result, took);
            let fenced =
                matches!(&result, Err(PassError::Db(e)) if e.kind() == DbErrorKind::Fenced);
            let active = match &result {
                Ok(verdict) => verdict.active,
                Err(_) => false,
            };
            failures = match &result {
                Ok(_) | Err(PassError::Refused(..)) => 0,
                Err(_) => failures + 1,
            };
            if let Some(answer) = answer {
                let report = result.map(|v| v.report).map_err(RunError::from);
                // Whoever asked may have gone away.
                let _ = answer.send(report);
            }
            if fenced {
                return;
            }
            let now = Instant::now();
            if active || hinted {
                active_until = now + periods.active_for;
            }
            due = if failures > 0 {
                now + Backoff::RECONNECT.after(failures)
            } else if active || now < active_until {
                began + periods.active
            } else {
                began + periods.idle
            };
            self.status
                .send_modify(|s| s.active = active || now < active_until);
        }
    }

    async fn next_event(
        &mut self,
        term: &Term,
        due: Instant,
        rest: Instant,
        failing: bool,
    ) -> Event<P> {
        // A hint that comes while it rests stays until then.
        let hint = async {
            tokio::time::sleep_until(rest).await;
            self.waker.hint().await;
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Event::Shutdown,
            () = term.over() => Event::Over,
            Some((request, answer)) = self.requests.recv() => Event::Request(request, answer),
            // What failed is not tried again sooner for a hint, which waits until it went well.
            () = hint, if !failing => Event::Hint,
            () = self.waker.nudged(), if !failing => Event::Due,
            () = tokio::time::sleep_until(due) => Event::Due,
        }
    }

    fn account(&self, result: &Result<Verdict<P::Report>, PassError>, took: Duration) {
        let outcome = match result {
            Ok(_) => "ok",
            Err(PassError::Refused(..)) => "refused",
            Err(_) => "error",
        };
        metrics::histogram!("windlass_tick_duration_seconds", "result" => outcome)
            .record(took.as_secs_f64());
        if result.is_ok() {
            self.succeeded_now();
        }
        match result {
            Ok(_) | Err(PassError::Refused(..)) => self.healthy(),
            Err(error) => self.unhealthy(error),
        }
        self.status.send_modify(|s| {
            s.ticks += 1;
            s.last_tick_at = Some(Utc::now());
            s.last_tick_duration = took;
        });
    }

    fn succeeded_now(&self) {
        let shard = self.shard.index().to_string();
        let now = Utc::now().timestamp_millis() as f64 / 1000.0;
        metrics::gauge!("windlass_tick_last_success_timestamp_seconds", "shard" => shard).set(now);
    }

    fn check(&self) -> String {
        match self.shard.count() {
            1 => "passes".to_owned(),
            _ => format!("passes/{}", self.shard.index()),
        }
    }

    fn healthy(&self) {
        self.readiness.set(&self.check(), true, "");
        self.status.send_modify(|s| s.last_error.clear());
    }

    fn unhealthy(&self, error: &dyn fmt::Display) {
        tracing::warn!(%error, "pass failed");
        self.readiness.set(&self.check(), false, error.to_string());
        self.status
            .send_modify(|s| s.last_error = error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_take_a_fifth_of_the_time_and_rest_a_moment_at_most() {
        let began = Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(rested(began, ms(2)), began + ms(10));
        assert_eq!(rested(began, ms(25)), began + ms(125));
        assert_eq!(rested(began, ms(10_000)), began + ms(10_100));
    }
}
