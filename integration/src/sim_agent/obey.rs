//! Starting and stopping, carried out at once by an agent that obeys.

use tonic::Status;
use uuid::Uuid;
use windlass_domain::{WorkspaceId, names};
use windlass_proto::v1::{Job, JobState, Operation, WatchResponse, WorkContext};

use super::{PREFIX, State, running, serve::Service};

impl Service {
    pub(super) async fn start_at_once(&self, context: Option<WorkContext>) -> Result<Job, Status> {
        self.at_once(context, Operation::Starting, |state, workspace, op| {
            let container = running(workspace, op);
            state.containers.put(container.name.clone(), container);
        })
        .await
    }

    pub(super) async fn stop_at_once(&self, context: Option<WorkContext>) -> Result<Job, Status> {
        self.at_once(context, Operation::Stopping, |state, workspace, _| {
            let name = names::container(PREFIX, WorkspaceId(workspace));
            state.containers.remove(&name);
        })
        .await
    }

    async fn at_once(
        &self,
        context: Option<WorkContext>,
        operation: Operation,
        change: impl FnOnce(&mut State, Uuid, Uuid),
    ) -> Result<Job, Status> {
        if !self.behaviour().await?.obey {
            return Err(Status::unimplemented("this agent changes nothing"));
        }
        let context = context.ok_or_else(|| Status::invalid_argument("context"))?;
        let id = |text: &str| text.parse().map_err(|_| Status::invalid_argument("an id"));
        let (workspace, op) = (id(&context.workspace_id)?, id(&context.op_id)?);
        self.with(|state| change(state, workspace, op));
        // An error means that nobody watches.
        let _ = self.0.hints.send(WatchResponse {
            kind: "job/succeeded".to_owned(),
            workspace_id: context.workspace_id.clone(),
            time: None,
        });
        Ok(Job {
            workspace_id: context.workspace_id,
            op_id: context.op_id,
            attempt: context.attempt,
            operation: operation.into(),
            state: JobState::Succeeded.into(),
            ..Job::default()
        })
    }
}
