//! A wish to have another archive as the home: down to ARCHIVED first, so that nothing is lost, then on to
//! what is desired.

use uuid::Uuid;
use windlass_domain::{
    DesiredState as D, ErrorReason as R, Freshness, Home, Operation as O, Phase as P, Workspace,
    conditions::ContainerState, explain::Explanation, planner::Action,
};

use crate::support::*;

const APPLIED: Option<Uuid> = Some(Uuid::from_u128(OTHER));

/// To be restored from an archive that is observed.
fn wishing(w: Workspace) -> Workspace {
    w.sees_archive(OTHER).wishes_restore(OTHER)
}

#[test]
fn every_pair_goes_by_way_of_archived() {
    let table = [
        (ws().running(), D::Running, O::Stopping),
        (ws().running(), D::Standby, O::Stopping),
        (ws().running(), D::Archived, O::Stopping),
        (ws().standby(), D::Running, O::Archiving),
        (ws().standby(), D::Standby, O::Archiving),
        (ws().standby(), D::Archived, O::Archiving),
        (
            ws().standby().sees_container(ContainerState::Exited),
            D::Running,
            O::Stopping,
        ),
        (ws().leftover(), D::Running, O::Archiving),
        (ws().leftover(), D::Archived, O::Archiving),
        (
            ws().archived().sees_container(ContainerState::Exited),
            D::Running,
            O::Stopping,
        ),
        (ws().in_error(), D::Running, O::None),
    ];
    for (w, desired, operation) in table {
        let w = wishing(w.desired(desired));
        let next = plan(&w).next;
        let row = format!("{} {desired}", w.control.phase);
        assert_eq!(next.operation, operation, "{row}");
        assert_eq!(next.restore_applied, None, "{row}: not yet");
        assert_eq!(next.archive_key, w.control.archive_key, "{row}");
    }
}

#[test]
fn at_archived_the_other_archive_becomes_the_home() {
    for (desired, operation) in [
        (D::Archived, O::None),
        (D::Standby, O::Restoring),
        (D::Running, O::Restoring),
    ] {
        let w = wishing(ws().archived().desired(desired));
        let plan = plan(&w);
        assert_eq!(plan.next.restore_applied, APPLIED, "{desired}");
        assert_eq!(plan.next.archive_key, Some(key(OTHER)), "{desired}");
        assert_eq!(plan.next.home, Home::archive(None), "{desired}");
        assert_eq!(plan.next.phase, P::Archived, "{desired}");
        assert_eq!(plan.next.operation, operation, "{desired}");
        if operation == O::Restoring {
            let restore = Action::Restore {
                archive_key: key(OTHER),
                replaces: None,
            };
            assert_eq!(plan.call.unwrap().action, restore);
        }
        let stored = after(&w);
        assert!(stored.open_restore().is_none());
        assert_eq!(after(&stored).control, stored.control, "once");
    }
}

/// A rebuilt workspace begins with a wish, and gets nothing else as its first home.
#[test]
fn at_pending_the_archive_becomes_the_first_home() {
    for (desired, operation) in [(D::Archived, O::None), (D::Running, O::Restoring)] {
        let w = wishing(ws().pending().desired(desired));
        let next = plan(&w).next;
        assert_eq!(next.home, Home::archive(None), "{desired}");
        assert_eq!(next.archive_key, Some(key(OTHER)), "{desired}");
        assert_eq!(next.restore_applied, APPLIED, "{desired}");
        assert_eq!((next.phase, next.operation), (P::Archived, operation));
        assert_eq!(after(&after(&w)).control, after(&w).control, "once");

        // Not observed yet: neither an empty archive nor an empty volume in its place.
        let early = ws().pending().desired(desired).wishes_restore(OTHER);
        assert_eq!(plan(&early).next, early.control, "{desired}");
        let e = explained(&early);
        assert_eq!(e.next, "it waits until its archive is observed");
        assert!(e.blockers[0].contains(&key(OTHER)), "{:?}", e.blockers);
    }
    let stale = Freshness {
        host: Some(t(1)),
        archives: Some(t(9_999)),
    };
    let w = wishing(ws().pending());
    assert_eq!(plan_with(&w, &stale, now()).next, w.control);
    let left = w.sees_container(ContainerState::Exited);
    assert_eq!(plan(&left).next.operation, O::Stopping);
    assert_eq!(plan(&left).next.home, Home::none());
}

#[test]
fn an_applied_wish_changes_nothing() {
    for w in [ws().running(), ws().standby().desired(D::Standby)] {
        let done = wishing(w).edit(|w| w.control.restore_applied = APPLIED);
        assert_eq!(plan(&done).next, done.control);
    }
}

#[test]
fn nothing_is_applied_on_a_stale_host() {
    let w = wishing(ws().archived());
    let stale = Freshness {
        host: Some(t(1)),
        archives: Some(t(9_999)),
    };
    let next = plan_with(&w, &stale, now()).next;
    assert_eq!(next, w.control);
}

#[test]
fn an_operation_in_progress_ends_first_and_a_waiting_attempt_is_given_up() {
    let restoring = wishing(ws().archived().doing(O::Restoring));
    let next = plan(&restoring).next;
    assert_eq!((next.operation, next.op_id), (O::Restoring, Some(op(OP))));
    assert_eq!(next.restore_applied, None);
    let waiting = failed(&restoring, R::StoreUnavailable);
    let next = after_at(&waiting, t(10_400)).control;
    assert_eq!(next.restore_applied, APPLIED);
    assert_eq!((next.operation, next.op_id), (O::Restoring, Some(op(NEW))));

    let starting = wishing(ws().standby().doing(O::Starting));
    assert_eq!(plan(&starting).next.operation, O::Starting);
    let crashed = failed(&starting, R::CrashLoop);
    assert_eq!(after(&crashed).control.operation, O::Archiving);
}

/// The archive of what was the home is committed before the other one becomes the home.
#[test]
fn what_was_the_home_is_archived_first() {
    let w = wishing(ws().standby().doing(O::Archiving));
    let archived = w.clone().sees_archive(OP);
    let next = after(&archived).control;
    assert_eq!(next.archive_key, Some(key(OP)), "the commit point");
    assert_eq!(next.restore_applied, None, "the volume is still there");
    let gone = Workspace {
        control: next,
        ..archived
    }
    .edit(|w| w.conditions.evidence.volume = None);
    let next = after(&gone).control;
    assert_eq!(next.archive_key, Some(key(OTHER)));
    assert_eq!(next.restore_applied, APPLIED);
    assert_eq!(next.operation, O::Restoring);
}

/// The volume is the home again: the wish waits until it is archived anew.
#[test]
fn a_volume_that_changed_is_archived_before_the_wish_is_fulfilled() {
    let w = wishing(ws().leftover());
    let w = failed(&after(&w), R::VolumeChanged);
    assert_eq!(w.control.home, Home::volume(vol(HOME)));
    assert_eq!(w.control.restore_applied, None);
    let next = after_at(&w, t(10_400)).control;
    assert_eq!(next.operation, O::Archiving);
    assert_eq!(next.archive_op_id, Some(op(NEW)));
}

fn explained(w: &Workspace) -> Explanation {
    explained_with(w, chrono::TimeDelta::zero())
}

#[test]
fn a_home_whose_archive_vanished_waits_and_says_so() {
    let w = ws().home_is_archive().phase(P::Archived);
    let blockers = explained(&w).blockers;
    assert!(blockers[0].contains(&key(HOME)), "{blockers:?}");
    assert!(explained(&w.sees_archive(HOME)).blockers.is_empty());
}

#[test]
fn a_wish_whose_archive_vanished_waits_and_says_so() {
    for w in [
        ws().running(),
        ws().standby().desired(D::Standby),
        ws().archived().desired(D::Archived),
    ] {
        let w = w.wishes_restore(OTHER);
        assert_eq!(plan(&w).next, w.control, "left alone");
        let blockers = explained(&w).blockers;
        assert!(blockers[0].contains(&key(OTHER)), "{blockers:?}");
        // It comes back, and so does the wish.
        let w = w.sees_archive(OTHER);
        assert!(explained(&w).blockers.is_empty());
        assert_ne!(plan(&w).next, w.control);
    }
    let w = ws().standby().wishes_restore(OTHER);
    assert_eq!(
        plan(&w).next.operation,
        O::Starting,
        "as if there were none"
    );
}

#[test]
fn what_comes_next_is_told() {
    let w = wishing(ws().archived().desired(D::Archived));
    assert_eq!(explained(&w).next, "archive archive/8 becomes its home");
    let w = wishing(ws().running());
    assert_eq!(explained(&w).next, "STOPPING begins");
}

#[test]
fn a_deletion_is_not_held_up() {
    let running = wishing(ws().running()).deleted(false);
    assert_eq!(plan(&running).next.operation, O::Stopping);
    let discarded = wishing(ws().standby()).deleted(true);
    assert_eq!(plan(&discarded).next.operation, O::Deleting);
    let archived = wishing(ws().archived()).deleted(false);
    let next = plan(&archived).next;
    assert_eq!((next.phase, next.operation), (P::Deleting, O::None));
    assert_eq!(next.restore_applied, None);
    assert!(explained(&archived).blockers.is_empty());
}
