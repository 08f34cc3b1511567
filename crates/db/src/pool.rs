//! The connection pool of one service. Transactions run in a task of their own, so that a caller that
//! hangs up cannot leave one half-done; a leader's transaction first holds its fence.

use std::{
    fmt,
    time::{Duration, Instant},
};

use diesel::{
    ConnectionError, ConnectionResult,
    sql_types::{BigInt, Text},
};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, deadpool},
};
use futures::{FutureExt, future::BoxFuture};
use tokio_postgres::NoTls;

use crate::{
    error::{DbError, Result},
    leader::Lease,
    prepared::Prepare,
};

/// How long a caller waits for a connection, a new one included.
const WAIT: Duration = Duration::from_secs(5);

/// Selected by the first statement of what elects, fences or writes as a leader, for its transaction: nobody waits
/// long for a row that somebody holds, and who is gone in mid-transaction holds none for long. Without it a takeover
/// waits until TCP gives up on the dead leader's connection.
pub(crate) const BOUNDS: &str = "set_config('lock_timeout', '5s', true), \
     set_config('statement_timeout', '60s', true), set_config('idle_in_transaction_session_timeout', '10s', true)";

/// A pool of connections under one role.
#[derive(Clone)]
pub struct Pool {
    inner: deadpool::Pool<AsyncPgConnection>,
    url: String,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("status", &self.inner.status())
            .finish()
    }
}

/// A pooled connection.
pub(crate) type Connection = deadpool::Object<AsyncPgConnection>;

impl Pool {
    /// A pool of at most `size` connections, made as they are needed.
    ///
    /// # Errors
    /// When the URL does not parse; nothing is connected here.
    pub fn new(url: &str, size: usize) -> Result<Self> {
        check_url(url)?;
        crate::statements::count();
        let mut config = ManagerConfig::<AsyncPgConnection>::default();
        config.custom_setup = Box::new(|url| connect(url).boxed());
        let manager = AsyncDieselConnectionManager::new_with_config(url, config);
        let inner = deadpool::Pool::builder(manager)
            .max_size(size)
            .build()
            .map_err(|e| DbError::Unavailable(e.to_string()))?;
        Ok(Self {
            inner,
            url: url.to_owned(),
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A connection for single statements.
    pub(crate) async fn get(&self) -> Result<Connection> {
        let began = Instant::now();
        let got = tokio::time::timeout(WAIT, self.inner.get()).await;
        // This connection is in use from here on; when all are given back is seen by the next who comes.
        let status = self.inner.status();
        let in_use = status.size.saturating_sub(status.available);
        metrics::gauge!("windlass_db_pool_connections").set(status.size as f64);
        metrics::gauge!("windlass_db_pool_connections_max").set(status.max_size as f64);
        metrics::gauge!("windlass_db_pool_connections_in_use").set(in_use as f64);
        let result = if matches!(got, Ok(Ok(_))) {
            "ok"
        } else {
            "error"
        };
        metrics::histogram!("windlass_db_pool_wait_seconds", "result" => result)
            .record(began.elapsed().as_secs_f64());
        match got {
            Ok(connection) => connection.map_err(|e| DbError::Unavailable(e.to_string())),
            Err(_) => Err(DbError::Unavailable(format!(
                "no connection within {} s",
                WAIT.as_secs()
            ))),
        }
    }

    /// Whether PostgreSQL answers.
    pub async fn ping(&self) -> Result<()> {
        let mut conn = self.get().await?;
        diesel::sql_query("SELECT 1").execute(&mut conn).await?;
        Ok(())
    }

    /// Runs `work` in one transaction, to its end even if the caller goes away.
    pub(crate) async fn transaction<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut AsyncPgConnection) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let mut conn = self.get().await?;
        let task = tokio::spawn(async move {
            conn.transaction::<T, DbError, _>(async |c| work(c).await)
                .await
        });
        task.await
            .unwrap_or_else(|e| Err(DbError::Unavailable(format!("transaction task: {e}"))))
    }

    /// The same for a leader: `work` runs only while `lease` holds, and a takeover waits for it.
    pub(crate) async fn fenced<T, F>(&self, lease: &Lease, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut AsyncPgConnection) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let lease = lease.clone();
        self.transaction(move |conn| {
            Box::pin(async move {
                hold_fence(conn, &lease).await?;
                work(conn).await
            })
        })
        .await
    }
}

/// A connection that notices within half a minute that PostgreSQL has gone without a word, also while it only
/// listens. By default that takes a quarter of an hour, or hours. What the URL says about it stands. Its statements are
/// not compiled (JIT).
pub(crate) async fn connect(url: &str) -> ConnectionResult<AsyncPgConnection> {
    let failed = |e: tokio_postgres::Error| ConnectionError::BadConnection(e.to_string());
    let mut config: tokio_postgres::Config = url.parse().map_err(failed)?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(WAIT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(30));
    }
    if config.get_keepalives_interval().is_none() {
        config
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
    }
    let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
    let mut conn = AsyncPgConnection::try_from_client_and_connection(client, connection).await?;
    // PostgreSQL compiles what it expects to be long, and of small tables without statistics it expects that: it
    // took 6 ms for a statement of 0.1 ms. Nothing here is long enough to gain by it.
    conn.batch_execute("SET jit = off")
        .await
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

pub(crate) fn check_url(url: &str) -> Result<()> {
    url.parse::<tokio_postgres::Config>()
        .map(drop)
        .map_err(|_| DbError::Url)
}

async fn hold_fence(conn: &mut AsyncPgConnection, lease: &Lease) -> Result<()> {
    let held = diesel::sql_query(format!(
        "SELECT {BOUNDS} FROM leader WHERE name = $1 AND epoch = $2 FOR SHARE"
    ))
    .bind::<Text, _>(&lease.name)
    .bind::<BigInt, _>(lease.epoch.0)
    .prepared()
    .execute(conn)
    .await?;
    if held == 1 {
        Ok(())
    } else {
        Err(DbError::Fenced {
            name: lease.name.clone(),
            epoch: lease.epoch.0,
        })
    }
}
