//! Named places where a test may stop the process or inject an error (`fail` crate).
//!
//! They stand before and after the calls that change something. Without the cargo feature `failpoints`
//! they cost nothing. `return(text)` fails the job with that text.

/// Every failpoint of this crate.
pub const ALL: &[&str] = &[
    "agent::volume-before-create",
    "agent::volume-after-create",
    "agent::volume-before-remove",
    "agent::volume-after-remove",
    "agent::start-before-pull",
    "agent::start-before-create",
    "agent::start-after-create",
    "agent::start-after-start",
    "agent::stop-before-stop",
    "agent::stop-before-remove",
    "agent::stop-after-remove",
    "agent::delete-before-checks",
    "agent::delete-after-fingerprint",
    "agent::archives-before-markers",
    "agent::archives-after-markers",
    "agent::archives-after-data",
];

/// Passes the failpoint `name`, which must be one of [`ALL`]. In functions that return
/// `Result<_, Failure>`.
macro_rules! failpoint {
    ($name:literal) => {
        ::fail::fail_point!($name, |text: Option<String>| Err(
            $crate::error::Failure::action(format!(
                "failpoint {}: {}",
                $name,
                text.unwrap_or_default()
            ))
        ))
    };
}
pub(crate) use failpoint;
