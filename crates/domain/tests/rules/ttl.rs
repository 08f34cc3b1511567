//! The TTL rules, over every phase and desired state.

use chrono::TimeDelta;
use windlass_domain::{
    DesiredState as D, Operation, Phase,
    ttl::{DEFAULT_ARCHIVE_TTL, DEFAULT_STANDBY_TTL, Idle, due},
};

use crate::support::t;

fn idle(phase: Phase, desired: D) -> Idle {
    Idle {
        phase,
        desired,
        operation: Operation::None,
        deleted: false,
        phase_changed_at: t(100),
        last_access_at: None,
        keep_awake_until: None,
        standby_ttl: DEFAULT_STANDBY_TTL,
        archive_ttl: DEFAULT_ARCHIVE_TTL,
    }
}

#[test]
fn only_what_is_where_it_should_be_moves_and_only_one_step_down() {
    for phase in Phase::ALL {
        for desired in D::ALL {
            let expected = match (phase, desired) {
                (Phase::Running, D::Running) => Some((t(700), D::Standby)),
                (Phase::Standby, D::Standby) => Some((t(1900), D::Archived)),
                _ => None,
            };
            assert_eq!(due(&idle(*phase, *desired)), expected, "{phase} {desired}");
        }
    }
}

#[test]
fn rows() {
    let running = || idle(Phase::Running, D::Running);
    let standby = || idle(Phase::Standby, D::Standby);
    let table = [
        (
            "used before",
            Idle {
                last_access_at: Some(t(50)),
                ..running()
            },
            Some(700),
        ),
        (
            "used since",
            Idle {
                last_access_at: Some(t(300)),
                ..running()
            },
            Some(900),
        ),
        (
            "use does not keep a volume",
            Idle {
                last_access_at: Some(t(300)),
                ..standby()
            },
            Some(1900),
        ),
        (
            "own TTL",
            Idle {
                standby_ttl: TimeDelta::seconds(5),
                ..running()
            },
            Some(105),
        ),
        (
            "own TTL",
            Idle {
                archive_ttl: TimeDelta::seconds(5),
                ..standby()
            },
            Some(105),
        ),
        (
            "0 is never",
            Idle {
                standby_ttl: TimeDelta::zero(),
                ..running()
            },
            None,
        ),
        (
            "0 is never",
            Idle {
                archive_ttl: TimeDelta::zero(),
                ..standby()
            },
            None,
        ),
        (
            "the other TTL's 0",
            Idle {
                archive_ttl: TimeDelta::zero(),
                ..running()
            },
            Some(700),
        ),
        (
            "lease",
            Idle {
                keep_awake_until: Some(t(5000)),
                ..running()
            },
            Some(5000),
        ),
        (
            "lease over",
            Idle {
                keep_awake_until: Some(t(500)),
                ..standby()
            },
            Some(1900),
        ),
        (
            "busy",
            Idle {
                operation: Operation::Stopping,
                ..running()
            },
            None,
        ),
        (
            "deleted",
            Idle {
                deleted: true,
                ..standby()
            },
            None,
        ),
        (
            "beyond all time",
            Idle {
                standby_ttl: TimeDelta::MAX,
                ..running()
            },
            None,
        ),
    ];
    for (row, idle, expected) in table {
        assert_eq!(due(&idle).map(|(at, _)| at), expected.map(t), "{row}");
    }
}
