//! The wire: requests checked and handed on, answers cut into chunks. Nothing is decided here.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use windlass_proto::v1::agent_service_server::AgentService;
use windlass_proto::{convert, v1};

use crate::docker::{Engine, State, VolumeInfo};
use crate::epochs::{Claim, Epochs};
use crate::error::{Failure, Reason};
use crate::host::Host;
use crate::index::{Index, Snapshot};
use crate::jobs::{Jobs, Task};
use crate::listing::Containers;
use crate::operations::{
    Archive, Checkpoint, CreateEmptyArchive, DeleteArchives, DeleteVolume, Provision, Restore,
    Start, Stop, Tools,
};
use crate::readers::Readers;
use crate::request;
use crate::watch::Hints;

/// Entries in one chunk.
const CHUNK: usize = 1000;

type Answer<T> = Result<Response<T>, Status>;
type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug, Clone)]
pub struct Agent {
    /// What operations work with.
    pub tools: Arc<Tools>,
    /// The jobs.
    pub jobs: Jobs,
    /// The containers.
    pub containers: Containers,
    /// The host's description.
    pub host: Host,
    /// Where hints come from.
    pub hints: Hints,
    /// Who reads archives.
    pub readers: Readers,
    /// Streams end with it.
    pub shutdown: CancellationToken,
}

impl Agent {
    fn engine(&self) -> &Engine {
        &self.tools.engine
    }

    fn index(&self) -> &Index {
        &self.tools.index
    }

    fn epochs(&self) -> &Epochs {
        &self.tools.epochs
    }

    fn prefix(&self, asked: String) -> String {
        if asked.is_empty() {
            self.engine().prefix().to_owned()
        } else {
            asked
        }
    }

    async fn submit<T: Task>(
        &self,
        context: Option<&v1::WorkContext>,
        task: T,
    ) -> Result<Option<v1::Job>, Status> {
        let context = request::context(context)?;
        let job = self.jobs.submit(context, task).await?;
        Ok(Some(job))
    }
}

#[tonic::async_trait]
impl AgentService for Agent {
    type ListAllStream = Chunks<v1::ListAllResponse>;
    type ListVolumesStream = Chunks<v1::ListVolumesResponse>;
    type ListArchivesStream = Chunks<v1::ListArchivesResponse>;
    type ListChangesStream = Chunks<v1::ListChangesResponse>;
    type WatchStream = Chunks<v1::WatchResponse>;
    type ReadArchiveStream = Chunks<v1::ReadArchiveResponse>;

    async fn list_all(&self, request: Request<v1::ListAllRequest>) -> Answer<Self::ListAllStream> {
        let prefix = self.prefix(request.into_inner().prefix);
        // Jobs first: one that ends meanwhile is then shown at work with what it did, not the reverse.
        let jobs = self.jobs.list(None);
        let containers = self.containers.list(&prefix).await.map_err(Failure::from)?;
        let containers = chunks(containers).map(|containers| v1::ListAllResponse {
            containers,
            jobs: Vec::new(),
        });
        let jobs = chunks(jobs).map(|jobs| v1::ListAllResponse {
            containers: Vec::new(),
            jobs,
        });
        Ok(streamed(containers.chain(jobs)))
    }

    async fn list_volumes(
        &self,
        request: Request<v1::ListVolumesRequest>,
    ) -> Answer<Self::ListVolumesStream> {
        let prefix = self.prefix(request.into_inner().prefix);
        let volumes = self.engine().list_volumes(&prefix).await;
        let volumes = volumes.map_err(Failure::from)?;
        Ok(streamed(chunks(volumes).map(|volumes| {
            v1::ListVolumesResponse {
                volumes: volumes.into_iter().map(volume).collect(),
            }
        })))
    }

    async fn list_archives(
        &self,
        request: Request<v1::ListArchivesRequest>,
    ) -> Answer<Self::ListArchivesStream> {
        let request = request.into_inner();
        let snapshot = if request.refresh {
            self.index().refresh().await?
        } else {
            self.index().snapshot()?
        };
        let prefix = format!("{}{}", self.tools.store.prefix(), request.prefix);
        let chunks = archive_chunks(&snapshot, &prefix, request.include_loose);
        let index = self.index().clone();
        Ok(streamed(chunks.map(move |mut chunk| {
            if request.include_labels {
                let keys = chunk.archives.iter().map(|a| a.key.as_str());
                chunk.labels = keys.map(|key| index.label(key)).collect();
            }
            chunk
        })))
    }

    async fn list_changes(
        &self,
        _: Request<v1::ListChangesRequest>,
    ) -> Answer<Self::ListChangesStream> {
        Err(tonic::Status::unimplemented(
            "the host model is not there yet",
        ))
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        let hints = self.hints.follow().map(Ok);
        let end = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(Box::pin(hints.take_until(end))))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Answer<v1::ListJobsResponse> {
        let workspace = request::optional_uuid("workspace_id", &request.into_inner().workspace_id)?;
        let jobs = self.jobs.list(workspace);
        Ok(Response::new(v1::ListJobsResponse { jobs }))
    }

    async fn provision(
        &self,
        request: Request<v1::ProvisionRequest>,
    ) -> Answer<v1::ProvisionResponse> {
        let request = request.into_inner();
        let replaces = request::optional_uuid("replaces_volume_id", &request.replaces_volume_id)?;
        let task = Provision {
            tools: self.tools.clone(),
            replaces,
        };
        let job = self.submit(request.context.as_ref(), task).await?;
        Ok(Response::new(v1::ProvisionResponse { job }))
    }

    async fn start(&self, request: Request<v1::StartRequest>) -> Answer<v1::StartResponse> {
        let request = request.into_inner();
        let task = Start {
            tools: self.tools.clone(),
            volume_id: request::uuid("volume_id", &request.volume_id)?,
            image: request::image(request.image)?,
            limits: request::limits(request.limits.as_ref())?,
        };
        let job = self.submit(request.context.as_ref(), task).await?;
        Ok(Response::new(v1::StartResponse { job }))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Answer<v1::StopResponse> {
        let request = request.into_inner();
        let task = Stop {
            tools: self.tools.clone(),
            grace: request::grace(request.grace.as_ref(), self.tools.docker.stop_grace)?,
        };
        let job = self.submit(request.context.as_ref(), task).await?;
        Ok(Response::new(v1::StopResponse { job }))
    }

    async fn archive(&self, request: Request<v1::ArchiveRequest>) -> Answer<v1::ArchiveResponse> {
        let request = request.into_inner();
        let context = request.context.as_ref();
        let tools = self.tools.clone();
        let volume_id = request::uuid("volume_id", &request.volume_id)?;
        let label = request::label(request.label)?;
        let job = if request.crash_consistent {
            let task = Checkpoint {
                tools,
                volume_id,
                label,
            };
            self.submit(context, task).await?
        } else {
            let task = Archive {
                tools,
                volume_id,
                label,
            };
            self.submit(context, task).await?
        };
        Ok(Response::new(v1::ArchiveResponse { job }))
    }

    async fn restore(&self, request: Request<v1::RestoreRequest>) -> Answer<v1::RestoreResponse> {
        let request = request.into_inner();
        let context = request::context(request.context.as_ref())?;
        let prefix = self.tools.store.prefix();
        let task = Restore {
            tools: self.tools.clone(),
            archive_key: request::archive_key(prefix, request.archive_key, context.workspace)?,
            replaces: request::optional_uuid("replaces_volume_id", &request.replaces_volume_id)?,
        };
        let job = self.submit(request.context.as_ref(), task).await?;
        Ok(Response::new(v1::RestoreResponse { job }))
    }

    async fn create_empty_archive(
        &self,
        request: Request<v1::CreateEmptyArchiveRequest>,
    ) -> Answer<v1::CreateEmptyArchiveResponse> {
        let request = request.into_inner();
        let task = CreateEmptyArchive {
            tools: self.tools.clone(),
            label: request::label(request.label)?,
        };
        let job = self.submit(request.context.as_ref(), task).await?;
        Ok(Response::new(v1::CreateEmptyArchiveResponse { job }))
    }

    async fn delete_volume(
        &self,
        request: Request<v1::DeleteVolumeRequest>,
    ) -> Answer<v1::DeleteVolumeResponse> {
        let request = request.into_inner();
        let context = request.context.clone();
        let workspace = request::context(context.as_ref())?.workspace;
        let task = DeleteVolume {
            tools: self.tools.clone(),
            keep: request::keep(self.tools.store.prefix(), workspace, request)?,
        };
        let job = self.submit(context.as_ref(), task).await?;
        Ok(Response::new(v1::DeleteVolumeResponse { job }))
    }

    async fn read_archive(
        &self,
        request: Request<v1::ReadArchiveRequest>,
    ) -> Answer<Self::ReadArchiveStream> {
        let v1::ReadArchiveRequest {
            workspace_id,
            archive_key,
        } = request.into_inner();
        let workspace = request::uuid("workspace_id", &workspace_id)?;
        let store = &self.tools.store;
        let key = request::archive_key(store.prefix(), archive_key, workspace)?;
        let (archive, data) = self.readers.read(store, key).await?;
        let first = v1::ReadArchiveResponse {
            archive: Some(archive),
            data: Vec::new(),
        };
        let data = data.map(|chunk| {
            Ok(v1::ReadArchiveResponse {
                archive: None,
                data: chunk?.into(),
            })
        });
        let stream = stream::iter([Ok(first)]).chain(data);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn verify_archive(
        &self,
        request: Request<v1::AgentServiceVerifyArchiveRequest>,
    ) -> Answer<v1::AgentServiceVerifyArchiveResponse> {
        let request = request.into_inner();
        let workspace = request::uuid("workspace_id", &request.workspace_id)?;
        let store = &self.tools.store;
        let key = request::archive_key(store.prefix(), request.archive_key, workspace)?;
        let archive = self.readers.verify(store, key).await?;
        Ok(Response::new(v1::AgentServiceVerifyArchiveResponse {
            archive: Some(archive),
        }))
    }

    async fn delete_archives(
        &self,
        request: Request<v1::DeleteArchivesRequest>,
    ) -> Answer<v1::DeleteArchivesResponse> {
        let request = request.into_inner();
        let epoch = request::epoch("epoch", request.epoch)?;
        request::keys(self.tools.store.prefix(), &request.keys)?;
        let age = request.abort_uploads_older_than.as_ref();
        let abort_uploads_older_than = age
            .map(|age| request::duration("abort_uploads_older_than", age))
            .transpose()?;
        self.epochs().admit(Claim::Gc(epoch)).await?;
        let work = DeleteArchives {
            tools: self.tools.clone(),
            jobs: self.jobs.clone(),
            keys: request.keys,
            abort_uploads_older_than,
        };
        // In a task of its own: a caller that hangs up leaves nothing half-done.
        let deleted = tokio::spawn(work.run())
            .await
            .map_err(windlass_service::internal)??;
        Ok(Response::new(v1::DeleteArchivesResponse {
            deleted_keys: deleted.deleted,
            failed_keys: deleted.failed.into_iter().collect(),
            aborted_uploads: deleted.aborted_uploads,
        }))
    }

    async fn get_upstream(
        &self,
        request: Request<v1::GetUpstreamRequest>,
    ) -> Answer<v1::GetUpstreamResponse> {
        let workspace = request::uuid("workspace_id", &request.into_inner().workspace_id)?;
        let name = self.tools.container(workspace);
        let found = self.engine().inspect_container(&name).await;
        let container = found
            .map_err(Failure::from)?
            .filter(|c| c.listed.workspace == Some(workspace))
            .ok_or_else(|| Failure::new(Reason::NotFound, "the workspace has no container"))?;
        let not_running = |why: &str| Failure::new(Reason::NotRunning, why);
        if container.listed.state != Some(State::Running) {
            return Err(not_running("the workspace's container does not run").into());
        }
        let port = self.tools.docker.workspace_port;
        let address: SocketAddr = container
            .ports
            .iter()
            .find(|(inside, _)| *inside == port)
            .map(|(_, address)| *address)
            .ok_or_else(|| not_running("the workspace's port is not published"))?;
        Ok(Response::new(v1::GetUpstreamResponse {
            address: address.to_string(),
        }))
    }

    async fn get_host(&self, _: Request<v1::GetHostRequest>) -> Answer<v1::GetHostResponse> {
        Ok(Response::new(self.host.describe().await))
    }
}

fn streamed<T: Send + 'static>(
    chunks: impl Iterator<Item = T> + Send + 'static,
) -> Response<Chunks<T>> {
    Response::new(Box::pin(stream::iter(chunks.map(Ok))))
}

/// Moves the entries into chunks, one at a time.
fn chunks<T>(entries: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut entries = entries.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<T> = entries.by_ref().take(CHUNK).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

fn volume(volume: VolumeInfo) -> v1::Volume {
    let text = |id: Option<uuid::Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    v1::Volume {
        name: volume.name,
        workspace_id: text(volume.workspace),
        volume_id: text(volume.volume_id),
    }
}

/// The snapshot in chunks, cloned only as they are sent. The first is there even if nothing is, to tell
/// the time of the list.
fn archive_chunks(
    snapshot: &Arc<Snapshot>,
    prefix: &str,
    loose: bool,
) -> impl Iterator<Item = v1::ListArchivesResponse> + use<> {
    let keys = |keys: Vec<&String>| -> Vec<String> {
        let wanted = keys.into_iter().filter(|key| key.starts_with(prefix));
        wanted.cloned().collect()
    };
    let archives = chunks(keys(snapshot.archives.keys().collect()));
    let restores = chunks(keys(snapshot.restores.keys().collect()));
    let loose_keys = if loose {
        keys(snapshot.loose.keys().collect())
    } else {
        Vec::new()
    };
    let list_time = Some(convert::timestamp(snapshot.list_time));
    let empty = v1::ListArchivesResponse {
        list_time,
        ..v1::ListArchivesResponse::default()
    };
    let (a, r, l) = (snapshot.clone(), snapshot.clone(), snapshot.clone());
    let archives = archives.map(move |keys| v1::ListArchivesResponse {
        archives: keys
            .iter()
            .filter_map(|k| a.archives.get(k).cloned())
            .collect(),
        list_time,
        ..v1::ListArchivesResponse::default()
    });
    let restores = restores.map(move |keys| v1::ListArchivesResponse {
        restores: keys
            .iter()
            .filter_map(|k| r.restores.get(k).cloned())
            .collect(),
        list_time,
        ..v1::ListArchivesResponse::default()
    });
    let loose = chunks(loose_keys).map(move |keys| v1::ListArchivesResponse {
        loose: keys
            .iter()
            .filter_map(|k| l.loose.get(k))
            .map(|object| v1::LooseObject {
                key: object.key.clone(),
                bytes: object.size,
                update_time: Some(convert::timestamp(object.last_modified)),
            })
            .collect(),
        list_time,
        ..v1::ListArchivesResponse::default()
    });
    std::iter::once(empty)
        .chain(archives)
        .chain(restores)
        .chain(loose)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_a_thousand() {
        let sizes: Vec<usize> = chunks(vec![0; 2500]).map(|c| c.len()).collect();
        assert_eq!(sizes, [1000, 1000, 500]);
        assert_eq!(chunks(Vec::<u8>::new()).count(), 0);
    }

    #[test]
    fn an_empty_list_still_tells_its_time() {
        let snapshot = Arc::new(Snapshot::default());
        let chunks: Vec<_> = archive_chunks(&snapshot, "", true).collect();
        assert_eq!(chunks.len(), 1);
        assert!(chunks[0].list_time.is_some());
    }
}
