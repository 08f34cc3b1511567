//! wc's bulk compare-and-set.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;
use windlass_db::write::wc::{ControlChange, Outcome, RecoveryNote};
use windlass_domain::{Control, ErrorReason, Home, OpId, Operation, Phase, VolumeId};

use crate::common::db;

fn full(at: DateTime<Utc>) -> Control {
    let op = OpId(Uuid::new_v4());
    Control {
        phase: Phase::Standby,
        phase_changed_at: at,
        operation: Operation::Archiving,
        op_id: Some(op),
        op_started_at: Some(at + TimeDelta::seconds(1)),
        archive_op_id: Some(op),
        archive_key: Some("it's/a \"key\"".to_owned()),
        error_count: 2,
        error_reason: Some(ErrorReason::StoreUnavailable),
        error_message: Some("{a,b}\\ \u{1F40B}\n".to_owned()),
        retry_at: Some(at + TimeDelta::microseconds(1)),
        home: Home::restored(VolumeId(Uuid::new_v4()), "k0"),
        started_image: Some("busybox:1".to_owned()),
        restore_applied: Some(Uuid::new_v4()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_a_bulk_is_applied_stale_or_missing() {
    let db = db().await;
    let (pool, lease) = db.lead("wc").await;
    let mut changes = Vec::new();
    let mut expected = Vec::new();
    let at = pool.now().await.unwrap();
    let mut wanted = Vec::new();
    for n in 0..40 {
        let id = db.workspace(&format!("w{n}"), "").await;
        let ws = db.record(id).await.workspace;
        // Every second row gets every column; the others keep their NULLs.
        let next = if n % 2 == 0 {
            full(at)
        } else {
            ws.control.clone()
        };
        changes.push(ControlChange::new(&ws, next.clone()));
        let outcome = match n {
            3 => {
                db.set(id, "desired_state = 'STANDBY'").await;
                Outcome::Stale
            }
            4 => {
                db.set(id, "operation = 'STARTING', op_id = gen_random_uuid()")
                    .await;
                Outcome::Stale
            }
            5 => {
                db.set(id, "error_count = 1").await;
                Outcome::Stale
            }
            6 => {
                db.set(id, "phase = 'STANDBY'").await;
                Outcome::Stale
            }
            8 => {
                db.set(id, "restore_request = gen_random_uuid(), restore_key = 'k'")
                    .await;
                Outcome::Stale
            }
            7 => {
                db.sql(&format!("DELETE FROM workspaces WHERE id = '{id}'"))
                    .await;
                Outcome::Missing
            }
            _ => {
                wanted.push((id, next));
                Outcome::Applied
            }
        };
        expected.push((id, outcome));
    }
    let mut outcomes = pool.store_control(&lease, changes).await.unwrap();
    outcomes.sort_by_key(|(id, _)| *id);
    expected.sort_by_key(|(id, _)| *id);
    assert_eq!(outcomes, expected);
    for (id, next) in wanted {
        assert_eq!(db.record(id).await.workspace.control, next);
    }
    assert_eq!(pool.store_control(&lease, Vec::new()).await.unwrap(), []);
    assert_eq!(pool.living_workspaces().await.unwrap().len(), 39);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_of_another_id_is_stale() {
    let db = db().await;
    let (pool, lease) = db.lead("wc").await;
    let id = db
        .workspace("w", "operation = 'STARTING', op_id = gen_random_uuid()")
        .await;
    let ws = db.record(id).await.workspace;
    db.set(id, "op_id = gen_random_uuid()").await;
    let change = ControlChange::new(&ws, ws.control.clone());
    assert_eq!(change.id(), id);
    let outcomes = pool.store_control(&lease, vec![change]).await.unwrap();
    assert_eq!(outcomes, [(id, Outcome::Stale)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_is_on_record_only_if_it_happened() {
    let db = db().await;
    let (pool, lease) = db.lead("wc").await;
    let id = db
        .workspace(
            "w",
            "phase = 'ERROR', error_reason = 'DataLost', error_count = 1",
        )
        .await;
    let ws = db.record(id).await.workspace;
    let mut next = ws.control.clone();
    next.clear_error();
    let note = || RecoveryNote {
        actor: "admin".to_owned(),
        detail: "start empty".to_owned(),
    };
    let recover = || {
        let change = ControlChange::new(&ws, next.clone());
        pool.store_recovery(&lease, change, note())
    };
    assert_eq!(recover().await.unwrap(), Outcome::Applied);
    assert_eq!(recover().await.unwrap(), Outcome::Stale);
    let history = pool.history(id, 20).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(
        (
            history[0].actor.as_str(),
            history[0].action.as_str(),
            history[0].detail.as_str()
        ),
        ("admin", "recover", "start empty")
    );
}
