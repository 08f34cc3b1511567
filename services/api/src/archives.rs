//! Archives read through an agent. All agents share one store, so any that answers will do; the
//! workspace's own host is asked first.
//!
//! A download is handed on chunk by chunk: the client's pace is the agent's, and nothing is kept here.

use std::pin::Pin;
use std::time::Duration;

use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Status};
use windlass_coordinator::{AgentClient, Agents};
use windlass_db::{Pool, WorkspaceRecord};
use windlass_proto::v1;
use windlass_service::{Secret, reason_of};

use crate::errors;

/// How long an agent may take to begin: it reads a marker first.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// The stream of DownloadArchive.
pub type Download = Pin<Box<dyn Stream<Item = Result<v1::DownloadArchiveResponse, Status>> + Send>>;

/// The way to the agents.
#[derive(Debug)]
pub struct Archives {
    pool: Pool,
    agents: Option<Agents>,
}

impl Archives {
    /// Without a token there is no way.
    pub fn new(pool: Pool, token: Option<&Secret>) -> Self {
        Self {
            pool,
            agents: token.map(Agents::new),
        }
    }

    /// The archive at `archive_key`, if it is one of this workspace.
    pub async fn download(
        &self,
        record: &WorkspaceRecord,
        archive_key: String,
    ) -> Result<Download, Status> {
        let request = v1::ReadArchiveRequest {
            workspace_id: record.workspace.id.to_string(),
            archive_key,
        };
        let ask = |mut agent: AgentClient| {
            let request = request.clone();
            async move {
                let answer = agent.read_archive(request);
                tokio::time::timeout(FIRST_ANSWER, answer)
                    .await
                    .unwrap_or_else(|_| Err(Status::unavailable("no answer in time")))
            }
        };
        let stream = self.first_answer(record, ask).await?.into_inner();
        Ok(Box::pin(stream.map(|message| {
            let v1::ReadArchiveResponse { archive, data } = message.map_err(|s| handed_on(&s))?;
            Ok(v1::DownloadArchiveResponse { archive, data })
        })))
    }

    /// Reads it back and compares it with its marker.
    pub async fn verify(
        &self,
        record: &WorkspaceRecord,
        archive_key: String,
    ) -> Result<v1::VerifyArchiveResponse, Status> {
        let request = v1::AgentServiceVerifyArchiveRequest {
            workspace_id: record.workspace.id.to_string(),
            archive_key,
        };
        let ask = |mut agent: AgentClient| {
            let request = request.clone();
            async move { agent.verify_archive(request).await }
        };
        let archive = self.first_answer(record, ask).await?.into_inner().archive;
        Ok(v1::VerifyArchiveResponse { archive })
    }

    /// Asks one agent after the other until one answers.
    async fn first_answer<T, F>(
        &self,
        record: &WorkspaceRecord,
        ask: impl Fn(AgentClient) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let agents = self
            .agents
            .as_ref()
            .ok_or_else(errors::archives_not_configured)?;
        let mut hosts = self.pool.hosts().await.map_err(errors::database)?;
        hosts.sort_by_key(|host| host.id != record.workspace.host_id);
        let mut last = errors::agent_unavailable("there is no host");
        for host in hosts {
            let Ok(agent) = agents.client(&host.address) else {
                continue;
            };
            match ask(agent).await {
                Ok(answer) => return Ok(answer),
                Err(status) => {
                    let next = may_pass_elsewhere(&status);
                    tracing::debug!(host = host.name, %status, "an agent refused");
                    last = handed_on(&status);
                    if !next {
                        break;
                    }
                }
            }
        }
        Err(last)
    }
}

/// Whether it was this agent that could not, and not the archive.
fn may_pass_elsewhere(status: &Status) -> bool {
    reason_of(status).is_none()
        || matches!(
            status.code(),
            Code::Unavailable | Code::Unauthenticated | Code::ResourceExhausted
        )
}

/// An agent's refusal as our own, without the headers it came with.
pub fn handed_on(status: &Status) -> Status {
    match (status.code(), reason_of(status)) {
        (Code::Unauthenticated, _) => errors::archives_not_configured(),
        (_, None) => errors::agent_unavailable(status.message()),
        (code, Some(_)) => {
            Status::with_details(code, status.message(), status.details().to_vec().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_service::{ErrorKind, error::refuse};

    use super::*;

    #[test]
    fn only_what_the_agent_lacks_is_asked_of_another() {
        let corrupted = refuse(ErrorKind::FailedPrecondition, "ARCHIVE_CORRUPTED", "x");
        assert!(!may_pass_elsewhere(&corrupted));
        let away = refuse(ErrorKind::Unavailable, "STORE_UNAVAILABLE", "x");
        assert!(may_pass_elsewhere(&away));
        assert!(may_pass_elsewhere(&Status::unavailable(
            "tcp connect error"
        )));
        assert!(may_pass_elsewhere(&Status::unauthenticated("x")));
    }

    #[test]
    fn a_refusal_keeps_its_reason() {
        let corrupted = refuse(ErrorKind::FailedPrecondition, "ARCHIVE_CORRUPTED", "x");
        let status = handed_on(&corrupted);
        assert_eq!(reason_of(&status).as_deref(), Some("ARCHIVE_CORRUPTED"));
        let status = handed_on(&Status::unavailable("tcp connect error"));
        assert_eq!(reason_of(&status).as_deref(), Some("AGENT_UNAVAILABLE"));
        let status = handed_on(&Status::unauthenticated("x"));
        let reason = reason_of(&status);
        assert_eq!(reason.as_deref(), Some("ARCHIVES_NOT_CONFIGURED"));
    }
}
