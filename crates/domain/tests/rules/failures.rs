//! The table of error reasons, backoff, timeouts, and what gets out of ERROR.

use chrono::TimeDelta;
use windlass_domain::{
    DesiredState as D, ErrorReason as R, Freshness, Home, Operation as O, Phase, Policy, Workspace,
    planner::Action,
};

use crate::support::*;

/// How many failures in a row end in ERROR; `None`: not even twenty.
fn failures_until_error(reason: R) -> Option<u32> {
    let mut w = ws().pending().doing(O::Provisioning);
    for n in 1..=20 {
        w = failed(&w, reason);
        if w.control.phase == Phase::Error {
            assert_eq!((w.control.operation, w.control.op_id), (O::None, None));
            assert_eq!(w.control.retry_at, None);
            return Some(n);
        }
        w.control.retry_at = None;
        w.control.operation = O::Provisioning; // VolumeChanged ends what it fails
        w.control.op_id = Some(op(OP));
    }
    None
}

#[test]
fn every_reason() {
    let table = [
        (R::Timeout, Some(1)),
        (R::ActionFailed, Some(3)),
        (R::Unreachable, Some(3)),
        (R::StoreUnavailable, None),
        (R::ImagePullFailed, Some(3)),
        (R::CrashLoop, Some(3)),
        (R::ArchiveCorrupted, Some(1)),
        (R::DataLost, Some(1)),
        (R::ContainerWithoutVolume, Some(1)),
        (R::VolumeChanged, None),
        (R::CheckpointFailed, None),
    ];
    assert_eq!(table.len(), R::ALL.len());
    for (reason, expected) in table {
        assert_eq!(failures_until_error(reason), expected, "{reason}");
    }
}

#[test]
fn backoff_doubles_from_1_s_to_5_min_with_jitter() {
    let policy = Policy::default();
    let seconds = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300];
    for (n, expected) in (1..).zip(seconds) {
        let wait = TimeDelta::seconds(expected);
        assert_eq!(policy.backoff(n, 0), wait, "failure {n}");
        for seed in [1, 77, 255, u128::MAX] {
            let jittered = policy.backoff(n, seed);
            assert!(wait < jittered && jittered <= wait + wait / 4, "{n} {seed}");
        }
    }
    assert_eq!(policy.backoff(u32::MAX, 0), TimeDelta::minutes(5));
}

#[test]
fn a_failed_attempt_waits_and_is_repeated_under_the_same_id() {
    let w = failed(&ws().pending().doing(O::Provisioning), R::ActionFailed);
    let due = w.control.retry_at.unwrap();
    assert!(due >= now() + TimeDelta::seconds(1));
    assert_eq!(plan(&w).call, None);
    assert_eq!(plan(&w).next, w.control);
    let fresh = Freshness {
        host: Some(due),
        archives: Some(due),
    };
    let again = plan_with(&w, &fresh, due);
    assert_eq!(
        again.next.op_started_at,
        Some(due),
        "the time limit is the attempt's"
    );
    let call = again.call.unwrap();
    assert_eq!((call.op_id, call.attempt), (op(OP), 1));
}

#[test]
fn a_failure_is_counted_once() {
    let w = ws().pending().doing(O::Provisioning);
    assert_eq!(
        fail_call(&w, OTHER, 0, R::ActionFailed),
        None,
        "another operation"
    );
    assert_eq!(
        fail_call(&w, OP, 1, R::ActionFailed),
        None,
        "another attempt"
    );
    let once = failed(&w, R::ActionFailed);
    assert_eq!(once.control.error_count, 1);
    assert_eq!(fail_call(&once, OP, 0, R::ActionFailed), None, "told again");
    assert_eq!(
        fail_call(&once, OP, 1, R::ActionFailed),
        None,
        "not begun yet"
    );
    // The same failure, observed as well.
    let observed = once.sees_failed_job(OP, 0, "ActionFailed");
    assert_eq!(after(&observed).control.error_count, 1);
    let again = after_at(&observed, t(10_100));
    assert_eq!(
        (again.control.error_count, again.control.retry_at),
        (1, None)
    );
    assert_eq!(after_at(&again, t(10_101)).control.error_count, 1);
    let second = again.sees_failed_job(OP, 1, "NoSuchWord");
    let second = after_at(&second, t(10_102)).control;
    assert_eq!(
        (second.error_count, second.error_reason),
        (2, Some(R::ActionFailed))
    );
    assert_eq!(second.error_message.as_deref(), Some("it broke"));
}

#[test]
fn time_limits() {
    let limit = 9_999 - 600;
    let started = |w: Workspace, at| w.edit(|w| w.control.op_started_at = Some(t(at)));
    let seen = |w: Workspace, at| w.edit(|w| w.observed_at = Some(t(at)));
    let stopping = || ws().running().doing(O::Stopping).desired(D::Standby);
    let archiving = || ws().standby().doing(O::Archiving).desired(D::Archived);
    let restoring = || ws().archived().doing(O::Restoring);
    let table = [
        (false, "within", started(stopping(), limit)),
        (true, "beyond", started(stopping(), limit - 1)),
        (
            true,
            "a short one has no progress",
            seen(started(stopping(), limit - 1), 9_990),
        ),
        (
            true,
            "archive without progress",
            seen(started(archiving(), 1), limit - 1),
        ),
        (
            false,
            "archive with progress",
            seen(started(archiving(), 1), limit).sees_job(OP),
        ),
        (
            false,
            "archive just ended",
            seen(started(archiving(), 1), limit),
        ),
        (
            true,
            "restore without progress",
            seen(started(restoring(), 1), limit - 1),
        ),
        (
            false,
            "restore with progress",
            seen(started(restoring(), 1), limit).sees_job(OP),
        ),
        (
            false,
            "attempt just begun",
            seen(started(restoring(), limit), 1),
        ),
    ];
    for (expected, row, w) in table {
        let next = plan(&w).next;
        let timed_out = next.error_reason == Some(R::Timeout) && next.phase == Phase::Error;
        assert_eq!(timed_out, expected, "{row}");
    }
    // Nothing is judged late by an observer that was away: the result may be there.
    let away = Freshness {
        host: Some(t(limit + 600 - 1)),
        archives: None,
    };
    let w = started(stopping(), limit - 1);
    assert_eq!(plan_with(&w, &away, now()).next.error_reason, None);
}

#[test]
fn a_long_archive_ends_well_although_it_took_longer_than_the_limit() {
    let w = ws()
        .standby()
        .doing(O::Archiving)
        .desired(D::Archived)
        .edit(|w| {
            w.control.op_started_at = Some(t(1));
            w.observed_at = Some(t(9_999));
        });
    assert_eq!(plan(&w.clone().sees_job(OP)).next, w.control);
    assert_eq!(
        plan(&w).next,
        w.control,
        "the job has ended, the archive is not yet seen"
    );
    assert_eq!(plan(&w.sees_archive(OP)).next.phase, Phase::Archived);
}

#[test]
fn a_changed_volume_is_the_home_again_and_is_archived_anew() {
    let w = ws().leftover().doing(O::Archiving).desired(D::Archived);
    let w = failed(&w, R::VolumeChanged);
    assert_eq!(w.control.home, Home::volume(vol(HOME)));
    assert_eq!((w.control.operation, w.control.error_count), (O::None, 1));
    let waiting = after(&w);
    assert_eq!(
        (waiting.control.phase, waiting.control.operation),
        (Phase::Standby, O::None)
    );
    let again = after_at(&waiting, t(10_100));
    assert_eq!(again.control.operation, O::Archiving);
    assert_eq!(again.control.op_id, Some(op(NEW)));
    assert_eq!(again.control.archive_op_id, Some(op(NEW)));
    // Who wants to work meanwhile does not wait.
    let start = plan(&waiting.desired(D::Running)).next;
    assert_eq!((start.operation, start.error_count), (O::Starting, 0));
}

#[test]
fn another_image_gets_out() {
    let image = |w: Workspace| w.edit(|w| w.spec.image = "better".into());
    for reason in [R::ImagePullFailed, R::CrashLoop] {
        let broken = ws()
            .standby()
            .phase(Phase::Error)
            .error(reason, 3)
            .edit(|w| {
                w.control.started_image = Some("image".into());
            });
        assert_eq!(plan(&broken).next, broken.control, "{reason}");
        let next = plan(&image(broken)).next;
        assert_eq!((next.phase, next.operation), (Phase::Standby, O::Starting));
        assert_eq!((next.error_count, next.error_reason), (0, None));
        assert_eq!(next.started_image.as_deref(), Some("better"));
        // And out of an attempt that waits, at once.
        let waiting = failed(&ws().standby().doing(O::Starting), reason);
        let plan = plan(&image(waiting));
        assert_eq!(plan.next.op_id, Some(op(NEW)), "{reason}");
        assert_eq!(plan.call.unwrap().attempt, 0, "{reason}");
    }
    let other = image(ws().in_error());
    assert_eq!(
        plan(&other).next,
        other.control,
        "of no use against other errors"
    );
    let crash = image(ws().running().sees_exit(5, 1, 0));
    assert_eq!(
        plan(&crash).next.error_count,
        0,
        "what ended is not what is to be started"
    );
}

#[test]
fn unreachable_ends_when_the_host_is_observed_again() {
    let w = ws().standby().phase(Phase::Error).error(R::Unreachable, 3);
    let at = |changed| w.clone().edit(|w| w.control.phase_changed_at = t(changed));
    assert_eq!(plan(&at(9_999)).next.phase, Phase::Error);
    let next = plan(&at(9_998)).next;
    assert_eq!((next.phase, next.operation), (Phase::Standby, O::Starting));
    assert_eq!((next.error_count, next.error_reason), (0, None));
}

#[test]
fn without_the_store_archives_wait_and_all_else_goes_on() {
    let mut w = ws().standby().doing(O::Archiving).desired(D::Archived);
    for _ in 0..50 {
        w = failed(&w, R::StoreUnavailable);
        assert_eq!(w.control.operation, O::Archiving);
        assert_eq!(plan(&w).call, None);
        w.control.retry_at = Some(now() + TimeDelta::seconds(1));
        if w.control.error_count < 50 {
            w.control.retry_at = None;
        }
    }
    // Another wish releases it, and the failures it waited for are not the start's.
    let plan_run = plan(&w.clone().desired(D::Running));
    assert_eq!(plan_run.next.operation, O::Starting);
    let call = plan_run.call.unwrap();
    assert_eq!(
        (call.attempt, call.action),
        (
            0,
            Action::Start {
                volume_id: vol(HOME)
            }
        )
    );
    // Neither does one real failure after a long wait make an error.
    let first = failed(
        &w.clone().edit(|w| w.control.retry_at = None),
        R::ActionFailed,
    );
    assert_eq!(
        (first.control.error_count, first.control.operation),
        (1, O::None)
    );
    let again = after_at(&first, t(10_100));
    assert_eq!(
        (again.control.operation, again.control.op_id),
        (O::Archiving, Some(op(NEW)))
    );
    // Past the commit point it is not released: the volume has to go, or to become the home again.
    let past = failed(&ws().leftover().doing(O::Archiving), R::StoreUnavailable);
    assert_eq!(plan(&past).next, past.control);
}

#[test]
fn recovery_past_the_commit_point_makes_a_new_attempt() {
    let w = ws()
        .leftover()
        .doing(O::Archiving)
        .sees_failed_job(OP, 0, "ArchiveCorrupted");
    let w = after(&w);
    assert_eq!(w.control.phase, Phase::Error);
    let recovered = after(&w.edit(|w| w.control.clear_error()));
    assert_eq!(recovered.control.operation, O::Archiving);
    assert_eq!(recovered.control.archive_op_id, Some(op(HOME)));
    assert_eq!(
        after(&recovered).control,
        recovered.control,
        "the old failure is not its own"
    );
}

#[test]
fn an_operation_that_waits_in_the_agent_has_no_time_limit() {
    let limit = Policy::default().operation_timeout.num_seconds();
    let late = |operation, stage: &str, seen_at| {
        let mut w = ws().standby().doing(operation).sees_job(OP);
        w.control.op_started_at = Some(t(1));
        w.observed_at = Some(t(seen_at));
        w.conditions.evidence.job.as_mut().unwrap().stage = stage.into();
        after_at(&w, t(limit + 1_000)).control.error_reason
    };
    assert_eq!(late(O::Archiving, "queued", 2), None);
    assert_eq!(late(O::Archiving, "packing", 2), Some(R::Timeout));
    // A start that was queued for long, and has begun to pull.
    assert_eq!(late(O::Starting, "queued", 2), None);
    assert_eq!(late(O::Starting, "pulling", limit + 900), None);
    assert_eq!(late(O::Starting, "pulling", 2), Some(R::Timeout));
}
