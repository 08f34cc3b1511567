//! Writes: one module per service, holding exactly what its role is granted.

pub mod api;
pub mod gc;
pub mod observer;
pub mod ttl;
pub mod wc;

use diesel::sql_types::{Array, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::prepared::Prepare;

/// Locks workspaces in the order of their ids, before they are updated in whatever order PostgreSQL finds best: two
/// that write the same ones in different orders would wait for each other. What is updated after that is decided on
/// the rows as they are once locked. One row is in order by itself.
async fn lock_workspaces(conn: &mut AsyncPgConnection, ids: &[Uuid]) -> crate::error::Result<()> {
    if ids.len() > 1 {
        diesel::sql_query(
            "SELECT 1 FROM workspaces WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE",
        )
        .bind::<Array<SqlUuid>, _>(ids)
        .prepared()
        .execute(conn)
        .await?;
    }
    Ok(())
}
