//! The table of phases, and the order of its rows.

use windlass_domain::{
    ErrorReason, Freshness, Phase, Policy, Workspace,
    conditions::{Condition, ConditionStatus, ContainerState, Health},
    judge::{Judgement, judge},
    phase::Operation,
};

use crate::support::*;

#[derive(Debug, PartialEq)]
enum Is {
    In(Phase),
    Broken(ErrorReason),
    StillBroken,
    Undecided,
}
use Is::{Broken, In, StillBroken, Undecided};

fn judged(w: &Workspace, fresh: &Freshness) -> Is {
    match judge(w, fresh, &Policy::default()) {
        Judgement::Phase(p) => In(p),
        Judgement::Broken(f) => Broken(f.reason),
        Judgement::StillBroken => StillBroken,
        Judgement::Undecided => Undecided,
    }
}

fn check(table: Vec<(&str, Workspace, Is)>) {
    for (row, w, expected) in table {
        assert_eq!(judged(&w, &fresh()), expected, "{row}");
    }
}

fn unlabelled(w: Workspace) -> Workspace {
    w.edit(|w| seen_volume(w).owned = false)
}

fn with_health(w: Workspace, health: Health) -> Workspace {
    w.edit(|w| seen_container(w).health = Some(health))
}

fn archives_unknown(w: Workspace) -> Workspace {
    w.edit(|w| {
        w.conditions.archive_ready = Some(Condition {
            status: ConditionStatus::Unknown,
            reason: "StoreUnreachable".into(),
            message: String::new(),
            last_transition_time: t(0),
        });
    })
}

#[test]
fn row_1_deleted() {
    let deleting = || ws().deleted(false).phase(Phase::Deleting);
    let lone_container = deleting().sees_container(ContainerState::Exited);
    check(vec![
        ("container left", lone_container, In(Phase::Deleting)),
        (
            "volume left",
            deleting().sees_volume(OTHER),
            In(Phase::Deleting),
        ),
        (
            "archive left",
            deleting().sees_archive(OTHER),
            In(Phase::Deleting),
        ),
        (
            "archives unknown",
            archives_unknown(deleting()),
            In(Phase::Deleting),
        ),
        (
            "operation left",
            deleting().doing(Operation::Provisioning),
            In(Phase::Deleting),
        ),
        ("just begun", ws().deleted(false), In(Phase::Deleting)),
        ("nothing left", deleting(), In(Phase::Deleted)),
        (
            "never observed",
            deleting().edit(|w| w.observed_at = None),
            In(Phase::Deleting),
        ),
        (
            "not observed since the deletion began",
            deleting().edit(|w| w.control.phase_changed_at = t(9_999)),
            In(Phase::Deleting),
        ),
        (
            "not observed since an attempt was given up",
            deleting().edit(|w| w.control.retry_at = Some(t(9_999))),
            In(Phase::Deleting),
        ),
        (
            "DELETED stays",
            ws().deleted(false).phase(Phase::Deleted),
            In(Phase::Deleted),
        ),
        (
            "but for a straggler",
            ws().deleted(false).phase(Phase::Deleted).sees_volume(OTHER),
            In(Phase::Deleting),
        ),
    ]);
}

#[test]
fn row_2_errors() {
    let container = || ws().sees_container(ContainerState::Running);
    check(vec![
        (
            "container, no volume",
            container(),
            Broken(ErrorReason::ContainerWithoutVolume),
        ),
        (
            "home volume absent",
            ws().home_is_volume(),
            Broken(ErrorReason::DataLost),
        ),
        (
            "home volume is another",
            ws().home_is_volume().sees_volume(OTHER),
            Broken(ErrorReason::DataLost),
        ),
        (
            "home volume without this workspace's label",
            unlabelled(ws().standby()),
            Broken(ErrorReason::DataLost),
        ),
        (
            "home archive absent",
            ws().home_is_archive(),
            Broken(ErrorReason::DataLost),
        ),
        (
            "home archive is another",
            ws().home_is_archive().sees_archive(OTHER),
            Broken(ErrorReason::DataLost),
        ),
        (
            "terminal",
            ws().standby().error(ErrorReason::Timeout, 1),
            StillBroken,
        ),
        (
            "counted, at its limit",
            ws().standby().error(ErrorReason::ActionFailed, 3),
            StillBroken,
        ),
        (
            "counted, below its limit",
            ws().standby().error(ErrorReason::ActionFailed, 2),
            In(Phase::Standby),
        ),
        (
            "waiting, however often",
            ws().standby().error(ErrorReason::StoreUnavailable, 99),
            In(Phase::Standby),
        ),
        (
            "VolumeChanged is no error",
            ws().standby().error(ErrorReason::VolumeChanged, 99),
            In(Phase::Standby),
        ),
    ]);
}

#[test]
fn rows_3_and_4() {
    check(vec![
        ("container ready", ws().running(), In(Phase::Running)),
        (
            "healthy",
            with_health(ws().running(), Health::Healthy),
            In(Phase::Running),
        ),
        (
            "health starting",
            with_health(ws().running(), Health::Starting),
            In(Phase::Standby),
        ),
        (
            "unhealthy",
            with_health(ws().running(), Health::Unhealthy),
            In(Phase::Standby),
        ),
        ("volume alone", ws().standby(), In(Phase::Standby)),
        (
            "dead container",
            ws().running().sees_exit(1, 1, 0),
            In(Phase::Standby),
        ),
        ("archive", ws().archived(), In(Phase::Archived)),
        (
            "archive, its volume still there",
            ws().leftover(),
            In(Phase::Archived),
        ),
        (
            "a half-restored volume is no home",
            ws().archived().doing(Operation::Restoring).sees_volume(OP),
            In(Phase::Archived),
        ),
        ("nothing", ws(), In(Phase::Pending)),
        (
            "a volume in the making is no home",
            ws().doing(Operation::Provisioning).sees_volume(OP),
            In(Phase::Pending),
        ),
        (
            "an archive that is not of record is no home",
            ws().sees_archive(OTHER),
            In(Phase::Pending),
        ),
    ]);
}

#[test]
fn the_order_of_rows_is_their_priority() {
    let lost_and_container = ws()
        .home_is_volume()
        .sees_container(ContainerState::Running);
    let broken = ws().home_is_volume().error(ErrorReason::Timeout, 1);
    check(vec![
        (
            "1 before 2",
            ws().running().deleted(false).error(ErrorReason::Timeout, 1),
            In(Phase::Deleting),
        ),
        (
            "1 before DataLost",
            ws().home_is_volume().deleted(false),
            In(Phase::Deleting),
        ),
        (
            "1 before 3, with the volume left",
            ws().running().deleted(true),
            In(Phase::Deleting),
        ),
        (
            "ContainerWithoutVolume before DataLost",
            lost_and_container,
            Broken(ErrorReason::ContainerWithoutVolume),
        ),
        (
            "DataLost before what is stored",
            broken,
            Broken(ErrorReason::DataLost),
        ),
        (
            "2 before 3",
            ws().running().error(ErrorReason::CrashLoop, 3),
            StillBroken,
        ),
    ]);
}

#[test]
fn data_lost_needs_two_complete_observations_in_a_row() {
    let host = |at| Freshness {
        host: at,
        archives: Some(t(9_999)),
    };
    let store = |at| Freshness {
        host: Some(t(9_999)),
        archives: at,
    };
    let volume = ws().home_is_volume(); // observed at 5,000
    let archive = ws().home_is_archive();
    let table = [
        ("volume, never", judged(&volume, &host(None))),
        ("volume, the first", judged(&volume, &host(Some(t(5_000))))),
        (
            "volume, only before",
            judged(&volume, &host(Some(t(4_999)))),
        ),
        ("archive, never", judged(&archive, &store(None))),
        (
            "archive, the first",
            judged(&archive, &store(Some(t(5_000)))),
        ),
        (
            "archive, only before",
            judged(&archive, &store(Some(t(4_999)))),
        ),
        (
            "archives unknown",
            judged(&archives_unknown(archive.clone()), &store(Some(t(5_001)))),
        ),
        (
            "never observed",
            judged(
                &volume.clone().edit(|w| w.observed_at = None),
                &host(Some(t(9_999))),
            ),
        ),
    ];
    for (row, is) in table {
        assert_eq!(is, Undecided, "{row}");
    }
    let lost = Broken(ErrorReason::DataLost);
    assert_eq!(judged(&volume, &host(Some(t(5_001)))), lost);
    assert_eq!(judged(&archive, &store(Some(t(5_001)))), lost);
}

#[test]
fn where_nothing_can_be_decided_the_phase_stands() {
    for phase in [Phase::Standby, Phase::Running, Phase::Archived] {
        let w = ws()
            .home_is_volume()
            .phase(phase)
            .edit(|w| w.observed_at = Some(t(9_999)));
        let plan = plan(&w);
        assert_eq!((plan.next, plan.call), (w.control, None), "{phase}");
    }
}

#[test]
fn an_error_has_no_operation_and_stays_until_recovered() {
    let broken = after(&ws().home_is_volume().doing(Operation::Starting));
    assert_eq!(broken.control.phase, Phase::Error);
    assert_eq!(broken.control.error_reason, Some(ErrorReason::DataLost));
    assert_eq!(broken.control.operation, Operation::None);
    assert_eq!(broken.control.op_id, None);
    let message = broken.control.error_message.clone().unwrap();
    assert!(message.contains(&vol(HOME).to_string()), "{message}");
    // Even when the volume comes back.
    let back = broken.sees_volume(HOME);
    assert_eq!(after_at(&back, t(20_000)).control, back.control);
    let recovered = back.edit(|w| w.control.clear_error());
    let plan = plan(&recovered);
    assert_eq!(plan.next.phase, Phase::Standby);
    assert_eq!(plan.next.operation, Operation::Starting);
}

#[test]
fn the_phase_time_moves_only_with_the_phase() {
    assert_eq!(after(&ws().running()).control.phase_changed_at, t(0));
    let lost = ws().running().phase(Phase::Standby);
    assert_eq!(after(&lost).control.phase_changed_at, now());
}
