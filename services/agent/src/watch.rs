//! Hints for whoever watches: what changed on the host, sent once the model knows it.
//!
//! Invariant: nobody who watches can slow anything down. Who is too slow loses hints and is told so by
//! one that names no workspace.

use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use uuid::Uuid;
use windlass_proto::{convert, v1};

/// Hints a watcher may be behind.
const BEHIND: usize = 1024;
/// Kind of the hint that stands for lost ones.
const LAGGED: &str = "watch/lagged";

/// Where hints go; cheap to clone.
#[derive(Debug, Clone)]
pub struct Hints {
    sender: broadcast::Sender<v1::WatchResponse>,
}

impl Default for Hints {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(BEHIND),
        }
    }
}

impl Hints {
    /// Tells everyone who watches.
    pub fn send(&self, kind: String, workspace: Option<Uuid>, at: DateTime<Utc>) {
        // An error means that nobody watches.
        let _ = self.sender.send(v1::WatchResponse {
            kind,
            workspace_id: workspace.map(|id| id.to_string()).unwrap_or_default(),
            time: Some(convert::timestamp(at)),
        });
    }

    /// Hints from now on.
    pub fn follow(&self) -> impl Stream<Item = v1::WatchResponse> + use<> {
        BroadcastStream::new(self.sender.subscribe()).map(|hint| match hint {
            Ok(hint) => hint,
            Err(BroadcastStreamRecvError::Lagged(_)) => v1::WatchResponse {
                kind: LAGGED.to_owned(),
                workspace_id: String::new(),
                time: Some(convert::timestamp(Utc::now())),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_slow_is_told_and_blocks_nobody() {
        let hints = Hints::default();
        let mut slow = std::pin::pin!(hints.follow());
        for _ in 0..BEHIND + 10 {
            hints.send("container/start".to_owned(), Some(Uuid::nil()), Utc::now());
        }
        assert_eq!(slow.next().await.unwrap().kind, LAGGED);
        assert_eq!(slow.next().await.unwrap().kind, "container/start");
    }
}
