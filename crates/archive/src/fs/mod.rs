//! The volume's side: everything here works relative to open directories and never follows a symlink.

pub(crate) mod clean;
pub(crate) mod extents;
pub(crate) mod names;
pub(crate) mod open;
pub(crate) mod scan;
pub(crate) mod stack;
pub(crate) mod walk;
pub(crate) mod xattr;
