//! Containers that die: started again with backoff, in the end ERROR, and what is no crash.

use windlass_domain::{
    DesiredState as D, ErrorReason as R, Operation as O, Phase, Workspace,
    conditions::ContainerState,
};

use crate::support::*;

/// RUNNING, and its container ended after so many seconds.
fn crashed(w: Workspace, after_seconds: i64) -> Workspace {
    after(&w.running().sees_exit(after_seconds, 1, 0))
}

#[test]
fn a_container_that_dies_is_started_again_with_backoff() {
    let w = crashed(ws(), 5);
    assert_eq!(
        (w.control.phase, w.control.operation),
        (Phase::Standby, O::None)
    );
    assert_eq!(
        (w.control.error_reason, w.control.error_count),
        (Some(R::CrashLoop), 1)
    );
    let message = w.control.error_message.clone().unwrap();
    assert!(
        message.contains("137") && message.contains("OOM"),
        "{message}"
    );
    assert_eq!(after(&w).control, w.control, "counted once");
    let again = after_at(&w, t(10_100));
    assert_eq!(again.control.operation, O::Starting);
    assert_eq!(
        after_at(&again, t(10_101)).control,
        again.control,
        "nor by the next start"
    );
    let stop = plan(&w.desired(D::Standby)).next;
    assert_eq!(stop.operation, O::Stopping, "another wish does not wait");
}

#[test]
fn three_crashes_in_a_row_end_in_error() {
    let mut w = ws();
    for n in 1..=3 {
        w = crashed(w, 5);
        assert_eq!(w.control.error_count, n);
        assert_eq!(w.control.phase == Phase::Error, n == 3);
        if n < 3 {
            // Started again, and ready for a moment.
            let mut started = after_at(&w, t(10_100));
            assert_eq!(started.control.operation, O::Starting);
            started = after(&started.sees_container(ContainerState::Running));
            assert_eq!(started.control.phase, Phase::Running);
            assert_eq!(
                (started.control.error_reason, started.control.error_count),
                (None, n)
            );
            w = started;
        }
    }
    let message = w.control.error_message.clone().unwrap();
    assert!(
        message.contains("137") && message.contains("OOM"),
        "{message}"
    );
    // Recovery starts it afresh; the old exit does not count again.
    let recovered = after(&w.edit(|w| w.control.clear_error()));
    assert_eq!(recovered.control.operation, O::Starting);
    assert_eq!(recovered.control.error_count, 0);
}

#[test]
fn a_container_that_never_becomes_ready_is_a_failed_attempt_each_time() {
    let mut w = ws().standby().doing(O::Starting);
    for n in 0..3 {
        w = after(&w.sees_exit(0, OP, n));
        assert_eq!(w.control.error_count, n + 1);
        w.control.retry_at = None;
    }
    assert_eq!(w.control.phase, Phase::Error);
    assert_eq!(w.control.error_reason, Some(R::CrashLoop));
    let old = ws().standby().doing(O::Starting).sees_exit(0, OTHER, 0);
    assert_eq!(
        plan(&old).next,
        old.control,
        "an earlier operation's exit says nothing"
    );
}

#[test]
fn sixty_seconds_of_readiness_forgive() {
    let ready = |since| {
        ws().running().edit(|w| {
            w.control.error_count = 2;
            w.control.phase_changed_at = t(since);
        })
    };
    assert_eq!(plan(&ready(9_940)).next.error_count, 0);
    assert_eq!(plan(&ready(9_941)).next.error_count, 2);
    let counted = |stayed| crashed(ws().edit(|w| w.control.error_count = 2), stayed).control;
    assert_eq!(
        (counted(60).error_count, counted(60).phase),
        (1, Phase::Standby)
    );
    assert_eq!(
        (counted(59).error_count, counted(59).phase),
        (3, Phase::Error)
    );
}

#[test]
fn a_container_that_vanished_or_should_not_run_is_no_crash() {
    let vanished = ws()
        .running()
        .edit(|w| w.conditions.evidence.container = None);
    let next = plan(&vanished).next;
    assert_eq!((next.operation, next.error_count), (O::Starting, 0));
    let unwanted = ws().running().sees_exit(5, 1, 0).desired(D::Standby);
    let next = plan(&unwanted).next;
    assert_eq!((next.operation, next.error_count), (O::Stopping, 0));
}
