//! What tests ask of the agent, and waiting until it is done.

use std::time::{Duration, Instant};

use tonic::{Code, Status};
use uuid::Uuid;
use windlass_proto::v1::{self, JobState};

use super::{DEMO, Fixture, PATIENCE};

impl Fixture {
    pub async fn containers(&self) -> Vec<v1::Container> {
        let request = v1::ListAllRequest::default();
        let mut stream = self.client().list_all(request).await.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            all.extend(chunk.containers);
        }
        all
    }

    pub async fn volumes(&self) -> Vec<v1::Volume> {
        let request = v1::ListVolumesRequest::default();
        let mut stream = self
            .client()
            .list_volumes(request)
            .await
            .unwrap()
            .into_inner();
        let mut all = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            all.extend(chunk.volumes);
        }
        all
    }

    pub async fn archives(&self, refresh: bool) -> Result<v1::ListArchivesResponse, Status> {
        let request = v1::ListArchivesRequest {
            refresh,
            include_loose: true,
            ..v1::ListArchivesRequest::default()
        };
        let mut stream = self.client().list_archives(request).await?.into_inner();
        let mut all = v1::ListArchivesResponse::default();
        while let Some(chunk) = stream.message().await? {
            all.archives.extend(chunk.archives);
            all.restores.extend(chunk.restores);
            all.loose.extend(chunk.loose);
            all.list_time = chunk.list_time;
        }
        Ok(all)
    }

    pub async fn job(&self, workspace: Uuid) -> Option<v1::Job> {
        let request = v1::ListJobsRequest {
            workspace_id: workspace.to_string(),
        };
        let jobs = self.client().list_jobs(request).await.unwrap();
        jobs.into_inner().jobs.into_iter().next()
    }

    /// Waits until the workspace's job ended.
    pub async fn ended(&self, workspace: Uuid) -> v1::Job {
        let begun = Instant::now();
        loop {
            if let Some(job) = self.job(workspace).await
                && matches!(job.state(), JobState::Succeeded | JobState::Failed)
            {
                return job;
            }
            assert!(begun.elapsed() < PATIENCE, "the job does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it succeeded.
    pub async fn succeeded(&self, workspace: Uuid) -> v1::Job {
        let job = self.ended(workspace).await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:?}");
        job
    }

    /// A new home; returns the workspace and the volume_id.
    pub async fn provisioned(&self) -> (Uuid, Uuid) {
        let (workspace, op) = (Uuid::new_v4(), Uuid::new_v4());
        let request = v1::ProvisionRequest {
            context: context(workspace, op),
            ..v1::ProvisionRequest::default()
        };
        let job = self
            .client()
            .provision(request)
            .await
            .unwrap()
            .into_inner()
            .job
            .unwrap();
        assert_eq!(job.state(), JobState::Succeeded);
        (workspace, op)
    }

    /// Archives and returns what the index tells of it.
    pub async fn archived(&self, workspace: Uuid, volume_id: Uuid) -> v1::ArchiveInfo {
        let op = Uuid::new_v4();
        let request = v1::ArchiveRequest {
            context: context(workspace, op),
            volume_id: volume_id.to_string(),
            label: Some(v1::WorkspaceLabel {
                name: "demo".to_owned(),
                owner: "ada".to_owned(),
                image: DEMO.to_owned(),
            }),
            crash_consistent: false,
        };
        self.client().archive(request).await.unwrap();
        self.succeeded(workspace).await;
        // The first list of the store may still be under way.
        let begun = Instant::now();
        loop {
            if let Ok(all) = self.archives(false).await
                && let Some(found) = all
                    .archives
                    .into_iter()
                    .find(|a| a.archive_op_id == op.to_string())
            {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "the archive is not listed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn start_request(&self, workspace: Uuid, op: Uuid, volume_id: Uuid) -> v1::StartRequest {
        v1::StartRequest {
            context: context(workspace, op),
            image: DEMO.to_owned(),
            volume_id: volume_id.to_string(),
            limits: None,
        }
    }

    pub async fn started(&self, workspace: Uuid, volume_id: Uuid) -> Uuid {
        let op = Uuid::new_v4();
        let request = self.start_request(workspace, op, volume_id);
        self.client().start(request).await.unwrap();
        self.succeeded(workspace).await;
        op
    }

    pub async fn stopped_container(&self, workspace: Uuid) {
        let request = v1::StopRequest {
            context: context(workspace, Uuid::new_v4()),
            grace: None,
        };
        self.client().stop(request).await.unwrap();
        self.succeeded(workspace).await;
    }

    /// Stops a workspace whose job gives way: refused at first, and then it does not take long.
    pub async fn stopped_instead(&self, workspace: Uuid) {
        let stop = v1::StopRequest {
            context: context(workspace, Uuid::new_v4()),
            grace: None,
        };
        let busy = self.client().stop(stop.clone()).await;
        refused(busy, Code::Aborted, "BUSY");
        let begun = Instant::now();
        while let Err(status) = self.client().stop(stop.clone()).await {
            assert!(begun.elapsed() < Duration::from_secs(60), "{status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let job = self.succeeded(workspace).await;
        assert_eq!(job.operation(), v1::Operation::Stopping);
    }

    /// What the agent says of its host.
    pub async fn host(&self) -> v1::GetHostResponse {
        let request = v1::GetHostRequest {};
        self.client().get_host(request).await.unwrap().into_inner()
    }
}

/// Attempt 0 at epoch 1.
pub fn context(workspace: Uuid, op: Uuid) -> Option<v1::WorkContext> {
    attempt(workspace, op, 0)
}

pub fn attempt(workspace: Uuid, op: Uuid, attempt: u32) -> Option<v1::WorkContext> {
    Some(v1::WorkContext {
        workspace_id: workspace.to_string(),
        op_id: op.to_string(),
        attempt,
        epoch: 1,
        ..v1::WorkContext::default()
    })
}

/// That a call was refused with this code and reason; returns the error_reason that wc stores.
pub fn refused<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
) -> Option<String> {
    let status = result.expect_err(reason);
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(
        windlass_service::reason_of(&status).as_deref(),
        Some(reason),
        "{status:?}"
    );
    windlass_service::error::metadata_of(&status, "error_reason")
}
