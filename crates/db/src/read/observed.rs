//! What observer reads in a pass: the rows that changed since the last one, as it needs them, and the hosts.
//! Two statements, whatever there is; the rows are found as those of the watch feed are (see `watch`), so
//! that none is missed and an idle pass reads none. PostgreSQL's clock comes with them.
//!
//! Rows are handed over one by one, so that nobody needs to hold them all. What the reader wrote itself and nobody
//! has written since comes without the conditions, which are most of a row: it has them.
//!
//! A row that this version cannot read is told of, and stands in no other's way. It is observed all the same, for who
//! can read it may act on it; unless it is what was observed that cannot be read.

mod hosts;

use std::str::FromStr;

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult, QueryableByName,
    sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use futures::{Stream, TryStreamExt};
use serde::de::DeserializeOwned;
use uuid::Uuid;
use windlass_domain::{
    Conditions, HostId, Operation, Phase, Shard, WorkspaceId, observation::proof::Subject,
    phase::UnknownWord,
};

pub use hosts::{ObservedHost, ObservedHosts};

use super::{Horizon, RowVersion, WatchToken, shard::owns};
use crate::{
    error::{DbError, Result},
    pool::Pool,
    prepared::Prepare,
    rows::TRACE_LIFE,
};

/// Rows in one answer when everything is read: each is about a kilobyte on the wire.
const PAGE: i64 = 5_000;

/// A row as the observer needs it.
#[derive(Clone, Debug)]
pub struct ObservedRow {
    /// Its host.
    pub host_id: HostId,
    /// An operation is in progress.
    pub in_progress: bool,
    /// Key of the archive that is, or last was, the home.
    pub archive_key: Option<String>,
    /// Key of the archive it is to be restored from, while that wish is open.
    pub restore_key: Option<String>,
    /// What was observed; `None`: what the reader wrote last.
    pub conditions: Option<Conditions>,
    /// What decides whether it waits for a full list of its host; `None`: that cannot be read.
    pub subject: Option<Subject>,
    /// The trace of the call that set its desired state, if that is traced.
    pub trace: Option<Box<ObservedTrace>>,
}

/// What a span about a row says.
#[derive(Clone, Debug)]
pub struct ObservedTrace {
    context: String,
    since: DateTime<Utc>,
    /// Where the row is.
    pub phase: Phase,
    /// What is in progress.
    pub operation: Operation,
    /// Its id.
    pub op_id: Option<Uuid>,
    /// When its present attempt began.
    pub op_started_at: Option<DateTime<Utc>>,
}

impl ObservedTrace {
    /// The trace, a W3C traceparent, that something belongs to which began at `began`.
    pub fn at(&self, began: DateTime<Utc>) -> Option<&str> {
        (began - self.since < TRACE_LIFE).then_some(self.context.as_str())
    }
}

/// Up to where rows were read.
#[derive(Clone, Copy, Debug)]
pub struct ObservedUntil {
    /// Where to go on. If it voids what was read before, everything has to be read anew.
    pub horizon: Horizon,
    /// PostgreSQL's clock before the rows were read.
    pub now: DateTime<Utc>,
    /// Rows that cannot be read.
    pub unreadable: usize,
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = BigInt)]
    xmin: i64,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    server: DateTime<Utc>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    id: Option<Uuid>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    host_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    phase: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    phase_changed_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    operation: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    error_reason: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    retry_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    home: Option<String>,
    #[diesel(sql_type = Nullable<Bool>)]
    deleted: Option<bool>,
    #[diesel(sql_type = Nullable<Text>)]
    archive_key: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    restore_key: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    conditions: Option<String>,
    #[diesel(sql_type = Bool)]
    own: bool,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    observed_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    op_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    op_started_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    trace_context: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    trace_context_at: Option<DateTime<Utc>>,
}

/// A statement that answers with horizon and clock also when there is no row. Both are of the snapshot that
/// the rows are of. `$1` and `$2` are the reader's own last transaction.
macro_rules! lines {
    ($from:literal) => {
        concat!(
            "SELECT x.xmin, x.now, x.server, w.id, w.host_id, w.phase, w.phase_changed_at, w.operation, w.error_reason,
                    w.retry_at, w.home_ctx::text AS home, w.deleted_at IS NOT NULL AS deleted, w.archive_key,
                    CASE WHEN w.restore_request IS DISTINCT FROM w.restore_applied
                         THEN w.restore_key END AS restore_key,
                    CASE WHEN (w.change_xid, w.updated_at) IS DISTINCT FROM ($1, $2)
                         THEN w.conditions::text END AS conditions,
                    (w.change_xid, w.updated_at) IS NOT DISTINCT FROM ($1, $2) AS own, w.observed_at, w.op_id, w.op_started_at,
                    w.trace_context, w.trace_context_at
             FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
                          clock_timestamp() AS now, pg_postmaster_start_time() AS server) AS x LEFT JOIN ",
            $from
        )
    };
}

impl Pool {
    /// Hands over the rows of hosts in a shard that changed at or after `since`; `None`: every one that is not gone
    /// for good. Without a row: gone for good, of another shard's host, or not to be read, so that nothing of it is
    /// observed any more. `own` is what the reader wrote last ([`Stored`](crate::write::observer::Stored)). After an
    /// error some may have been handed over.
    pub async fn observed_rows(
        &self,
        shard: Shard,
        since: Option<WatchToken>,
        own: Option<RowVersion>,
        each: impl FnMut(WorkspaceId, Option<ObservedRow>),
    ) -> Result<ObservedUntil> {
        match since {
            Some(token) => self.changed_rows(shard, token, own, each).await,
            None => self.all_rows(shard, each).await,
        }
    }

    /// Those of other shards are handed over as gone: one may just have moved there.
    async fn changed_rows(
        &self,
        shard: Shard,
        since: WatchToken,
        own: Option<RowVersion>,
        mut each: impl FnMut(WorkspaceId, Option<ObservedRow>),
    ) -> Result<ObservedUntil> {
        let mut conn = self.get().await?;
        let changed = lines!(
            "(workspace_changes AS c JOIN workspaces AS w ON w.id = c.workspace_id) ON c.change_xid >= $3"
        );
        let lines = diesel::sql_query(changed)
            .bind::<Nullable<BigInt>, _>(own.map(|version| version.xid))
            .bind::<Nullable<Timestamptz>, _>(own.map(|version| version.updated_at))
            .bind::<BigInt, _>(since.0)
            .prepared()
            .load_stream::<Line>(&mut conn)
            .await?;
        Ok(read(lines, shard, &mut each).await?.until)
    }

    /// In pages, so that it takes little memory. Horizon and clock are those of the first page: what changes
    /// meanwhile is seen once more.
    async fn all_rows(
        &self,
        shard: Shard,
        mut each: impl FnMut(WorkspaceId, Option<ObservedRow>),
    ) -> Result<ObservedUntil> {
        let mut first: Option<ObservedUntil> = None;
        let mut after = Uuid::nil();
        loop {
            let mut conn = self.get().await?;
            let lines = diesel::sql_query(format!(
                lines!(
                    "(SELECT * FROM workspaces WHERE phase <> 'DELETED' AND id > $3 AND {}
                      ORDER BY id LIMIT $4) AS w ON true ORDER BY w.id"
                ),
                owns("host_id", shard)
            ))
            .bind::<Nullable<BigInt>, _>(None::<i64>)
            .bind::<Nullable<Timestamptz>, _>(None::<DateTime<Utc>>)
            .bind::<SqlUuid, _>(after)
            .bind::<BigInt, _>(PAGE)
            .load_stream::<Line>(&mut conn)
            .await?;
            let page = read(lines, shard, &mut each).await?;
            let until = match &mut first {
                None => first.insert(page.until),
                Some(until) => {
                    until.unreadable += page.until.unreadable;
                    until
                }
            };
            match page.last.filter(|_| page.rows == PAGE) {
                Some(last) => after = last,
                None => return Ok(*until),
            }
        }
    }
}

/// What one statement answered.
struct Page {
    until: ObservedUntil,
    rows: i64,
    last: Option<Uuid>,
}

async fn read(
    mut lines: impl Stream<Item = QueryResult<Line>> + Unpin,
    shard: Shard,
    each: &mut impl FnMut(WorkspaceId, Option<ObservedRow>),
) -> Result<Page> {
    let mut page: Option<Page> = None;
    while let Some(line) = lines.try_next().await? {
        let page = page.get_or_insert(Page {
            until: ObservedUntil {
                horizon: Horizon {
                    token: WatchToken(line.xmin),
                    server: line.server,
                },
                now: line.now,
                unreadable: 0,
            },
            rows: 0,
            last: None,
        });
        let Some(id) = line.id else {
            continue;
        };
        page.rows += 1;
        page.last = line.id;
        let row = match line.row(id, shard) {
            Ok(row) => row,
            Err(error) => {
                tracing::error!(%error, "a workspace cannot be read: nothing of it is observed");
                page.until.unreadable += 1;
                None
            }
        };
        page.until.unreadable += usize::from(row.as_ref().is_some_and(|row| row.subject.is_none()));
        each(WorkspaceId(id), row);
    }
    page.ok_or_else(|| DbError::Corrupt {
        id: "workspaces".to_owned(),
        what: "no horizon".to_owned(),
    })
}

impl Line {
    /// `None`: gone for good, or of another shard's host.
    fn row(self, id: Uuid, shard: Shard) -> Result<Option<ObservedRow>> {
        let host_id = present(id, "host_id", self.host_id)?;
        if self.phase.as_deref() == Some(Phase::Deleted.as_str()) || !shard.owns(host_id) {
            return Ok(None);
        }
        let conditions = match self.own {
            true => None,
            false => Some(json(id, "conditions", self.conditions.as_deref())?),
        };
        let subject = self.subject(id).map_err(|error| {
            tracing::error!(%error, "a workspace cannot be read: no proof of what is observed is asked for");
        });
        let subject = subject.ok();
        let context = self.trace_context.zip(self.trace_context_at);
        let trace = context.zip(subject.as_ref());
        let trace = trace.map(|((context, since), subject)| {
            Box::new(ObservedTrace {
                context,
                since,
                phase: subject.phase,
                operation: subject.operation,
                op_id: self.op_id,
                op_started_at: self.op_started_at,
            })
        });
        Ok(Some(ObservedRow {
            host_id: HostId(host_id),
            in_progress: self.operation.as_deref() != Some(Operation::None.as_str()),
            archive_key: self.archive_key,
            restore_key: self.restore_key,
            conditions,
            subject,
            trace,
        }))
    }

    fn subject(&self, id: Uuid) -> Result<Subject> {
        let error_reason = self.error_reason.as_deref();
        Ok(Subject {
            deleted: present(id, "deleted", self.deleted)?,
            phase: word(id, present(id, "phase", self.phase.as_deref())?)?,
            phase_changed_at: present(id, "phase_changed_at", self.phase_changed_at)?,
            operation: word(id, present(id, "operation", self.operation.as_deref())?)?,
            error_reason: error_reason.map(|reason| word(id, reason)).transpose()?,
            retry_at: self.retry_at,
            home: json(id, "home_ctx", self.home.as_deref())?,
            observed_at: self.observed_at,
        })
    }
}

fn corrupt(id: Uuid, what: String) -> DbError {
    DbError::Corrupt {
        id: id.to_string(),
        what,
    }
}

fn present<T>(id: Uuid, column: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| corrupt(id, column.to_owned()))
}

fn word<T: FromStr<Err = UnknownWord>>(id: Uuid, text: &str) -> Result<T> {
    text.parse()
        .map_err(|e: UnknownWord| corrupt(id, e.to_string()))
}

fn json<T: DeserializeOwned>(id: Uuid, column: &str, text: Option<&str>) -> Result<T> {
    let text = present(id, column, text)?;
    serde_json::from_str(text).map_err(|e| corrupt(id, format!("{column}: {e}")))
}
