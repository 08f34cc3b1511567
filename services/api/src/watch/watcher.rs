//! One watcher: its first state, then what concerns it of every batch.

use std::time::Duration;

use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc,
};
use tonic::Status;
use windlass_db::read::{Changes, WatchScope, WatchToken};
use windlass_proto::v1;

use super::{Batch, Item, Watch, token};
use crate::errors;

/// How often a watcher that hears nothing gets a newer token.
const QUIET: Duration = Duration::from_secs(30);

/// Why a watcher ends.
enum End {
    /// Its client is gone.
    Gone,
    /// It cannot go on.
    Failed(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

pub struct Watcher {
    watch: Watch,
    scope: WatchScope,
    batches: broadcast::Receiver<Batch>,
    client: mpsc::Sender<Result<v1::WatchWorkspacesResponse, Status>>,
}

impl Watcher {
    pub fn new(
        watch: Watch,
        scope: WatchScope,
        batches: broadcast::Receiver<Batch>,
        client: mpsc::Sender<Result<v1::WatchWorkspacesResponse, Status>>,
    ) -> Self {
        Self {
            watch,
            scope,
            batches,
            client,
        }
    }

    pub async fn run(mut self, first: Changes) {
        if let Err(End::Failed(status)) = self.follow(first).await {
            // A client that is gone needs no reason.
            let _ = self.client.send(Err(status)).await;
        }
    }

    async fn follow(&mut self, first: Changes) -> Result<(), End> {
        let mut position = first.token;
        let items: Vec<Item> = first.changes.into_iter().map(Item::from).collect();
        for item in &items {
            self.workspace(item, String::new()).await?;
        }
        drop(items);
        self.send(v1::WatchWorkspacesResponse {
            workspace: None,
            resume_token: self.token(position),
            synced: true,
        })
        .await?;
        let mut told = position;
        let mut quiet = tokio::time::interval(QUIET);
        quiet.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let batch = tokio::select! {
                () = self.client.closed() => return Err(End::Gone),
                batch = self.batches.recv() => batch,
                _ = quiet.tick() => {
                    if position > told {
                        told = position;
                        self.position(position).await?;
                    }
                    continue;
                }
            };
            let sent = match batch {
                Ok(Batch::Changed(items, to)) => {
                    let sent = self.items(&items, Some(position), position.max(to)).await?;
                    position = position.max(to);
                    sent
                }
                Ok(Batch::Lost) => {
                    position = self.read(None).await?;
                    true
                }
                Err(RecvError::Lagged(batches)) => {
                    tracing::debug!(batches, "a watcher fell behind and reads for itself");
                    position = self.read(Some(position)).await?;
                    true
                }
                // The hub lives as long as the server.
                Err(RecvError::Closed) => return Err(End::Gone),
            };
            if sent {
                told = position;
                quiet.reset();
            }
        }
    }

    /// Reads what changed since a position, or everything, after subscribing anew.
    async fn read(&mut self, since: Option<WatchToken>) -> Result<WatchToken, End> {
        self.batches = self.watch.subscribe().await.map_err(errors::database)?;
        let pool = &self.watch.pool;
        let mut since = since;
        let mut read = pool.changes(since, self.scope).await;
        if let Ok(changes) = &read
            && since.is_some_and(|since| changes.token < since)
        {
            since = None;
            read = pool.changes(None, self.scope).await;
        }
        let read = read.map_err(errors::database)?;
        let items: Vec<Item> = read.changes.into_iter().map(Item::from).collect();
        if !self.items(&items, since, read.token).await? {
            self.position(read.token).await?;
        }
        Ok(read.token)
    }

    /// Sends what is in view; the position after the batch goes with its last message, the one before it
    /// (none: begin anew) with the others. Whether there was anything.
    async fn items(
        &self,
        items: &[Item],
        before: Option<WatchToken>,
        after: WatchToken,
    ) -> Result<bool, End> {
        let mine: Vec<&Item> = items.iter().filter(|item| self.concerns(item)).collect();
        let last = mine.len().saturating_sub(1);
        for (n, item) in mine.iter().enumerate() {
            let position = if n == last { Some(after) } else { before };
            let resume_token = position.map_or_else(String::new, |p| self.token(p));
            self.workspace(item, resume_token).await?;
        }
        Ok(!mine.is_empty())
    }

    fn concerns(&self, item: &Item) -> bool {
        self.scope.owner.is_none_or(|owner| owner == item.owner)
            && self.scope.id.is_none_or(|id| id == item.id)
    }

    fn token(&self, position: WatchToken) -> String {
        token::encode(position, self.scope)
    }

    async fn workspace(&self, item: &Item, resume_token: String) -> Result<(), End> {
        self.send(v1::WatchWorkspacesResponse {
            workspace: Some(item.workspace.clone()),
            resume_token,
            synced: false,
        })
        .await
    }

    async fn position(&self, position: WatchToken) -> Result<(), End> {
        self.send(v1::WatchWorkspacesResponse {
            workspace: None,
            resume_token: self.token(position),
            synced: false,
        })
        .await
    }

    async fn send(&self, message: v1::WatchWorkspacesResponse) -> Result<(), End> {
        self.client.send(Ok(message)).await.map_err(|_| End::Gone)
    }
}
