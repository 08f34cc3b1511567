//! One call to an agent, and what its answer means for the operation.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};
use windlass_coordinator::{AgentClient, Agents, Lease};
use windlass_db::WorkspaceRecord;
use windlass_domain::{
    ErrorReason, OpId, VolumeId,
    error_reason::Failure,
    planner::{Action, Call},
};
use windlass_proto::{
    convert,
    v1::{
        ArchiveRequest, CreateEmptyArchiveRequest, DeleteVolumeRequest, Job, JobState, Limits,
        ProvisionRequest, RestoreRequest, StartRequest, StopRequest, WorkContext, WorkspaceLabel,
    },
};
use windlass_service::{
    Backoff,
    error::{metadata_of, reason_of},
};

/// How long an agent may take to answer. Long work goes on in the agent; what answers when it is done
/// (Provision, DeleteVolume) is asked again.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long an agent that cannot be reached is tried before that counts as one failure: longer than a
/// restart takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an answer means.
#[derive(Debug)]
pub enum Answer {
    /// The job is done; the observer will see it.
    Done,
    /// The job goes on.
    UnderWay,
    /// The agent is busy, or serves another leader: the next pass asks again.
    NotNow,
    /// The attempt failed.
    Failed(Failure),
}

/// A call with everything it needs.
#[derive(Debug)]
pub struct Order {
    /// The operation.
    pub op_id: OpId,
    /// The attempt.
    pub attempt: u32,
    action: Action,
    context: WorkContext,
    label: WorkspaceLabel,
    limits: Limits,
    stop_grace: Duration,
}

impl Order {
    /// `call` for the workspace of `record`.
    pub fn new(record: &WorkspaceRecord, call: Call, lease: &Lease, stop_grace: Duration) -> Self {
        let ws = &record.workspace;
        Self {
            op_id: call.op_id,
            attempt: call.attempt,
            context: WorkContext {
                workspace_id: ws.id.to_string(),
                op_id: call.op_id.to_string(),
                attempt: call.attempt,
                epoch: lease.epoch.0,
                shard: lease.shard.index(),
                shards: lease.shard.count(),
            },
            label: WorkspaceLabel {
                name: ws.spec.name.clone(),
                owner: ws.spec.owner.clone(),
                image: ws.spec.image.clone(),
            },
            limits: convert::limits(ws.spec.limits),
            action: call.action,
            stop_grace,
        }
    }

    /// Makes the call.
    pub async fn place(&self, agents: &Agents, address: &str) -> Answer {
        let agent = match agents.client(address) {
            Ok(agent) => agent,
            Err(error) => return failed(ErrorReason::Unreachable, error.to_string()),
        };
        let began = Instant::now();
        let mut pauses = Backoff::CALL.pauses();
        let status = loop {
            let call = tokio::time::timeout(DEADLINE, self.send(agent.clone()));
            match call.await {
                Ok(Ok(job)) => return answer_of(job),
                Ok(Err(status)) if !is_transport(&status) => return refusal(&status),
                Ok(Err(status)) => {
                    if began.elapsed() > PATIENCE {
                        break status;
                    }
                    let pause = pauses.next().unwrap_or(Backoff::CALL.max);
                    tokio::time::sleep(pause).await;
                }
                // What takes longer than the deadline is asked again by the next pass.
                Err(_) => return Answer::NotNow,
            }
        };
        failed(
            ErrorReason::Unreachable,
            format!(
                "the agent at {address} cannot be reached: {}",
                status.message()
            ),
        )
    }

    async fn send(&self, mut agent: AgentClient) -> Result<Option<Job>, Status> {
        let context = Some(self.context.clone());
        let label = Some(self.label.clone());
        let id = |v: &Option<VolumeId>| v.map(|v| v.to_string()).unwrap_or_default();
        macro_rules! job {
            ($call:expr) => {
                $call.await?.into_inner().job
            };
        }
        Ok(match &self.action {
            Action::Provision { replaces } => job!(agent.provision(ProvisionRequest {
                context,
                replaces_volume_id: id(replaces),
            })),
            Action::Start { volume_id } => job!(agent.start(StartRequest {
                context,
                image: self.label.image.clone(),
                volume_id: volume_id.to_string(),
                limits: Some(self.limits),
            })),
            Action::Stop => job!(
                agent.stop(StopRequest {
                    context,
                    grace: chrono::TimeDelta::from_std(self.stop_grace)
                        .ok()
                        .map(convert::duration),
                })
            ),
            Action::Archive { volume_id } => job!(agent.archive(ArchiveRequest {
                context,
                volume_id: volume_id.to_string(),
                label,
                crash_consistent: false,
            })),
            Action::Checkpoint { volume_id } => job!(agent.archive(ArchiveRequest {
                context,
                volume_id: volume_id.to_string(),
                label,
                crash_consistent: true,
            })),
            Action::Restore {
                archive_key,
                replaces,
            } => job!(agent.restore(RestoreRequest {
                context,
                archive_key: archive_key.clone(),
                replaces_volume_id: id(replaces),
            })),
            Action::CreateEmptyArchive => {
                job!(agent.create_empty_archive(CreateEmptyArchiveRequest { context, label }))
            }
            Action::DeleteArchivedVolume {
                volume_id,
                archive_key,
                sha256,
            } => job!(agent.delete_volume(DeleteVolumeRequest {
                context,
                volume_id: volume_id.to_string(),
                archive_key: archive_key.clone(),
                sha256: sha256.clone(),
                discard_home: false,
            })),
            Action::DiscardVolume { volume_id } => job!(agent.delete_volume(DeleteVolumeRequest {
                context,
                volume_id: id(volume_id),
                discard_home: true,
                ..DeleteVolumeRequest::default()
            })),
        })
    }
}

fn failed(reason: ErrorReason, message: String) -> Answer {
    Answer::Failed(Failure { reason, message })
}

fn answer_of(job: Option<Job>) -> Answer {
    match job.map(|j| j.state()) {
        Some(JobState::Succeeded) => Answer::Done,
        Some(JobState::Queued | JobState::Running | JobState::Unspecified) | None => {
            Answer::UnderWay
        }
        // A failed job is answered with its error; if it is not, observing it tells.
        Some(JobState::Failed) => Answer::UnderWay,
    }
}

/// No agent has spoken: the connection failed or broke.
fn is_transport(status: &Status) -> bool {
    reason_of(status).is_none()
        && matches!(
            status.code(),
            Code::Unavailable | Code::Cancelled | Code::Unknown
        )
}

/// What an agent's refusal means.
fn refusal(status: &Status) -> Answer {
    match reason_of(status).as_deref() {
        Some("BUSY" | "QUEUE_FULL" | "OVERLOADED" | "DRAINING" | "DEADLINE") => {
            tracing::debug!(%status, "not now");
            Answer::NotNow
        }
        // Deposed, or PostgreSQL was restored to an older state: see docs/operations.md.
        Some("STALE_EPOCH") => {
            tracing::warn!(%status, "the agent has seen a newer leader and refuses this one");
            metrics::counter!("windlass_wc_stale_epoch_total").increment(1);
            Answer::NotNow
        }
        // While the service token is replaced, the two sides may not have the same one yet.
        Some("TOKEN_INVALID" | "TOKEN_MISSING") => {
            tracing::warn!(%status, "the agent does not know this service's token");
            Answer::NotNow
        }
        Some(_) | None => {
            let reason = metadata_of(status, "error_reason")
                .and_then(|r| r.parse().ok())
                .unwrap_or(ErrorReason::ActionFailed);
            failed(reason, status.message().to_owned())
        }
    }
}
