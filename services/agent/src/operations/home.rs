//! Home volumes: found by name, believed by label.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::Tools;
use crate::docker::{DockerErrorKind, VolumeInfo};
use crate::error::{Failure, Reason};
use crate::failpoints::failpoint;
use crate::jobs::Job;

/// The home volume of that volume_id.
///
/// # Errors
/// VOLUME_NOT_FOUND, VOLUME_CHANGED.
pub(super) async fn require(
    tools: &Tools,
    workspace: Uuid,
    volume_id: Uuid,
) -> Result<VolumeInfo, Failure> {
    let name = tools.volume(workspace);
    let Some(volume) = tools.engine.inspect_volume(&name).await? else {
        return Err(Failure::new(
            Reason::VolumeNotFound,
            format!("there is no volume {name}"),
        ));
    };
    same(&volume, workspace, volume_id)?;
    Ok(volume)
}

/// Whether the volume is what its labels must say.
///
/// # Errors
/// VOLUME_CHANGED.
pub(super) fn same(volume: &VolumeInfo, workspace: Uuid, volume_id: Uuid) -> Result<(), Failure> {
    if volume.workspace == Some(workspace) && volume.volume_id == Some(volume_id) {
        return Ok(());
    }
    Err(Failure::new(
        Reason::VolumeMismatch,
        format!(
            "volume {} is {} of workspace {}, not {volume_id} of {workspace}",
            volume.name,
            shown(volume.volume_id),
            shown(volume.workspace),
        ),
    ))
}

fn shown(id: Option<Uuid>) -> String {
    id.map_or_else(|| "(no label)".to_owned(), |id| id.to_string())
}

/// That no container, running or not, uses the volume.
///
/// # Errors
/// CONTAINER_RUNNING.
pub(super) async fn unused(tools: &Tools, volume: &str) -> Result<(), Failure> {
    used_by(
        tools
            .engine
            .users_of(volume)
            .await?
            .first()
            .map(|u| &u.name),
    )
}

/// That no running container uses the volume.
///
/// # Errors
/// CONTAINER_RUNNING.
pub(super) async fn at_rest(tools: &Tools, volume: &str) -> Result<(), Failure> {
    let users = tools.engine.users_of(volume).await?;
    used_by(users.iter().find(|u| u.alive).map(|u| &u.name))
}

fn used_by(container: Option<&String>) -> Result<(), Failure> {
    match container {
        None => Ok(()),
        Some(name) => Err(Failure::new(
            Reason::ContainerRunning,
            format!("container {name} uses the volume"),
        )),
    }
}

/// The volume whose volume_id is the op_id, if it is there.
pub(super) async fn made(tools: &Tools, job: &Job) -> Result<Option<VolumeInfo>, Failure> {
    let name = tools.volume(job.workspace);
    let found = tools.engine.inspect_volume(&name).await?;
    Ok(found.filter(|volume| same(volume, job.workspace, job.op_id).is_ok()))
}

/// Whether [`make`] could succeed now.
///
/// # Errors
/// VOLUME_EXISTS, CONTAINER_RUNNING.
pub(super) async fn makeable(
    tools: &Tools,
    job: &Job,
    replaces: Option<Uuid>,
) -> Result<(), Failure> {
    let name = tools.volume(job.workspace);
    match tools.engine.inspect_volume(&name).await? {
        None => Ok(()),
        Some(volume) if same(&volume, job.workspace, job.op_id).is_ok() => Ok(()),
        Some(volume) => {
            may_replace(&volume, job, replaces)?;
            unused(tools, &name).await
        }
    }
}

fn may_replace(volume: &VolumeInfo, job: &Job, replaces: Option<Uuid>) -> Result<(), Failure> {
    let named = replaces.is_some_and(|id| same(volume, job.workspace, id).is_ok());
    if named {
        return Ok(());
    }
    Err(Failure::new(
        Reason::VolumeExists,
        format!(
            "volume {} exists: {} of workspace {}",
            volume.name,
            shown(volume.volume_id),
            shown(volume.workspace),
        ),
    ))
}

/// The volume whose volume_id is the op_id: the one that is there, or a new one. Removes the one that
/// `replaces` names, if that has its place.
///
/// # Errors
/// VOLUME_EXISTS, CONTAINER_RUNNING.
pub(super) async fn make(
    tools: &Tools,
    job: &Job,
    replaces: Option<Uuid>,
) -> Result<VolumeInfo, Failure> {
    let name = tools.volume(job.workspace);
    if let Some(volume) = tools.engine.inspect_volume(&name).await? {
        if same(&volume, job.workspace, job.op_id).is_ok() {
            return Ok(volume);
        }
        may_replace(&volume, job, replaces)?;
        tracing::info!(volume = %name, volume_id = ?volume.volume_id, "removing the volume that makes room");
        remove(tools, job, &name).await?;
    }
    failpoint!("agent::volume-before-create");
    let volume = tools
        .engine
        .create_volume(&name, job.workspace, job.op_id)
        .await?;
    failpoint!("agent::volume-after-create");
    // The engine returns an old volume as if it were new.
    if same(&volume, job.workspace, job.op_id).is_err() {
        may_replace(&volume, job, None)?;
    }
    Ok(volume)
}

/// Removes a volume that no container uses.
///
/// # Errors
/// CONTAINER_RUNNING.
pub(super) async fn remove(tools: &Tools, job: &Job, name: &str) -> Result<(), Failure> {
    unused(tools, name).await?;
    tools.still_led(job)?;
    failpoint!("agent::volume-before-remove");
    match tools.engine.remove_volume(name).await {
        Ok(()) => {}
        Err(error) if error.kind == DockerErrorKind::Conflict => {
            return Err(Failure::new(Reason::ContainerRunning, error.to_string()));
        }
        Err(error) => return Err(error.into()),
    }
    failpoint!("agent::volume-after-remove");
    Ok(())
}

/// Where the volume's content is, as this process sees it.
///
/// # Errors
/// When it cannot be seen.
pub(super) fn root(volume: &VolumeInfo) -> Result<PathBuf, Failure> {
    let root = &volume.mountpoint;
    match fs::metadata(root) {
        Ok(found) if found.is_dir() => Ok(root.clone()),
        Ok(_) => Err(Failure::action(format!("{} is no folder", root.display()))),
        Err(error) => Err(Failure::action(format!(
            "the agent cannot see the volume at {}: {error} (it must run on the engine's host, as root)",
            root.display()
        ))),
    }
}

/// Whether the home has never held anything.
pub(super) fn is_empty(root: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(root)?.next().is_none())
}

/// Gives a home of root's to its user.
pub(super) fn give(tools: &Tools, root: &Path) -> Result<(), Failure> {
    let (uid, gid) = (tools.docker.home_uid, tools.docker.home_gid);
    let given = || -> io::Result<()> {
        let found = fs::metadata(root)?;
        if (found.uid(), found.gid()) != (0, 0) {
            return Ok(());
        }
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        chown(root, Some(uid), Some(gid))
    };
    given().map_err(|error| {
        Failure::action(format!(
            "give the home at {} to {uid}:{gid}: {error}",
            root.display()
        ))
    })
}

/// As [`give`], if it is empty: what is in a home is its user's affair.
pub(super) fn give_if_empty(tools: &Tools, root: &Path) -> Result<(), Failure> {
    let empty = is_empty(root)
        .map_err(|error| Failure::action(format!("read {}: {error}", root.display())))?;
    if empty { give(tools, root) } else { Ok(()) }
}
