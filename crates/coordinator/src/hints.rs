//! Hints: `look now` without payload, over Redis pub/sub or, without Redis, PostgreSQL's NOTIFY. Losing
//! one costs latency only, so publishing never fails and a lost connection is mended in the background.
//!
//! Publishing never waits either: it only says that a channel is to be told, and one task per [`Hints`] tells.
//! What is asked for while that is under way is one more hint. So a Redis that is away delays no pass.

use std::{fmt, sync::Arc};

use futures::StreamExt;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;
use windlass_db::{Channel, Pool};
use windlass_service::Backoff;

use crate::redis_link::RedisLink;

/// Where hints travel.
#[derive(Clone)]
pub struct Hints {
    transport: Arc<Transport>,
    asked: watch::Sender<Asked>,
}

/// How often each channel was asked to be told, in the order of [`Channel::ALL`].
type Asked = [u64; Channel::ALL.len()];

enum Transport {
    Redis(Box<RedisLink>),
    Postgres(Pool),
    Off,
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self.transport {
            Transport::Redis(_) => "Hints(redis)",
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
    nudge: Arc<Notify>,
    _listener: Option<Arc<AbortOnDropHandle<()>>>,
}

impl Waker {
    /// Waits for a hint; returns at once if one came since the last wait.
    pub async fn hint(&self) {
        self.wake.notified().await;
    }

    /// Waits for a nudge, in the same way.
    pub(crate) async fn nudged(&self) {
        self.nudge.notified().await;
    }

    /// Of a loop that no hint wakes.
    pub fn never() -> Self {
        Self {
            wake: Arc::default(),
            nudge: Arc::default(),
            _listener: None,
        }
    }

    /// What else may wake the same loop, such as an agent's event stream.
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// Asks for one pass as the clock does: unlike a hint it is no sign that something is going on.
    pub fn nudge(&self) -> Arc<Notify> {
        Arc::clone(&self.nudge)
    }
}

impl Hints {
    /// Over Redis if there is a URL, else over PostgreSQL. Does not connect yet. To be called in a runtime.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn new(redis_url: Option<&str>, pool: &Pool) -> Result<Self, BadRedisUrl> {
        let transport = Arc::new(match redis_url {
            Some(url) => {
                let link = RedisLink::new(url).map_err(|e| BadRedisUrl(e.to_string()))?;
                Transport::Redis(Box::new(link))
            }
            None => Transport::Postgres(pool.clone()),
        });
        // Told from the start: an alert looks for an increase.
        for channel in Channel::ALL {
            metrics::counter!("windlass_hints_published_total", "channel" => channel.name())
                .increment(0);
            metrics::counter!("windlass_hints_lost_total", "channel" => channel.name())
                .increment(0);
        }
        let (asked, asking) = watch::channel(Asked::default());
        // Ends by itself when nobody can ask any more, after it has told what was asked for.
        tokio::spawn(publish(Arc::clone(&transport), asking));
        Ok(Self { transport, asked })
    }

    /// No hints at all: everything converges by polling alone.
    pub fn off() -> Self {
        Self {
            transport: Arc::new(Transport::Off),
            asked: watch::Sender::default(),
        }
    }

    /// Publishes a hint soon. To be called after commit. Never waits and never fails: a lost hint is found by
    /// polling.
    pub fn publish(&self, channel: Channel) {
        self.asked.send_modify(|asked| {
            for (of, count) in Channel::ALL.into_iter().zip(asked) {
                *count += u64::from(of == channel);
            }
        });
    }

    /// Listens to a channel for as long as the waker lives.
    pub fn subscribe(&self, channel: Channel) -> Waker {
        let wake = Arc::<Notify>::default();
        let listener = self.listener(channel, vec![Arc::clone(&wake)]);
        Waker {
            wake,
            nudge: Arc::default(),
            _listener: listener,
        }
    }

    /// As many wakers that share one listener, for as long as one of them lives.
    pub fn subscribe_each(&self, channel: Channel, count: u32) -> Vec<Waker> {
        let wakes: Vec<Arc<Notify>> = (0..count).map(|_| Arc::default()).collect();
        let listener = self.listener(channel, wakes.clone());
        let waker = |wake| Waker {
            wake,
            nudge: Arc::default(),
            _listener: listener.clone(),
        };
        wakes.into_iter().map(waker).collect()
    }

    fn listener(
        &self,
        channel: Channel,
        wakes: Vec<Arc<Notify>>,
    ) -> Option<Arc<AbortOnDropHandle<()>>> {
        if let Transport::Off = *self.transport {
            return None;
        }
        let transport = Arc::clone(&self.transport);
        let task = tokio::spawn(async move { transport.listen(channel, &wakes).await });
        Some(Arc::new(AbortOnDropHandle::new(task)))
    }
}

impl Transport {
    async fn listen(&self, channel: Channel, wakes: &[Arc<Notify>]) {
        let mut pauses = Backoff::RECONNECT.pauses();
        loop {
            match self.listen_once(channel, wakes).await {
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
        match self {
            Self::Redis(link) => {
                let mut pubsub = link.subscribe(channel.name()).await?;
                ring(wakes);
                let mut messages = pubsub.on_message();
                while messages.next().await.is_some() {
                    received.increment(1);
                    ring(wakes);
                }
            }
            Self::Postgres(pool) => {
                let mut listener = pool.listen(channel).await.map_err(|e| e.to_string())?;
                ring(wakes);
                while listener.next().await.is_some() {
                    received.increment(1);
                    ring(wakes);
                }
            }
            Self::Off => {}
        }
        Ok(())
    }
}

fn ring(wakes: &[Arc<Notify>]) {
    for wake in wakes {
        wake.notify_one();
    }
}

/// Tells what is asked for, until nobody can ask any more.
async fn publish(transport: Arc<Transport>, mut asking: watch::Receiver<Asked>) {
    let mut told = Asked::default();
    while asking.changed().await.is_ok() {
        let asked = *asking.borrow_and_update();
        for (channel, (asked, told)) in Channel::ALL.into_iter().zip(asked.iter().zip(&told)) {
            if asked != told {
                publish_once(&transport, channel).await;
            }
        }
        told = asked;
    }
}

async fn publish_once(transport: &Transport, channel: Channel) {
    let published = match transport {
        Transport::Redis(link) => {
            let mut hint = redis::cmd("PUBLISH");
            hint.arg(channel.name()).arg("");
            link.send::<()>(&hint).await.map_err(|e| e.to_string())
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
