//! The folder that the database lies in: one that is lost is not replaced by an empty one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::super::state::digest;
use crate::error::CliError;

/// Where the cluster goes if PostgreSQL's user cannot reach our folder; only root ever needs it.
const ELSEWHERE: &str = "/var/lib/windlass-dev";

/// Whether there is no cluster in it yet.
pub(super) fn is_unused(dir: &Path) -> bool {
    !dir.is_symlink() && !dir.join("data").exists()
}

/// A link to a folder that is gone means that the database is gone: not to be replaced by an empty one.
pub(super) fn check_link(dir: &Path) -> Result<(), CliError> {
    if dir.is_symlink() && !dir.exists() {
        let target = fs::read_link(dir).unwrap_or_default();
        return Err(CliError::Failed(format!(
            "the database folder {} is gone: bring it back, or remove the link {} to begin anew",
            target.display(),
            dir.display()
        )));
    }
    Ok(())
}

/// An agent that has seen a database's leaders refuses those of a new one, which count from 1 again. Without
/// this the first workspace would wait for ever.
pub(super) fn check_epochs(dir: &Path, agent: &Path) -> Result<(), CliError> {
    let moved = Path::new(ELSEWHERE).join(digest(dir)).join("data");
    if !is_unused(dir) || moved.exists() || !agent.join("epochs.json").exists() {
        return Ok(());
    }
    let all = dir.parent().unwrap_or(dir);
    Err(CliError::Failed(format!(
        "the database {} is gone, but the agent's state {} is of its time: it refuses the leaders of a new one. \
         Bring the database back, or remove the whole of {} to begin anew, with all homes in it. An older \
         database needs its epochs raised (UPDATE leader SET epoch = ..., docs/operations.md)",
        dir.display(),
        agent.display(),
        all.display()
    )))
}

/// Leaves a link where the cluster should be, to a folder that PostgreSQL's user can reach.
pub(super) fn put_elsewhere(dir: &Path) -> Result<(), CliError> {
    let target = PathBuf::from(ELSEWHERE).join(digest(dir));
    let io = |e: std::io::Error| CliError::Failed(format!("{}: {e}", target.display()));
    fs::create_dir_all(&target).map_err(io)?;
    for open in [Path::new(ELSEWHERE), &target] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o711)).map_err(io)?;
    }
    if dir.exists() {
        fs::remove_dir(dir).map_err(io)?;
    }
    std::os::unix::fs::symlink(&target, dir).map_err(io)?;
    super::super::say(format!(
        "the user `postgres` cannot reach {}: its data is in {}",
        dir.display(),
        target.display()
    ));
    Ok(())
}
