//! What ttl writes: last accesses, and the wishes that its two rules make. One statement each, for any
//! number of rows, which are locked in the order of their ids first; a user's newer wish is never overwritten.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_types::{Array, Double, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use windlass_domain::WorkspaceId;

use super::lock_workspaces;
use crate::{error::Result, leader::Lease, pool::Pool};

/// How many workspaces each rule moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// RUNNING to STANDBY.
    pub to_standby: usize,
    /// STANDBY to ARCHIVED.
    pub to_archived: usize,
}

const TO_STANDBY: &str = "
WITH due AS MATERIALIZED (
SELECT id FROM workspaces
WHERE phase = 'RUNNING' AND desired_state = 'RUNNING' AND operation = 'NONE' AND deleted_at IS NULL
  AND coalesce(standby_ttl_ms, $1 * 1000) > 0
  AND now() - greatest(last_access_at, phase_changed_at)
      > make_interval(secs => coalesce(standby_ttl_ms / 1000.0, $1)::double precision)
  AND (keep_awake_until IS NULL OR keep_awake_until <= now())
ORDER BY id FOR NO KEY UPDATE
)
UPDATE workspaces AS w SET desired_state = 'STANDBY', trace_context = NULL FROM due WHERE w.id = due.id";

const TO_ARCHIVED: &str = "
WITH due AS MATERIALIZED (
SELECT id FROM workspaces
WHERE phase = 'STANDBY' AND desired_state = 'STANDBY' AND operation = 'NONE' AND deleted_at IS NULL
  AND coalesce(archive_ttl_ms, $1 * 1000) > 0
  AND now() - phase_changed_at
      > make_interval(secs => coalesce(archive_ttl_ms / 1000.0, $1)::double precision)
  AND (keep_awake_until IS NULL OR keep_awake_until <= now())
ORDER BY id FOR NO KEY UPDATE
)
UPDATE workspaces AS w SET desired_state = 'ARCHIVED', trace_context = NULL FROM due WHERE w.id = due.id";

impl Pool {
    /// Moves last accesses forward, never back. Returns how many moved.
    pub async fn store_activity(
        &self,
        lease: &Lease,
        activity: Vec<(WorkspaceId, DateTime<Utc>)>,
    ) -> Result<usize> {
        if activity.is_empty() {
            return Ok(0);
        }
        let (ids, times): (Vec<_>, Vec<_>) =
            activity.into_iter().map(|(id, at)| (id.0, at)).unzip();
        self.fenced(lease, move |conn| {
            Box::pin(async move {
                lock_workspaces(conn, &ids).await?;
                Ok(diesel::sql_query(
                    "UPDATE workspaces AS w SET last_access_at = a.at
                     FROM unnest($1, $2) AS a (id, at)
                     WHERE w.id = a.id AND (w.last_access_at IS NULL OR w.last_access_at < a.at)",
                )
                .bind::<Array<SqlUuid>, _>(ids)
                .bind::<Array<Timestamptz>, _>(times)
                .execute(conn)
                .await?)
            })
        })
        .await
    }

    /// Applies both rules with these defaults; zero: never.
    pub async fn expire(
        &self,
        lease: &Lease,
        standby_ttl: TimeDelta,
        archive_ttl: TimeDelta,
    ) -> Result<Expired> {
        let seconds = |ttl: TimeDelta| ttl.num_milliseconds() as f64 / 1000.0;
        self.fenced(lease, move |conn| {
            Box::pin(async move {
                let to_standby = diesel::sql_query(TO_STANDBY)
                    .bind::<Double, _>(seconds(standby_ttl))
                    .execute(conn)
                    .await?;
                let to_archived = diesel::sql_query(TO_ARCHIVED)
                    .bind::<Double, _>(seconds(archive_ttl))
                    .execute(conn)
                    .await?;
                Ok(Expired {
                    to_standby,
                    to_archived,
                })
            })
        })
        .await
    }
}
