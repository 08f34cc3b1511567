//! `reconcile` of what it planned, with nothing new, plans the same: a property over random states.

use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;
use windlass_domain::{
    DesiredState, ErrorReason, Freshness, Home, Operation, Phase, Policy, Workspace, attention,
    conditions::{ContainerState, VolumeEvidence},
    planner::{Context, Plan, reconcile},
};

use crate::support::*;

const CONTAINERS: &[ContainerState] = &[
    ContainerState::Created,
    ContainerState::Running,
    ContainerState::Exited,
    ContainerState::Dead,
];

fn home() -> impl Strategy<Value = Home> {
    let id = prop::sample::select(vec![HOME, OTHER, OP]);
    prop_oneof![
        Just(Home::none()),
        id.clone().prop_map(|n| Home::none_after(Some(vol(n)))),
        id.clone().prop_map(|n| Home::volume(vol(n))),
        prop::option::of(id).prop_map(|n| Home::archive(n.map(vol))),
    ]
}

fn seen() -> impl Strategy<Value = Workspace> {
    let volume = prop::option::of((prop::sample::select(vec![HOME, OTHER, OP]), any::<bool>()));
    let container = prop::option::of((prop::sample::select(CONTAINERS), any::<bool>(), 0..4_u32));
    let archives = prop::sample::subsequence(vec![HOME, OTHER, OP], 0..=3);
    let restore = prop::option::of(prop::sample::select(vec![OTHER, OP]));
    let failed = prop::option::of((
        any::<bool>(),
        0..4_u32,
        prop::sample::select(ErrorReason::ALL),
    ));
    let observed = prop::option::of(prop::sample::select(vec![1_i64, 9_000, 9_999]));
    (volume, container, archives, restore, failed, observed).prop_map(
        |(volume, container, archives, restore, failed, observed)| {
            let mut w = ws();
            if let Some((n, owned)) = volume {
                let (name, volume_id) = ("v".into(), Some(vol(n)));
                let volume = VolumeEvidence {
                    name,
                    volume_id,
                    owned,
                };
                w.conditions.evidence.volume = Some(volume.into());
            }
            if let Some((state, own, attempt)) = container {
                w = w.sees_container(state);
                let c = seen_container(&mut w);
                c.op_id = Some(op(if own { OP } else { OTHER }));
                c.attempt = attempt;
            }
            for n in archives {
                w = w.sees_archive(n);
            }
            if let Some(n) = restore {
                w = w.sees_restore(n);
            }
            if let Some((own, attempt, reason)) = failed {
                let of = if own { OP } else { OTHER };
                w = w.sees_failed_job(of, attempt, reason.as_str());
            }
            w.observed_at = observed.map(t);
            w
        },
    )
}

pub fn any_workspace() -> impl Strategy<Value = Workspace> {
    let phase = prop::sample::select(Phase::ALL);
    let desired = prop::sample::select(&DesiredState::ALL[..3]);
    let operation = prop::sample::select(Operation::ALL);
    let error = prop::option::of((prop::sample::select(ErrorReason::ALL), 1..5_u32));
    let retry = prop::option::of(prop::sample::select(vec![9_998_i64, 10_050]));
    let times = (
        prop::sample::select(vec![1_i64, 9_900]),
        prop::sample::select(vec![1_i64, 9_950]),
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let restore = prop::option::of((prop::sample::select(vec![HOME, OTHER]), any::<bool>()));
    let checkpoints = prop::option::of(prop::sample::select(vec![0_i64, 60, 3_600]));
    (
        seen(),
        home(),
        phase,
        desired,
        operation,
        error,
        retry,
        times,
        (flags, restore, checkpoints),
    )
        .prop_map(
            |(w, home, phase, desired, operation, error, retry, (started, since), more)| {
                let (flags, restore, checkpoints) = more;
                let (deleted, discard, same_image) = flags;
                let mut w = w.phase(phase).desired(desired);
                if deleted {
                    w = w.deleted(discard);
                }
                if let Some(seconds) = checkpoints {
                    w = w.checkpointed(seconds);
                }
                if let Some((n, applied)) = restore {
                    w = w.wishes_restore(n);
                    w.control.restore_applied = applied.then(|| Uuid::from_u128(n));
                }
                let c = &mut w.control;
                c.home = home;
                c.archive_key = Some(key(HOME));
                c.phase_changed_at = t(since);
                c.started_image = same_image.then(|| "image".into());
                if let Some((reason, count)) = error {
                    c.error_reason = Some(reason);
                    c.error_count = count;
                    c.retry_at = retry.map(t);
                }
                let is_error = error.is_some_and(|(reason, count)| reason.is_error(count, 3));
                if is_error && !deleted {
                    c.phase = Phase::Error;
                    c.retry_at = None;
                }
                let phase = c.phase;
                if operation != Operation::None && phase != Phase::Error {
                    c.operation = operation;
                    c.op_id = Some(op(OP));
                    c.op_started_at = Some(t(started));
                    if operation == Operation::Archiving {
                        c.archive_op_id = Some(op(OP));
                    }
                }
                // An attempt that has not begun has not failed.
                let (waits, count) = (c.retry_at.is_some(), c.error_count);
                let evidence = &mut w.conditions.evidence;
                evidence.failed_job = evidence
                    .failed_job
                    .take()
                    .filter(|f| !waits || f.attempt < count);
                if let Some(k) = evidence.container.as_mut().filter(|_| waits) {
                    Arc::make_mut(k).attempt = count - 1;
                }
                w
            },
        )
}

fn plan_as(w: &Workspace, fresh: &Freshness, new_op: u128) -> Plan {
    plan_at(w, fresh, new_op, 10_000)
}

fn plan_at(w: &Workspace, fresh: &Freshness, new_op: u128, at: i64) -> Plan {
    let policy = Policy::default();
    let cx = Context {
        fresh,
        policy: &policy,
        now: t(at),
        new_op: windlass_domain::OpId(Uuid::from_u128(new_op)),
    };
    reconcile(w, &cx)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_nothing_new_the_same_is_planned(
        w in any_workspace(),
        host in prop::option::of(prop::sample::select(vec![9_000_i64, 9_999, 10_000])),
        archives in prop::option::of(prop::sample::select(vec![9_000_i64, 9_999])),
    ) {
        let fresh = Freshness { host: host.map(t), archives: archives.map(t) };
        let first = plan_as(&w, &fresh, NEW);
        // RUNNING to ARCHIVED are two steps, and take two ticks.
        let late_container_gone = w.control.phase == Phase::Running
            && w.control.operation == Operation::Archiving;
        // So does a last failed start whose image was changed meanwhile: into ERROR, and out of it.
        let of_the_image = matches!(
            first.next.error_reason,
            Some(ErrorReason::CrashLoop | ErrorReason::ImagePullFailed)
        );
        let new_image = first.next.started_image.as_deref() != Some("image");
        if late_container_gone || first.next.phase == Phase::Error && of_the_image && new_image {
            return Ok(());
        }
        let stored = Workspace { control: first.next.clone(), ..w };
        let second = plan_as(&stored, &fresh, NEW + 1);
        prop_assert_eq!(&second.next, &first.next);
        prop_assert_eq!(&second.call, &first.call);
        // What has to wait for a place is planned the same when there is one, and waits as long as there
        // is none.
        if let Some(held_back) = first.held_back {
            let waiting = Workspace { control: held_back.clone(), ..stored.clone() };
            let again = plan_as(&waiting, &fresh, NEW);
            prop_assert_eq!(again.held_back.as_ref(), Some(&held_back));
            prop_assert_eq!(&again.next, &first.next);
            prop_assert_eq!(&again.call, &first.call);
            prop_assert!(again.waits_since().is_some());
            let gone = waiting.control.phase == Phase::Deleted;
            prop_assert!(gone || attention::by_columns(&waiting));
        }
        // And what a stored plan says is sound.
        let c = &first.next;
        prop_assert_eq!(c.operation == Operation::None, c.op_id.is_none());
        prop_assert!(c.phase != Phase::Error || c.operation == Operation::None);
        let stale = fresh.host.is_none_or(|at| at < t(9_940));
        if stale && let Some(call) = &second.call {
            let begun = stored.control.op_id != Some(op(NEW));
            prop_assert!(begun, "{:?} began on a stale host", call);
        }
    }

    /// What makes it safe to look at changed rows only.
    #[test]
    fn what_is_settled_stays_as_it_is_until_its_row_changes(
        w in any_workspace(),
        wished in any::<bool>(),
        host in prop::option::of(prop::sample::select(vec![9_000_i64, 9_999, 10_000])),
        archives in prop::option::of(prop::sample::select(vec![9_000_i64, 9_999])),
        later in prop::sample::select(vec![0_i64, 1, 59, 61, 599, 100_000]),
        fresher in (prop::sample::select(vec![0_i64, 1, 60, 100_000]), prop::sample::select(vec![0_i64, 1, 60, 100_000])),
    ) {
        // Half of them are where they should be, so that enough are settled.
        let w = match DesiredState::ALL.iter().find(|d| d.phase() == w.control.phase) {
            Some(here) if !wished && !w.spec.deleted => w.desired(*here),
            Some(_) | None => w,
        };
        let fresh = Freshness { host: host.map(t), archives: archives.map(t) };
        let plan = plan_as(&w, &fresh, NEW);
        if !plan.settled || plan.again_at.is_some_and(|at| at <= t(10_000 + later)) {
            return Ok(());
        }
        prop_assert_eq!(&plan.call, &None);
        prop_assert_eq!(&plan.held_back, &None);
        let stored = Workspace { control: plan.next, ..w };
        let seen_later = |at: Option<i64>, by: i64| match by {
            0 => at,
            by => Some(at.unwrap_or(10_000) + by),
        };
        let fresh = Freshness {
            host: seen_later(host, fresher.0).map(t),
            archives: seen_later(archives, fresher.1).map(t),
        };
        let again = plan_at(&stored, &fresh, NEW + 1, 10_000 + later);
        prop_assert_eq!(&again.next, &stored.control);
        prop_assert_eq!(again.call, None);
        prop_assert!(again.settled);
        prop_assert!(!attention::by_columns(&stored), "and its columns say so too");
    }
}
