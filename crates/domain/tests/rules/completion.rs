//! The `complete when observed` column.

use windlass_domain::{
    DesiredState as D, ErrorReason, Home, HomeLocation, Operation as O, Phase, Workspace,
    planner::Action,
};

use crate::support::*;

/// Whether the operation OP has ended by now.
fn ends(w: &Workspace) -> bool {
    plan(w).next.op_id != Some(op(OP))
}

fn unowned(w: Workspace) -> Workspace {
    w.edit(|w| seen_volume(w).owned = false)
}

fn no_volume(w: Workspace) -> Workspace {
    w.edit(|w| w.conditions.evidence.volume = None)
}

#[test]
fn every_row() {
    let provisioning = || ws().pending().doing(O::Provisioning);
    let empty = || {
        ws().pending()
            .doing(O::CreateEmptyArchive)
            .desired(D::Archived)
    };
    let restoring = || ws().archived().doing(O::Restoring);
    let starting = || ws().standby().doing(O::Starting);
    let archiving = || ws().standby().doing(O::Archiving).desired(D::Archived);
    let removing = || ws().leftover().doing(O::Archiving).desired(D::Archived);
    let stopping = || ws().running().doing(O::Stopping).desired(D::Standby);
    let deleting = || ws().running().doing(O::Deleting).deleted(true);
    let ready = |w: Workspace| w.running();
    let gone = |w: Workspace| w.edit(|w| w.conditions.evidence.container = None);
    let table = [
        (false, "PROVISIONING: nothing", provisioning()),
        (
            false,
            "PROVISIONING: another volume",
            provisioning().sees_volume(OTHER),
        ),
        (
            false,
            "PROVISIONING: unlabelled volume",
            unowned(provisioning().sees_volume(OP)),
        ),
        (
            true,
            "PROVISIONING: its volume",
            provisioning().sees_volume(OP),
        ),
        (
            false,
            "CREATE_EMPTY_ARCHIVE: another archive",
            empty().sees_archive(OTHER),
        ),
        (
            true,
            "CREATE_EMPTY_ARCHIVE: its archive",
            empty().sees_archive(OP),
        ),
        (
            false,
            "RESTORING: half-restored volume",
            restoring().sees_volume(OP),
        ),
        (
            false,
            "RESTORING: marker, no volume",
            restoring().sees_restore(OP),
        ),
        (
            false,
            "RESTORING: stale marker",
            restoring().sees_volume(OP).sees_restore(OTHER),
        ),
        (
            false,
            "RESTORING: stale both",
            restoring().sees_volume(OTHER).sees_restore(OTHER),
        ),
        (
            false,
            "RESTORING: other volume",
            restoring().sees_volume(OTHER).sees_restore(OP),
        ),
        (
            true,
            "RESTORING: both",
            restoring().sees_volume(OP).sees_restore(OP),
        ),
        (false, "STARTING: no container", starting()),
        (
            false,
            "STARTING: ended container",
            starting().sees_exit(1, OTHER, 0),
        ),
        (true, "STARTING: ready", ready(starting())),
        (false, "ARCHIVING: nothing", archiving()),
        (
            false,
            "ARCHIVING: archive, volume there",
            archiving().sees_archive(OP),
        ),
        (false, "ARCHIVING: past commit, volume there", removing()),
        (
            true,
            "ARCHIVING: past commit, volume gone",
            no_volume(removing()),
        ),
        (false, "STOPPING: ready", stopping()),
        (
            false,
            "STOPPING: ended, not removed",
            stopping().sees_exit(1, 1, 0),
        ),
        (true, "STOPPING: no container", gone(stopping())),
        (false, "DELETING: both", deleting()),
        (false, "DELETING: volume", gone(deleting())),
        (false, "DELETING: container", no_volume(deleting())),
        (true, "DELETING: neither", no_volume(gone(deleting()))),
    ];
    for (expected, row, w) in table {
        assert_eq!(ends(&w), expected, "{row}");
    }
}

#[test]
fn the_home_changes_only_when_an_operation_completes() {
    let restored = Home::restored(vol(OP), &key(HOME));
    let table = [
        (
            ws().pending().doing(O::Provisioning).sees_volume(OP),
            Home::volume(vol(OP)),
        ),
        (
            ws().pending().doing(O::CreateEmptyArchive).sees_archive(OP),
            Home::archive(None),
        ),
        (
            ws().archived()
                .doing(O::Restoring)
                .sees_volume(OP)
                .sees_restore(OP),
            restored,
        ),
        (
            no_volume(ws().leftover().doing(O::Archiving)),
            Home::archive(None),
        ),
        (
            no_volume(ws().standby().doing(O::Deleting).deleted(true)),
            Home::none_after(Some(vol(HOME))),
        ),
    ];
    for (w, home) in table {
        let next = plan(&w).next;
        assert_eq!(next.home, home, "{}", w.control.operation);
    }
    let empty = ws().pending().doing(O::CreateEmptyArchive).sees_archive(OP);
    assert_eq!(plan(&empty).next.archive_key, Some(key(OP)));
}

#[test]
fn completion_forgets_failures() {
    let w = ws()
        .pending()
        .doing(O::Provisioning)
        .sees_volume(OP)
        .desired(D::Standby);
    let next = plan(&w.error(ErrorReason::ActionFailed, 2)).next;
    assert_eq!((next.error_count, next.error_reason), (0, None));
    assert_eq!((next.phase, next.operation), (Phase::Standby, O::None));
    // A start forgets what is no crash, too.
    let w = ws()
        .standby()
        .doing(O::Starting)
        .running()
        .phase(Phase::Standby);
    let next = plan(&w.error(ErrorReason::ImagePullFailed, 2)).next;
    assert_eq!((next.error_count, next.error_reason), (0, None));
}

#[test]
fn completion_counts_more_than_a_failure_told_of_the_same_attempt() {
    let w = ws().pending().doing(O::Provisioning).sees_volume(OP);
    let next = plan(&w.sees_failed_job(OP, 0, "ActionFailed")).next;
    assert_eq!(next.home, Home::volume(vol(OP)));
    assert_eq!(next.error_count, 0);
}

#[test]
fn archiving_commits_the_archive_before_the_volume_goes() {
    let w = ws().standby().doing(O::Archiving).desired(D::Archived);
    let archive = Action::Archive {
        volume_id: vol(HOME),
    };
    assert_eq!(plan(&w).call.unwrap().action, archive);
    assert_eq!(
        plan(&w.clone().sees_archive(OTHER)).call.unwrap().action,
        archive
    );
    let committed = plan(&w.sees_archive(OP));
    assert_eq!(committed.next.home.location, HomeLocation::Archive);
    assert_eq!(committed.next.home.volume_id, Some(vol(HOME)));
    assert_eq!(committed.next.archive_key, Some(key(OP)));
    assert_eq!(committed.next.phase, Phase::Archived);
    assert_eq!(committed.next.operation, O::Archiving);
    let remove = Action::DeleteArchivedVolume {
        volume_id: vol(HOME),
        archive_key: key(OP),
        sha256: format!("sha{OP}"),
    };
    assert_eq!(committed.call.unwrap().action, remove);
}

#[test]
fn what_was_wanted_meanwhile_begins_at_once() {
    let w = ws().pending().doing(O::Provisioning).sees_volume(OP);
    let plan = plan(&w);
    assert_eq!(
        (plan.next.phase, plan.next.operation),
        (Phase::Standby, O::Starting)
    );
    assert_eq!(
        plan.call.unwrap().action,
        Action::Start { volume_id: vol(OP) }
    );
}
