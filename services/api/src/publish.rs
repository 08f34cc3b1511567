//! Hints after commit. A request only rings a bell; one task publishes, so that no request waits for
//! Redis, and many changes at once are one hint.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use windlass_coordinator::{Channel, Hints};

/// What a request rings after its commit.
#[derive(Clone, Debug)]
pub struct Publisher {
    bell: Arc<Notify>,
    /// The watchers of this process need no transport.
    watch: Arc<Notify>,
}

impl Publisher {
    pub fn changed(&self) {
        self.watch.notify_one();
        self.bell.notify_one();
    }
}

/// The task behind a [`Publisher`].
#[derive(Debug)]
pub struct Publishing {
    bell: Arc<Notify>,
    hints: Hints,
}

pub fn publisher(hints: Hints, watch: Arc<Notify>) -> (Publisher, Publishing) {
    let bell = Arc::new(Notify::new());
    let publisher = Publisher {
        bell: Arc::clone(&bell),
        watch,
    };
    (publisher, Publishing { bell, hints })
}

impl Publishing {
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let publish = async {
            loop {
                self.bell.notified().await;
                for channel in [Channel::Wc, Channel::Observer, Channel::Watch] {
                    self.hints.publish(channel).await;
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            never = publish => never,
        }
    }
}
