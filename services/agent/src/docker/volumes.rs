//! Volumes. Making one that exists returns the old one with its old labels: callers compare volume_id.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::RemoveVolumeOptions;
use uuid::Uuid;

use super::{DockerError, Engine, SLOW_TIMEOUT, TIMEOUT, label, uuid_label};

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// Where its content is on this host.
    pub mountpoint: PathBuf,
    /// The workspace of its label.
    pub workspace: Option<Uuid>,
    /// The volume_id of its label.
    pub volume_id: Option<Uuid>,
    /// Whether it has a label of Windlass, well-formed or not.
    pub labelled: bool,
}

impl Engine {
    /// Volumes whose name begins with `prefix`, in one request.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn list_volumes(&self, prefix: &str) -> Result<Vec<VolumeInfo>, DockerError> {
        // The engine's filter finds the text anywhere in a name.
        let volumes = self.volumes("name", vec![prefix.to_owned()]).await?;
        Ok(volumes
            .into_iter()
            .filter(|v| v.name.starts_with(prefix))
            .map(|v| known(v.name, &v.mountpoint, &v.labels))
            .collect())
    }

    /// A volume by name; `None` if there is none.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn inspect_volume(&self, name: &str) -> Result<Option<VolumeInfo>, DockerError> {
        let found = self
            .find(format!("inspect volume {name}"), TIMEOUT, async |docker| {
                docker.inspect_volume(name).await
            })
            .await?;
        Ok(found.map(inspected))
    }

    /// Makes a home volume, or returns the one that has the name, whatever it is.
    ///
    /// # Errors
    /// When the engine refuses.
    #[tracing::instrument(name = "engine create_volume", skip_all)]
    pub async fn create_volume(
        &self,
        name: &str,
        workspace: Uuid,
        volume_id: Uuid,
    ) -> Result<VolumeInfo, DockerError> {
        let labels = [
            (label::WORKSPACE, workspace.to_string()),
            (label::VOLUME_ID, volume_id.to_string()),
            (label::PREFIX, self.prefix().to_owned()),
        ];
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v)).into()),
            ..VolumeCreateRequest::default()
        };
        let volume = self
            .call(
                format!("create volume {name}"),
                SLOW_TIMEOUT,
                async |docker| docker.create_volume(request).await,
            )
            .await?;
        Ok(inspected(volume))
    }

    /// Removes a volume; one that is not there is fine.
    ///
    /// # Errors
    /// `Conflict` if a container uses it.
    #[tracing::instrument(name = "engine remove_volume", skip_all)]
    pub async fn remove_volume(&self, name: &str) -> Result<(), DockerError> {
        self.find(
            format!("remove volume {name}"),
            SLOW_TIMEOUT,
            async |docker| {
                docker
                    .remove_volume(name, Some(RemoveVolumeOptions { force: false }))
                    .await
            },
        )
        .await
        .map(drop)
    }
}

fn inspected(volume: Volume) -> VolumeInfo {
    known(volume.name, &volume.mountpoint, &volume.labels)
}

fn known(name: String, mountpoint: &str, labels: &HashMap<String, String>) -> VolumeInfo {
    VolumeInfo {
        workspace: uuid_label(labels, label::WORKSPACE),
        volume_id: uuid_label(labels, label::VOLUME_ID),
        labelled: labels.keys().any(|name| name.starts_with(label::OURS)),
        mountpoint: PathBuf::from(mountpoint),
        name,
    }
}
