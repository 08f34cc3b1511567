//! What users do with workspaces, and waiting until it is done.

use windlass_proto::v1::{
    CreateWorkspaceRequest, DeleteWorkspaceRequest, DesiredState, GetWorkspaceRequest, Operation,
    Phase, UpdateWorkspaceRequest, Workspace,
};

use crate::{World, clients::Workspaces, wait};

impl World {
    /// Creates a workspace that should run.
    pub async fn create(&self, name: &str) -> Workspace {
        self.create_as(name, DesiredState::Running).await
    }

    /// Creates a workspace.
    pub async fn create_as(&self, name: &str, desired: DesiredState) -> Workspace {
        let workspace = Workspace {
            name: name.to_owned(),
            desired_state: desired.into(),
            ..Workspace::default()
        };
        let request = CreateWorkspaceRequest {
            workspace: Some(workspace),
            request_id: String::new(),
        };
        self.workspaces()
            .create_workspace(request)
            .await
            .expect("created")
            .into_inner()
    }

    /// The workspace as it is now.
    pub async fn get(&self, id: &str) -> Workspace {
        let request = GetWorkspaceRequest { id: id.to_owned() };
        self.workspaces()
            .get_workspace(request)
            .await
            .expect("found")
            .into_inner()
    }

    /// Says what a workspace should be.
    pub async fn desire(&self, id: &str, desired: DesiredState) -> Workspace {
        let workspace = Workspace {
            id: id.to_owned(),
            desired_state: desired.into(),
            ..Workspace::default()
        };
        self.update(workspace, &["desired_state"]).await
    }

    /// Changes fields of a workspace.
    pub async fn update(&self, workspace: Workspace, paths: &[&str]) -> Workspace {
        let request = UpdateWorkspaceRequest {
            workspace: Some(workspace),
            update_mask: Some(prost_types::FieldMask {
                paths: paths.iter().map(|&p| p.to_owned()).collect(),
            }),
        };
        self.workspaces()
            .update_workspace(request)
            .await
            .expect("updated")
            .into_inner()
    }

    /// Deletes a workspace.
    pub async fn delete(&self, id: &str, discard_home: bool) -> Workspace {
        let request = DeleteWorkspaceRequest {
            id: id.to_owned(),
            etag: String::new(),
            discard_home,
        };
        self.workspaces()
            .delete_workspace(request)
            .await
            .expect("deleted")
            .into_inner()
    }

    /// Waits until a workspace is in `phase` with nothing in progress.
    pub async fn phase(&self, id: &str, phase: Phase) -> Workspace {
        self.until(id, &format!("{phase:?}"), |ws| {
            ws.phase() == phase && ws.operation() == Operation::None
        })
        .await
    }

    /// Waits until a workspace is as wanted. Survives the api being away meanwhile.
    pub async fn until(
        &self,
        id: &str,
        what: &str,
        wanted: impl Fn(&Workspace) -> bool,
    ) -> Workspace {
        let mut client: Workspaces = self.workspaces();
        let request = GetWorkspaceRequest { id: id.to_owned() };
        let what = format!("{what} of workspace {id}");
        wait::until(
            &what,
            async || {
                client
                    .get_workspace(request.clone())
                    .await
                    .map(|w| w.into_inner())
            },
            |answer| answer.as_ref().is_ok_and(&wanted),
        )
        .await
        .expect("the wanted answer is one")
    }
}
