//! A coordinator as a whole: one election for all its shards, one loop for each, and the handle through
//! which requests reach the loop that owns what they are about.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use windlass_db::Pool;
use windlass_domain::Shard;
use windlass_service::Readiness;

use crate::{
    election::{Candidate, Election, View},
    hints::Waker,
    run::{Answer, Loop, Pass, Periods, RunError},
    status::{LoopStatus, Status},
};

/// A coordinator, ready to run.
pub struct Coordinator<P: Pass> {
    /// Its name: that of its leader rows.
    pub name: &'static str,
    /// Who this process is.
    pub holder: String,
    /// The database.
    pub pool: Pool,
    /// How long a leader that is gone keeps others waiting.
    pub lease_ttl: Duration,
    /// How often passes are made.
    pub periods: Periods,
    /// For each shard, what else asks for a pass and what a pass does. As many as there are shards: at
    /// least one, at most [`MAX_SHARDS`](windlass_domain::shard::MAX_SHARDS).
    pub passes: Vec<(Waker, P)>,
}

impl<P: Pass> fmt::Debug for Coordinator<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator")
            .field("name", &self.name)
            .field("holder", &self.holder)
            .field("shards", &self.passes.len())
            .finish_non_exhaustive()
    }
}

struct Line<P: Pass> {
    requests: mpsc::Sender<(P::Request, Answer<P::Report>)>,
    status: watch::Receiver<LoopStatus>,
}

/// How the gRPC side talks to the loops.
pub struct Handle<P: Pass> {
    lines: Arc<[Line<P>]>,
    view: watch::Receiver<View>,
}

impl<P: Pass> Clone for Handle<P> {
    fn clone(&self) -> Self {
        Self {
            lines: Arc::clone(&self.lines),
            view: self.view.clone(),
        }
    }
}

impl<P: Pass> fmt::Debug for Handle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl<P: Pass> Handle<P> {
    /// Makes a pass of the first shard now and waits for it: all there is of a service without shards.
    ///
    /// # Errors
    /// When another process leads, the pass fails, or the service stops.
    pub async fn run_now(&self, request: P::Request) -> Result<P::Report, RunError> {
        self.run_shard(0, request).await
    }

    /// Makes a pass of the shard that owns `id` now and waits for it.
    ///
    /// # Errors
    /// As [`run_now`](Self::run_now).
    pub async fn run_owner(&self, id: Uuid, request: P::Request) -> Result<P::Report, RunError> {
        let shards = u32::try_from(self.lines.len()).unwrap_or(1);
        self.run_shard(Shard::of(id, shards) as usize, request)
            .await
    }

    /// Makes a pass of every shard that this process leads now and waits for them.
    ///
    /// # Errors
    /// When it leads none, a pass fails, or the service stops.
    pub async fn run_led(
        &self,
        request: impl Fn() -> P::Request,
    ) -> Result<Vec<P::Report>, RunError> {
        let led: Vec<usize> = (0..self.lines.len())
            .filter(|n| self.lines[*n].status.borrow().lease.is_some())
            .collect();
        if led.is_empty() {
            return Ok(vec![self.run_shard(0, request()).await?]);
        }
        let passes = led.into_iter().map(|n| self.run_shard(n, request()));
        join_all(passes).await.into_iter().collect()
    }

    async fn run_shard(&self, shard: usize, request: P::Request) -> Result<P::Report, RunError> {
        let line = self.lines.get(shard).ok_or(RunError::Stopping)?;
        let (answer, report) = oneshot::channel();
        line.requests
            .send((request, answer))
            .await
            .map_err(|_| RunError::Stopping)?;
        report.await.unwrap_or(Err(RunError::Stopping))
    }

    /// How the coordinator is doing.
    pub fn status(&self) -> Status {
        let loops: Vec<LoopStatus> = self
            .lines
            .iter()
            .map(|l| l.status.borrow().clone())
            .collect();
        Status::of(&loops, &self.view.borrow())
    }
}

impl<P: Pass> Coordinator<P> {
    /// The handle, and the task that runs until `shutdown`. Dropping the task drops everything at once.
    pub fn start(
        self,
        readiness: Readiness,
        shutdown: CancellationToken,
    ) -> (
        Handle<P>,
        impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let (view, seen) = watch::channel(View::default());
        let shards = u32::try_from(self.passes.len()).unwrap_or(u32::MAX);
        let (mut lines, mut offers, mut loops) = (Vec::new(), Vec::new(), Vec::new());
        for (shard, (waker, pass)) in Shard::all(shards).zip(self.passes) {
            let (requests, incoming) = mpsc::channel(64);
            let (offer, terms) = mpsc::channel(1);
            let (status, statuses) = watch::channel(LoopStatus::default());
            offers.push((shard, offer));
            lines.push(Line {
                requests,
                status: statuses,
            });
            loops.push(
                Loop {
                    shard,
                    periods: self.periods,
                    waker,
                    pass,
                    requests: incoming,
                    terms,
                    view: seen.clone(),
                    status,
                    readiness: readiness.clone(),
                    shutdown: shutdown.clone(),
                    knows: false,
                    led: false,
                }
                .run(),
            );
        }
        let election = Election::new(
            Candidate {
                service: self.name,
                holder: self.holder,
                pool: self.pool,
                ttl: self.lease_ttl,
            },
            offers,
            view,
            readiness,
            shutdown.clone(),
        );
        let handle = Handle {
            lines: lines.into(),
            view: seen,
        };
        let task = async move {
            let mut tasks = JoinSet::new();
            tasks.spawn(election.run());
            for one in loops {
                tasks.spawn(one);
            }
            while let Some(ended) = tasks.join_next().await {
                ended??;
                anyhow::ensure!(shutdown.is_cancelled(), "a loop ended unasked");
            }
            Ok(())
        };
        (handle, task)
    }
}
