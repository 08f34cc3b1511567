//! The table of operations: every pair of phase and desired state.

use windlass_domain::{
    DesiredState as D, ErrorReason, Freshness, Operation as O, Phase, Workspace,
    conditions::ContainerState,
    planner::{Action, wanted},
};

use crate::support::*;

fn provision() -> Option<Action> {
    Some(Action::Provision { replaces: None })
}

fn restore() -> Option<Action> {
    Some(Action::Restore {
        archive_key: key(HOME),
        replaces: None,
    })
}

fn start() -> Option<Action> {
    Some(Action::Start {
        volume_id: vol(HOME),
    })
}

fn archive_it() -> Option<Action> {
    Some(Action::Archive {
        volume_id: vol(HOME),
    })
}

fn check(row: &str, w: &Workspace, operation: O, action: Option<Action>) {
    let plan = plan(w);
    assert_eq!(plan.next.operation, operation, "{row}");
    assert_eq!(
        plan.call.as_ref().map(|c| c.action.clone()),
        action,
        "{row}"
    );
    if operation == O::None {
        assert_eq!(plan.next, w.control, "{row}: nothing to write");
    } else {
        assert_eq!(
            plan.next.op_id,
            Some(op(NEW)),
            "{row}: stored before the call"
        );
        assert_eq!(plan.call.unwrap().op_id, op(NEW), "{row}");
        assert_eq!(plan.next.op_started_at, Some(now()), "{row}");
    }
}

#[test]
fn every_pair() {
    let stop = || Some(Action::Stop);
    let table = [
        (
            ws().pending(),
            D::Archived,
            O::CreateEmptyArchive,
            Some(Action::CreateEmptyArchive),
        ),
        (ws().pending(), D::Standby, O::Provisioning, provision()),
        (ws().pending(), D::Running, O::Provisioning, provision()),
        (ws().archived(), D::Archived, O::None, None),
        (ws().archived(), D::Standby, O::Restoring, restore()),
        (ws().archived(), D::Running, O::Restoring, restore()),
        (ws().standby(), D::Archived, O::Archiving, archive_it()),
        (ws().standby(), D::Standby, O::None, None),
        (ws().standby(), D::Running, O::Starting, start()),
        (ws().running(), D::Archived, O::Stopping, stop()),
        (ws().running(), D::Standby, O::Stopping, stop()),
        (ws().running(), D::Running, O::None, None),
        (ws().in_error(), D::Archived, O::None, None),
        (ws().in_error(), D::Standby, O::None, None),
        (ws().in_error(), D::Running, O::None, None),
    ];
    for (w, desired, operation, action) in table {
        let row = format!("{} {desired}", w.control.phase);
        check(&row, &w.desired(desired), operation, action);
    }
}

#[test]
fn archive_op_id_is_stored_by_what_makes_archives_and_stays() {
    let kept = |w: Workspace| w.edit(|w| w.control.archive_op_id = Some(op(3)));
    let table = [
        (ws().pending().desired(D::Archived), NEW),
        (ws().standby().desired(D::Archived), NEW),
        (ws().pending(), 3),
        (ws().archived(), 3),
        (ws().standby(), 3),
        (ws().running().desired(D::Standby), 3),
    ];
    for (w, expected) in table {
        let next = plan(&kept(w)).next;
        assert_eq!(next.archive_op_id, Some(op(expected)), "{}", next.operation);
    }
}

#[test]
fn what_is_left_goes_first() {
    let exited = |w: Workspace| w.sees_exit(1, 1, 0);
    let remove = Some(Action::DeleteArchivedVolume {
        volume_id: vol(HOME),
        archive_key: key(HOME),
        sha256: format!("sha{HOME}"),
    });
    for desired in [D::Archived, D::Standby] {
        let w = exited(ws().standby()).desired(desired);
        check(
            "a dead container before rest",
            &w,
            O::Stopping,
            Some(Action::Stop),
        );
    }
    for desired in [D::Archived, D::Standby, D::Running] {
        let w = ws().leftover().desired(desired);
        check(
            "an archived volume before anything",
            &w,
            O::Archiving,
            remove.clone(),
        );
        let next = plan(&w).next;
        assert_eq!(
            next.archive_op_id,
            Some(op(HOME)),
            "the archive stays the one it was"
        );
        let w = exited(ws().leftover()).desired(desired);
        check(
            "container before volume",
            &w,
            O::Stopping,
            Some(Action::Stop),
        );
    }
    let created = ws().sees_container(ContainerState::Created);
    check(
        "a container without a home",
        &created,
        O::Stopping,
        Some(Action::Stop),
    );
}

#[test]
fn only_a_volume_that_is_no_home_makes_room() {
    let w = ws().pending().sees_volume(OTHER);
    let replaces = Some(vol(OTHER));
    check(
        "half-provisioned",
        &w,
        O::Provisioning,
        Some(Action::Provision { replaces }),
    );
    let w = ws().archived().sees_volume(OTHER);
    let archive_key = key(HOME);
    check(
        "half-restored",
        &w,
        O::Restoring,
        Some(Action::Restore {
            archive_key,
            replaces,
        }),
    );
    let unlabelled = w.edit(|w| seen_volume(w).owned = false);
    check("not ours", &unlabelled, O::Restoring, restore());
    // The operation's own volume is what it makes.
    let own = plan(
        &ws()
            .pending()
            .doing(O::Restoring)
            .archived()
            .sees_volume(OP),
    );
    assert_eq!(own.call.map(|c| c.action), restore());
    // An archived volume that shows up late may have changed since: it never makes room.
    let late = plan(&ws().leftover().doing(O::Restoring));
    assert_eq!(late.call.map(|c| c.action), restore());
}

#[test]
fn an_operation_in_progress_is_not_preempted_and_its_call_is_repeated() {
    let table = [
        (ws().pending().doing(O::Provisioning), provision()),
        (
            ws().pending().doing(O::CreateEmptyArchive),
            Some(Action::CreateEmptyArchive),
        ),
        (ws().archived().doing(O::Restoring), restore()),
        (ws().standby().doing(O::Starting), start()),
        (ws().running().doing(O::Stopping), Some(Action::Stop)),
        (ws().standby().doing(O::Archiving), archive_it()),
    ];
    for (w, action) in table {
        for desired in [D::Archived, D::Standby, D::Running] {
            let w = w
                .clone()
                .desired(desired)
                .error(ErrorReason::ActionFailed, 2);
            let plan = plan(&w);
            let row = format!("{} {desired}", w.control.operation);
            assert_eq!(plan.next, w.control, "{row}");
            let call = plan.call.unwrap();
            assert_eq!(Some(call.action), action, "{row}");
            assert_eq!((call.op_id, call.attempt), (op(OP), 2), "{row}");
        }
    }
}

#[test]
fn archiving_removes_a_container_that_came_late() {
    let w = ws().running().doing(O::Archiving).desired(D::Archived);
    assert_eq!(plan(&w).call.unwrap().action, Action::Stop);
    // And the archive does not become the home before the container is gone, one step at a time.
    let w = w.sees_archive(OP);
    assert_eq!(plan(&w).next.home, w.control.home);
    let gone = w.edit(|w| w.conditions.evidence.container = None);
    let first = after(&gone);
    assert_eq!(first.control.phase, Phase::Standby);
    assert_eq!(first.control.home, gone.control.home);
    assert_eq!(after(&first).control.phase, Phase::Archived);
}

#[test]
fn a_stale_host_starts_nothing_and_removes_nothing() {
    let stale = [
        Freshness {
            host: None,
            archives: Some(t(9_999)),
        },
        Freshness {
            host: Some(t(9_939)),
            archives: Some(t(9_999)),
        },
    ];
    let begins = [
        ws().pending(),
        ws().pending().desired(D::Archived),
        ws().archived(),
        ws().standby(),
        ws().standby().desired(D::Archived),
        ws().running().desired(D::Standby),
        ws().leftover(),
        ws().standby().deleted(true),
    ];
    let removes = [
        ws().running().doing(O::Stopping),
        ws().leftover().doing(O::Archiving),
        ws().pending().sees_volume(OTHER).doing(O::Provisioning),
        ws().archived().sees_volume(OTHER).doing(O::Restoring),
        ws().standby().deleted(true).doing(O::Deleting),
    ];
    for fresh in &stale {
        for w in &begins {
            let plan = plan_with(w, fresh, now());
            assert_eq!((plan.next.operation, plan.call), (O::None, None), "{w:?}");
        }
        for w in &removes {
            assert_eq!(plan_with(w, fresh, now()).call, None, "{w:?}");
        }
    }
    let just_fresh = Freshness {
        host: Some(t(9_940)),
        archives: None,
    };
    assert!(
        plan_with(&ws().standby(), &just_fresh, now())
            .call
            .is_some()
    );
    // What is in progress and removes nothing goes on.
    let w = ws().standby().doing(O::Archiving);
    assert!(plan_with(&w, &stale[1], now()).call.is_some());
}

#[test]
fn a_final_phase_wants_nothing() {
    for desired in D::ALL {
        for phase in [Phase::Error, Phase::Deleted] {
            assert_eq!(wanted(&ws().standby().desired(*desired), phase), O::None);
        }
    }
}
