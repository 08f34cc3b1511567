//! The one way to Redis: everything is bounded, and nothing is tried in the background. The client's own
//! limits hold, 1 s for a connection and 500 ms for an answer. A connection that Redis has closed shows it only
//! when it is used, so a command that fails with one that was open is sent once more, on a new one; then it has
//! failed. Trying again is up to the caller, who knows whether anybody still waits. However many callers wait for a
//! connection, one is tried at a time, and what becomes of it is the answer to all of them.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{
    Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, RedisResult,
    aio::{MultiplexedConnection, PubSub},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

/// How long Redis may take to let us listen.
const PATIENCE: Duration = Duration::from_secs(5);

/// A Redis, and the connection to it that was good last.
#[derive(Debug)]
pub struct RedisLink {
    client: redis::Client,
    open: Mutex<Open>,
    /// Held by the one who connects.
    connecting: tokio::sync::Mutex<()>,
}

/// The connection that commands share, or why there is none, and how often one was tried.
#[derive(Debug, Clone)]
struct Open {
    connection: Result<MultiplexedConnection, String>,
    attempts: u64,
}

impl RedisLink {
    /// Does not connect yet.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn new(url: &str) -> RedisResult<Self> {
        // A listener sends nothing: only probes show it that Redis has gone without a word.
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5))
            .with_retries(3);
        let tcp = TcpSettings::default().set_keepalive(keepalive);
        let client = redis::Client::open(url.into_connection_info()?.set_tcp_settings(tcp))?;
        Ok(Self {
            client,
            open: Mutex::new(Open {
                connection: Err("not tried yet".to_owned()),
                attempts: 0,
            }),
            connecting: tokio::sync::Mutex::default(),
        })
    }

    /// Sends a command, perhaps twice: it has to mean the same then.
    ///
    /// # Errors
    /// When Redis cannot be reached, does not answer in time, or refuses.
    pub async fn send<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let Open {
            connection,
            attempts,
        } = self.open().clone();
        if let Ok(mut connection) = connection {
            match command.query_async(&mut connection).await {
                Err(error) if is_of_connection(&error) => {}
                answer => return answer,
            }
        }
        let mut connection = self.connect(attempts).await?;
        command.query_async(&mut connection).await
    }

    /// What came of the attempts after so many: of another caller's, or of one that is made now.
    async fn connect(&self, after: u64) -> RedisResult<MultiplexedConnection> {
        let _alone = self.connecting.lock().await;
        let open = self.open().clone();
        if open.attempts > after {
            let failed = |why| (ErrorKind::Io, "cannot connect", why).into();
            return open.connection.map_err(failed);
        }
        let connected = self.client.get_multiplexed_async_connection().await;
        *self.open() = Open {
            connection: connected.as_ref().cloned().map_err(ToString::to_string),
            attempts: after + 1,
        };
        connected
    }

    /// Listens to a channel, on a connection of its own.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<PubSub, String> {
        let connect = async {
            let mut pubsub = self.client.get_async_pubsub().await?;
            pubsub.subscribe(channel).await?;
            RedisResult::Ok(pubsub)
        };
        let connected = tokio::time::timeout(PATIENCE, connect).await;
        connected
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // What it holds is valid after any panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another connection may do better. What Redis itself answers it would answer there as well, unless this
/// is a server that leads no more.
fn is_of_connection(error: &RedisError) -> bool {
    let answered = matches!(
        error.kind(),
        ErrorKind::Server(_) | ErrorKind::UnexpectedReturnType
    );
    !answered || error.is_unrecoverable_error() || error.code() == Some("READONLY")
}
