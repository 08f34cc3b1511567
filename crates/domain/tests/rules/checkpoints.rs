//! Checkpoints: a running home is archived without a stop, never at the cost of anything else.

use windlass_domain::{
    DesiredState as D, ErrorReason as R, Freshness, Home, Operation as O, Phase, Policy, Workspace,
    conditions::{ContainerState, JobEvidence},
    explain::Explanation,
    planner::{Action, checkpoint_is_late},
};

use crate::support::*;

const TAKE: Action = Action::Checkpoint {
    volume_id: windlass_domain::VolumeId(uuid::Uuid::from_u128(HOME)),
};

/// RUNNING since second 1, a checkpoint every 100 s.
fn due() -> Workspace {
    ws().running()
        .edit(|w| w.control.phase_changed_at = t(1))
        .checkpointed(100)
}

fn taking() -> Workspace {
    due().doing(O::Checkpointing).edit(|w| {
        w.control.archive_op_id = Some(op(OP));
    })
}

#[test]
fn one_begins_when_the_newest_archive_of_the_home_is_older_than_the_interval() {
    let since = |at| due().edit(|w| w.control.phase_changed_at = t(at));
    let other = |w: Workspace| {
        w.sees_checkpoint(OTHER, 9_999)
            .edit(|w| seen_archive(w).volume_id = Some(vol(OTHER)))
    };
    let clean = |w: Workspace| {
        w.sees_checkpoint(OTHER, 9_901)
            .edit(|w| seen_archive(w).crash_consistent = false)
    };
    let table = [
        (true, "never archived, running for long", due()),
        (true, "just old enough", since(9_900)),
        (false, "not yet", since(9_901)),
        (
            false,
            "the last one is young",
            due().sees_checkpoint(OTHER, 9_901),
        ),
        (
            true,
            "the last one is old",
            due().sees_checkpoint(OTHER, 9_900),
        ),
        (true, "of another home", other(due())),
        (false, "an archive is as good", clean(due())),
        (
            false,
            "off",
            due().edit(|w| w.spec.checkpoint_interval = None),
        ),
        (false, "off", due().checkpointed(0)),
        (false, "to be stopped", due().desired(D::Standby)),
        (false, "deleted", due().deleted(false)),
        (
            false,
            "in trouble",
            due()
                .error(R::CrashLoop, 1)
                .edit(|w| w.control.phase_changed_at = now()),
        ),
        (
            false,
            "crashes are not forgiven yet",
            due().sees_checkpoint(OTHER, 9_000).edit(|w| {
                w.control.error_count = 1;
                w.control.phase_changed_at = now();
            }),
        ),
        (
            false,
            "to be restored",
            due().sees_archive(OTHER).wishes_restore(OTHER),
        ),
        (
            false,
            "not running",
            ws().standby().desired(D::Standby).checkpointed(100),
        ),
        (false, "in ERROR", ws().in_error().checkpointed(100)),
    ];
    for (begins, row, w) in table {
        let plan = plan(&w);
        let is = plan.next.operation == O::Checkpointing;
        assert_eq!(is, begins, "{row}");
        assert_eq!(plan.call.is_some_and(|c| c.action == TAKE), begins, "{row}");
    }
}

#[test]
fn its_ids_are_stored_first_and_nothing_else_changes() {
    let w = due();
    let next = plan(&w).next;
    assert_eq!(
        (next.op_id, next.archive_op_id),
        (Some(op(NEW)), Some(op(NEW)))
    );
    assert_eq!((next.phase, &next.home), (Phase::Running, &w.control.home));
    let stale = Freshness {
        host: Some(t(1)),
        archives: Some(t(9_999)),
    };
    assert_eq!(plan_with(&w, &stale, now()).next, w.control);
}

#[test]
fn it_ends_with_its_own_archive_and_moves_no_home() {
    let w = taking().edit(|w| w.control.archive_key = Some(key(OTHER)));
    let busy = plan(&w.clone().sees_checkpoint(OTHER, 9_999));
    assert_eq!(busy.next.operation, O::Checkpointing, "another's archive");
    assert_eq!(busy.call.unwrap().action, TAKE);
    let next = plan(&w.sees_checkpoint(OP, 9_999)).next;
    assert_eq!((next.operation, next.op_id), (O::None, None));
    assert_eq!(next.home, Home::volume(vol(HOME)));
    assert_eq!(next.archive_key, Some(key(OTHER)), "what was the home last");
    assert_eq!(next.archive_op_id, Some(op(OP)));
    assert_eq!((next.phase, next.error_count), (Phase::Running, 0));
}

/// The running operation ends first, and then the new wish counts.
#[test]
fn it_is_not_preempted() {
    for w in [
        taking().desired(D::Standby),
        taking().desired(D::Archived),
        taking().deleted(false),
        taking().sees_exit(1, 1, 0),
        taking().edit(|w| w.spec.checkpoint_interval = None),
    ] {
        assert_eq!(plan(&w).next.operation, O::Checkpointing);
        let done = w.sees_checkpoint(OP, 9_999);
        assert_ne!(plan(&done).next.operation, O::Checkpointing);
    }
    let stopped = taking().desired(D::Standby).sees_checkpoint(OP, 9_999);
    assert_eq!(plan(&stopped).next.operation, O::Stopping);
}

/// Taken on by the agent, and not begun.
fn queued() -> Workspace {
    taking().sees_job(OP).edit(|w| {
        let job = w.conditions.evidence.job.as_mut().unwrap();
        job.stage = JobEvidence::QUEUED.into();
    })
}

#[test]
fn one_that_is_only_queued_gives_way() {
    for w in [
        queued().desired(D::Standby),
        queued().desired(D::Archived),
        queued().deleted(false),
        queued().sees_archive(OTHER).wishes_restore(OTHER),
    ] {
        let plan = plan(&w);
        assert_eq!(plan.next.operation, O::Stopping);
        assert_eq!(plan.call.unwrap().action, Action::Stop);
        let begun =
            w.edit(|w| w.conditions.evidence.job.as_mut().unwrap().stage = "packing".into());
        assert_eq!(
            crate::support::plan(&begun).next.operation,
            O::Checkpointing
        );
    }
    let crashed = plan(&queued().sees_exit(1, 1, 0)).next;
    assert_eq!(
        (crashed.phase, crashed.operation),
        (Phase::Standby, O::None)
    );
    assert_eq!(
        (crashed.error_reason, crashed.error_count),
        (Some(R::CrashLoop), 1)
    );
    assert_eq!(
        plan(&queued()).next,
        queued().control,
        "nothing else is wanted"
    );
}

#[test]
fn a_crash_during_one_is_counted_once_it_is_over() {
    let during = after(&taking().sees_exit(1, 1, 0));
    let c = &during.control;
    assert_eq!((c.phase, c.operation), (Phase::Running, O::Checkpointing));
    let done = during.clone().sees_checkpoint(OP, 9_999);
    for over in [done, failed(&during, R::StoreUnavailable)] {
        let c = after(&over).control;
        assert_eq!((c.phase, c.operation), (Phase::Standby, O::None));
        assert_eq!((c.error_reason, c.error_count), (Some(R::CrashLoop), 1));
        assert!(c.retry_at.is_some());
    }
    let deleted = after(&during.deleted(false)).control;
    assert_eq!(deleted.phase, Phase::Deleting);
}

#[test]
fn crashes_add_up_whatever_checkpoints_are_due() {
    let mut w = due().sees_checkpoint(OTHER, 1);
    for n in 1..=3 {
        w = after(&w.running().sees_exit(5, 1, 0));
        assert_eq!(w.control.error_count, n);
        if n < 3 {
            let started = after_at(&w, t(10_100));
            assert_eq!(started.control.operation, O::Starting);
            w = after(&started.sees_container(ContainerState::Running));
            let c = &w.control;
            assert_eq!((c.phase, c.operation), (Phase::Running, O::None));
        }
    }
    assert_eq!(w.control.phase, Phase::Error);
    assert_eq!(w.control.error_reason, Some(R::CrashLoop));
}

#[test]
fn however_it_fails_the_workspace_runs_on_and_it_is_tried_again() {
    for reason in R::ALL {
        let mut w = due();
        let mut at = now();
        for n in 1..=20 {
            w = after_at(&w, at);
            assert_eq!(w.control.operation, O::Checkpointing, "{reason} {n}");
            w = failed(&w, *reason);
            let c = &w.control;
            assert_eq!(
                (c.phase, c.operation),
                (Phase::Running, O::None),
                "{reason}"
            );
            assert_eq!(
                (c.error_reason, c.error_count),
                (Some(R::CheckpointFailed), n)
            );
            let told = c.error_message.as_deref().unwrap();
            assert!(told.contains(reason.as_str()), "{told}");
            let retry = c.retry_at.expect("a backoff");
            let wait = Policy::default().backoff(n, 0);
            assert!(retry >= now() + wait, "{reason} {n}");
            assert_eq!(after(&w).control, w.control, "it waits");
            at = retry;
        }
    }
}

#[test]
fn a_time_limit_and_a_failed_job_are_such_failures_too() {
    let slow = taking().edit(|w| w.control.op_started_at = Some(t(1)));
    let slow = slow.edit(|w| w.observed_at = Some(t(2)));
    let failed = taking().sees_failed_job(OP, 0, "ActionFailed");
    for (w, word) in [(slow, "Timeout"), (failed, "ActionFailed: it broke")] {
        let next = plan(&w).next;
        assert_eq!(next.error_reason, Some(R::CheckpointFailed));
        assert!(next.error_message.unwrap().starts_with(word));
        assert_eq!((next.phase, next.operation), (Phase::Running, O::None));
    }
}

#[test]
fn a_failed_one_stands_in_nobodys_way() {
    let w = failed(&taking(), R::StoreUnavailable);
    for (w, operation) in [
        (w.clone().desired(D::Standby), O::Stopping),
        (w.clone().desired(D::Archived), O::Stopping),
        (w.clone().deleted(false), O::Stopping),
    ] {
        let next = plan(&w).next;
        assert_eq!((next.operation, next.error_count), (operation, 0));
        assert_eq!(next.error_reason, None);
    }
    // A crash after it is counted from one.
    let next = plan(&w.clone().sees_exit(1, 1, 0)).next;
    assert_eq!(
        (next.error_reason, next.error_count),
        (Some(R::CrashLoop), 1)
    );
    // It is forgotten when there are to be none any more, and when one succeeds; not because it runs.
    let off = w.clone().edit(|w| w.spec.checkpoint_interval = None);
    assert_eq!(plan(&off).next.error_reason, None);
    assert_eq!(plan(&w).next.error_reason, Some(R::CheckpointFailed));
    let again = after_at(&w, t(10_002));
    assert_eq!(again.control.operation, O::Checkpointing);
    assert_eq!(
        after(&again.sees_checkpoint(NEW, 9_999))
            .control
            .error_count,
        0
    );
}

#[test]
fn an_archive_that_is_a_checkpoint_is_never_committed_as_the_home() {
    let w = ws().standby().doing(O::Archiving).desired(D::Archived);
    let checkpoint = w.clone().sees_checkpoint(OP, 9_999);
    assert_eq!(plan(&checkpoint).next.home, Home::volume(vol(HOME)));
    assert_ne!(plan(&w.sees_archive(OP)).next.home, Home::volume(vol(HOME)));
    // On the way down an archive is made whatever checkpoints there are.
    let w = ws()
        .standby()
        .desired(D::Archived)
        .sees_checkpoint(OTHER, 9_999);
    let plan = plan(&w);
    assert_eq!(plan.next.operation, O::Archiving);
    let volume_id = vol(HOME);
    assert_eq!(plan.call.unwrap().action, Action::Archive { volume_id });
}

fn explained(w: &Workspace) -> Explanation {
    explained_with(w, chrono::TimeDelta::seconds(600))
}

#[test]
fn it_is_explained() {
    let w = due().sees_archive(OTHER);
    assert_eq!(explained(&w).last_safe_copy, "2 h ago (archive)");
    let w = w.sees_checkpoint(OP, 9_950);
    let e = explained(&w);
    assert_eq!(e.last_safe_copy, "50 s ago (checkpoint)");
    assert_eq!(
        (e.next.as_str(), e.next_at),
        ("CHECKPOINTING begins", Some(t(10_050)))
    );
    let e = explained(&w.checkpointed(1_000));
    assert!(
        e.next.contains("STANDBY"),
        "{}: the earlier of both",
        e.next
    );
    let e = explained(&failed(&taking(), R::StoreUnavailable));
    assert_eq!(
        e.blockers,
        ["last checkpoint failed (1 in a row): StoreUnavailable: it broke"]
    );
    assert_eq!(e.last_safe_copy, "none");
    assert!(
        explained(&taking().sees_container(ContainerState::Running))
            .next
            .contains("CHECKPOINTING")
    );
}

#[test]
fn one_is_late_when_a_whole_interval_more_has_passed() {
    let late = |w: &Workspace| checkpoint_is_late(w, now());
    assert!(late(&due()));
    assert!(late(&due().sees_checkpoint(OTHER, 9_800)));
    assert!(!late(&due().sees_checkpoint(OTHER, 9_801)));
    // One that fails, or lasts, is no less late.
    let retried = due().edit(|w| {
        w.control.error_reason = Some(R::CheckpointFailed);
        w.control.retry_at = Some(t(10_100));
    });
    assert!(late(&retried));
    assert!(late(&taking()));
    assert!(!late(&due().checkpointed(0)));
    assert!(!late(&due().desired(D::Standby)));
}
