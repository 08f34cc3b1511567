//! Hosts: registered and cordoned by admins, chosen for new workspaces.

use chrono::TimeDelta;
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper,
    dsl::sql,
    sql_types::{Bool, Double},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;
use windlass_domain::HostId;

use crate::{
    error::Result,
    pool::Pool,
    rows::{HostRecord, HostRow},
    schema::{hosts, workspaces},
};

/// More is as good as always, and PostgreSQL has no longer intervals than its times are.
const MAX_STALE_AFTER: TimeDelta = TimeDelta::days(3650);

impl Pool {
    /// Adds a host, or gives the host of that name a new address.
    pub async fn register_host(&self, name: &str, address: &str) -> Result<HostRecord> {
        let mut conn = self.get().await?;
        let row: HostRow = diesel::insert_into(hosts::table)
            .values((hosts::name.eq(name), hosts::address.eq(address)))
            .on_conflict(hosts::name)
            .do_update()
            .set(hosts::address.eq(address))
            .returning(HostRow::as_returning())
            .get_result(&mut conn)
            .await?;
        Ok(row.into())
    }

    /// Cordons or uncordons a host. `None`: no such host.
    pub async fn cordon_host(&self, id: HostId, cordoned: bool) -> Result<Option<HostRecord>> {
        let mut conn = self.get().await?;
        let row: Option<HostRow> = diesel::update(hosts::table.find(id.0))
            .set(hosts::cordoned.eq(cordoned))
            .returning(HostRow::as_returning())
            .get_result(&mut conn)
            .await
            .optional()?;
        Ok(row.map(HostRecord::from))
    }
}

/// The host that takes workspaces and has the fewest, of those that were observed within `stale_after`: on
/// another nothing would begin. If there is none, of all.
pub(super) async fn roomiest(
    conn: &mut AsyncPgConnection,
    stale_after: TimeDelta,
) -> Result<Option<Uuid>> {
    let seconds = stale_after.min(MAX_STALE_AFTER).num_seconds();
    let fresh = sql::<Bool>("COALESCE(hosts.last_observed_at > now() - make_interval(secs => ")
        .bind::<Double, _>(seconds as f64)
        .sql("), false)");
    let taken = workspaces::table
        .filter(workspaces::host_id.eq(hosts::id))
        .filter(workspaces::deleted_at.is_null())
        .count()
        .single_value();
    Ok(hosts::table
        .filter(hosts::cordoned.eq(false))
        .order((fresh.desc(), taken.asc(), hosts::name.asc()))
        .select(hosts::id)
        .first(conn)
        .await
        .optional()?)
}
