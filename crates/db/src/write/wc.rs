//! What wc writes: its control columns, for any number of workspaces in one statement. Each is a
//! compare-and-set on what the plan was made from, and every caller has to look at what became of it.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use windlass_domain::{Control, DesiredState, OpId, Workspace, WorkspaceId};

use super::lock_workspaces;
use crate::{
    audit,
    error::{DbError, Result},
    leader::Lease,
    pool::Pool,
    prepared::Prepare,
};

/// A change of control columns, with what it was planned from.
#[derive(Clone, Debug)]
pub struct ControlChange {
    id: WorkspaceId,
    expected: Control,
    desired: DesiredState,
    restore: Option<Uuid>,
    next: Control,
}

impl ControlChange {
    /// From `ws` as it was loaded to `next`.
    pub fn new(ws: &Workspace, next: Control) -> Self {
        Self {
            id: ws.id,
            expected: ws.control.clone(),
            desired: ws.spec.desired,
            restore: ws.spec.restore.as_ref().map(|wish| wish.request),
            next,
        }
    }

    /// Of which workspace.
    pub fn id(&self) -> WorkspaceId {
        self.id
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored.
    Applied,
    /// The row is not what the plan was made from: plan anew.
    Stale,
    /// There is no such row.
    Missing,
}

/// Who recovers a workspace, and what they accept.
#[derive(Clone, Debug)]
pub struct RecoveryNote {
    /// Who.
    pub actor: String,
    /// What.
    pub detail: String,
}

#[derive(QueryableByName)]
struct OutcomeRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Bool)]
    applied: bool,
    #[diesel(sql_type = Bool)]
    found: bool,
}

// The order of the columns is that of `Columns::push`.
const STORE: &str = "
WITH change AS (
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
        AS c (id, expected_operation, expected_op_id, expected_error_count, expected_phase, expected_desired,
              expected_restore,
              phase, phase_changed_at, operation, op_id, op_started_at, archive_op_id, archive_key, error_count,
              error_reason, error_message, retry_at, home_ctx, started_image, restore_applied)
), stored AS (
    UPDATE workspaces AS w
    SET phase = c.phase, phase_changed_at = c.phase_changed_at, operation = c.operation, op_id = c.op_id,
        op_started_at = c.op_started_at, archive_op_id = c.archive_op_id, archive_key = c.archive_key,
        error_count = c.error_count, error_reason = c.error_reason, error_message = c.error_message,
        retry_at = c.retry_at, home_ctx = c.home_ctx, started_image = c.started_image,
        restore_applied = c.restore_applied
    FROM change AS c
    WHERE w.id = c.id AND w.operation = c.expected_operation
        AND w.op_id IS NOT DISTINCT FROM c.expected_op_id
        AND w.error_count = c.expected_error_count AND w.phase = c.expected_phase
        AND w.desired_state = c.expected_desired
        AND w.restore_request IS NOT DISTINCT FROM c.expected_restore
    RETURNING w.id
)
SELECT c.id, s.id IS NOT NULL AS applied,
    CASE WHEN s.id IS NULL THEN EXISTS (SELECT 1 FROM workspaces AS w WHERE w.id = c.id) ELSE true END AS found
FROM change AS c LEFT JOIN stored AS s ON s.id = c.id";

#[derive(Default)]
struct Columns {
    id: Vec<Uuid>,
    expected_operation: Vec<&'static str>,
    expected_op_id: Vec<Option<Uuid>>,
    expected_error_count: Vec<i32>,
    expected_phase: Vec<&'static str>,
    expected_desired: Vec<&'static str>,
    expected_restore: Vec<Option<Uuid>>,
    phase: Vec<&'static str>,
    phase_changed_at: Vec<DateTime<Utc>>,
    operation: Vec<&'static str>,
    op_id: Vec<Option<Uuid>>,
    op_started_at: Vec<Option<DateTime<Utc>>>,
    archive_op_id: Vec<Option<Uuid>>,
    archive_key: Vec<Option<String>>,
    error_count: Vec<i32>,
    error_reason: Vec<Option<&'static str>>,
    error_message: Vec<Option<String>>,
    retry_at: Vec<Option<DateTime<Utc>>>,
    home_ctx: Vec<serde_json::Value>,
    started_image: Vec<Option<String>>,
    restore_applied: Vec<Option<Uuid>>,
}

fn count(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn id(op: Option<OpId>) -> Option<Uuid> {
    op.map(|op| op.0)
}

impl Columns {
    fn push(&mut self, change: ControlChange) -> Result<()> {
        let ControlChange {
            id: workspace,
            expected,
            desired,
            restore,
            next,
        } = change;
        let home = serde_json::to_value(&next.home).map_err(|e| DbError::Corrupt {
            id: workspace.to_string(),
            what: e.to_string(),
        })?;
        self.id.push(workspace.0);
        self.expected_operation.push(expected.operation.as_str());
        self.expected_op_id.push(id(expected.op_id));
        self.expected_error_count.push(count(expected.error_count));
        self.expected_phase.push(expected.phase.as_str());
        self.expected_desired.push(desired.as_str());
        self.expected_restore.push(restore);
        self.phase.push(next.phase.as_str());
        self.phase_changed_at.push(next.phase_changed_at);
        self.operation.push(next.operation.as_str());
        self.op_id.push(id(next.op_id));
        self.op_started_at.push(next.op_started_at);
        self.archive_op_id.push(id(next.archive_op_id));
        self.archive_key.push(next.archive_key);
        self.error_count.push(count(next.error_count));
        self.error_reason
            .push(next.error_reason.map(|r| r.as_str()));
        self.error_message.push(next.error_message);
        self.retry_at.push(next.retry_at);
        self.home_ctx.push(home);
        self.started_image.push(next.started_image);
        self.restore_applied.push(next.restore_applied);
        Ok(())
    }
}

impl Pool {
    /// Stores changes, all in one statement once their rows are locked.
    pub async fn store_control(
        &self,
        lease: &Lease,
        changes: Vec<ControlChange>,
    ) -> Result<Vec<(WorkspaceId, Outcome)>> {
        self.store_with_note(lease, changes, None).await
    }

    /// Stores a recovery with its entry in the audit log, both or neither.
    pub async fn store_recovery(
        &self,
        lease: &Lease,
        change: ControlChange,
        note: RecoveryNote,
    ) -> Result<Outcome> {
        let outcomes = self
            .store_with_note(lease, vec![change], Some(note))
            .await?;
        Ok(outcomes
            .into_iter()
            .next()
            .map_or(Outcome::Missing, |(_, outcome)| outcome))
    }

    async fn store_with_note(
        &self,
        lease: &Lease,
        changes: Vec<ControlChange>,
        note: Option<RecoveryNote>,
    ) -> Result<Vec<(WorkspaceId, Outcome)>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut c = Columns::default();
        for change in changes {
            c.push(change)?;
        }
        self.fenced(lease, move |conn| {
            Box::pin(async move {
                lock_workspaces(conn, &c.id).await?;
                let rows: Vec<OutcomeRow> = diesel::sql_query(STORE)
                    .bind::<Array<SqlUuid>, _>(c.id)
                    .bind::<Array<Text>, _>(c.expected_operation)
                    .bind::<Array<Nullable<SqlUuid>>, _>(c.expected_op_id)
                    .bind::<Array<Integer>, _>(c.expected_error_count)
                    .bind::<Array<Text>, _>(c.expected_phase)
                    .bind::<Array<Text>, _>(c.expected_desired)
                    .bind::<Array<Nullable<SqlUuid>>, _>(c.expected_restore)
                    .bind::<Array<Text>, _>(c.phase)
                    .bind::<Array<Timestamptz>, _>(c.phase_changed_at)
                    .bind::<Array<Text>, _>(c.operation)
                    .bind::<Array<Nullable<SqlUuid>>, _>(c.op_id)
                    .bind::<Array<Nullable<Timestamptz>>, _>(c.op_started_at)
                    .bind::<Array<Nullable<SqlUuid>>, _>(c.archive_op_id)
                    .bind::<Array<Nullable<Text>>, _>(c.archive_key)
                    .bind::<Array<Integer>, _>(c.error_count)
                    .bind::<Array<Nullable<Text>>, _>(c.error_reason)
                    .bind::<Array<Nullable<Text>>, _>(c.error_message)
                    .bind::<Array<Nullable<Timestamptz>>, _>(c.retry_at)
                    .bind::<Array<Jsonb>, _>(c.home_ctx)
                    .bind::<Array<Nullable<Text>>, _>(c.started_image)
                    .bind::<Array<Nullable<SqlUuid>>, _>(c.restore_applied)
                    .prepared()
                    .load(conn)
                    .await?;
                let outcomes: Vec<_> = rows.into_iter().map(outcome).collect();
                if let (Some(note), [(workspace, Outcome::Applied)]) = (note, outcomes.as_slice()) {
                    let id = Some(workspace.0);
                    audit::add(conn, id, &note.actor, "recover", &note.detail).await?;
                }
                Ok(outcomes)
            })
        })
        .await
    }
}

fn outcome(row: OutcomeRow) -> (WorkspaceId, Outcome) {
    let outcome = match (row.applied, row.found) {
        (true, _) => Outcome::Applied,
        (false, true) => Outcome::Stale,
        (false, false) => Outcome::Missing,
    };
    (WorkspaceId(row.id), outcome)
}
