//! wc with the planner under test: it crashes, overlooks what it may, and its calls are lost and late.

use chrono::{DateTime, TimeDelta, Utc};
use windlass_domain::{
    ErrorReason, Operation, Phase, Policy, attention,
    error_reason::Failure,
    planner::{Context, reconcile, record_failure},
};

use super::World;
use crate::support::op;

impl World {
    /// Whether wc looks at the row in this pass: it changed, its columns say so, or the last plan did. A row
    /// that is gone for good is not looked at by anybody; here it is, which must change nothing but its phase.
    fn has_attention(&self) -> bool {
        let known = self.looked_at.as_ref();
        let unchanged = known.is_some_and(|(row, until)| self.now < *until && *row == self.ws);
        let gone = self.ws.control.phase == Phase::Deleted;
        !unchanged || gone || attention::by_columns(&self.ws)
    }

    pub(super) fn wc(&mut self, crash: u8, sending: u8, place: u8) {
        if crash >= 240 {
            self.looked_at = None; // the next leader knows nothing
            return; // dead, or it died before the commit
        }
        self.ops += 1;
        let policy = Policy::default();
        let fresh = self.fresh;
        let cx = Context {
            fresh: &fresh,
            policy: &policy,
            now: self.now,
            new_op: op(self.ops),
        };
        let mut plan = reconcile(&self.ws, &cx);
        if !self.has_attention() {
            self.passed_over += 1;
            assert_eq!(plan.next, self.ws.control, "overlooked");
            assert_eq!(plan.call, None, "overlooked");
            return;
        }
        let until = match plan.settled {
            true => plan.again_at.unwrap_or(DateTime::<Utc>::MAX_UTC),
            false => DateTime::<Utc>::MIN_UTC,
        };
        self.looked_at = Some((self.ws.clone(), until));
        if place >= 160 && plan.held_back.is_some() {
            plan.wait();
            self.waits += 1;
            assert_eq!(plan.call, None);
        }
        let before = self.ws.control.phase;
        let checkpointing = self.ws.control.operation == Operation::Checkpointing;
        assert!(
            self.lost || !(checkpointing && plan.next.phase == Phase::Error),
            "a checkpoint ends in no ERROR: {:?}",
            plan.next.error_message
        );
        self.check_move(before, plan.next.phase);
        let applied = plan.next.restore_applied != self.ws.control.restore_applied;
        self.ws.control = plan.next;
        if applied {
            self.restore_applied();
        }
        let c = &self.ws.control;
        assert!(c.phase != Phase::Error || c.operation == Operation::None);
        let found_lost = matches!(
            c.error_reason,
            Some(ErrorReason::DataLost | ErrorReason::ContainerWithoutVolume)
        );
        assert!(
            self.lost || !found_lost,
            "nobody lost a home here: {:?}",
            c.error_message
        );
        self.home_again();
        if crash >= 220 {
            self.looked_at = None;
            return; // died after the commit
        }
        let Some(call) = plan.call else { return };
        assert_eq!(
            Some(call.op_id),
            self.ws.control.op_id,
            "stored before the call"
        );
        let (arrives, told) = match sending {
            0..=149 => (Some(0), None),
            150..=179 => (Some(sending - 150), None),
            180..=199 => (None, None),
            200..=214 => (None, Some(ErrorReason::Unreachable)),
            215..=234 => (Some(sending - 215), Some(ErrorReason::Unreachable)),
            235.. => (None, Some(ErrorReason::ActionFailed)),
        };
        let (op_id, attempt) = (call.op_id, call.attempt);
        if let Some(after) = arrives {
            let at = self.now + TimeDelta::seconds(i64::from(after));
            self.network.push((at, call));
            self.agent(0);
        }
        if let Some(reason) = told {
            let failure = Failure {
                reason,
                message: String::new(),
            };
            let next = record_failure(&self.ws, &cx, op_id, attempt, failure);
            let next = next.expect("the attempt was stored just now");
            assert_eq!(next.operation == Operation::None, next.op_id.is_none());
            let checkpointing = self.ws.control.operation == Operation::Checkpointing;
            assert!(!checkpointing || next.phase != Phase::Error);
            self.ws.control = next;
            self.home_again();
        }
    }

    fn check_move(&mut self, from: Phase, to: Phase) {
        use Phase::{Archived, Deleted, Deleting, Error, Pending, Running, Standby};
        if from == to {
            return;
        }
        self.moves += 1;
        let allowed = match (from, to) {
            (Deleting, Deleted) | (Deleted, Deleting) => true, // back for a straggler
            (Deleting | Deleted, _) | (_, Deleted) => false,
            (_, Error | Deleting) | (Error, _) => true,
            (Pending, Standby | Archived) => true,
            (Archived, Standby) | (Standby, Archived) => true,
            (Standby, Running) | (Running, Standby) => true,
            _ => false,
        };
        assert!(allowed, "{from} to {to} is more than one step");
    }
}
