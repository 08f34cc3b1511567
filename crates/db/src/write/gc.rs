//! What gc writes: when it first saw each orphan, and the audit log of what it deleted.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, Text};
use diesel_async::RunQueryDsl;

use crate::{audit, error::Result, leader::Lease, pool::Pool, schema::gc_sightings};

impl Pool {
    /// When each orphan was first seen.
    pub async fn sightings(&self) -> Result<HashMap<String, DateTime<Utc>>> {
        use diesel::QueryDsl as _;
        let mut conn = self.get().await?;
        let rows: Vec<(String, DateTime<Utc>)> = gc_sightings::table
            .select((gc_sightings::name, gc_sightings::first_seen))
            .load(&mut conn)
            .await?;
        Ok(rows.into_iter().collect())
    }

    /// Remembers these orphans and forgets all others: one that was needed again meanwhile starts anew.
    pub async fn store_sightings(&self, lease: &Lease, orphans: Vec<String>) -> Result<()> {
        self.fenced(lease, move |conn| {
            Box::pin(async move {
                diesel::sql_query(
                    "DELETE FROM gc_sightings AS s
                     WHERE NOT EXISTS (SELECT 1 FROM unnest($1) AS o (name) WHERE o.name = s.name)",
                )
                .bind::<Array<Text>, _>(&orphans)
                .execute(conn)
                .await?;
                diesel::sql_query(
                    "INSERT INTO gc_sightings (name) SELECT unnest($1)
                     ON CONFLICT (name) DO UPDATE SET last_seen = now()",
                )
                .bind::<Array<Text>, _>(&orphans)
                .execute(conn)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// Records what a pass is about to do or did.
    pub async fn audit_gc(
        &self,
        lease: &Lease,
        action: &'static str,
        detail: String,
    ) -> Result<()> {
        self.fenced(lease, move |conn| {
            Box::pin(async move { audit::add(conn, None, "gc", action, &detail).await })
        })
        .await
    }
}
