//! The wire: requests checked and handed on. Nothing is decided here. What there is to be listed is in
//! [`observe`], cut into chunks by [`chunks`].

mod chunks;
mod observe;

use std::net::SocketAddr;
use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use windlass_proto::v1;
use windlass_proto::v1::agent_service_server::AgentService;

use crate::docker::{Engine, State};
use crate::epochs::{Claim, Epochs};
use crate::error::{Failure, Reason};
use crate::host::Host;
use crate::index::Index;
use crate::jobs::{Jobs, Task};
use crate::model::Model;
use crate::operations::{
    Archive, Checkpoint, CreateEmptyArchive, DeleteArchives, DeleteVolume, Provision, Restore,
    Start, Stop, Tools,
};
use crate::readers::Readers;
use crate::request;
use crate::watch::Hints;
use chunks::Chunks;

type Answer<T> = Result<Response<T>, Status>;

/// The service.
#[derive(Debug, Clone)]
pub struct Agent {
    /// What operations work with.
    pub tools: Arc<Tools>,
    /// The jobs.
    pub jobs: Jobs,
    /// What is known of the host.
    pub model: Model,
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
        self.all(request.into_inner().prefix).await
    }

    async fn list_volumes(
        &self,
        request: Request<v1::ListVolumesRequest>,
    ) -> Answer<Self::ListVolumesStream> {
        self.volumes(request.into_inner().prefix).await
    }

    async fn list_archives(
        &self,
        request: Request<v1::ListArchivesRequest>,
    ) -> Answer<Self::ListArchivesStream> {
        self.archives(request).await
    }

    async fn list_changes(
        &self,
        request: Request<v1::ListChangesRequest>,
    ) -> Answer<Self::ListChangesStream> {
        self.changes(request).await
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
        Ok(Response::new(observe::bounded(jobs, observe::MAX_JOBS)))
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
