//! One watcher: its first state, then what concerns it of every batch.

use std::{sync::Arc, time::Duration};

use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc, oneshot,
};
use tonic::Status;
use windlass_db::read::{Change, WatchScope, WatchToken};
use windlass_domain::WorkspaceId;
use windlass_proto::v1;

use super::{Batch, Item, PAGE, Watch, passes::Pass, token};
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

    /// Runs until its client is gone or it cannot go on: then `failed` is told why.
    pub async fn run(
        mut self,
        since: Option<WatchToken>,
        horizon: WatchToken,
        pass: Arc<Pass>,
        failed: oneshot::Sender<Status>,
    ) {
        let end = tokio::select! {
            end = self.follow(since, horizon) => end,
            () = pass.void() => Err(errors::watch_void().into()),
        };
        if let Err(End::Failed(status)) = end {
            // A client that is gone needs no reason.
            let _ = failed.send(status);
        }
    }

    async fn follow(&mut self, since: Option<WatchToken>, horizon: WatchToken) -> Result<(), End> {
        let mut position = match since {
            None => {
                self.first_state().await?;
                horizon
            }
            Some(since) => self.missed(since, None).await?,
        };
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
                    let sent = self.items(&items, position, position.max(to)).await?;
                    position = position.max(to);
                    sent
                }
                Ok(Batch::Lost) => {
                    position = self.begin_anew().await?;
                    true
                }
                Err(RecvError::Lagged(batches)) => {
                    tracing::debug!(batches, "a watcher fell behind and reads for itself");
                    position = self.catch_up(position).await?;
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

    /// Reads what it missed, after subscribing anew.
    async fn catch_up(&mut self, since: WatchToken) -> Result<WatchToken, End> {
        self.batches = self.watch.subscribe().await.map_err(errors::database)?;
        let position = self.missed(since, Some(since)).await?;
        self.position(position).await?;
        Ok(position)
    }

    /// Reads everything, after subscribing anew: its position is void.
    async fn begin_anew(&mut self) -> Result<WatchToken, End> {
        self.batches = self.watch.subscribe().await.map_err(errors::database)?;
        let horizon = self.watch.read(self.watch.pool.watch_horizon()).await?;
        self.first_state().await?;
        self.position(horizon.token).await?;
        Ok(horizon.token)
    }

    /// Sends everything in view, page by page.
    async fn first_state(&self) -> Result<(), End> {
        let mut after: Option<WorkspaceId> = None;
        loop {
            let page = self.watch.pool.first_state(self.scope, after, PAGE as i64);
            let page = self.watch.read(page).await?;
            let complete = page.len() < PAGE;
            after = page.last().map(|last| last.record.workspace.id);
            self.page(page, None).await?;
            if complete {
                return Ok(());
            }
        }
    }

    /// Sends what changed since a position, page by page, each with the position to resume at. Returns
    /// the one after it.
    async fn missed(
        &self,
        since: WatchToken,
        resume: Option<WatchToken>,
    ) -> Result<WatchToken, End> {
        let changed = self.watch.pool.changed(since, self.scope);
        let changed = self.watch.read(changed).await?;
        if changed.horizon.token < since {
            // The database went back in time.
            self.first_state().await?;
            return Ok(changed.horizon.token);
        }
        let ids: Vec<WorkspaceId> = changed.rows.into_iter().map(|(id, _)| id).collect();
        for page in ids.chunks(PAGE) {
            let page = self.watch.read(self.watch.pool.changes_of(page)).await?;
            self.page(page, resume).await?;
        }
        Ok(changed.horizon.token)
    }

    async fn page(&self, page: Vec<Change>, resume: Option<WatchToken>) -> Result<(), End> {
        for change in page {
            let token = resume.map_or_else(String::new, |p| self.token(p));
            self.workspace(&Item::from(change), token).await?;
        }
        Ok(())
    }

    /// Sends what is in view; the position after the batch goes with its last message, the one before it
    /// with the others. Whether there was anything.
    async fn items(
        &self,
        items: &[Item],
        before: WatchToken,
        after: WatchToken,
    ) -> Result<bool, End> {
        let mine: Vec<&Item> = items.iter().filter(|item| self.concerns(item)).collect();
        let last = mine.len().saturating_sub(1);
        for (n, item) in mine.iter().enumerate() {
            let position = if n == last { after } else { before };
            self.workspace(item, self.token(position)).await?;
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
        let sent = tokio::time::timeout(self.watch.stall, self.client.send(Ok(message))).await;
        match sent {
            Ok(sent) => sent.map_err(|_| End::Gone),
            Err(_) => Err(errors::watch_stalled().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;
    use windlass_db::Pool;
    use windlass_service::reason_of;

    use super::*;

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_told_to_resume() {
        let pool = Pool::new("postgres://nobody@127.0.0.1:1/none", 1).unwrap();
        let mut watch = Watch::new(pool, Arc::new(Notify::new()));
        watch.stall = Duration::from_millis(20);
        let batches = watch.batches.subscribe();
        let (client, taken) = mpsc::channel(1);
        let watcher = Watcher::new(watch, WatchScope::default(), batches, client);
        assert!(watcher.position(WatchToken(1)).await.is_ok());
        let Err(End::Failed(status)) = watcher.position(WatchToken(2)).await else {
            panic!("it went on");
        };
        assert_eq!(reason_of(&status).as_deref(), Some("WATCH_STALLED"));
        drop(taken);
        assert!(matches!(
            watcher.position(WatchToken(3)).await,
            Err(End::Gone)
        ));
    }
}
