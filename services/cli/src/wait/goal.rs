//! What can be waited for, and what a state means for it.

use windlass_proto::v1;

use crate::output::desired;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// This state, with nothing more in progress.
    Reached(v1::DesiredState),
    /// The same, after a restore that waits has been done.
    Restored(v1::DesiredState),
    /// Container and volume are gone.
    Deleted,
}

/// What a state means for a goal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    Going,
    /// In ERROR.
    Broken(String),
    /// Somebody wants something else by now.
    Superseded(String),
}

pub(super) fn judge(w: &v1::Workspace, goal: Goal) -> Verdict {
    // A checkpoint moves it nowhere.
    let idle = matches!(
        w.operation(),
        v1::Operation::None | v1::Operation::Checkpointing
    );
    let exists = |key: &str| {
        let condition = w.conditions.iter().find(|c| c.r#type == key);
        condition.is_some_and(|c| c.status() != v1::ConditionStatus::False)
    };
    match goal {
        Goal::Deleted => match w.phase() {
            v1::Phase::Deleted => Verdict::Done,
            v1::Phase::Deleting
                if idle
                    && !exists("infra.container_ready")
                    && !exists("storage.volume_ready")
                    && w.home.as_ref().map(v1::Home::location)
                        != Some(v1::HomeLocation::Volume) =>
            {
                Verdict::Done
            }
            _ if w.desired_state() != v1::DesiredState::Deleted && w.delete_time.is_none() => {
                Verdict::Superseded(format!("{} is not deleted any more", w.name))
            }
            _ => Verdict::Going,
        },
        Goal::Reached(wanted) | Goal::Restored(wanted) => {
            let waits = matches!(goal, Goal::Restored(_)) && !w.restore_key.is_empty();
            // Nobody waits for this by such a goal: the wish was of before the deletion.
            if w.desired_state() == v1::DesiredState::Deleted {
                return Verdict::Superseded(format!("{} is deleted by now", w.name));
            }
            if w.phase() == v1::Phase::Error {
                return Verdict::Broken(broken(w));
            }
            if w.desired_state() != wanted {
                let other = desired(w);
                return Verdict::Superseded(format!("{} is desired to be {other} by now", w.name));
            }
            let reached = matches!(
                (wanted, w.phase()),
                (v1::DesiredState::Running, v1::Phase::Running)
                    | (v1::DesiredState::Standby, v1::Phase::Standby)
                    | (v1::DesiredState::Archived, v1::Phase::Archived)
            );
            if reached && idle && !waits {
                Verdict::Done
            } else {
                Verdict::Going
            }
        }
    }
}

/// Why a workspace is in ERROR, and what helps.
pub fn broken(w: &v1::Workspace) -> String {
    format!(
        "{} is in ERROR: {}: {}; {}",
        w.name,
        w.error_reason,
        w.error_message,
        advice(w)
    )
}

/// What helps against an error reason.
pub fn advice(w: &v1::Workspace) -> String {
    let name = &w.name;
    match w.error_reason.as_str() {
        "ImagePullFailed" => format!(
            "name an image that exists: windlass ws update {name} --image IMAGE, then windlass recover {name}"
        ),
        "CrashLoop" => format!(
            "fix what its container runs (windlass ws update {name} --image IMAGE), then windlass recover {name}"
        ),
        "DataLost" => format!(
            "choose what to accept: windlass ws archives {name}, then windlass recover {name} --archive N, \
             --adopt-volume or --start-empty"
        ),
        "ArchiveCorrupted" => format!(
            "check the store; find an intact archive with windlass archive verify {name} --all, then windlass \
             recover {name} --archive N (without it the same is tried again)"
        ),
        _ => format!("see windlass ws explain {name}; then windlass recover {name}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn workspace(
        phase: v1::Phase,
        operation: v1::Operation,
        desired: v1::DesiredState,
    ) -> v1::Workspace {
        v1::Workspace {
            name: "demo".to_owned(),
            phase: phase.into(),
            operation: operation.into(),
            desired_state: desired.into(),
            ..v1::Workspace::default()
        }
    }

    #[test]
    fn reached_means_in_the_phase_and_idle() {
        use v1::{DesiredState as D, Operation as O, Phase as P};
        let goal = Goal::Reached(D::Archived);
        assert_eq!(
            judge(&workspace(P::Archived, O::None, D::Archived), goal),
            Verdict::Done
        );
        // The commit point: the volume is still to go.
        assert_eq!(
            judge(&workspace(P::Archived, O::Archiving, D::Archived), goal),
            Verdict::Going
        );
        assert_eq!(
            judge(&workspace(P::Standby, O::None, D::Archived), goal),
            Verdict::Going
        );
        let running = workspace(P::Running, O::Checkpointing, D::Running);
        assert_eq!(judge(&running, Goal::Reached(D::Running)), Verdict::Done);
    }

    #[test]
    fn restored_means_that_no_restore_waits() {
        use v1::{DesiredState as D, Operation as O, Phase as P};
        let goal = Goal::Restored(D::Running);
        let mut w = workspace(P::Running, O::None, D::Running);
        w.restore_key = "k".to_owned();
        assert_eq!(judge(&w, goal), Verdict::Going);
        assert_eq!(judge(&w, Goal::Reached(D::Running)), Verdict::Done);
        w.restore_key.clear();
        assert_eq!(judge(&w, goal), Verdict::Done);
    }

    #[test]
    fn errors_and_other_wishes_end_it() {
        use v1::{DesiredState as D, Operation as O, Phase as P};
        let goal = Goal::Reached(D::Running);
        let mut w = workspace(P::Error, O::None, D::Running);
        w.error_reason = "DataLost".to_owned();
        let Verdict::Broken(why) = judge(&w, goal) else {
            panic!("not broken")
        };
        assert!(why.contains("--start-empty"), "{why}");
        let other = judge(&workspace(P::Standby, O::None, D::Standby), goal);
        assert_eq!(
            other,
            Verdict::Superseded("demo is desired to be STANDBY by now".to_owned())
        );
        let deleted = workspace(P::Deleting, O::Deleting, D::Deleted);
        for goal in [goal, Goal::Reached(D::Deleted), Goal::Restored(D::Deleted)] {
            let verdict = judge(&deleted, goal);
            assert!(matches!(verdict, Verdict::Superseded(_)), "{verdict:?}");
        }
    }

    #[test]
    fn deleted_means_no_container_and_no_volume() {
        use v1::{ConditionStatus as C, DesiredState as D, Operation as O, Phase as P};
        let condition = |key: &str, status: C| v1::Condition {
            r#type: key.to_owned(),
            status: status.into(),
            ..v1::Condition::default()
        };
        let mut w = workspace(P::Deleting, O::None, D::Deleted);
        w.conditions = vec![condition("storage.volume_ready", C::True)];
        assert_eq!(judge(&w, Goal::Deleted), Verdict::Going);
        w.conditions = vec![
            condition("storage.volume_ready", C::False),
            condition("storage.archive_ready", C::True),
        ];
        assert_eq!(judge(&w, Goal::Deleted), Verdict::Done);
        w.operation = O::Deleting.into();
        assert_eq!(judge(&w, Goal::Deleted), Verdict::Going);
        let gone = workspace(P::Deleted, O::None, D::Deleted);
        assert_eq!(judge(&gone, Goal::Deleted), Verdict::Done);
        let running = workspace(P::Running, O::None, D::Deleted);
        assert_eq!(judge(&running, Goal::Deleted), Verdict::Going);
    }
}
