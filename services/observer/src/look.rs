//! What one host shows. Containers and volumes are one unit: if either call fails, nothing of the host
//! is seen. The archive store is another, so that it can be away without blinding anybody to containers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::try_join;
use tonic::{Status, Streaming};
use windlass_coordinator::{AgentClient, Agents};
use windlass_db::HostRecord;
use windlass_domain::HostId;
use windlass_proto::{
    convert,
    v1::{
        ArchiveInfo, Container, Job, ListAllRequest, ListAllResponse, ListArchivesRequest,
        ListArchivesResponse, ListVolumesRequest, RestoreInfo, Volume,
    },
};

/// Containers, jobs and volumes of a host.
#[derive(Debug, Default)]
pub struct Resources {
    /// Containers.
    pub containers: Vec<Container>,
    /// Jobs.
    pub jobs: Vec<Job>,
    /// Volumes.
    pub volumes: Vec<Volume>,
}

/// The archive store as a host's agent knows it.
#[derive(Debug, Default)]
pub struct Archives {
    /// Complete archives.
    pub archives: Vec<ArchiveInfo>,
    /// Restore markers.
    pub restores: Vec<RestoreInfo>,
    /// When the store was last listed in full.
    pub listed_at: Option<DateTime<Utc>>,
}

/// What a host shows; the errors are for people.
#[derive(Debug)]
pub struct HostView {
    /// The host.
    pub host_id: HostId,
    /// The first unit.
    pub resources: Result<Resources, String>,
    /// The second unit.
    pub archives: Result<Archives, String>,
}

/// Looks at one host: three calls at once, within `timeout`.
pub async fn look(agents: &Agents, host: &HostRecord, timeout: Duration) -> HostView {
    let client = match agents.client(&host.address) {
        Ok(client) => client,
        Err(error) => {
            return HostView {
                host_id: host.id,
                resources: Err(error.to_string()),
                archives: Err(error.to_string()),
            };
        }
    };
    let resources = within(timeout, async {
        let ((containers, jobs), volumes) =
            try_join(containers(client.clone()), volumes(client.clone())).await?;
        Ok(Resources {
            containers,
            jobs,
            volumes,
        })
    });
    let archives = within(timeout, archives(client.clone()));
    let (resources, archives) = futures::join!(resources, archives);
    HostView {
        host_id: host.id,
        resources,
        archives,
    }
}

async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, String> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs_f64())),
    }
}

async fn each<T>(mut stream: Streaming<T>, mut take: impl FnMut(T)) -> Result<(), Status> {
    while let Some(chunk) = stream.message().await? {
        take(chunk);
    }
    Ok(())
}

async fn containers(mut agent: AgentClient) -> Result<(Vec<Container>, Vec<Job>), Status> {
    let (mut containers, mut jobs) = (Vec::new(), Vec::new());
    let stream = agent
        .list_all(ListAllRequest::default())
        .await?
        .into_inner();
    each(stream, |chunk: ListAllResponse| {
        containers.extend(chunk.containers);
        jobs.extend(chunk.jobs);
    })
    .await?;
    Ok((containers, jobs))
}

async fn volumes(mut agent: AgentClient) -> Result<Vec<Volume>, Status> {
    let mut volumes = Vec::new();
    let request = ListVolumesRequest::default();
    let stream = agent.list_volumes(request).await?.into_inner();
    each(stream, |chunk| volumes.extend(chunk.volumes)).await?;
    Ok(volumes)
}

async fn archives(mut agent: AgentClient) -> Result<Archives, Status> {
    let mut seen = Archives::default();
    let request = ListArchivesRequest::default();
    let stream = agent.list_archives(request).await?.into_inner();
    each(stream, |chunk: ListArchivesResponse| {
        seen.archives.extend(chunk.archives);
        seen.restores.extend(chunk.restores);
        let listed = chunk
            .list_time
            .and_then(|t| convert::time("list_time", &t).ok());
        seen.listed_at = seen.listed_at.max(listed);
    })
    .await?;
    Ok(seen)
}
