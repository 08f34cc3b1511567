//! Hints over PostgreSQL, for installations without Redis: explicit NOTIFY after commit, never from a
//! trigger, and a dedicated connection that is always drained.

use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use futures::StreamExt;

use crate::{
    error::{DbError, Result},
    pool::{Pool, connect},
};

/// The channels of hints. The same names are used over Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Observe now.
    Observer,
    /// Reconcile now.
    Wc,
    /// Workspaces changed: watchers may look.
    Watch,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 3] = [Self::Observer, Self::Wc, Self::Watch];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Observer => "ob:wake",
            Self::Wc => "wc:wake",
            Self::Watch => "api:wake",
        }
    }
}

/// A connection that listens to one channel.
#[derive(Debug)]
pub struct Listener {
    hints: tokio::sync::mpsc::Receiver<()>,
    _guard: tokio::task::AbortHandle,
}

impl Listener {
    /// The next hint; `None` once the connection is lost. Hints that arrive meanwhile are one.
    pub async fn next(&mut self) -> Option<()> {
        self.hints.recv().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self._guard.abort();
    }
}

impl Pool {
    /// Sends a hint.
    pub async fn notify(&self, channel: Channel) -> Result<()> {
        let mut conn = self.get().await?;
        diesel::sql_query("SELECT pg_notify($1, '')")
            .bind::<Text, _>(channel.name())
            .execute(&mut conn)
            .await?;
        Ok(())
    }

    /// Listens on a connection of its own.
    pub async fn listen(&self, channel: Channel) -> Result<Listener> {
        let connected = connect(self.url()).await;
        let mut conn = connected.map_err(|e| DbError::Unavailable(e.to_string()))?;
        diesel::sql_query(format!("LISTEN \"{}\"", channel.name()))
            .execute(&mut conn)
            .await?;
        let (tx, hints) = tokio::sync::mpsc::channel(1);
        let task = tokio::spawn(async move {
            let mut stream = std::pin::pin!(conn.notifications_stream());
            while let Some(Ok(_)) = stream.next().await {
                // A full channel already holds a hint: this one adds nothing.
                if let Err(tokio::sync::mpsc::error::TrySendError::Closed(())) = tx.try_send(()) {
                    return;
                }
            }
        });
        Ok(Listener {
            hints,
            _guard: task.abort_handle(),
        })
    }
}
