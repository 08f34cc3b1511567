//! Deletion, in every phase, with and without giving the home up.

use windlass_domain::{
    ErrorReason as R, HomeLocation, Operation as O, Phase, Workspace, conditions::ContainerState,
    planner::Action,
};

use crate::support::*;

fn discard(n: u128) -> Option<Action> {
    Some(Action::DiscardVolume {
        volume_id: Some(vol(n)),
    })
}

fn check(row: &str, w: Workspace, operation: O, action: Option<Action>) {
    let plan = plan(&w);
    assert_eq!(plan.next.phase, Phase::Deleting, "{row}");
    assert_eq!(plan.next.operation, operation, "{row}");
    assert_eq!(plan.call.map(|c| c.action), action, "{row}");
}

#[test]
fn without_discard_home_the_home_is_archived_first() {
    let stop = || Some(Action::Stop);
    let archive = || {
        Some(Action::Archive {
            volume_id: vol(HOME),
        })
    };
    let remove = || {
        Some(Action::DeleteArchivedVolume {
            volume_id: vol(HOME),
            archive_key: key(HOME),
            sha256: format!("sha{HOME}"),
        })
    };
    let exited = |w: Workspace| w.sees_exit(1, 1, 0);
    let table = [
        ("PENDING", ws().pending(), O::None, None),
        (
            "PENDING, half made",
            ws().sees_volume(OTHER),
            O::Deleting,
            discard(OTHER),
        ),
        ("ARCHIVED", ws().archived(), O::None, None),
        (
            "ARCHIVED, leftover",
            ws().leftover(),
            O::Archiving,
            remove(),
        ),
        (
            "ARCHIVED, leftover, container",
            exited(ws().leftover()),
            O::Stopping,
            stop(),
        ),
        (
            "ARCHIVED, half restored",
            ws().archived().sees_volume(OTHER),
            O::Deleting,
            discard(OTHER),
        ),
        (
            "ARCHIVED, container",
            exited(ws().archived()),
            O::Deleting,
            stop(),
        ),
        ("STANDBY", ws().standby(), O::Archiving, archive()),
        (
            "STANDBY, dead container",
            exited(ws().standby()),
            O::Stopping,
            stop(),
        ),
        ("RUNNING", ws().running(), O::Stopping, stop()),
        ("ERROR", ws().in_error(), O::Archiving, archive()),
        (
            "ERROR, home lost",
            ws().home_is_volume().error(R::DataLost, 1),
            O::None,
            None,
        ),
        (
            "ERROR, counted out",
            ws().running().phase(Phase::Error).error(R::CrashLoop, 3),
            O::Stopping,
            stop(),
        ),
    ];
    for (row, w, operation, action) in table {
        check(row, w.deleted(false), operation, action);
    }
}

#[test]
fn with_discard_home_container_then_volume() {
    let stop = || Some(Action::Stop);
    let lone = || ws().sees_container(ContainerState::Created);
    let table = [
        ("PENDING", ws().pending(), O::None, None),
        ("PENDING, container", lone(), O::Deleting, stop()),
        ("ARCHIVED", ws().archived(), O::None, None),
        (
            "ARCHIVED, leftover",
            ws().leftover(),
            O::Deleting,
            discard(HOME),
        ),
        ("STANDBY", ws().standby(), O::Deleting, discard(HOME)),
        ("RUNNING", ws().running(), O::Deleting, stop()),
        ("ERROR", ws().in_error(), O::Deleting, discard(HOME)),
    ];
    for (row, w, operation, action) in table {
        check(row, w.deleted(true), operation, action);
    }
    let unlabelled = ws().standby().deleted(true).edit(|w| {
        seen_volume(w).owned = false;
    });
    let any = Some(Action::DiscardVolume { volume_id: None });
    check(
        "whatever has the name",
        unlabelled.clone(),
        O::Deleting,
        any,
    );
    let kept = unlabelled.edit(|w| w.spec.discard_home = false);
    check("not ours, nothing given up", kept, O::Deleting, None);
}

#[test]
fn the_operation_in_progress_ends_first() {
    for w in [
        ws().pending().doing(O::Provisioning),
        ws().archived().doing(O::Restoring),
        ws().standby().doing(O::Starting),
        ws().standby().doing(O::Archiving),
    ] {
        for discard in [false, true] {
            let next = plan(&w.clone().deleted(discard)).next;
            assert_eq!((next.phase, next.op_id), (Phase::Deleting, Some(op(OP))));
            // But an attempt that failed and waits is given up, if something else is to be done.
            let waiting = failed(&w.clone().deleted(discard), R::ActionFailed);
            let archives = !discard && w.control.operation == O::Archiving;
            assert_eq!(plan(&waiting).next.op_id == Some(op(OP)), archives);
        }
    }
    // Without the store the leftover of a home that was given up need not wait.
    let leftover = ws().leftover().doing(O::Archiving);
    let kept = failed(&leftover.clone().deleted(false), R::StoreUnavailable);
    assert_eq!(plan(&kept).next.operation, O::Archiving);
    let given_up = failed(&leftover.deleted(true), R::StoreUnavailable);
    assert_eq!(plan(&given_up).next.operation, O::Deleting);
}

#[test]
fn deleting_never_ends_in_error() {
    for reason in R::ALL {
        let mut w = ws().standby().deleted(true).doing(O::Deleting);
        for _ in 0..10 {
            w = failed(&w, *reason);
            assert_ne!(w.control.phase, Phase::Error, "{reason}");
            let due = w.control.retry_at.unwrap();
            w = after_at(&w, due);
            assert_eq!(w.control.phase, Phase::Deleting, "{reason}");
            assert_eq!(w.control.operation, O::Deleting, "{reason}");
        }
    }
    let late = ws().standby().deleted(true).doing(O::Deleting);
    let late = late.edit(|w| w.control.op_started_at = Some(t(1)));
    let next = after(&late).control;
    assert_eq!(
        (next.phase, next.error_reason),
        (Phase::Deleting, Some(R::Timeout))
    );
}

#[test]
fn a_deletion_taken_back_no_longer_removes() {
    let w = ws().standby().doing(O::Deleting).phase(Phase::Deleting);
    let next = plan(&w).next;
    assert_eq!((next.phase, next.operation), (Phase::Standby, O::Starting));
    // Nor one that was to take the home with it, and is now to keep it.
    let keep = |w: Workspace| {
        let w = w.deleted(false).phase(Phase::Deleting);
        let next = plan(&w.doing(O::Deleting)).next;
        (next.operation, next.op_id)
    };
    assert_eq!(keep(ws().standby()), (O::Archiving, Some(op(NEW))));
    assert_eq!(keep(ws().leftover()), (O::Archiving, Some(op(NEW))));
    assert_eq!(keep(ws().running()), (O::Stopping, Some(op(NEW))));
}

#[test]
fn the_archive_is_left_to_gc_and_then_it_is_over() {
    let w = ws()
        .leftover()
        .deleted(false)
        .phase(Phase::Deleting)
        .doing(O::Archiving);
    let w = after(&w.edit(|w| w.conditions.evidence.volume = None));
    assert_eq!(
        (w.control.phase, w.control.operation),
        (Phase::Deleting, O::None)
    );
    assert_eq!(w.control.home.location, HomeLocation::Archive);
    let w = after_at(&w, t(20_000));
    assert_eq!(
        w.control.phase,
        Phase::Deleting,
        "its archive is still there"
    );
    let w = after_at(
        &w.edit(|w| w.conditions.evidence.archives.clear()),
        t(20_001),
    );
    assert_eq!(w.control.phase, Phase::Deleted);
    assert_eq!(after_at(&w, t(30_000)).control, w.control);
}
