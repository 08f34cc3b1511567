//! Named places where a test may stop the process or inject an error (`fail` crate).
//!
//! They stand before and after every external call of archive, verify, marker and restore. Without
//! the cargo feature `failpoints` they cost nothing. `return(text)` injects an `Other` error with that
//! text; a callback (`fail::cfg_callback`) may exit the process.

/// Every failpoint of this crate, in the order in which a job passes them.
pub const ALL: &[&str] = &[
    "archive::start",
    "archive::after-marker-check",
    "archive::before-upload",
    "upload::after-create",
    "upload::after-part",
    "archive::after-pack",
    "upload::before-complete",
    "upload::after-complete",
    "archive::after-upload",
    "archive::before-verify",
    "archive::after-verify",
    "archive::before-marker",
    "archive::after-marker",
    "restore::start",
    "restore::after-archive-marker",
    "restore::before-clean",
    "restore::after-clean",
    "restore::after-unpack",
    "restore::before-sync",
    "restore::after-sync",
    "restore::before-marker",
    "restore::after-marker",
];

/// Passes the failpoint `name`, which must be one of [`ALL`].
macro_rules! failpoint {
    ($name:literal) => {
        ::fail::fail_point!($name, |text: Option<String>| Err(
            $crate::error::ArchiveError::Injected {
                failpoint: $name,
                text: text.unwrap_or_default(),
            }
        ))
    };
}
pub(crate) use failpoint;

/// The same where only a store's error can be returned.
macro_rules! store_failpoint {
    ($name:literal) => {
        ::fail::fail_point!($name, |text: Option<String>| Err(
            $crate::store::StoreError::new(
                $crate::store::StoreErrorKind::Other,
                concat!("failpoint ", $name).to_owned(),
                text.unwrap_or_default(),
            )
        ))
    };
}
pub(crate) use store_failpoint;
