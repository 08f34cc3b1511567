//! A home volume's end: the only place where a home may be lost, and the checks that stand before it.
//!
//! Invariant: a volume goes only if its complete archive is in the store, with the digest the caller
//! knows, taken at rest, and the volume is still exactly what was archived; or if its user gave it up.

use std::sync::Arc;

use uuid::Uuid;
use windlass_archive::{StoreErrorKind, inventory, verify};

use super::{Tools, home};
use crate::docker::VolumeInfo;
use crate::error::{Failure, Reason};
use crate::failpoints::failpoint;
use crate::jobs::{Job, Kind, Task};

/// What becomes of the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// It is in this archive.
    Archived {
        /// Key of its data.
        key: String,
        /// Its SHA-256, in lower case.
        sha256: String,
        /// The volume that was archived.
        volume_id: Uuid,
    },
    /// Its user gave it up; `None`: whatever volume the workspace has.
    Discarded(Option<Uuid>),
}

/// Removes the home volume.
#[derive(Debug)]
pub struct DeleteVolume {
    /// What it works with.
    pub tools: Arc<Tools>,
    /// What becomes of the home.
    pub keep: Keep,
}

impl Task for DeleteVolume {
    const KIND: Kind = Kind::DeleteVolume;
    const WAIT: bool = true;

    async fn check(&self, job: &Job) -> Result<(), Failure> {
        match self.present(job).await? {
            Some(volume) => home::unused(&self.tools, &volume.name).await,
            None => Ok(()),
        }
    }

    async fn run(&self, job: &Job) -> Result<(), Failure> {
        let Some(volume) = self.present(job).await? else {
            return Ok(());
        };
        failpoint!("agent::delete-before-checks");
        home::unused(&self.tools, &volume.name).await?;
        match &self.keep {
            Keep::Archived {
                key,
                sha256,
                volume_id,
            } => {
                self.is_archived(&volume, key, sha256, *volume_id).await?;
                failpoint!("agent::delete-after-fingerprint");
            }
            Keep::Discarded(_) => {
                tracing::warn!(
                    workspace = %job.workspace, op_id = %job.op_id, volume = %volume.name,
                    volume_id = ?volume.volume_id, "removing a home that its user gave up"
                );
            }
        }
        home::remove(&self.tools, job, &volume.name).await
    }
}

impl DeleteVolume {
    async fn present(&self, job: &Job) -> Result<Option<VolumeInfo>, Failure> {
        let name = self.tools.volume(job.workspace);
        let Some(volume) = self.tools.engine.inspect_volume(&name).await? else {
            return Ok(None);
        };
        match &self.keep {
            Keep::Archived { volume_id, .. } | Keep::Discarded(Some(volume_id)) => {
                home::same(&volume, job.workspace, *volume_id)?;
            }
            Keep::Discarded(None) => {}
        }
        Ok(Some(volume))
    }

    async fn is_archived(
        &self,
        volume: &VolumeInfo,
        key: &str,
        sha256: &str,
        volume_id: Uuid,
    ) -> Result<(), Failure> {
        let store = &self.tools.store;
        let marker = verify::read_marker(store, key).await?;
        if marker.sha256 != sha256 {
            return Err(Failure::new(
                Reason::DigestMismatch,
                format!("{key} has SHA-256 {}, not {sha256}", marker.sha256),
            ));
        }
        if marker.crash_consistent {
            // The home as it was at some moment before: the volume is to be archived anew.
            return Err(Failure::new(
                Reason::VolumeChanged,
                format!("{key} is a checkpoint, on whose word no volume goes"),
            ));
        }
        if marker.volume_id != Some(volume_id) {
            // Whoever accepted this archive for a lost volume has not seen what the volume holds.
            return Err(Failure::new(
                Reason::VolumeChanged,
                format!("{key} is the archive of another volume than {volume_id}"),
            ));
        }
        match store.head(key).await {
            Ok(head) if head.size == marker.size => {}
            Ok(head) => {
                return Err(Failure::new(
                    Reason::ArchiveCorrupted,
                    format!(
                        "{key} has {} bytes, its marker says {}",
                        head.size, marker.size
                    ),
                ));
            }
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                return Err(Failure::new(
                    Reason::ArchiveNotFound,
                    format!("the data of {key} is missing"),
                ));
            }
            Err(error) => return Err(error.into()),
        }
        let root = home::root(volume)?;
        let inventory = tokio::task::spawn_blocking(move || inventory::fingerprint(&root))
            .await
            .map_err(|error| Failure::action(format!("take the fingerprint: {error}")))??;
        if inventory.fingerprint != marker.fingerprint {
            return Err(Failure::new(
                Reason::VolumeChanged,
                format!(
                    "volume {} changed since it was archived as {key}",
                    volume.name
                ),
            ));
        }
        Ok(())
    }
}
