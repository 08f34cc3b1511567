//! One look at one host: what changed there since the last one, by ListChanges. Containers, volumes and jobs
//! are one unit, the archive store another, each all-or-nothing: of a unit with an error, and of an answer
//! that does not come to its end, nothing counts.
//!
//! An agent that does not know ListChanges (v0.1.0) is looked at by its three lists. They tell the whole, and
//! prove themselves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use tonic::{Code, Request, Status, Streaming};
use windlass_coordinator::AgentClient;
use windlass_domain::{
    WorkspaceId,
    conditions::{ArchiveEvidence, ContainerEvidence, RestoreEvidence, VolumeEvidence},
};
use windlass_proto::{
    convert,
    v1::{
        ArchiveChanges, ArchiveScope, ChangesEnd, HostChanges, ListAllRequest, ListArchivesRequest,
        ListChangesRequest, ListVolumesRequest,
    },
};

use crate::evidence::{self, JobNews};

/// What to ask.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where the host's mirror stands; empty: nowhere.
    pub host_position: String,
    /// Where what is known of its archives stands, in this scope; empty: nowhere.
    pub archive_position: String,
    /// Which archives.
    pub scope: ArchiveScope,
    /// Whether the engine is to be listed in full first.
    pub prove: bool,
}

/// A full list that proved the agent's model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// Its number.
    pub number: u64,
    /// Time since it began.
    pub age: TimeDelta,
}

/// What changed of containers, volumes and jobs.
#[derive(Debug, Default)]
pub struct HostNews {
    /// These are all there are.
    pub whole: bool,
    /// Where the mirror stands with it.
    pub position: String,
    /// The list behind it; `None`: it is itself a full list, made for this look.
    pub list: Option<List>,
    /// New and changed containers.
    pub containers: Vec<(WorkspaceId, Arc<ContainerEvidence>)>,
    /// New and changed volumes.
    pub volumes: Vec<(WorkspaceId, Arc<VolumeEvidence>)>,
    /// New and changed jobs.
    pub jobs: Vec<(WorkspaceId, JobNews)>,
    /// Workspaces whose container is gone.
    pub gone_containers: Vec<WorkspaceId>,
    /// Workspaces whose volume is gone.
    pub gone_volumes: Vec<WorkspaceId>,
    /// Workspaces that have no job any more.
    pub gone_jobs: Vec<WorkspaceId>,
}

/// What changed of archives and restore markers.
#[derive(Debug, Default)]
pub struct ArchiveNews {
    /// These are all there are, in the scope that was asked for.
    pub whole: bool,
    /// Where the mirror stands with it.
    pub position: String,
    /// When the agent last listed the store in full, by its own clock.
    pub listed_at: Option<DateTime<Utc>>,
    /// New archives.
    pub archives: Vec<(WorkspaceId, Arc<ArchiveEvidence>)>,
    /// New restores.
    pub restores: Vec<(WorkspaceId, RestoreEvidence)>,
    /// Keys of archives that are gone.
    pub gone_archives: Vec<String>,
    /// Keys of restore markers that are gone.
    pub gone_restores: Vec<String>,
}

/// What came of a look; the errors are for people.
#[derive(Debug)]
pub struct Answer {
    /// The first unit.
    pub host: Result<HostNews, String>,
    /// The second unit.
    pub archives: Result<ArchiveNews, String>,
    /// In which scope archives were asked for.
    pub scope: ArchiveScope,
    /// Whether a full list was asked for.
    pub proved: bool,
    /// How long it took.
    pub took: Duration,
}

/// Looks at a host, within `timeout`.
pub async fn look(mut agent: AgentClient, ask: Ask, timeout: Duration) -> Answer {
    let (scope, proved) = (ask.scope, ask.prove);
    let began = Instant::now();
    let looked = tokio::time::timeout(timeout, async {
        match changes(&mut agent, &ask, timeout).await {
            Err(status) if status.code() == Code::Unimplemented => Ok(lists(&agent, timeout).await),
            other => other.map_err(|status| words(&status)),
        }
    });
    let late = || format!("no answer within {} s", timeout.as_secs_f64());
    let (host, archives) = looked
        .await
        .unwrap_or_else(|_| Err(late()))
        .unwrap_or_else(|error| (Err(error.clone()), Err(error)));
    Answer {
        host,
        archives,
        scope,
        proved,
        took: began.elapsed(),
    }
}

type Units = (Result<HostNews, String>, Result<ArchiveNews, String>);

fn words(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

fn within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

async fn changes(agent: &mut AgentClient, ask: &Ask, timeout: Duration) -> Result<Units, Status> {
    let request = ListChangesRequest {
        host_position: ask.host_position.clone(),
        archive_position: ask.archive_position.clone(),
        archive_scope: ask.scope.into(),
        prove: ask.prove,
    };
    let mut stream = agent
        .list_changes(within(request, timeout))
        .await?
        .into_inner();
    // Who stands nowhere is told the whole, also by an answer without entries.
    let mut host = HostNews {
        whole: ask.host_position.is_empty(),
        ..HostNews::default()
    };
    let mut archives = ArchiveNews {
        whole: ask.archive_position.is_empty(),
        ..ArchiveNews::default()
    };
    while let Some(message) = stream.message().await? {
        if let Some(changes) = message.host {
            host.add(changes);
        }
        if let Some(changes) = message.archives {
            archives.add(changes);
        }
        if let Some(end) = message.end {
            return Ok(ended(host, archives, end));
        }
    }
    Err(Status::data_loss("the answer broke off"))
}

fn ended(mut host: HostNews, mut archives: ArchiveNews, end: ChangesEnd) -> Units {
    let host = if end.host_error.is_empty() {
        host.position = end.host_position;
        host.list = Some(List {
            number: end.list_number,
            age: end.list_age.map_or(TimeDelta::MAX, age),
        });
        Ok(host)
    } else {
        Err(end.host_error)
    };
    let archives = if end.archive_error.is_empty() {
        archives.position = end.archive_position;
        archives.listed_at = end.archive_list_time.and_then(time);
        Ok(archives)
    } else {
        Err(end.archive_error)
    };
    (host, archives)
}

/// An age that makes no sense is endless: what it dates proves nothing.
fn age(wire: prost_types::Duration) -> TimeDelta {
    std::time::Duration::try_from(wire)
        .ok()
        .and_then(|age| TimeDelta::from_std(age).ok())
        .unwrap_or(TimeDelta::MAX)
}

fn time(wire: prost_types::Timestamp) -> Option<DateTime<Utc>> {
    convert::time("list_time", &wire).ok()
}

impl HostNews {
    /// Whether a job has ended since the last look. Who found the agent busy with it may call again.
    pub fn tells_an_end(&self) -> bool {
        let ended = |(_, job): &(WorkspaceId, JobNews)| !matches!(job, JobNews::AtWork(_));
        !self.whole && (!self.gone_jobs.is_empty() || self.jobs.iter().any(ended))
    }

    fn add(&mut self, changes: HostChanges) {
        self.whole |= changes.whole;
        let container = evidence::container;
        self.containers
            .extend(changes.containers.into_iter().filter_map(container));
        self.volumes
            .extend(changes.volumes.into_iter().filter_map(evidence::volume));
        self.jobs
            .extend(changes.jobs.into_iter().filter_map(evidence::job));
        let gone = changes.removed_containers.iter();
        self.gone_containers
            .extend(gone.filter_map(|name| evidence::container_of(name)));
        let gone = changes.removed_volumes.iter();
        self.gone_volumes
            .extend(gone.filter_map(|name| evidence::volume_of(name)));
        let gone = changes.removed_jobs.iter();
        self.gone_jobs
            .extend(gone.filter_map(|id| id.parse::<WorkspaceId>().ok()));
    }
}

impl ArchiveNews {
    fn add(&mut self, changes: ArchiveChanges) {
        self.whole |= changes.whole;
        self.archives
            .extend(changes.archives.into_iter().filter_map(evidence::archive));
        self.restores
            .extend(changes.restores.into_iter().filter_map(evidence::restore));
        self.gone_archives.extend(changes.removed_archives);
        self.gone_restores.extend(changes.removed_restores);
    }
}

/// The three lists of v0.1.0, at once.
async fn lists(agent: &AgentClient, timeout: Duration) -> Units {
    let host = futures::future::try_join(
        containers(agent.clone(), timeout),
        volumes(agent.clone(), timeout),
    );
    let (host, archives) = futures::join!(host, archives(agent.clone(), timeout));
    let host = host.map(|(containers, volumes)| HostNews {
        volumes: volumes.volumes,
        ..containers
    });
    (
        host.map_err(|status| words(&status)),
        archives.map_err(|status| words(&status)),
    )
}

async fn each<T>(mut stream: Streaming<T>, mut take: impl FnMut(T)) -> Result<(), Status> {
    while let Some(chunk) = stream.message().await? {
        take(chunk);
    }
    Ok(())
}

fn whole() -> HostNews {
    HostNews {
        whole: true,
        ..HostNews::default()
    }
}

async fn containers(mut agent: AgentClient, timeout: Duration) -> Result<HostNews, Status> {
    let mut news = whole();
    let request = within(ListAllRequest::default(), timeout);
    let stream = agent.list_all(request).await?.into_inner();
    each(stream, |chunk| {
        news.add(HostChanges {
            containers: chunk.containers,
            jobs: chunk.jobs,
            ..HostChanges::default()
        });
    })
    .await?;
    Ok(news)
}

async fn volumes(mut agent: AgentClient, timeout: Duration) -> Result<HostNews, Status> {
    let mut news = whole();
    let request = within(ListVolumesRequest::default(), timeout);
    let stream = agent.list_volumes(request).await?.into_inner();
    each(stream, |chunk| {
        news.add(HostChanges {
            volumes: chunk.volumes,
            ..HostChanges::default()
        });
    })
    .await?;
    Ok(news)
}

async fn archives(mut agent: AgentClient, timeout: Duration) -> Result<ArchiveNews, Status> {
    let mut news = ArchiveNews {
        whole: true,
        ..ArchiveNews::default()
    };
    let request = within(ListArchivesRequest::default(), timeout);
    let stream = agent.list_archives(request).await?.into_inner();
    each(stream, |chunk| {
        news.listed_at = news.listed_at.max(chunk.list_time.and_then(time));
        news.add(ArchiveChanges {
            archives: chunk.archives,
            restores: chunk.restores,
            ..ArchiveChanges::default()
        });
    })
    .await?;
    Ok(news)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use windlass_domain::OpId;

    use super::*;

    #[test]
    fn an_end_is_told_once() {
        let job = || {
            (
                WorkspaceId(Uuid::nil()),
                JobNews::Succeeded(OpId(Uuid::nil())),
            )
        };
        let news = |whole, jobs| HostNews {
            whole,
            jobs,
            ..HostNews::default()
        };
        assert!(news(false, vec![job()]).tells_an_end());
        assert!(!news(false, Vec::new()).tells_an_end());
        // The whole is told to who begins, and tells of ends long past.
        assert!(!news(true, vec![job()]).tells_an_end());
    }
}
