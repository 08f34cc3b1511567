//! The loop of a coordinator: wait for leadership, then make passes until it is lost or the process
//! stops. Everything that asks for a pass - timer, hint, request - ends in the same call.

use std::{fmt, future::Future, time::Duration};

use chrono::Utc;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use windlass_db::{DbError, DbErrorKind, Lease, Pool};
use windlass_service::{Backoff, Readiness};

use crate::{hints::Waker, leadership::Leadership, status::Status};

/// What a coordinator does: load, decide, act.
pub trait Pass: Send + Sync + 'static {
    /// What somebody may ask of one pass; timers and hints ask for the default.
    type Request: Default + Send + 'static;
    /// What a pass tells.
    type Report: Send + 'static;

    /// Makes one pass under `lease`.
    fn pass(
        &mut self,
        lease: &Lease,
        request: Self::Request,
    ) -> impl Future<Output = Result<Verdict<Self::Report>, PassError>> + Send;
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

type Answer<R> = oneshot::Sender<Result<R, RunError>>;
type Requests<P> = mpsc::Receiver<(<P as Pass>::Request, Answer<<P as Pass>::Report>)>;

/// A coordinator, ready to run.
pub struct Coordinator<P: Pass> {
    /// Its name: that of its leader row.
    pub name: &'static str,
    /// Who this process is.
    pub holder: String,
    /// The database.
    pub pool: Pool,
    /// How long a leader that is gone keeps others waiting.
    pub lease_ttl: Duration,
    /// How often passes are made.
    pub periods: Periods,
    /// What else asks for a pass.
    pub waker: Waker,
    /// What a pass does.
    pub pass: P,
}

impl<P: Pass> fmt::Debug for Coordinator<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator")
            .field("name", &self.name)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

/// How the gRPC side talks to the loop.
pub struct Handle<P: Pass> {
    requests: mpsc::Sender<(P::Request, Answer<P::Report>)>,
    status: watch::Receiver<Status>,
}

impl<P: Pass> Clone for Handle<P> {
    fn clone(&self) -> Self {
        Self {
            requests: self.requests.clone(),
            status: self.status.clone(),
        }
    }
}

impl<P: Pass> fmt::Debug for Handle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl<P: Pass> Handle<P> {
    /// Makes a pass now and waits for it.
    ///
    /// # Errors
    /// When another process leads, the pass fails, or the service stops.
    pub async fn run_now(&self, request: P::Request) -> Result<P::Report, RunError> {
        let (answer, report) = oneshot::channel();
        self.requests
            .send((request, answer))
            .await
            .map_err(|_| RunError::Stopping)?;
        report.await.unwrap_or(Err(RunError::Stopping))
    }

    /// How the coordinator is doing.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }
}

impl<P: Pass> Coordinator<P> {
    /// The handle, and the task that runs until `shutdown`.
    pub fn start(
        self,
        readiness: Readiness,
        shutdown: CancellationToken,
    ) -> (Handle<P>, impl Future<Output = anyhow::Result<()>> + Send) {
        let (requests_tx, requests) = mpsc::channel(64);
        let (status_tx, status) = watch::channel(Status::default());
        readiness.expect("passes");
        metrics::gauge!("windlass_leader").set(0.0);
        let handle = Handle {
            requests: requests_tx,
            status,
        };
        let task = Loop {
            coordinator: self,
            requests,
            status: status_tx,
            readiness,
            shutdown,
        };
        (handle, task.run())
    }
}

struct Loop<P: Pass> {
    coordinator: Coordinator<P>,
    requests: Requests<P>,
    status: watch::Sender<Status>,
    readiness: Readiness,
    shutdown: CancellationToken,
}

/// What made the loop stop waiting.
enum Event<P: Pass> {
    Shutdown,
    Lost,
    Due,
    Hint,
    Request(P::Request, Answer<P::Report>),
}

impl<P: Pass> Loop<P> {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        while !self.shutdown.is_cancelled() {
            let c = &self.coordinator;
            match Leadership::acquire(&c.pool, c.name, &c.holder, c.lease_ttl).await {
                Ok(Some(leadership)) => {
                    failures = 0;
                    self.lead(leadership).await;
                }
                Ok(None) => {
                    failures = 0;
                    self.healthy();
                    self.follow(c.lease_ttl / 3).await;
                }
                Err(error) => {
                    failures += 1;
                    self.unhealthy(&error);
                    self.follow(Backoff::RECONNECT.after(failures)).await;
                }
            }
        }
        Ok(())
    }

    /// Waits as a follower, answering requests with who leads.
    async fn follow(&mut self, pause: Duration) {
        let row = self.coordinator.pool.leader(self.coordinator.name).await;
        let holder = row.ok().flatten().map(|r| (r.holder, r.epoch));
        self.status.send_modify(|s| {
            s.leader = false;
            s.active = false;
            if let Some((holder, epoch)) = &holder {
                (s.holder, s.epoch) = (holder.clone(), *epoch);
            }
        });
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep_until(until) => return,
                Some((_, answer)) = self.requests.recv() => {
                    let leader = match &holder {
                        Some((holder, _)) if !holder.is_empty() => format!("{holder} does"),
                        _ => "nobody does right now".to_owned(),
                    };
                    // Whoever asked may have gone away.
                    let _ = answer.send(Err(RunError::NotLeader(leader)));
                }
            }
        }
    }

    async fn lead(&mut self, leadership: Leadership) {
        let lease = leadership.lease.clone();
        tracing::info!(epoch = lease.epoch.0, "leading");
        metrics::gauge!("windlass_leader_epoch").set(lease.epoch.0 as f64);
        metrics::gauge!("windlass_leader").set(1.0);
        self.status.send_modify(|s| {
            s.leader = true;
            s.holder.clone_from(&lease.holder);
            s.epoch = lease.epoch.0;
        });
        let stopped = self.passes(&leadership).await;
        metrics::gauge!("windlass_leader").set(0.0);
        self.status.send_modify(|s| s.leader = false);
        if stopped {
            leadership.release().await;
        } else {
            tracing::warn!(epoch = lease.epoch.0, "not leading any more");
        }
    }

    /// Makes passes. `true`: the service stops; `false`: the leadership is lost.
    async fn passes(&mut self, leadership: &Leadership) -> bool {
        let periods = self.coordinator.periods;
        let mut due = Instant::now();
        let mut active_until = Instant::now() + periods.active_for;
        let mut failures = 0;
        loop {
            let (request, answer, hinted) = match self.next_event(leadership, due).await {
                Event::Shutdown => return true,
                Event::Lost => return false,
                Event::Due => (P::Request::default(), None, false),
                Event::Hint => (P::Request::default(), None, true),
                Event::Request(request, answer) => (request, Some(answer), true),
            };
            let began = Instant::now();
            let result = self.coordinator.pass.pass(&leadership.lease, request).await;
            let took = began.elapsed();
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
                return false;
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

    async fn next_event(&mut self, leadership: &Leadership, due: Instant) -> Event<P> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Event::Shutdown,
            () = leadership.lost() => Event::Lost,
            Some((request, answer)) = self.requests.recv() => Event::Request(request, answer),
            () = self.coordinator.waker.hint() => Event::Hint,
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
            let now = Utc::now().timestamp_millis() as f64 / 1000.0;
            metrics::gauge!("windlass_tick_last_success_timestamp_seconds").set(now);
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

    fn healthy(&self) {
        self.readiness.set("passes", true, "");
        self.status.send_modify(|s| s.last_error.clear());
    }

    fn unhealthy(&self, error: &dyn fmt::Display) {
        tracing::warn!(%error, "pass failed");
        self.readiness.set("passes", false, error.to_string());
        self.status
            .send_modify(|s| s.last_error = error.to_string());
    }
}
