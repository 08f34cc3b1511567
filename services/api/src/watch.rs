//! WatchWorkspaces. One poller reads what changed, however many watch; each watcher filters what concerns
//! it. So a change costs a process the same few queries for one watcher as for a thousand.
//!
//! Invariant: the poller's position is never behind what a watcher read first. A watcher subscribes while
//! holding the position, so that each batch it receives was read after it subscribed, and reads its own
//! first state after that: a change is in the first state, in a later batch, or in both. A watcher that
//! falls too far behind reads what it missed from the database, by its own position.
//!
//! Memory is bounded: rows are read in pages, batches hold one page, a watcher may be [`BEHIND`] batches and
//! [`BUFFER`] messages late, and one whose client takes nothing for [`STALL`] is ended with the advice to
//! resume. Few of them read for themselves at a time, so that a thousand that reconnect leave connections
//! for others.

mod passes;
mod token;
mod watcher;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use tokio::sync::{Mutex, Notify, Semaphore, broadcast, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use windlass_coordinator::Waker;
use windlass_db::{
    DbError, Pool,
    read::{Change, Horizon, RowVersion, WatchScope, WatchToken},
};
use windlass_domain::{UserId, WorkspaceId};
use windlass_proto::{convert::InvalidField, v1};

use crate::{access::Caller, auth::Digest256, errors, present};
use passes::Passes;
use watcher::Watcher;

/// How often is looked without a hint.
const PERIOD: Duration = Duration::from_secs(1);
/// Batches a watcher may be behind before it has to read for itself.
const BEHIND: usize = 64;
/// Messages that wait for a client that reads slowly.
const BUFFER: usize = 64;
/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(60);
/// Rows that are read at a time.
const PAGE: usize = 200;
/// Watchers that read for themselves at a time.
const READERS: usize = 4;

/// What a watcher's client receives.
pub type Stream = BoxStream<'static, Result<v1::WatchWorkspacesResponse, Status>>;

/// A changed workspace, ready to be sent.
#[derive(Debug)]
struct Item {
    owner: UserId,
    id: WorkspaceId,
    workspace: v1::Workspace,
}

impl From<Change> for Item {
    fn from(change: Change) -> Self {
        Self {
            owner: change.record.owner_id,
            id: change.record.workspace.id,
            workspace: present::workspace(&change.record),
        }
    }
}

/// What one look found.
#[derive(Clone, Debug)]
enum Batch {
    /// Some of what changed, and the position after it: that of the whole look with its last batch.
    Changed(Arc<Vec<Item>>, WatchToken),
    /// The database went back in time (restored, or crashed with late commits lost): positions are void.
    Lost,
}

/// Where the poller stands; `None` while nobody watches.
#[derive(Debug, Default)]
struct Position {
    since: Option<Horizon>,
    /// Rows that will be read again because a transaction older than theirs is still running.
    sent: HashMap<WorkspaceId, RowVersion>,
}

/// The hub of all watchers of this process.
#[derive(Clone, Debug)]
pub struct Watch {
    pool: Pool,
    batches: broadcast::Sender<Batch>,
    position: Arc<Mutex<Position>>,
    bell: Arc<Notify>,
    readers: Arc<Semaphore>,
    passes: Passes,
    stall: Duration,
}

impl Watch {
    pub fn new(pool: Pool, bell: Arc<Notify>) -> Self {
        Self {
            pool,
            batches: broadcast::Sender::new(BEHIND),
            position: Arc::default(),
            bell,
            readers: Arc::new(Semaphore::new(READERS)),
            passes: Passes::default(),
            stall: STALL,
        }
    }

    /// The poller.
    pub async fn poll(self, hints: Waker, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = hints.hint() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
            let looked = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                looked = self.look() => looked,
            };
            if let Err(error) = looked {
                tracing::debug!("watchers wait: {error}");
            }
        }
    }

    /// Ends the watchers whose tokens are void.
    pub async fn check_tokens(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.passes.follow(&self.pool) => {}
        }
        Ok(())
    }

    /// Reads once what changed, if anybody watches.
    async fn look(&self) -> Result<(), DbError> {
        let mut position = self.position.lock().await;
        let watchers = self.batches.receiver_count();
        metrics::gauge!("windlass_api_watchers").set(watchers as f64);
        let since = match position.since {
            Some(since) if watchers > 0 => since,
            Some(_) | None => {
                *position = Position::default();
                return Ok(());
            }
        };
        let found = self.pool.changed(since.token, WatchScope::default());
        let found = found.await?;
        if found.horizon.voids(since) {
            tracing::warn!("the database may have gone back in time: watchers begin anew");
            position.since = Some(found.horizon);
            position.sent.clear();
            let _ = self.batches.send(Batch::Lost); // nobody left is no error
            return Ok(());
        }
        let (seen, new): (Vec<_>, Vec<_>) = found
            .rows
            .into_iter()
            .partition(|(id, version)| position.sent.get(id) == Some(version));
        let mut again: HashMap<_, _> = seen.into_iter().collect();
        let ids: Vec<WorkspaceId> = new.into_iter().map(|(id, _)| id).collect();
        let mut pages = ids.chunks(PAGE).peekable();
        while let Some(page) = pages.next() {
            let changes = self.pool.changes_of(page).await?;
            again.extend(changes.iter().map(|c| (c.record.workspace.id, c.version())));
            let items = changes.into_iter().map(Item::from).collect();
            let to = match pages.peek() {
                Some(_) => since.token,
                None => found.horizon.token,
            };
            let _ = self.batches.send(Batch::Changed(Arc::new(items), to));
        }
        if ids.is_empty() && found.horizon.token > since.token {
            let nothing = Batch::Changed(Arc::default(), found.horizon.token);
            let _ = self.batches.send(nothing);
        }
        again.retain(|_, version| version.xid >= found.horizon.token.0);
        *position = Position {
            since: Some(found.horizon),
            sent: again,
        };
        Ok(())
    }

    /// Receives every batch that is read from now on.
    async fn subscribe(&self) -> Result<broadcast::Receiver<Batch>, DbError> {
        let mut position = self.position.lock().await;
        if position.since.is_none() || self.batches.receiver_count() == 0 {
            *position = Position {
                since: Some(self.pool.watch_horizon().await?),
                sent: HashMap::new(),
            };
        }
        let batches = self.batches.subscribe();
        self.bell.notify_one();
        Ok(batches)
    }

    /// Begins a watch of what the caller sees, of one workspace or all.
    pub async fn open(
        &self,
        caller: Caller,
        token: Digest256,
        id: Option<WorkspaceId>,
        resume_token: &str,
    ) -> Result<Stream, Status> {
        let owner = caller.view();
        let scope = WatchScope { owner, id };
        let wrong = |why| errors::invalid(InvalidField::new("resume_token", why));
        let since = match resume_token {
            "" => None,
            text => Some(token::decode(text, scope).map_err(wrong)?),
        };
        let batches = self.subscribe().await.map_err(errors::database)?;
        // Taken before the first state is read: what changes meanwhile is in a later batch.
        let horizon = self.pool.watch_horizon().await.map_err(errors::database)?;
        let horizon = horizon.token;
        if since.is_some_and(|since| since > horizon) {
            return Err(wrong("is of another database"));
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(BUFFER);
        let (failed, failure) = oneshot::channel();
        let watcher = Watcher::new(self.clone(), scope, batches, sender);
        let pass = self.passes.issue(caller, token);
        tokio::spawn(watcher.run(since, horizon, pass, failed));
        // Why it ended comes past a buffer that may be full.
        let end = futures::stream::once(failure).filter_map(async |end| end.ok().map(Err));
        Ok(ReceiverStream::new(receiver).chain(end).boxed())
    }

    /// A read of one watcher, when it is its turn.
    async fn read<T>(&self, read: impl Future<Output = Result<T, DbError>>) -> Result<T, Status> {
        // Never closed; without a permit it would only be one too many.
        let _turn = self.readers.acquire().await;
        metrics::counter!("windlass_api_watch_reads_total").increment(1);
        read.await.map_err(errors::database)
    }
}
