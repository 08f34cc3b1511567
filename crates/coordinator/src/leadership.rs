//! Holding the leadership: a task renews the lease until it is lost or given up. That the leader may
//! still write is never concluded from this; the fence in PostgreSQL decides.

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use windlass_db::{DbError, Lease, Pool};

/// A held leadership. Dropping it stops renewing.
#[derive(Debug)]
pub struct Leadership {
    /// The lease to write under.
    pub lease: Lease,
    lost: CancellationToken,
    pool: Pool,
    _renewal: AbortOnDropHandle<()>,
}

impl Leadership {
    /// Takes the leadership if it is free.
    pub async fn acquire(
        pool: &Pool,
        name: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Self>, DbError> {
        let Some(lease) = pool.try_lead(name, holder, ttl).await? else {
            return Ok(None);
        };
        let lost = CancellationToken::new();
        let renewal = renew(pool.clone(), lease.clone(), ttl, lost.clone());
        Ok(Some(Self {
            lease,
            lost,
            pool: pool.clone(),
            _renewal: AbortOnDropHandle::new(tokio::spawn(renewal)),
        }))
    }

    /// Waits until the leadership is lost.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Gives it up, so that another replica takes over at once.
    pub async fn release(self) {
        if let Err(error) = self.pool.release(&self.lease).await {
            tracing::warn!(%error, "could not release the leadership; it expires by itself");
        }
    }
}

async fn renew(pool: Pool, lease: Lease, ttl: Duration, lost: CancellationToken) {
    let mut renewed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(ttl / 3).await;
        let asked = tokio::time::Instant::now();
        match pool.renew(&lease, ttl).await {
            Ok(true) => renewed = asked,
            Ok(false) => break,
            Err(error) => {
                tracing::warn!(%error, "could not renew the leadership");
                if renewed.elapsed() > ttl {
                    break;
                }
            }
        }
    }
    lost.cancel();
}
