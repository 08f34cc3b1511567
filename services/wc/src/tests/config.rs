//! What may be configured, and what is refused.

use clap::Parser as _;
use windlass_domain::Operation;

/// The configuration with these flags.
pub(super) fn config(given: &[&str]) -> crate::Config {
    let fixed = [
        "wc",
        "--database-url",
        "postgres://x@127.0.0.1/x",
        "--service-token",
        "t",
    ];
    crate::Config::try_parse_from(fixed.iter().chain(given)).unwrap()
}

#[test]
fn kinds_that_move_whole_homes_have_few_places() {
    use Operation::{Archiving, Checkpointing, Restoring, Starting};
    let of = |given: &[&str]| {
        let places = config(given).places;
        [Archiving, Restoring, Checkpointing, Starting].map(|operation| places.of(operation))
    };
    assert_eq!(of(&[]), [4, 4, 2, 16]);
    assert_eq!(of(&["--operations-per-host", "1"]), [4, 4, 2, 1]);
    let given = [
        "--archives-per-host=8",
        "--restores-per-host=9",
        "--checkpoints-per-host=1",
    ];
    assert_eq!(of(&given), [8, 9, 1, 16]);
}

#[test]
fn a_period_in_which_every_host_goes_stale_is_refused_by_name() {
    let config = |idle, stale| config(&["--idle-period", idle, "--stale-after", stale]);
    for (idle, stale) in [("15s", "60s"), ("60s", "60s")] {
        config(idle, stale).check().unwrap();
    }
    let refused = config("61s", "60s").check().unwrap_err().to_string();
    for name in ["WINDLASS_IDLE_PERIOD", "WINDLASS_STALE_AFTER", "61s", "60s"] {
        assert!(refused.contains(name), "{refused}");
    }
}
