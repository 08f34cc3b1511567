//! Images: whether one is here, and bringing it here.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters::CreateImageOptions;
use futures::StreamExt;

use super::{DockerError, Engine, TIMEOUT};

/// How far a pull has come: bytes of the layers known so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Downloaded.
    pub done_bytes: u64,
    /// To be downloaded.
    pub total_bytes: u64,
}

impl Engine {
    /// Whether the engine has the image.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn has_image(&self, image: &str) -> Result<bool, DockerError> {
        let found = self
            .find(format!("inspect image {image}"), TIMEOUT, async |docker| {
                docker.inspect_image(image).await
            })
            .await?;
        Ok(found.is_some())
    }

    /// Pulls an image, telling `progress` how far it is.
    ///
    /// # Errors
    /// In the registry's or engine's words.
    #[tracing::instrument(name = "engine pull_image", skip_all)]
    pub async fn pull_image(
        &self,
        image: &str,
        timeout: Duration,
        progress: impl Fn(PullProgress),
    ) -> Result<(), DockerError> {
        let action = format!("pull {image}");
        let options = CreateImageOptions {
            from_image: Some(with_tag(image)),
            ..CreateImageOptions::default()
        };
        let docker = self.client(timeout)?;
        let pulling = async {
            let mut layers: HashMap<String, PullProgress> = HashMap::new();
            let mut steps = std::pin::pin!(docker.create_image(Some(options), None, None));
            while let Some(step) = steps.next().await {
                let step = step.map_err(|error| DockerError::new(&action, error))?;
                let downloading = step.status.as_deref() == Some("Downloading");
                let (Some(id), Some(detail)) = (step.id, step.progress_detail) else {
                    continue;
                };
                let bytes = |n: Option<i64>| n.and_then(|n| n.try_into().ok()).unwrap_or(0);
                if downloading {
                    let layer = layers.entry(id).or_default();
                    layer.done_bytes = bytes(detail.current);
                    layer.total_bytes = bytes(detail.total).max(layer.done_bytes);
                } else if let Some(layer) = layers.get_mut(&id) {
                    layer.done_bytes = layer.total_bytes;
                }
                progress(layers.values().fold(PullProgress::default(), |sum, layer| {
                    PullProgress {
                        done_bytes: sum.done_bytes + layer.done_bytes,
                        total_bytes: sum.total_bytes + layer.total_bytes,
                    }
                }));
            }
            Ok(())
        };
        match tokio::time::timeout(timeout, pulling).await {
            Ok(result) => result,
            Err(_) => {
                let late = format!("not done after {} s", timeout.as_secs());
                Err(DockerError::other(&action, late))
            }
        }
    }
}

/// A name without tag or digest would pull every tag there is.
fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if image.contains('@') || name.contains(':') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_port_is_no_tag() {
        for (image, full) in [
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("a@sha256:00", "a@sha256:00"),
        ] {
            assert_eq!(with_tag(image), full);
        }
    }
}
