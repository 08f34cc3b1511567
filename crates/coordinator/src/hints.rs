//! Hints: `look now` without payload, over Redis pub/sub or, without Redis, PostgreSQL's NOTIFY. Losing
//! one costs latency only, so publishing never fails and a lost connection is mended in the background.

use std::{fmt, sync::Arc};

use futures::StreamExt;
use redis::{AsyncCommands, aio::ConnectionManager};
use tokio::sync::{Notify, OnceCell};
use tokio_util::task::AbortOnDropHandle;
use windlass_db::{Channel, Pool};
use windlass_service::Backoff;

/// Where hints travel.
#[derive(Clone)]
pub struct Hints(Arc<Transport>);

enum Transport {
    Redis {
        client: redis::Client,
        connection: OnceCell<ConnectionManager>,
    },
    Postgres(Pool),
    Off,
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self.0 {
            Transport::Redis { .. } => "Hints(redis)",
            Transport::Postgres(_) => "Hints(postgres)",
            Transport::Off => "Hints(off)",
        })
    }
}

/// A Redis URL that is none.
#[derive(Debug, thiserror::Error)]
#[error("WINDLASS_REDIS_URL: {0}")]
pub struct BadRedisUrl(String);

/// Wakes one loop. Hints that arrive before they are waited for are one.
#[derive(Debug)]
pub struct Waker {
    wake: Arc<Notify>,
    _listener: Option<Arc<AbortOnDropHandle<()>>>,
}

impl Waker {
    /// Waits for a hint; returns at once if one came since the last wait.
    pub async fn hint(&self) {
        self.wake.notified().await;
    }

    /// Of a loop that no hint wakes.
    pub fn never() -> Self {
        Self {
            wake: Arc::default(),
            _listener: None,
        }
    }

    /// What else may wake the same loop, such as an agent's event stream.
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }
}

impl Hints {
    /// Over Redis if there is a URL, else over PostgreSQL. Does not connect yet.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn new(redis_url: Option<&str>, pool: &Pool) -> Result<Self, BadRedisUrl> {
        let transport = match redis_url {
            Some(url) => Transport::Redis {
                client: redis::Client::open(url).map_err(|e| BadRedisUrl(e.to_string()))?,
                connection: OnceCell::new(),
            },
            None => Transport::Postgres(pool.clone()),
        };
        // Told from the start: an alert looks for an increase.
        for channel in Channel::ALL {
            metrics::counter!("windlass_hints_published_total", "channel" => channel.name())
                .increment(0);
            metrics::counter!("windlass_hints_lost_total", "channel" => channel.name())
                .increment(0);
        }
        Ok(Self(Arc::new(transport)))
    }

    /// No hints at all: everything converges by polling alone.
    pub fn off() -> Self {
        Self(Arc::new(Transport::Off))
    }

    /// Publishes a hint. To be called after commit. Never fails: a lost hint is found by polling.
    pub async fn publish(&self, channel: Channel) {
        let published = match &*self.0 {
            Transport::Redis { client, connection } => {
                publish_redis(client, connection, channel).await
            }
            Transport::Postgres(pool) => pool.notify(channel).await.map_err(|e| e.to_string()),
            Transport::Off => Ok(()),
        };
        match published {
            Ok(()) => {
                metrics::counter!("windlass_hints_published_total", "channel" => channel.name())
                    .increment(1);
            }
            Err(error) => {
                metrics::counter!("windlass_hints_lost_total", "channel" => channel.name())
                    .increment(1);
                tracing::debug!(channel = channel.name(), error, "hint lost");
            }
        }
    }

    /// Listens to a channel for as long as the waker lives.
    pub fn subscribe(&self, channel: Channel) -> Waker {
        let wake = Arc::<Notify>::default();
        let listener = self.listener(channel, vec![Arc::clone(&wake)]);
        Waker {
            wake,
            _listener: listener,
        }
    }

    /// As many wakers that share one listener, for as long as one of them lives.
    pub fn subscribe_each(&self, channel: Channel, count: u32) -> Vec<Waker> {
        let wakes: Vec<Arc<Notify>> = (0..count).map(|_| Arc::default()).collect();
        let listener = self.listener(channel, wakes.clone());
        let waker = |wake| Waker {
            wake,
            _listener: listener.clone(),
        };
        wakes.into_iter().map(waker).collect()
    }

    fn listener(
        &self,
        channel: Channel,
        wakes: Vec<Arc<Notify>>,
    ) -> Option<Arc<AbortOnDropHandle<()>>> {
        if let Transport::Off = &*self.0 {
            return None;
        }
        let hints = self.clone();
        let task = tokio::spawn(async move { hints.listen(channel, &wakes).await });
        Some(Arc::new(AbortOnDropHandle::new(task)))
    }

    async fn listen(&self, channel: Channel, wake: &[Arc<Notify>]) {
        let mut pauses = Backoff::RECONNECT.pauses();
        loop {
            match self.listen_once(channel, wake).await {
                Ok(()) => pauses = Backoff::RECONNECT.pauses(),
                Err(error) => tracing::debug!(channel = channel.name(), error, "not listening"),
            }
            let pause = pauses.next().unwrap_or(Backoff::RECONNECT.max);
            tokio::time::sleep(pause).await;
        }
    }

    /// Returns when the connection is lost. What was missed meanwhile is unknown, so connecting wakes.
    async fn listen_once(&self, channel: Channel, wakes: &[Arc<Notify>]) -> Result<(), String> {
        let received =
            metrics::counter!("windlass_hints_received_total", "channel" => channel.name());
        match &*self.0 {
            Transport::Redis { client, .. } => {
                let mut pubsub = client.get_async_pubsub().await.map_err(|e| e.to_string())?;
                pubsub
                    .subscribe(channel.name())
                    .await
                    .map_err(|e| e.to_string())?;
                ring(wakes);
                let mut messages = pubsub.on_message();
                while messages.next().await.is_some() {
                    received.increment(1);
                    ring(wakes);
                }
            }
            Transport::Postgres(pool) => {
                let mut listener = pool.listen(channel).await.map_err(|e| e.to_string())?;
                ring(wakes);
                while listener.next().await.is_some() {
                    received.increment(1);
                    ring(wakes);
                }
            }
            Transport::Off => {}
        }
        Ok(())
    }
}

fn ring(wakes: &[Arc<Notify>]) {
    for wake in wakes {
        wake.notify_one();
    }
}

async fn publish_redis(
    client: &redis::Client,
    connection: &OnceCell<ConnectionManager>,
    channel: Channel,
) -> Result<(), String> {
    let manager = connection
        .get_or_try_init(|| client.get_connection_manager())
        .await
        .map_err(|e| e.to_string())?;
    let receivers: Result<i64, _> = manager.clone().publish(channel.name(), "").await;
    receivers.map(drop).map_err(|e| e.to_string())
}
