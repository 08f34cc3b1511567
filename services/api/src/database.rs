//! Whether PostgreSQL answers, as /readyz tells it, and what is to be there once it does: the host
//! `default`, if its agent's address is configured.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use windlass_coordinator::{Channel, Hints};
use windlass_db::{DbError, Pool};
use windlass_service::Readiness;

const CHECK: &str = "postgres";
const PERIOD: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Database {
    pool: Pool,
    readiness: Readiness,
    hints: Hints,
    /// Address of the default host's agent, until it is registered.
    default_host: Option<String>,
}

impl Database {
    pub fn new(
        pool: Pool,
        readiness: Readiness,
        hints: Hints,
        default_host: Option<String>,
    ) -> Self {
        readiness.expect(CHECK);
        Self {
            pool,
            readiness,
            hints,
            default_host,
        }
    }

    pub async fn follow(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            match tokio::time::timeout(PATIENCE, self.check()).await {
                Ok(Ok(())) => self.readiness.set(CHECK, true, "answers"),
                Ok(Err(error)) => self.readiness.set(CHECK, false, error.to_string()),
                Err(_) => self.readiness.set(CHECK, false, "does not answer"),
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    async fn check(&mut self) -> Result<(), DbError> {
        self.pool.ping().await?;
        if let Some(address) = &self.default_host {
            let host = self.pool.register_host("default", address).await?;
            tracing::info!(id = %host.id, address, "the default host is registered");
            self.hints.publish(Channel::Observer);
            self.default_host = None;
        }
        Ok(())
    }
}
