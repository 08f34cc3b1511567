//! What observer writes: the conditions that changed, and how fresh hosts and the store are. Nothing at all,
//! if nothing is to be said; else one transaction, so that nobody sees a host said to be observed at some
//! moment without what was seen of its workspaces by then.
//!
//! A row's `observed_at` is the moment at which its conditions are stored. A host's `last_observed_at` is no
//! later than the beginning of a full list of it, by PostgreSQL's clock. So where it is later than a row's
//! `observed_at`, that list began after the conditions had been seen, and did not change them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use windlass_domain::{Conditions, HostId, WorkspaceId};

use super::lock_workspaces;
use crate::{
    error::{DbError, Result},
    leader::Lease,
    pool::Pool,
    prepared::Prepare,
    read::RowVersion,
};

/// Rows in one statement: some megabytes.
const CHUNK: usize = 5_000;

/// What a pass has to say.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Hosts that were observed anew, or that could not be, or can be again.
    pub hosts: Vec<(HostId, Noted)>,
    /// The same of the archive store.
    pub store: Option<Noted>,
    /// Conditions that changed.
    pub changed: Vec<(WorkspaceId, Arc<Conditions>)>,
}

/// How an observation went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// No full list began earlier than this; `None`: as before. It never moves back.
    pub observed_at: Option<DateTime<Utc>>,
    /// Why it could not be observed; empty if it could.
    pub error: String,
}

impl Observation {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.store.is_none() && self.changed.is_empty()
    }
}

/// What was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// How many workspaces were written.
    pub rows: usize,
    /// What their rows are since, if any was.
    pub version: Option<RowVersion>,
}

impl Pool {
    /// Stores what a pass has to say. Makes no statement if there is nothing to say.
    ///
    /// # Errors
    /// When PostgreSQL is away or `lease` does not hold any more: then nothing was stored.
    pub async fn store_observation(&self, lease: &Lease, seen: Observation) -> Result<Stored> {
        if seen.is_empty() {
            return Ok(Stored::default());
        }
        self.fenced(lease, move |conn| {
            Box::pin(async move {
                store_hosts(conn, seen.hosts).await?;
                if let Some(store) = seen.store {
                    store_store(conn, store).await?;
                }
                let mut changed = seen.changed;
                changed.sort_unstable_by_key(|(id, _)| *id);
                let mut stored = Stored::default();
                for chunk in changed.chunks(CHUNK) {
                    let ids: Vec<Uuid> = chunk.iter().map(|(id, _)| id.0).collect();
                    lock_workspaces(conn, &ids).await?;
                    let written = store_conditions(conn, chunk).await?;
                    stored.rows += usize::try_from(written.rows).unwrap_or_default();
                    stored.version = Some(RowVersion {
                        xid: written.xid,
                        updated_at: written.at,
                    });
                }
                Ok(stored)
            })
        })
        .await
    }
}

#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = BigInt)]
    xid: i64,
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
}

type Conn = diesel_async::AsyncPgConnection;

async fn store_hosts(conn: &mut Conn, hosts: Vec<(HostId, Noted)>) -> Result<()> {
    if hosts.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = hosts.iter().map(|(id, _)| id.0).collect();
    let times: Vec<Option<DateTime<Utc>>> = hosts.iter().map(|(_, n)| n.observed_at).collect();
    let errors: Vec<String> = hosts.into_iter().map(|(_, n)| n.error).collect();
    // GREATEST takes no notice of NULL.
    diesel::sql_query(
        "UPDATE hosts AS h
         SET last_observed_at = GREATEST(h.last_observed_at, s.at), observe_error = s.error
         FROM unnest($1, $2, $3) AS s (id, at, error) WHERE h.id = s.id",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<Nullable<Timestamptz>>, _>(times)
    .bind::<Array<Text>, _>(errors)
    .execute(conn)
    .await?;
    Ok(())
}

async fn store_store(conn: &mut Conn, store: Noted) -> Result<()> {
    diesel::sql_query(
        "UPDATE archive_store
         SET last_observed_at = GREATEST(last_observed_at, $1), observe_error = $2",
    )
    .bind::<Nullable<Timestamptz>, _>(store.observed_at)
    .bind::<Text, _>(store.error)
    .execute(conn)
    .await?;
    Ok(())
}

async fn store_conditions(
    conn: &mut Conn,
    changed: &[(WorkspaceId, Arc<Conditions>)],
) -> Result<Written> {
    let ids: Vec<Uuid> = changed.iter().map(|(id, _)| id.0).collect();
    let texts = changed
        .iter()
        .map(|(id, conditions)| {
            serde_json::to_string(&**conditions).map_err(|e| DbError::Corrupt {
                id: id.to_string(),
                what: e.to_string(),
            })
        })
        .collect::<Result<Vec<String>>>()?;
    Ok(diesel::sql_query(
        "WITH written AS (
             UPDATE workspaces AS w
             SET conditions = s.conditions::jsonb, observed_at = (SELECT clock_timestamp())
             FROM unnest($1, $2) AS s (id, conditions) WHERE w.id = s.id
             RETURNING 1
         )
         SELECT count(*) AS rows, pg_current_xact_id()::text::bigint AS xid, now() AS at FROM written",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<Text>, _>(texts)
    .prepared()
    .get_result(conn)
    .await?)
}
