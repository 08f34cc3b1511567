//! Volumes. Making one that exists returns the old one with its old labels: callers compare volume_id.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};
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
        let filters = HashMap::from([("name".to_owned(), vec![prefix.to_owned()])]);
        let options = ListVolumesOptions {
            filters: Some(filters),
        };
        let list = self
            .call("list volumes", TIMEOUT, async |docker| {
                docker.list_volumes(Some(options)).await
            })
            .await?;
        Ok(list
            .volumes
            .unwrap_or_default()
            .into_iter()
            .filter(|v| v.name.starts_with(prefix))
            .map(known)
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
        Ok(found.map(known))
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
        Ok(known(volume))
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

fn known(volume: Volume) -> VolumeInfo {
    let labels = &volume.labels;
    VolumeInfo {
        workspace: uuid_label(labels, label::WORKSPACE),
        volume_id: uuid_label(labels, label::VOLUME_ID),
        labelled: labels.keys().any(|name| name.starts_with("dev.windlass.")),
        mountpoint: PathBuf::from(&volume.mountpoint),
        name: volume.name,
    }
}
