//! RebuildWorkspaces: rows of workspaces that only the bucket knows. Agents tell what is in the bucket and
//! which volumes are on the hosts; `plan` decides; each row is made by a transaction of its own.
//!
//! Every registered host has to answer: a home volume that is there may be newer than any archive, and a
//! workspace that was made beside it would take it for a leftover.

mod plan;

use std::collections::HashSet;
use std::pin::Pin;
use std::time::Duration;

use chrono::TimeDelta;
use tokio_stream::Stream;
use tonic::{Status, Streaming};
use windlass_coordinator::{AgentClient, Agents};
use windlass_db::{
    Pool,
    write::api::{Changed, Quota, Rebuild, Rebuilt},
};
use windlass_domain::WorkspaceId;
use windlass_proto::v1::{
    ListArchivesRequest, ListVolumesRequest, RebuildAction, RebuildWorkspacesRequest,
    RebuildWorkspacesResponse, RebuiltWorkspace, UnknownVolume,
};
use windlass_service::Secret;

use crate::{access::Caller, archives::handed_on, config::Settings, errors};
use plan::{Fallback, Found, Item, NAME_TAKEN, NOTHING_LEFT, plan};

/// Entries in one chunk of the answer.
const CHUNK: usize = 500;
/// How long an agent may take between two chunks. It lists the store first.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a commit marker's key ends with.
const MARKER_SUFFIX: &str = ".meta";

/// The stream of RebuildWorkspaces.
pub type Answer = Pin<Box<dyn Stream<Item = Result<RebuildWorkspacesResponse, Status>> + Send>>;

/// Rebuilds rows.
#[derive(Debug)]
pub struct Rebuilder {
    pool: Pool,
    agents: Option<Agents>,
    default_image: String,
    stale_after: TimeDelta,
}

/// What the bucket and the hosts show.
#[derive(Debug, Default)]
struct Seen {
    found: Vec<Found>,
    damaged: Vec<String>,
    volumes: Vec<UnknownVolume>,
}

impl Rebuilder {
    /// Without a token there is no way to the agents.
    pub fn new(pool: Pool, token: Option<&Secret>, settings: &Settings) -> Self {
        Self {
            pool,
            agents: token.map(Agents::new),
            default_image: settings.default_image.clone(),
            stale_after: settings.policy.stale_after,
        }
    }

    /// Tells what would be done, or does it.
    pub async fn run(
        &self,
        caller: &Caller,
        request: RebuildWorkspacesRequest,
    ) -> Result<Answer, Status> {
        let seen = self.look().await?;
        let known = self.pool.known_workspaces().await;
        let known = known.map_err(errors::database)?;
        let rows: HashSet<String> = known.iter().map(|k| k.id.to_string()).collect();
        let unknown = |v: &UnknownVolume| !rows.contains(&v.workspace_id);
        let volumes: Vec<UnknownVolume> = seen.volumes.into_iter().filter(unknown).collect();
        let fallback = Fallback {
            owner: caller.name.clone(),
            image: self.default_image.clone(),
        };
        let mut items = plan(
            seen.found,
            &known,
            &volumes,
            &fallback,
            request.include_deleted,
        );
        if request.apply {
            for item in &mut items {
                self.carry_out(item, &caller.name).await?;
            }
        }
        let mut chunks: Vec<RebuildWorkspacesResponse> = vec![RebuildWorkspacesResponse {
            workspaces: Vec::new(),
            unknown_volumes: volumes,
            damaged_markers: seen.damaged,
            applied: request.apply,
        }];
        let mut items = items.into_iter().map(shown);
        loop {
            let workspaces: Vec<_> = items.by_ref().take(CHUNK).collect();
            if workspaces.is_empty() {
                break;
            }
            chunks.push(RebuildWorkspacesResponse {
                workspaces,
                applied: request.apply,
                ..RebuildWorkspacesResponse::default()
            });
        }
        Ok(Box::pin(tokio_stream::iter(chunks.into_iter().map(Ok))))
    }

    async fn look(&self) -> Result<Seen, Status> {
        let agents = self
            .agents
            .as_ref()
            .ok_or_else(errors::archives_not_configured)?;
        let hosts = self.pool.hosts().await.map_err(errors::database)?;
        let mut seen = Seen::default();
        let mut listed = false;
        for host in &hosts {
            let away = |status: &Status| {
                let status = handed_on(status);
                Status::with_details(
                    status.code(),
                    format!("host {}: {}", host.name, status.message()),
                    status.details().to_vec().into(),
                )
            };
            let agent = agents
                .client(&host.address)
                .map_err(|e| errors::agent_unavailable(&e.to_string()))?;
            let volumes = volumes(agent.clone(), &host.name).await;
            seen.volumes.extend(volumes.map_err(|s| away(&s))?);
            // All share one store.
            if !listed {
                archives(agent, &mut seen).await.map_err(|s| away(&s))?;
                listed = true;
            }
        }
        if listed {
            Ok(seen)
        } else {
            Err(errors::no_host())
        }
    }

    /// Does what the plan says; what became of it otherwise is said in the item.
    async fn carry_out(&self, item: &mut Item, actor: &str) -> Result<(), Status> {
        match item.action {
            RebuildAction::Create => {
                let rebuild = Rebuild {
                    id: item.id,
                    owner: item.owner.clone(),
                    names: item.names.clone(),
                    image: item.image.clone(),
                    archive_key: item.archive.key.clone(),
                    actor: actor.to_owned(),
                };
                let made = self.pool.rebuild_workspace(rebuild, self.stale_after).await;
                match made.map_err(errors::database)? {
                    Rebuilt::Created(name) => item.names = vec![name],
                    Rebuilt::Exists => item.action = RebuildAction::Exists,
                    Rebuilt::NamesTaken => conflict(item, "its names were taken meanwhile"),
                    Rebuilt::NoHost => return Err(errors::no_host()),
                }
            }
            RebuildAction::Undelete => {
                let undeleted = self.undelete(item.id, actor).await?;
                match undeleted {
                    Changed::Applied => {}
                    Changed::NotDeleted => item.action = RebuildAction::Exists,
                    Changed::NameTaken => {
                        conflict(item, NAME_TAKEN);
                    }
                    Changed::HomeGone
                    | Changed::Stale
                    | Changed::Missing
                    | Changed::Deleted
                    | Changed::ArchiveNotFound
                    | Changed::OverQuota(_) => {
                        conflict(item, NOTHING_LEFT);
                    }
                }
            }
            RebuildAction::Exists
            | RebuildAction::Deleted
            | RebuildAction::Conflict
            | RebuildAction::Unspecified => {}
        }
        Ok(())
    }

    async fn undelete(&self, id: WorkspaceId, actor: &str) -> Result<Changed, Status> {
        // It was its owner's before: no limit counts.
        let quota = Quota {
            per_user: i64::MAX,
            running_per_user: i64::MAX,
            running: i64::MAX,
        };
        let undeleted = self.pool.undelete_workspace(id, quota, actor.to_owned());
        undeleted.await.map_err(errors::database)
    }
}

fn conflict(item: &mut Item, note: &str) {
    item.action = RebuildAction::Conflict;
    item.note = note.to_owned();
}

fn shown(item: Item) -> RebuiltWorkspace {
    RebuiltWorkspace {
        id: item.id.to_string(),
        name: item.names.into_iter().next().unwrap_or_default(),
        owner: item.owner,
        image: item.image,
        archive: Some(item.archive),
        action: item.action.into(),
        note: item.note,
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    tokio::time::timeout(PATIENCE, stream.message())
        .await
        .unwrap_or_else(|_| Err(Status::unavailable("no answer in time")))
}

async fn first<T>(
    answer: impl Future<Output = Result<tonic::Response<Streaming<T>>, Status>>,
) -> Result<Streaming<T>, Status> {
    tokio::time::timeout(PATIENCE, answer)
        .await
        .unwrap_or_else(|_| Err(Status::unavailable("no answer in time")))
        .map(tonic::Response::into_inner)
}

async fn volumes(mut agent: AgentClient, host: &str) -> Result<Vec<UnknownVolume>, Status> {
    let mut stream = first(agent.list_volumes(ListVolumesRequest::default())).await?;
    let mut volumes = Vec::new();
    while let Some(chunk) = next(&mut stream).await? {
        volumes.extend(chunk.volumes.into_iter().map(|v| UnknownVolume {
            host: host.to_owned(),
            name: v.name,
            workspace_id: v.workspace_id,
            volume_id: v.volume_id,
        }));
    }
    Ok(volumes)
}

async fn archives(mut agent: AgentClient, seen: &mut Seen) -> Result<(), Status> {
    let request = ListArchivesRequest {
        refresh: true,
        include_loose: true,
        include_labels: true,
        ..ListArchivesRequest::default()
    };
    let mut stream = first(agent.list_archives(request)).await?;
    while let Some(chunk) = next(&mut stream).await? {
        if chunk.labels.len() != chunk.archives.len() {
            return Err(Status::unavailable(
                "the agent does not tell what markers say: upgrade it first",
            ));
        }
        let archives = chunk.archives.into_iter().zip(chunk.labels);
        let found = archives.map(|(archive, label)| Found { archive, label });
        seen.found.extend(found);
        let markers = chunk.loose.into_iter().map(|object| object.key);
        seen.damaged
            .extend(markers.filter(|k| k.ends_with(MARKER_SUFFIX)));
    }
    Ok(())
}
