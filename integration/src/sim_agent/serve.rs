//! The gRPC side of the simulated agent.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::{StreamExt, stream, stream::BoxStream};
use tonic::{Request, Response, Status};
use windlass_proto::v1::{
    self as v1, ArchiveScope, ListChangesRequest, ListChangesResponse,
    agent_service_server::AgentService,
};

use super::{
    Behaviour, Shared, State,
    changes::{archive_messages, chunks, end, entries, host_messages, list_time},
};

/// The service.
#[derive(Debug)]
pub struct Service(pub(super) Arc<Shared>);

type Stream<T> = BoxStream<'static, Result<T, Status>>;

impl Service {
    fn count(&self, counter: impl Fn(&super::Counters) -> &AtomicU64, by: u64) {
        counter(&self.0.counters).fetch_add(by, Ordering::SeqCst);
    }

    /// Waits while the agent hangs; then how it behaves.
    pub(super) async fn behaviour(&self) -> Result<Behaviour, Status> {
        let mut changes = self.0.behaviour.subscribe();
        let now = changes
            .wait_for(|b| !b.hang)
            .await
            .map_err(|_| Status::unavailable("gone"))?
            .clone();
        match now.refuse {
            true => Err(Status::unavailable("refused")),
            false => Ok(now),
        }
    }

    pub(super) fn with<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        read(&mut self.0.state.lock().expect("no panic holds it"))
    }
}

fn unimplemented<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("a simulated agent changes nothing"))
}

fn listed<T: Send + 'static>(messages: Vec<T>) -> Result<Response<Stream<T>>, Status> {
    Ok(Response::new(
        stream::iter(messages.into_iter().map(Ok)).boxed(),
    ))
}

#[tonic::async_trait]
impl AgentService for Service {
    type ListAllStream = Stream<v1::ListAllResponse>;
    type ListVolumesStream = Stream<v1::ListVolumesResponse>;
    type ListArchivesStream = Stream<v1::ListArchivesResponse>;
    type ListChangesStream = Stream<ListChangesResponse>;
    type WatchStream = Stream<v1::WatchResponse>;
    type ReadArchiveStream = Stream<v1::ReadArchiveResponse>;

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<Self::ListChangesStream>, Status> {
        let request = request.into_inner();
        self.count(|c| &c.list_changes, 1);
        self.count(|c| &c.proofs, request.prove.into());
        let scope = request.archive_scope();
        self.count(|c| &c.archive_all, (scope == ArchiveScope::All).into());
        let behaviour = self.behaviour().await?;
        if behaviour.old {
            return Err(Status::unimplemented("not in this version"));
        }
        let (host_asked, archives_asked) = match behaviour.forgetful {
            true => (String::new(), String::new()),
            false => (request.host_position, request.archive_position),
        };
        let (mut messages, end) = self.with(|state| {
            if request.prove && behaviour.host_error.is_none() {
                state.list_number += 1;
                state.listed = std::time::Instant::now();
            }
            let mut messages = Vec::new();
            if behaviour.host_error.is_none() {
                let (whole, host) = host_messages(state, &host_asked);
                self.count(|c| &c.wholes, whole.into());
                messages.extend(host.into_iter().map(|host| ListChangesResponse {
                    host: Some(host),
                    ..ListChangesResponse::default()
                }));
            }
            let seen = scope == ArchiveScope::Own || behaviour.archive_error.is_none();
            if seen && scope != ArchiveScope::Unspecified {
                let own = scope == ArchiveScope::Own;
                let archives = archive_messages(state, own, &archives_asked);
                messages.extend(archives.into_iter().map(|a| ListChangesResponse {
                    archives: Some(a),
                    ..ListChangesResponse::default()
                }));
            }
            (messages, end(state, scope, &behaviour))
        });
        if behaviour.reverse {
            messages.reverse();
        }
        if behaviour.duplicate {
            messages = messages.into_iter().flat_map(|m| [m.clone(), m]).collect();
        }
        self.count(|c| &c.entries, messages.iter().map(entries).sum());
        let mut cut = false;
        self.0.behaviour.send_if_modified(|b| {
            cut = b.cut > 0;
            b.cut = b.cut.saturating_sub(1);
            false
        });
        if !cut {
            messages.push(ListChangesResponse {
                end: Some(end),
                ..ListChangesResponse::default()
            });
        }
        listed(messages)
    }

    async fn list_all(
        &self,
        _request: Request<v1::ListAllRequest>,
    ) -> Result<Response<Self::ListAllStream>, Status> {
        self.count(|c| &c.lists, 1);
        if let Some(error) = self.behaviour().await?.host_error {
            return Err(Status::unavailable(error));
        }
        let (containers, jobs) = self.with(|s| (s.containers.all(), s.jobs.all()));
        let mut messages: Vec<_> = chunks(containers)
            .into_iter()
            .map(|containers| v1::ListAllResponse {
                containers,
                ..v1::ListAllResponse::default()
            })
            .collect();
        messages.extend(chunks(jobs).into_iter().map(|jobs| v1::ListAllResponse {
            jobs,
            ..v1::ListAllResponse::default()
        }));
        listed(messages)
    }

    async fn list_volumes(
        &self,
        _request: Request<v1::ListVolumesRequest>,
    ) -> Result<Response<Self::ListVolumesStream>, Status> {
        self.count(|c| &c.lists, 1);
        if let Some(error) = self.behaviour().await?.host_error {
            return Err(Status::unavailable(error));
        }
        let volumes = self.with(|s| s.volumes.all());
        let message = |volumes| v1::ListVolumesResponse { volumes };
        listed(chunks(volumes).into_iter().map(message).collect())
    }

    async fn list_archives(
        &self,
        _request: Request<v1::ListArchivesRequest>,
    ) -> Result<Response<Self::ListArchivesStream>, Status> {
        self.count(|c| &c.lists, 1);
        if let Some(error) = self.behaviour().await?.archive_error {
            return Err(Status::unavailable(error));
        }
        let (archives, restores, time) =
            self.with(|s| (s.archives.all(), s.restores.all(), list_time(s)));
        let mut messages: Vec<_> = chunks(archives)
            .into_iter()
            .map(|archives| v1::ListArchivesResponse {
                archives,
                ..v1::ListArchivesResponse::default()
            })
            .collect();
        messages.push(v1::ListArchivesResponse {
            restores,
            list_time: Some(time),
            ..v1::ListArchivesResponse::default()
        });
        listed(messages)
    }

    async fn watch(
        &self,
        _request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.count(|c| &c.watches, 1);
        let hints = self.0.hints.subscribe();
        let stream = stream::unfold(hints, async |mut hints| {
            use tokio::sync::broadcast::error::RecvError;
            match hints.recv().await {
                Ok(hint) => Some((Ok(hint), hints)),
                Err(RecvError::Lagged(_)) => Some((Ok(v1::WatchResponse::default()), hints)),
                Err(RecvError::Closed) => None,
            }
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn list_jobs(
        &self,
        _request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let jobs = self.with(|s| s.jobs.all());
        Ok(Response::new(v1::ListJobsResponse {
            jobs,
            truncated: false,
        }))
    }

    async fn read_archive(
        &self,
        _request: Request<v1::ReadArchiveRequest>,
    ) -> Result<Response<Self::ReadArchiveStream>, Status> {
        unimplemented()
    }

    async fn provision(
        &self,
        _request: Request<v1::ProvisionRequest>,
    ) -> Result<Response<v1::ProvisionResponse>, Status> {
        unimplemented()
    }

    async fn start(
        &self,
        request: Request<v1::StartRequest>,
    ) -> Result<Response<v1::StartResponse>, Status> {
        let job = self.start_at_once(request.into_inner().context).await?;
        Ok(Response::new(v1::StartResponse { job: Some(job) }))
    }

    async fn stop(
        &self,
        request: Request<v1::StopRequest>,
    ) -> Result<Response<v1::StopResponse>, Status> {
        let job = self.stop_at_once(request.into_inner().context).await?;
        Ok(Response::new(v1::StopResponse { job: Some(job) }))
    }

    async fn archive(
        &self,
        _request: Request<v1::ArchiveRequest>,
    ) -> Result<Response<v1::ArchiveResponse>, Status> {
        unimplemented()
    }

    async fn restore(
        &self,
        _request: Request<v1::RestoreRequest>,
    ) -> Result<Response<v1::RestoreResponse>, Status> {
        unimplemented()
    }

    async fn create_empty_archive(
        &self,
        _request: Request<v1::CreateEmptyArchiveRequest>,
    ) -> Result<Response<v1::CreateEmptyArchiveResponse>, Status> {
        unimplemented()
    }

    async fn delete_volume(
        &self,
        _request: Request<v1::DeleteVolumeRequest>,
    ) -> Result<Response<v1::DeleteVolumeResponse>, Status> {
        unimplemented()
    }

    async fn verify_archive(
        &self,
        _request: Request<v1::AgentServiceVerifyArchiveRequest>,
    ) -> Result<Response<v1::AgentServiceVerifyArchiveResponse>, Status> {
        unimplemented()
    }

    async fn delete_archives(
        &self,
        _request: Request<v1::DeleteArchivesRequest>,
    ) -> Result<Response<v1::DeleteArchivesResponse>, Status> {
        unimplemented()
    }

    async fn get_upstream(
        &self,
        _request: Request<v1::GetUpstreamRequest>,
    ) -> Result<Response<v1::GetUpstreamResponse>, Status> {
        unimplemented()
    }

    async fn get_host(
        &self,
        _request: Request<v1::GetHostRequest>,
    ) -> Result<Response<v1::GetHostResponse>, Status> {
        unimplemented()
    }
}
