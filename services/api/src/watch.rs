//! WatchWorkspaces. One poller reads what changed, however many watch; each watcher filters what concerns
//! it.
//!
//! Invariant: the poller's position is never behind what a watcher read first. A watcher subscribes while
//! holding the position, so that each batch it receives was read after it subscribed, and reads its own
//! first state after that: a change is in the first state, in a later batch, or in both. A watcher that
//! falls too far behind reads what it missed from the database, by its own position.

mod token;
mod watcher;

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, Notify, broadcast};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use windlass_coordinator::Waker;
use windlass_db::{
    DbError, Pool,
    read::{Change, WatchScope, WatchToken},
};
use windlass_domain::{UserId, WorkspaceId};
use windlass_proto::{convert::InvalidField, v1};

use crate::{errors, present};
use watcher::Watcher;

/// How often is looked without a hint.
const PERIOD: Duration = Duration::from_secs(1);
/// Batches a watcher may be behind before it has to read for itself.
const BEHIND: usize = 64;
/// Messages that wait for a client that reads slowly.
const BUFFER: usize = 64;

/// What a watcher's client receives.
pub type Stream = ReceiverStream<Result<v1::WatchWorkspacesResponse, Status>>;

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
    /// What changed, and the position after it.
    Changed(Arc<Vec<Item>>, WatchToken),
    /// The database went back in time (restored, or crashed with late commits lost): positions are void.
    Lost,
}

/// Where the poller stands; `None` while nobody watches.
#[derive(Debug, Default)]
struct Position {
    since: Option<WatchToken>,
    /// Rows that will be read again because a transaction older than theirs is still running. Their time
    /// belongs to it: a crash of a database with asynchronous commit gives a transaction's id out twice.
    sent: HashMap<WorkspaceId, (i64, DateTime<Utc>)>,
}

/// The hub of all watchers of this process.
#[derive(Clone, Debug)]
pub struct Watch {
    pool: Pool,
    batches: broadcast::Sender<Batch>,
    position: Arc<Mutex<Position>>,
    bell: Arc<Notify>,
}

impl Watch {
    pub fn new(pool: Pool, bell: Arc<Notify>) -> Self {
        Self {
            pool,
            batches: broadcast::Sender::new(BEHIND),
            position: Arc::default(),
            bell,
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
        let found = self
            .pool
            .changes(Some(since), WatchScope::default())
            .await?;
        if found.token < since {
            tracing::warn!("the database went back in time: watchers begin anew");
            position.since = Some(found.token);
            position.sent.clear();
            let _ = self.batches.send(Batch::Lost); // nobody left is no error
            return Ok(());
        }
        let again = found.changes.iter().filter(|c| c.xid >= found.token.0);
        let version = |c: &Change| (c.xid, c.record.updated_at);
        let again = again.map(|c| (c.record.workspace.id, version(c))).collect();
        let sent = std::mem::replace(&mut position.sent, again);
        let new = |c: &Change| sent.get(&c.record.workspace.id) != Some(&version(c));
        let items: Vec<Item> = found
            .changes
            .into_iter()
            .filter(new)
            .map(Item::from)
            .collect();
        position.since = Some(found.token);
        if !items.is_empty() || found.token > since {
            let _ = self
                .batches
                .send(Batch::Changed(Arc::new(items), found.token));
        }
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

    /// Begins a watch of one owner's workspaces or all, of one workspace or all.
    pub async fn open(
        &self,
        owner: Option<UserId>,
        id: Option<WorkspaceId>,
        resume_token: &str,
    ) -> Result<Stream, Status> {
        let scope = WatchScope { owner, id };
        let wrong = |why| errors::invalid(InvalidField::new("resume_token", why));
        let since = match resume_token {
            "" => None,
            text => Some(token::decode(text, scope).map_err(wrong)?),
        };
        let batches = self.subscribe().await.map_err(errors::database)?;
        if let Some(since) = since
            && since > self.pool.watch_horizon().await.map_err(errors::database)?
        {
            return Err(wrong("is of another database"));
        }
        let first = self.pool.changes(since, scope).await;
        let first = first.map_err(errors::database)?;
        let (sender, receiver) = tokio::sync::mpsc::channel(BUFFER);
        let watcher = Watcher::new(self.clone(), scope, batches, sender);
        tokio::spawn(watcher.run(first));
        Ok(ReceiverStream::new(receiver))
    }
}
