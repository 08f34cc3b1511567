//! Rows of workspaces that only the bucket knows. Each is made by a transaction of its own, so that what was
//! made before a crash stays and is found by the next run.

use chrono::TimeDelta;
use diesel::{ExpressionMethods, Insertable, OptionalExtension, QueryDsl};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;
use windlass_domain::{DesiredState, UserId, WorkspaceId};

use super::{hosts, quota};
use crate::{
    audit,
    error::Result,
    pool::Pool,
    schema::{users, workspaces},
};

/// A workspace to be made anew.
#[derive(Clone, Debug)]
pub struct Rebuild {
    /// Its id.
    pub id: WorkspaceId,
    /// Name of its owner, who is made if missing.
    pub owner: String,
    /// Its name, and others in case that is taken: the first free one counts.
    pub names: Vec<String>,
    /// Its image.
    pub image: String,
    /// The archive that becomes its home.
    pub archive_key: String,
    /// Who asks, for the audit log.
    pub actor: String,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebuilt {
    /// It is there, under this name.
    Created(String),
    /// There is a row of that id.
    Exists,
    /// Every name is taken.
    NamesTaken,
    /// No host takes workspaces.
    NoHost,
}

#[derive(Insertable)]
#[diesel(table_name = workspaces)]
struct RebuiltRow<'a> {
    id: Uuid,
    owner_id: Uuid,
    host_id: Uuid,
    name: &'a str,
    image: &'a str,
    desired_state: &'static str,
    restore_request: Uuid,
    restore_key: &'a str,
}

impl Pool {
    /// Makes a workspace that is to be ARCHIVED, with the wish that this archive be its home: wc fulfils it
    /// once it has observed the archive. Limits of users do not count: it was theirs before.
    pub async fn rebuild_workspace(&self, new: Rebuild, stale_after: TimeDelta) -> Result<Rebuilt> {
        self.transaction(move |conn| {
            Box::pin(async move {
                // Whoever else makes workspaces waits: names are looked up before they are taken.
                quota::lock(conn).await?;
                let known: Option<Uuid> = workspaces::table
                    .find(new.id.0)
                    .select(workspaces::id)
                    .first(conn)
                    .await
                    .optional()?;
                if known.is_some() {
                    return Ok(Rebuilt::Exists);
                }
                let Some(host) = hosts::roomiest(conn, stale_after).await? else {
                    return Ok(Rebuilt::NoHost);
                };
                let owner = ensure_user(conn, &new.owner, &new.actor).await?;
                let Some(name) = free_name(conn, owner, new.names).await? else {
                    return Ok(Rebuilt::NamesTaken);
                };
                diesel::insert_into(workspaces::table)
                    .values(RebuiltRow {
                        id: new.id.0,
                        owner_id: owner.0,
                        host_id: host,
                        name: &name,
                        image: &new.image,
                        desired_state: DesiredState::Archived.as_str(),
                        restore_request: Uuid::new_v4(),
                        restore_key: &new.archive_key,
                    })
                    .execute(conn)
                    .await?;
                let detail = format!("{name} of {}, from {}", new.owner, new.archive_key);
                audit::add(conn, Some(new.id.0), &new.actor, "rebuild", &detail).await?;
                Ok(Rebuilt::Created(name))
            })
        })
        .await
    }
}

/// The user of that name; made, without any token, if there is none.
async fn ensure_user(conn: &mut AsyncPgConnection, name: &str, actor: &str) -> Result<UserId> {
    let made = diesel::insert_into(users::table)
        .values(users::name.eq(name))
        .on_conflict(users::name)
        .do_nothing()
        .execute(conn)
        .await?;
    if made > 0 {
        audit::add(conn, None, actor, "rebuild", &format!("user {name}")).await?;
    }
    let id: Uuid = users::table
        .filter(users::name.eq(name))
        .select(users::id)
        .first(conn)
        .await?;
    Ok(UserId(id))
}

async fn free_name(
    conn: &mut AsyncPgConnection,
    owner: UserId,
    names: Vec<String>,
) -> Result<Option<String>> {
    let taken: Vec<String> = workspaces::table
        .filter(workspaces::owner_id.eq(owner.0))
        .filter(workspaces::deleted_at.is_null())
        .filter(workspaces::name.eq_any(&names))
        .select(workspaces::name)
        .load(conn)
        .await?;
    Ok(names.into_iter().find(|name| !taken.contains(name)))
}
