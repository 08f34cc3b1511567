//! The engine as a bystander sees it.

use std::{path::PathBuf, process::Command};

use crate::{World, wait};

impl World {
    /// Runs `docker`, and returns its output if it succeeds.
    pub fn try_docker(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new("docker")
            .env("DOCKER_HOST", self.engine.host())
            .args(args)
            .output()
            .expect("the docker program");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    /// Runs `docker`, which must succeed.
    pub fn docker(&self, args: &[&str]) -> String {
        self.try_docker(args)
            .unwrap_or_else(|error| panic!("docker {args:?}: {error}"))
    }

    /// Name of a workspace's container.
    pub fn container(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }

    /// Name of a workspace's home volume.
    pub fn volume(&self, id: &str) -> String {
        format!("{}{id}-home", self.prefix)
    }

    /// Whether a workspace has a container, in whatever state.
    pub fn has_container(&self, id: &str) -> bool {
        let args = ["container", "inspect", &self.container(id)];
        self.try_docker(&args).is_ok()
    }

    /// Whether a workspace has a volume.
    pub fn has_volume(&self, id: &str) -> bool {
        self.try_docker(&["volume", "inspect", &self.volume(id)])
            .is_ok()
    }

    /// Removes a workspace's container and volume behind everybody's back. wc may start it again in between, and
    /// then the volume is in use.
    pub async fn lose_home(&self, id: &str) {
        let lost = async || {
            // It may not be there.
            let _ = self.try_docker(&["rm", "-f", &self.container(id)]);
            self.try_docker(&["volume", "rm", "-f", &self.volume(id)])
        };
        let removed = wait::until("the volume to be removed", lost, Result::is_ok).await;
        removed.expect("waited for");
    }

    /// Where a workspace's home is on this machine.
    pub fn home(&self, id: &str) -> PathBuf {
        let args = [
            "volume",
            "inspect",
            "-f",
            "{{.Mountpoint}}",
            &self.volume(id),
        ];
        PathBuf::from(self.docker(&args))
    }

    /// Runs a shell command in a workspace's container.
    pub fn exec(&self, id: &str, command: &str) -> String {
        self.docker(&["exec", &self.container(id), "sh", "-c", command])
    }
}
