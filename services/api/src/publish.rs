//! Hints after commit: to other processes, and to the watchers of this one, which need no transport.

use std::sync::Arc;

use tokio::sync::Notify;
use windlass_coordinator::{Channel, Hints};

/// What a request tells after its commit.
#[derive(Clone, Debug)]
pub struct Publisher {
    pub hints: Hints,
    /// Wakes the watchers of this process.
    pub watch: Arc<Notify>,
}

impl Publisher {
    pub fn changed(&self) {
        self.watch.notify_one();
        for channel in [Channel::Wc, Channel::Observer, Channel::Watch] {
            self.hints.publish(channel);
        }
    }
}
