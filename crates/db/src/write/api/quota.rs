//! How many workspaces there may be. Counted under one lock, so that two requests cannot both take the
//! last place; the lock is one for all owners because there is a limit that counts them all.

use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use windlass_domain::{DesiredState, UserId};

use crate::{error::Result, schema::workspaces};

/// How many workspaces there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Workspaces of one user that are not deleted.
    pub per_user: i64,
    /// Workspaces of one user that are to run.
    pub running_per_user: i64,
    /// Workspaces of all users that are to run.
    pub running: i64,
}

/// Which limit stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverQuota {
    /// Workspaces of the user.
    PerUser,
    /// Running workspaces of the user.
    RunningPerUser,
    /// Running workspaces in all.
    Running,
}

/// Held until the transaction ends. A transaction that also locks a row locks the row first.
pub(super) async fn lock(conn: &mut AsyncPgConnection) -> Result<()> {
    diesel::sql_query("SELECT pg_advisory_xact_lock(hashtext('windlass.quota'))")
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether the owner may have one more workspace.
pub(super) async fn over_count(
    conn: &mut AsyncPgConnection,
    owner: UserId,
    quota: Quota,
) -> Result<Option<OverQuota>> {
    let count: i64 = workspaces::table
        .filter(workspaces::owner_id.eq(owner.0))
        .filter(workspaces::deleted_at.is_null())
        .count()
        .get_result(conn)
        .await?;
    Ok((count >= quota.per_user).then_some(OverQuota::PerUser))
}

/// Whether one more workspace of the owner may be told to run.
pub(super) async fn over_running(
    conn: &mut AsyncPgConnection,
    owner: UserId,
    quota: Quota,
) -> Result<Option<OverQuota>> {
    let running = || {
        workspaces::table
            .filter(workspaces::deleted_at.is_null())
            .filter(workspaces::desired_state.eq(DesiredState::Running.as_str()))
            .count()
    };
    let own: i64 = running()
        .filter(workspaces::owner_id.eq(owner.0))
        .get_result(conn)
        .await?;
    if own >= quota.running_per_user {
        return Ok(Some(OverQuota::RunningPerUser));
    }
    let all: i64 = running().get_result(conn).await?;
    Ok((all >= quota.running).then_some(OverQuota::Running))
}
