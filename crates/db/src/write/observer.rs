//! What observer writes: the conditions that changed, and how fresh each host and the store are. All of a
//! pass carries one instant, the one at which it began: what happened later it may not have seen, and only
//! a later pass is later.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, Bool, Jsonb, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use windlass_domain::{Conditions, HostId, WorkspaceId};

use crate::{
    error::{DbError, Result},
    leader::Lease,
    pool::Pool,
};

/// What a pass saw.
#[derive(Clone, Debug)]
pub struct Observation {
    /// When the pass began, by PostgreSQL's clock.
    pub began_at: DateTime<Utc>,
    /// Hosts, with the error if one could not be observed.
    pub hosts: Vec<(HostId, Option<String>)>,
    /// Whether the store was listed in full since the last pass that said so, or the error.
    pub store: StoreFreshness,
    /// Conditions that changed.
    pub changed: Vec<(WorkspaceId, Conditions)>,
}

/// How fresh what is known of the archive store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreFreshness {
    /// Nothing new: the index is the one of an earlier pass.
    #[default]
    Unchanged,
    /// It was listed in full.
    Listed,
    /// It could not be observed.
    Failed(String),
}

impl Pool {
    /// Stores a pass. Returns how many workspaces were written.
    pub async fn store_observation(&self, lease: &Lease, seen: Observation) -> Result<usize> {
        let mut ids = Vec::with_capacity(seen.changed.len());
        let mut values = Vec::with_capacity(seen.changed.len());
        for (id, conditions) in &seen.changed {
            ids.push(id.0);
            values.push(
                serde_json::to_value(conditions).map_err(|e| DbError::Corrupt {
                    id: id.to_string(),
                    what: e.to_string(),
                })?,
            );
        }
        let host_ids: Vec<Uuid> = seen.hosts.iter().map(|(id, _)| id.0).collect();
        let host_ok: Vec<bool> = seen.hosts.iter().map(|(_, e)| e.is_none()).collect();
        let host_errors: Vec<String> = seen
            .hosts
            .into_iter()
            .map(|(_, e)| e.unwrap_or_default())
            .collect();
        self.fenced(lease, move |conn| {
            Box::pin(async move {
                diesel::sql_query(
                    "UPDATE hosts AS h
                     SET last_observed_at = CASE WHEN s.ok THEN $4 ELSE h.last_observed_at END,
                         observe_error = s.error
                     FROM unnest($1, $2, $3) AS s (id, ok, error) WHERE h.id = s.id",
                )
                .bind::<Array<SqlUuid>, _>(host_ids)
                .bind::<Array<Bool>, _>(host_ok)
                .bind::<Array<Text>, _>(host_errors)
                .bind::<Timestamptz, _>(seen.began_at)
                .execute(conn)
                .await?;
                match seen.store {
                    StoreFreshness::Unchanged => {}
                    StoreFreshness::Listed => {
                        diesel::sql_query(
                            "UPDATE archive_store SET last_observed_at = $1, observe_error = ''",
                        )
                        .bind::<Timestamptz, _>(seen.began_at)
                        .execute(conn)
                        .await?;
                    }
                    StoreFreshness::Failed(error) => {
                        diesel::sql_query(
                            "UPDATE archive_store SET observe_error = $1 WHERE observe_error <> $1",
                        )
                        .bind::<Text, _>(error)
                        .execute(conn)
                        .await?;
                    }
                }
                if ids.is_empty() {
                    return Ok(0);
                }
                Ok(diesel::sql_query(
                    "UPDATE workspaces AS w SET conditions = s.conditions, observed_at = $3
                     FROM unnest($1, $2) AS s (id, conditions) WHERE w.id = s.id",
                )
                .bind::<Array<SqlUuid>, _>(ids)
                .bind::<Array<Jsonb>, _>(values)
                .bind::<Timestamptz, _>(seen.began_at)
                .execute(conn)
                .await?)
            })
        })
        .await
    }
}
