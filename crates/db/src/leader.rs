//! Leadership: one row per service, taken over by compare-and-set with epoch + 1 by PostgreSQL's own
//! clock. The fence that makes it safe is held in `Pool::fenced`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{
    OptionalExtension as _, QueryableByName,
    sql_types::{BigInt, Double, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;
use windlass_domain::Epoch;

use crate::{error::Result, pool::Pool};

/// Proof of having been elected. Whether it still holds, only the fence tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What is led: `observer`, `wc`, `ttl` or `gc`.
    pub name: String,
    /// Who leads.
    pub holder: String,
    /// With which epoch.
    pub epoch: Epoch,
}

/// The row as anybody may read it.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct LeaderRow {
    /// Who leads, or led last; empty if nobody does.
    #[diesel(sql_type = Text)]
    pub holder: String,
    /// The epoch.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// Until when.
    #[diesel(sql_type = Timestamptz)]
    pub expires_at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Elected {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

impl Pool {
    /// Takes the leadership if nobody holds it, or if `holder` itself does: a holder is an address that only
    /// one process can listen on, so its earlier holder is that process's dead predecessor. `None`: somebody
    /// else leads.
    pub async fn try_lead(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Lease>> {
        let mut conn = self.get().await?;
        let elected: Option<Elected> = diesel::sql_query(
            "UPDATE leader
             SET holder = $2, epoch = epoch + 1,
                 expires_at = clock_timestamp() + make_interval(secs => $3)
             WHERE name = $1 AND (expires_at <= clock_timestamp() OR holder = $2)
             RETURNING epoch",
        )
        .bind::<Text, _>(name)
        .bind::<Text, _>(holder)
        .bind::<Double, _>(ttl.as_secs_f64())
        .get_result(&mut conn)
        .await
        .optional()?;
        Ok(elected.map(|e| Lease {
            name: name.to_owned(),
            holder: holder.to_owned(),
            epoch: Epoch(e.epoch),
        }))
    }

    /// Prolongs a lease. `false`: it was lost.
    pub async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool> {
        self.set_expiry(lease, ttl.as_secs_f64(), &lease.holder)
            .await
    }

    /// Gives a lease up, so that another may take over at once.
    pub async fn release(&self, lease: &Lease) -> Result<bool> {
        self.set_expiry(lease, 0.0, "").await
    }

    async fn set_expiry(&self, lease: &Lease, seconds: f64, holder: &str) -> Result<bool> {
        let mut conn = self.get().await?;
        let updated = diesel::sql_query(
            "UPDATE leader
             SET expires_at = clock_timestamp() + make_interval(secs => $3), holder = $4
             WHERE name = $1 AND epoch = $2",
        )
        .bind::<Text, _>(&lease.name)
        .bind::<BigInt, _>(lease.epoch.0)
        .bind::<Double, _>(seconds)
        .bind::<Text, _>(holder)
        .execute(&mut conn)
        .await?;
        Ok(updated == 1)
    }

    /// Who leads now.
    pub async fn leader(&self, name: &str) -> Result<Option<LeaderRow>> {
        let mut conn = self.get().await?;
        Ok(
            diesel::sql_query("SELECT holder, epoch, expires_at FROM leader WHERE name = $1")
                .bind::<Text, _>(name)
                .get_result(&mut conn)
                .await
                .optional()?,
        )
    }
}
