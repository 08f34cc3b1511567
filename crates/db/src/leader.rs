//! Leadership: one row per shard of a service, taken over by compare-and-set by PostgreSQL's own clock. The
//! fence that makes it safe is held in `Pool::fenced`.
//!
//! Invariants: a row has one holder; all unexpired leases of a service are of one number of shards, because
//! whoever takes one holds the service's first row meanwhile; and every new epoch is above every earlier one
//! of the service, so that the numbers of shards are ordered in time too. Taking a lease under another
//! number of shards than before ends what is left of the old ones in the same transaction.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{
    OptionalExtension as _, QueryableByName,
    sql_types::{Array, BigInt, Bool, Double, Integer, Text, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use windlass_domain::{Epoch, Shard};

use crate::{
    error::Result,
    pool::{BOUNDS, Pool},
    prepared::Prepare,
};

/// Proof of having been elected. Whether it still holds, only the fence tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The row: `observer`, `wc`, `ttl` or `gc`, and `wc/1` for further shards.
    pub name: String,
    /// What is led.
    pub shard: Shard,
    /// Who leads.
    pub holder: String,
    /// With which epoch.
    pub epoch: Epoch,
}

/// What came of standing for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidacy {
    /// It is ours.
    Elected(Lease),
    /// Somebody holds it, or it is not ours to take.
    Held,
    /// Somebody leads under another number of shards, so that nobody can under ours.
    OtherShards {
        /// Who.
        holder: String,
        /// Under how many.
        shards: u32,
    },
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

/// One shard's lease as a candidate sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardLease {
    /// Who leads, or led last; empty if nobody does.
    pub holder: String,
    /// The epoch.
    pub epoch: i64,
    /// Whether the lease has not expired.
    pub held: bool,
}

/// Who leads what, and among whom it is divided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The lease of each shard, in order.
    pub leases: Vec<ShardLease>,
    /// Holders that live and divide the same number of shards, in order. Empty for one shard.
    pub replicas: Vec<String>,
}

#[derive(QueryableByName)]
struct Elected {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

#[derive(QueryableByName)]
struct Other {
    #[diesel(sql_type = Text)]
    holder: String,
    #[diesel(sql_type = Integer)]
    shards: i32,
}

#[derive(QueryableByName)]
struct Entry {
    #[diesel(sql_type = Bool)]
    replica: bool,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    holder: String,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = Bool)]
    held: bool,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// The row of a shard. That of shard 0 is the service's only one before there were shards.
fn row_name(service: &str, shard: Shard) -> String {
    match shard.index() {
        0 => service.to_owned(),
        index => format!("{service}/{index}"),
    }
}

fn count(shard: Shard) -> i32 {
    // At most 64.
    i32::try_from(shard.count()).unwrap_or(i32::MAX)
}

impl Pool {
    /// Takes the leadership of a service that is not sharded; see [`try_lead_shard`](Self::try_lead_shard).
    /// `None`: somebody else leads.
    pub async fn try_lead(
        &self,
        service: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>> {
        match self
            .try_lead_shard(service, Shard::WHOLE, holder, ttl)
            .await?
        {
            Candidacy::Elected(lease) => Ok(Some(lease)),
            Candidacy::Held | Candidacy::OtherShards { .. } => Ok(None),
        }
    }

    /// Takes a shard if nobody holds it, or if `holder` itself does: a holder is an address that only one
    /// process can listen on, so its earlier holder is that process's dead predecessor.
    pub async fn try_lead_shard(
        &self,
        service: &str,
        shard: Shard,
        holder: &str,
        ttl: Duration,
    ) -> Result<Candidacy> {
        let (service, holder) = (service.to_owned(), holder.to_owned());
        self.transaction(move |conn| {
            Box::pin(async move { take(conn, &service, shard, holder, ttl).await })
        })
        .await
    }

    /// Prolongs leases of one holder. Returns the names of those that are still held.
    pub async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<String>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = leases.iter().map(|l| l.name.as_str()).collect();
        let epochs: Vec<i64> = leases.iter().map(|l| l.epoch.0).collect();
        let mut conn = self.get().await?;
        // It waits for this leader's own writes, longer than others do, and not for ever.
        let renewed: Vec<Name> = diesel::sql_query(
            "WITH bounds AS MATERIALIZED (SELECT set_config('lock_timeout', '30s', true))
             UPDATE leader AS l SET expires_at = clock_timestamp() + make_interval(secs => $3)
             FROM unnest($1, $2) AS mine (name, epoch), bounds
             WHERE l.name = mine.name AND l.epoch = mine.epoch
             RETURNING l.name",
        )
        .bind::<Array<Text>, _>(names)
        .bind::<Array<BigInt>, _>(epochs)
        .bind::<Double, _>(ttl.as_secs_f64())
        .prepared()
        .load(&mut conn)
        .await?;
        Ok(renewed.into_iter().map(|row| row.name).collect())
    }

    /// Gives a lease up, so that another may take over at once. `false`: it was lost before.
    pub async fn release(&self, lease: &Lease) -> Result<bool> {
        let mut conn = self.get().await?;
        let updated = diesel::sql_query(
            "UPDATE leader SET expires_at = clock_timestamp(), holder = ''
             WHERE name = $1 AND epoch = $2",
        )
        .bind::<Text, _>(&lease.name)
        .bind::<BigInt, _>(lease.epoch.0)
        .execute(&mut conn)
        .await?;
        Ok(updated == 1)
    }

    /// Who leads what, in one statement. With more than one shard it also says that `holder` lives, and who
    /// has said so within `ttl`.
    pub async fn roster(
        &self,
        service: &str,
        shards: u32,
        holder: &str,
        ttl: Duration,
    ) -> Result<Roster> {
        let alone = shards <= 1;
        let names: Vec<String> = Shard::all(shards).map(|s| row_name(service, s)).collect();
        let presence = if alone {
            ""
        } else {
            "WITH present AS (
                INSERT INTO replicas (service, holder, shards, seen_at)
                VALUES ($2, $3, $4, clock_timestamp())
                ON CONFLICT (service, holder) DO UPDATE SET shards = excluded.shards, seen_at = excluded.seen_at
            ), gone AS (
                DELETE FROM replicas
                WHERE service = $2 AND seen_at < clock_timestamp() - make_interval(secs => 100 * $5)
            )"
        };
        let entries: Vec<Entry> = diesel::sql_query(format!(
            "{presence}
             SELECT false AS replica, name, holder, epoch, expires_at > clock_timestamp() AS held
             FROM leader WHERE name = ANY ($1)
             UNION ALL
             SELECT true, '', holder, 0::bigint, true FROM replicas
             WHERE service = $2 AND holder <> $3 AND shards = $4
                 AND seen_at > clock_timestamp() - make_interval(secs => $5)"
        ))
        .bind::<Array<Text>, _>(&names)
        .bind::<Text, _>(service)
        .bind::<Text, _>(holder)
        .bind::<Integer, _>(i32::try_from(shards).unwrap_or(i32::MAX))
        .bind::<Double, _>(ttl.as_secs_f64())
        .load(&mut self.get().await?)
        .await?;
        let mut roster = Roster {
            leases: vec![
                ShardLease {
                    holder: String::new(),
                    epoch: 0,
                    held: false,
                };
                names.len()
            ],
            replicas: if alone {
                vec![]
            } else {
                vec![holder.to_owned()]
            },
        };
        for entry in entries {
            if entry.replica {
                roster.replicas.push(entry.holder);
            } else if let Some(n) = names.iter().position(|name| *name == entry.name) {
                roster.leases[n] = ShardLease {
                    holder: entry.holder,
                    epoch: entry.epoch,
                    held: entry.held,
                };
            }
        }
        roster.replicas.sort();
        Ok(roster)
    }

    /// Takes `holder` out of those among whom shards are divided.
    pub async fn leave(&self, service: &str, holder: &str) -> Result<()> {
        let mut conn = self.get().await?;
        diesel::sql_query("DELETE FROM replicas WHERE service = $1 AND holder = $2")
            .bind::<Text, _>(service)
            .bind::<Text, _>(holder)
            .execute(&mut conn)
            .await?;
        Ok(())
    }

    /// Among how many shards a service is divided, or was when it was led last.
    pub async fn shards(&self, service: &str) -> Result<u32> {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = Integer)]
            shards: i32,
        }
        let mut conn = self.get().await?;
        let last: Option<Count> = diesel::sql_query(
            "SELECT shards FROM leader WHERE split_part(name, '/', 1) = $1 ORDER BY epoch DESC LIMIT 1",
        )
        .bind::<Text, _>(service)
        .get_result(&mut conn)
        .await
        .optional()?;
        Ok(last.map_or(1, |count| u32::try_from(count.shards).unwrap_or(1)))
    }

    /// Who leads now; the name is that of the row.
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

async fn take(
    conn: &mut AsyncPgConnection,
    service: &str,
    shard: Shard,
    holder: String,
    ttl: Duration,
) -> Result<Candidacy> {
    // One candidate of a service at a time; also one that knows of no shards, since it takes this row.
    let turn = diesel::sql_query(format!(
        "SELECT {BOUNDS} FROM leader WHERE name = $1 FOR NO KEY UPDATE"
    ))
    .bind::<Text, _>(service)
    .execute(conn)
    .await?;
    if turn == 0 {
        return Ok(Candidacy::Held);
    }
    let other: Option<Other> = diesel::sql_query(
        "SELECT holder, shards FROM leader
         WHERE split_part(name, '/', 1) = $1 AND shards <> $2 AND holder <> $3
             AND expires_at > clock_timestamp()
         LIMIT 1",
    )
    .bind::<Text, _>(service)
    .bind::<Integer, _>(count(shard))
    .bind::<Text, _>(&holder)
    .get_result(conn)
    .await
    .optional()?;
    if let Some(other) = other {
        return Ok(Candidacy::OtherShards {
            holder: other.holder,
            shards: u32::try_from(other.shards).unwrap_or_default(),
        });
    }
    let name = row_name(service, shard);
    let elected: Option<Elected> = diesel::sql_query(
        "UPDATE leader
         SET holder = $3, shards = $4, expires_at = clock_timestamp() + make_interval(secs => $5),
             epoch = 1 + (SELECT max(epoch) FROM leader WHERE split_part(name, '/', 1) = $1)
         WHERE name = $2 AND (expires_at <= clock_timestamp() OR holder = $3)
         RETURNING epoch",
    )
    .bind::<Text, _>(service)
    .bind::<Text, _>(&name)
    .bind::<Text, _>(&holder)
    .bind::<Integer, _>(count(shard))
    .bind::<Double, _>(ttl.as_secs_f64())
    .get_result(conn)
    .await
    .optional()?;
    let Some(Elected { epoch }) = elected else {
        return Ok(Candidacy::Held);
    };
    // What was led under another number of shards is over, paused leaders included.
    diesel::sql_query(
        "UPDATE leader SET epoch = $3, shards = $2, holder = '', expires_at = 'epoch'
         WHERE split_part(name, '/', 1) = $1 AND shards <> $2 AND epoch > 0",
    )
    .bind::<Text, _>(service)
    .bind::<Integer, _>(count(shard))
    .bind::<BigInt, _>(epoch)
    .execute(conn)
    .await?;
    Ok(Candidacy::Elected(Lease {
        name,
        shard,
        holder,
        epoch: Epoch(epoch),
    }))
}
