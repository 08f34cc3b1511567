//! Recovery: the explicit way out of ERROR.

use windlass_domain::{
    ErrorReason as R, Home, Operation as O, Phase, Workspace,
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
        ("lost, archive", lost(), other(), Ok(Home::archive(None))),
        (
            "lost, unknown archive",
            lost(),
            unknown,
            Err(RecoverError::ArchiveNotFound),
        ),
        (
            "lost, empty",
            lost(),
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
