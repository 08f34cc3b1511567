//! Recovery: the explicit way out of ERROR.

use windlass_domain::{
    DesiredState, ErrorReason as R, Home, Operation as O, Phase, Workspace,
    conditions::ContainerState,
    planner::Action,
    recover::{Accept, RecoverError, recover},
};

use crate::support::*;

fn broken(w: Workspace, reason: R) -> Workspace {
    w.phase(Phase::Error).error(reason, 3)
}

fn other() -> Option<Accept> {
    Some(Accept::Archive(key(OTHER)))
}

#[test]
fn what_may_be_accepted() {
    let lost = || broken(ws().home_is_volume(), R::DataLost).sees_archive(OTHER);
    let corrupt = |w: Workspace| broken(w, R::ArchiveCorrupted).sees_archive(OTHER);
    let adopt = || Some(Accept::AdoptVolume);
    let running = || {
        ws().home_is_volume()
            .sees_container(ContainerState::Running)
    };
    let stray = || broken(running(), R::ContainerWithoutVolume).sees_archive(OTHER);
    let unknown = Some(Accept::Archive("none".into()));
    let table = [
        (
            "no error",
            ws().running(),
            None,
            Err(RecoverError::NotInError),
        ),
        (
            "nothing lost",
            broken(ws().standby(), R::Timeout),
            None,
            Ok(Home::volume(vol(HOME))),
        ),
        (
            "nothing to accept",
            broken(ws().standby(), R::Timeout),
            other(),
            Err(RecoverError::AcceptRefused),
        ),
        (
            "lost, unsaid",
            lost(),
            None,
            Err(RecoverError::AcceptRequired),
        ),
        (
            "lost, archive: the volume may come back",
            lost(),
            other(),
            Ok(Home::archive(Some(vol(HOME)))),
        ),
        (
            "lost, unknown archive",
            lost(),
            unknown,
            Err(RecoverError::ArchiveNotFound),
        ),
        (
            "lost, empty: the volume may come back",
            lost(),
            Some(Accept::StartEmpty),
            Ok(Home::none_after(Some(vol(HOME)))),
        ),
        (
            "lost, empty: what is there is given up",
            lost().sees_volume(OTHER),
            Some(Accept::StartEmpty),
            Ok(Home::none()),
        ),
        (
            "lost, no volume",
            lost(),
            adopt(),
            Err(RecoverError::VolumeNotFound),
        ),
        (
            "lost, adopt",
            lost().sees_volume(OTHER),
            adopt(),
            Ok(Home::volume(vol(OTHER))),
        ),
        (
            "a container without its volume",
            stray(),
            None,
            Err(RecoverError::ContainerStillThere),
        ),
        (
            "a container without its volume, whatever is accepted",
            stray(),
            other(),
            Err(RecoverError::ContainerStillThere),
        ),
        (
            "corrupt, older",
            corrupt(ws().archived()),
            other(),
            Ok(Home::archive(None)),
        ),
        (
            "corrupt, volume there",
            corrupt(ws().leftover()),
            other(),
            Ok(Home::archive(Some(vol(HOME)))),
        ),
        (
            "corrupt, home is a volume",
            corrupt(ws().standby()),
            other(),
            Err(RecoverError::AcceptRefused),
        ),
    ];
    for (row, w, accept, expected) in table {
        let next = recover(&w, accept);
        if let Ok(next) = &next {
            assert_eq!((next.error_count, next.error_reason), (0, None), "{row}");
        }
        assert_eq!(next.map(|c| c.home), expected, "{row}");
    }
}

#[test]
fn a_container_without_its_volume_is_lost_data_once_it_is_gone() {
    let w = ws()
        .home_is_volume()
        .sees_container(ContainerState::Running);
    let w = after(&w);
    assert_eq!(w.control.error_reason, Some(R::ContainerWithoutVolume));
    assert_eq!(plan(&w).call, None, "nothing is done to it");
    let gone = after(&w.edit(|w| w.conditions.evidence.container = None));
    assert_eq!(gone.control.error_reason, Some(R::DataLost));
    assert!(recover(&gone, Some(Accept::StartEmpty)).is_ok());
}

#[test]
fn an_accepted_archive_does_not_cost_the_volume_that_is_there() {
    let w = broken(ws().leftover(), R::ArchiveCorrupted).sees_archive(OTHER);
    let control = recover(&w, other()).unwrap();
    let w = after(&Workspace { control, ..w });
    let remove = Action::DeleteArchivedVolume {
        volume_id: vol(HOME),
        archive_key: key(OTHER),
        sha256: format!("sha{OTHER}"),
    };
    assert_eq!(
        plan(&w).call.unwrap().action,
        remove,
        "the agent compares them first"
    );
    let w = failed(&w, R::VolumeChanged);
    assert_eq!(w.control.home, Home::volume(vol(HOME)));
    assert_eq!(after(&w).control.operation, O::Starting);
}

/// Recovered as `accept` says after its volume was lost.
fn recovered(accept: Accept) -> Workspace {
    let w = broken(ws().home_is_volume(), R::DataLost).sees_archive(OTHER);
    let control = recover(&w, Some(accept)).unwrap();
    Workspace { control, ..w }
}

#[test]
fn a_lost_volume_that_comes_back_makes_no_room_for_the_accepted_archive() {
    let accepted = || recovered(Accept::Archive(key(OTHER)));
    assert_eq!(after(&accepted()).control.operation, O::Restoring);
    // Before the restore begins.
    let back = accepted().sees_volume(HOME);
    let w = after(&back);
    assert_eq!(w.control.operation, O::Archiving);
    let remove = Action::DeleteArchivedVolume {
        volume_id: vol(HOME),
        archive_key: key(OTHER),
        sha256: format!("sha{OTHER}"),
    };
    assert_eq!(plan(&w).call.unwrap().action, remove, "compared first");
    let w = after(&failed(&w, R::VolumeChanged));
    assert_eq!(w.control.home, Home::volume(vol(HOME)));
    assert_eq!(w.control.operation, O::Starting);
    // While it is at work: the agent refuses, and the restore is given up.
    let restoring = after(&accepted()).sees_volume(HOME);
    let restore = Action::Restore {
        archive_key: key(OTHER),
        replaces: None,
    };
    let call = plan(&restoring).call.unwrap();
    assert_eq!(call.action, restore);
    let w = after_at(&failed(&restoring, R::ActionFailed), t(10_400));
    assert_eq!(w.control.operation, O::Archiving);
    // Nor does a deletion take it along.
    for w in [back.clone(), restoring.edit(|w| w.control.end_operation())] {
        assert_eq!(plan(&w.deleted(false)).next.operation, O::Archiving);
    }
    assert_eq!(plan(&back.deleted(true)).next.operation, O::Deleting);
}

#[test]
fn a_lost_volume_that_comes_back_before_there_is_an_empty_home_is_the_home_again() {
    let empty = || recovered(Accept::StartEmpty);
    assert_eq!(after(&empty()).control.operation, O::Provisioning);
    let w = after(&empty().sees_volume(HOME));
    assert_eq!(w.control.home, Home::volume(vol(HOME)));
    assert_eq!(
        (w.control.phase, w.control.operation),
        (Phase::Standby, O::Starting)
    );
    // While the empty one is being made: the agent refuses, and that is given up.
    let making = after(&empty()).sees_volume(HOME);
    let call = plan(&making).call.unwrap();
    assert_eq!(call.action, Action::Provision { replaces: None });
    let w = after(&making);
    assert_eq!(w.control.home, Home::volume(vol(HOME)));
    let w = after_at(&failed(&w, R::ActionFailed), t(10_400));
    assert_eq!(w.control.operation, O::Starting);
    // An empty archive was made meanwhile: the volume is compared with it.
    let archive = empty().desired(DesiredState::Archived);
    let w = after(&archive).sees_archive(NEW).sees_volume(HOME);
    let w = after(&w);
    assert_eq!(w.control.home, Home::archive(Some(vol(HOME))));
    assert_eq!(w.control.operation, O::Archiving);
    // Nor does a deletion take it along.
    let w = after(&empty().deleted(false).sees_volume(HOME));
    assert_eq!(w.control.operation, O::Archiving);
}

/// Its volume is lost, so that nothing of the home is found, and comes back after that.
#[test]
fn a_lost_volume_that_comes_back_after_its_deletion_is_archived() {
    let lost = ws()
        .home_is_volume()
        .sees_container(ContainerState::Exited)
        .deleted(false)
        .phase(Phase::Deleting);
    let deleting = after(&lost);
    assert_eq!(deleting.control.operation, O::Deleting);
    let gone = after(&deleting.edit(|w| w.conditions.evidence.container = None));
    assert_eq!(gone.control.operation, O::None);
    let back = gone.sees_volume(HOME);
    assert_eq!(after(&back).control.operation, O::Archiving);
    let discarded = back.edit(|w| w.spec.discard_home = true);
    assert_eq!(after(&discarded).control.operation, O::Deleting);
}
