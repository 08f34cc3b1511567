//! Rows that wait for a full list of their host: those whose plan such a list changes, and for a while only.

use proptest::prelude::*;
use windlass_domain::{
    ErrorReason, Freshness, Home, Phase, Workspace, conditions::ConditionStatus,
    observation::awaits_proof,
};

use crate::{fixpoint::any_workspace, support::*};

fn at(host: i64) -> Freshness {
    Freshness {
        host: Some(t(host)),
        ..fresh()
    }
}

#[test]
fn a_deletion_waits_once_nothing_is_left() {
    let gone = ws()
        .phase(Phase::Deleting)
        .deleted(true)
        .edit(|w| w.control.phase_changed_at = t(9_990));
    assert!(awaits_proof(&gone, &at(9_990)));
    assert!(!awaits_proof(&gone, &at(9_991)));
    assert!(awaits_proof(&gone, &Freshness::default()));
    // Also for the backoff of an attempt that was given up.
    let backoff = gone.clone().edit(|w| w.control.retry_at = Some(t(9_995)));
    assert!(awaits_proof(&backoff, &at(9_995)));
    assert!(!awaits_proof(&backoff, &at(9_996)));
    // Not while something is left, and not before the deletion began.
    assert!(!awaits_proof(&gone.clone().sees_archive(HOME), &at(0)));
    assert!(!awaits_proof(&gone.phase(Phase::Standby), &at(0)));
}

#[test]
fn a_lost_home_waits_for_a_list_after_its_absence() {
    let lost = ws().edit(|w| {
        w.control.home = Home::volume(vol(HOME));
        w.observed_at = Some(t(9_000));
    });
    assert!(awaits_proof(&lost, &at(9_000)));
    assert!(!awaits_proof(&lost, &at(9_001)));
    let recorded = lost
        .clone()
        .edit(|w| w.control.error_reason = Some(ErrorReason::DataLost));
    assert!(!awaits_proof(&recorded, &at(0)));
    let unseen = lost.edit(|w| w.observed_at = None);
    assert!(!awaits_proof(&unseen, &at(0)));
}

#[test]
fn an_unreachable_one_waits_for_its_host() {
    let away = ws().phase(Phase::Error).edit(|w| {
        w.control.error_reason = Some(ErrorReason::Unreachable);
        w.control.phase_changed_at = t(9_500);
    });
    assert!(awaits_proof(&away, &at(9_500)));
    assert!(!awaits_proof(&away, &at(9_501)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where a list made right now would change the plan, the row waits for one: nothing that needs a proof
    /// is left to the next regular list. (Nobody exceeds a time limit here: see the module.)
    #[test]
    fn whoever_does_not_wait_plans_the_same_with_a_newer_list(
        w in any_workspace(),
        host in prop::sample::select(vec![9_945_i64, 9_950, 9_951, 9_999]),
        known in any::<bool>(),
    ) {
        let mut w: Workspace = w;
        w.control.op_started_at = w.control.op_started_at.map(|_| t(9_900));
        w.observed_at = w.observed_at.map(|at| at.max(t(9_900)));
        if !known {
            w.conditions.archive_ready = Some(windlass_domain::conditions::Condition {
                status: ConditionStatus::Unknown,
                reason: "StoreUnreachable".into(),
                message: String::new(),
                last_transition_time: t(0),
            });
        }
        if !awaits_proof(&w, &at(host)) {
            let (before, after) = (plan_with(&w, &at(host), now()), plan_with(&w, &at(10_000), now()));
            // A plan that ends an operation is stored first; the row that it makes may be the one that waits.
            let made = Workspace { control: before.next.clone(), ..w };
            if !awaits_proof(&made, &at(host)) {
                prop_assert_eq!(before.next, after.next);
                prop_assert_eq!(before.call, after.call);
            }
        }
    }
}
