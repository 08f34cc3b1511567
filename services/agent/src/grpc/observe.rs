//! What there is: lists of the engine and the store as they are now, and what changed since.

use std::time::Duration;

use tonic::Request;
use windlass_proto::convert;
use windlass_proto::v1::{self, ArchiveScope};
use windlass_service::{grpc_timeout, invalid_argument};

use super::chunks::{Chunks, chunks, of_archives, of_host, of_listing, streamed};
use super::{Agent, Answer};
use crate::error::Failure;
use crate::feed::{foreign_containers, volume_wire};
use crate::index;
use crate::model::{Delta, HostEntry, HostKey, Position};

/// Longest time an answer waits for a first list, of the engine or of the store.
const FIRST_LIST: Duration = Duration::from_secs(8);
/// Jobs in an answer that comes as one message: 2.5 MB if every failure is told in the longest words.
pub(super) const MAX_JOBS: usize = 1_000;

impl Agent {
    pub(super) async fn all(&self, prefix: String) -> Answer<Chunks<v1::ListAllResponse>> {
        // Jobs first: one that ends meanwhile is then shown at work with what it did, not the reverse.
        let jobs = self.jobs.list(None);
        let containers = if self.is_own(&prefix) {
            self.model.prove_half().await?;
            self.model.containers()?
        } else {
            let found = foreign_containers(self.engine(), &prefix).await;
            found.map_err(Failure::from)?
        };
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

    pub(super) async fn volumes(&self, prefix: String) -> Answer<Chunks<v1::ListVolumesResponse>> {
        let volumes: Vec<v1::Volume> = if self.is_own(&prefix) {
            self.model.prove_half().await?;
            self.model.volumes()?
        } else {
            let found = self.engine().list_volumes(&prefix).await;
            let found = found.map_err(Failure::from)?;
            found.into_iter().map(volume_wire).collect()
        };
        Ok(streamed(
            chunks(volumes).map(|volumes| v1::ListVolumesResponse { volumes }),
        ))
    }

    fn is_own(&self, prefix: &str) -> bool {
        prefix.is_empty() || prefix == self.engine().prefix()
    }

    pub(super) async fn archives(
        &self,
        request: Request<v1::ListArchivesRequest>,
    ) -> Answer<Chunks<v1::ListArchivesResponse>> {
        let wait = patience(&request);
        let request = request.into_inner();
        let prefix = format!("{}{}", self.tools.store.prefix(), request.prefix);
        let listing = match (request.prefix.is_empty(), request.refresh) {
            (true, true) => self.index().refresh().await?,
            (true, false) => self.index().all(wait).await?,
            (false, true) => self.index().list_under(&prefix).await?,
            (false, false) => self.index().under(&prefix).await?,
        };
        let index = self.index().clone();
        let chunks = of_listing(listing, request.include_loose).map(move |mut chunk| {
            if request.include_labels {
                let keys = chunk.archives.iter().map(|a| a.key.as_str());
                chunk.labels = keys.map(|key| index.label(key)).collect();
            }
            chunk
        });
        Ok(streamed(chunks))
    }

    pub(super) async fn changes(
        &self,
        request: Request<v1::ListChangesRequest>,
    ) -> Answer<Chunks<v1::ListChangesResponse>> {
        let wait = patience(&request);
        let request = request.into_inner();
        let scope = ArchiveScope::try_from(request.archive_scope)
            .map_err(|_| invalid_argument("archive_scope", "not a scope"))?;
        // The units know nothing of each other: neither waits longer, or tells less, for the other's sake
        // than it has to in order to share the last message.
        let host = self.host_since(&request, wait);
        let archives = self.archives_since(&request, scope, wait);
        let (host, archives) = tokio::join!(host, archives);

        let mut end = v1::ChangesEnd::default();
        let host = match host {
            Ok(delta) => {
                end.host_position = delta.position.to_string();
                Some(delta)
            }
            Err(failure) => {
                end.host_position = request.host_position;
                end.host_error = failure.to_string();
                None
            }
        };
        if let Some(proof) = self.model.proof() {
            end.list_number = proof.number;
            end.list_age = prost_types::Duration::try_from(proof.began.elapsed()).ok();
        }
        let archives = match archives {
            Ok(Some(index::Told { delta, list_time })) => {
                end.archive_position = delta.position.to_string();
                end.archive_list_time = list_time.map(convert::timestamp);
                Some(delta)
            }
            Ok(None) => None,
            Err(failure) => {
                end.archive_position = request.archive_position;
                end.archive_error = failure.to_string();
                end.archive_list_time = self.index().list_time().map(convert::timestamp);
                None
            }
        };
        let end = v1::ListChangesResponse {
            end: Some(end),
            ..v1::ListChangesResponse::default()
        };
        let host = host.into_iter().flat_map(of_host);
        let archives = archives.into_iter().flat_map(of_archives);
        Ok(streamed(host.chain(archives).chain([end])))
    }

    async fn host_since(
        &self,
        request: &v1::ListChangesRequest,
        wait: Duration,
    ) -> Result<Delta<HostKey, HostEntry>, Failure> {
        if request.prove {
            self.model.prove().await?;
        } else {
            self.model.ready(wait).await;
        }
        self.model.since(position(&request.host_position))
    }

    async fn archives_since(
        &self,
        request: &v1::ListChangesRequest,
        scope: ArchiveScope,
        wait: Duration,
    ) -> Result<Option<index::Told>, Failure> {
        let position = position(&request.archive_position);
        match scope {
            ArchiveScope::Unspecified => Ok(None),
            ArchiveScope::Own => Ok(Some(self.index().own_since(position))),
            ArchiveScope::All => self.index().all_since(position, wait).await.map(Some),
        }
    }
}

/// At most so many of them, in the order they were in: what has ended makes room for what goes on.
pub(super) fn bounded(mut jobs: Vec<v1::Job>, most: usize) -> v1::ListJobsResponse {
    let truncated = jobs.len() > most;
    let going_on = jobs.iter().filter(|job| job.end_time.is_none()).count();
    let (mut room, mut room_for_ended) = (most, most.saturating_sub(going_on));
    jobs.retain(|job| {
        let room = match job.end_time {
            None => &mut room,
            Some(_) => &mut room_for_ended,
        };
        let fits = *room > 0;
        *room = room.saturating_sub(1);
        fits
    });
    v1::ListJobsResponse { jobs, truncated }
}

/// What is no position is one that nobody knows: the answer is the whole.
fn position(text: &str) -> Option<Position> {
    text.parse().ok()
}

/// How long a first list may be waited for: less than the caller waits, so that it is told what there is.
fn patience<T>(request: &Request<T>) -> Duration {
    let asked = grpc_timeout(request.metadata().as_ref());
    asked.map_or(FIRST_LIST, |asked| FIRST_LIST.min(asked.mul_f64(0.7)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_list_is_waited_for_less_than_the_caller_waits() {
        let mut request = Request::new(());
        assert_eq!(patience(&request), FIRST_LIST);
        request.set_timeout(Duration::from_secs(1));
        let wait = patience(&request);
        assert!(wait > Duration::from_millis(500) && wait < Duration::from_secs(1));
    }

    #[test]
    fn jobs_that_go_on_are_left_out_last_and_the_order_stays() {
        // The even ones have ended.
        let told = |most| {
            let jobs = (0..6).map(|n| v1::Job {
                op_id: n.to_string(),
                end_time: (n % 2 == 0).then(prost_types::Timestamp::default),
                ..v1::Job::default()
            });
            let told = bounded(jobs.collect(), most);
            let ids: String = told.jobs.into_iter().map(|job| job.op_id).collect();
            (ids, told.truncated)
        };
        assert_eq!(told(6), ("012345".to_owned(), false));
        assert_eq!(told(4), ("0135".to_owned(), true));
        assert_eq!(told(2), ("13".to_owned(), true));
    }
}
