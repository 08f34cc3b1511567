//! The gRPC side of the simulated agent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream, stream::BoxStream};
use tonic::{Request, Response, Status};
use windlass_proto::v1::{
    self as v1, ArchiveChanges, ArchiveScope, ChangesEnd, HostChanges, ListChangesRequest,
    ListChangesResponse, agent_service_server::AgentService,
};

use super::{Behaviour, Shared, State};

/// Entries in one message at most.
const CHUNK: usize = 1000;

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

/// `instance.word.a.b.c`: where a caller stands in each log of one life.
fn position(state: &State, word: &str, revisions: &[u64]) -> String {
    let numbers: Vec<String> = revisions.iter().map(u64::to_string).collect();
    format!("{}.{word}.{}", state.instance.simple(), numbers.join("."))
}

/// The revisions of a position; `None`: not known.
fn known(state: &State, word: &str, position: &str) -> Option<Vec<u64>> {
    let rest = position.strip_prefix(&format!("{}.{word}.", state.instance.simple()))?;
    rest.split('.').map(|n| n.parse().ok()).collect()
}

fn chunks<T>(mut all: Vec<T>) -> Vec<Vec<T>> {
    let mut chunks = Vec::new();
    while all.len() > CHUNK {
        let rest = all.split_off(CHUNK);
        chunks.push(std::mem::replace(&mut all, rest));
    }
    if !all.is_empty() {
        chunks.push(all);
    }
    chunks
}

fn host_messages(state: &State, asked: &str) -> (bool, Vec<HostChanges>) {
    let since = known(state, "h", asked);
    let whole = since.is_none();
    let at = |n: usize| since.as_ref().and_then(|s| s.get(n)).copied().unwrap_or(0);
    let (containers, removed_containers) = state.containers.since(at(0));
    let (volumes, removed_volumes) = state.volumes.since(at(1));
    let (jobs, removed_jobs) = state.jobs.since(at(2));
    let mut messages = Vec::new();
    messages.extend(
        chunks(containers)
            .into_iter()
            .map(|containers| HostChanges {
                containers,
                ..HostChanges::default()
            }),
    );
    messages.extend(chunks(volumes).into_iter().map(|volumes| HostChanges {
        volumes,
        ..HostChanges::default()
    }));
    messages.extend(chunks(jobs).into_iter().map(|jobs| HostChanges {
        jobs,
        ..HostChanges::default()
    }));
    let gone =
        !(removed_containers.is_empty() && removed_volumes.is_empty() && removed_jobs.is_empty());
    if !whole && gone {
        messages.push(HostChanges {
            removed_containers,
            removed_volumes,
            removed_jobs,
            ..HostChanges::default()
        });
    }
    if whole && messages.is_empty() {
        messages.push(HostChanges::default());
    }
    messages.iter_mut().for_each(|m| m.whole = whole);
    (whole, messages)
}

fn archive_messages(state: &State, own: bool, asked: &str) -> Vec<ArchiveChanges> {
    let (word, archives, restores) = match own {
        true => ("o", &state.own_archives, &state.own_restores),
        false => ("a", &state.archives, &state.restores),
    };
    let since = known(state, word, asked);
    let whole = since.is_none();
    let at = |n: usize| since.as_ref().and_then(|s| s.get(n)).copied().unwrap_or(0);
    let (archives, removed_archives) = archives.since(at(0));
    let (restores, removed_restores) = restores.since(at(1));
    let mut messages = Vec::new();
    messages.extend(chunks(archives).into_iter().map(|archives| ArchiveChanges {
        archives,
        ..ArchiveChanges::default()
    }));
    messages.extend(chunks(restores).into_iter().map(|restores| ArchiveChanges {
        restores,
        ..ArchiveChanges::default()
    }));
    // What it deleted itself is told with the whole, too: another's list may still show it.
    let gone = !(removed_archives.is_empty() && removed_restores.is_empty());
    if gone && (own || !whole) {
        messages.push(ArchiveChanges {
            removed_archives,
            removed_restores,
            ..ArchiveChanges::default()
        });
    }
    if whole && messages.is_empty() {
        messages.push(ArchiveChanges::default());
    }
    messages.iter_mut().for_each(|m| m.whole = whole);
    messages
}

fn entries(message: &ListChangesResponse) -> u64 {
    let host = message.host.as_ref().map_or(0, |h| {
        h.containers.len()
            + h.volumes.len()
            + h.jobs.len()
            + h.removed_containers.len()
            + h.removed_volumes.len()
            + h.removed_jobs.len()
    });
    let archives = message.archives.as_ref().map_or(0, |a| {
        a.archives.len() + a.restores.len() + a.removed_archives.len() + a.removed_restores.len()
    });
    (host + archives) as u64
}

fn end(state: &State, scope: ArchiveScope, behaviour: &Behaviour) -> ChangesEnd {
    let age = state.listed.elapsed();
    let revisions = match scope {
        ArchiveScope::Own => [state.own_archives.revision(), state.own_restores.revision()],
        ArchiveScope::All | ArchiveScope::Unspecified => {
            [state.archives.revision(), state.restores.revision()]
        }
    };
    let word = match scope {
        ArchiveScope::Own => "o",
        ArchiveScope::All | ArchiveScope::Unspecified => "a",
    };
    let host = [
        state.containers.revision(),
        state.volumes.revision(),
        state.jobs.revision(),
    ];
    ChangesEnd {
        host_position: position(state, "h", &host),
        list_number: state.list_number,
        list_age: Some(duration(age)),
        host_error: behaviour.host_error.clone().unwrap_or_default(),
        archive_position: position(state, word, &revisions),
        archive_list_time: (scope == ArchiveScope::All).then_some(list_time(state)),
        archive_error: behaviour
            .archive_error
            .clone()
            .filter(|_| scope == ArchiveScope::All)
            .unwrap_or_default(),
    }
}

fn duration(d: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: d.as_secs() as i64,
        nanos: d.subsec_nanos() as i32,
    }
}

fn list_time(state: &State) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: 1_700_000_000 + state.store_listed,
        nanos: 0,
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
