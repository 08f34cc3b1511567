//! An api for tests: it lists what it is given, and its watch streams follow a script.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::Stream;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use windlass_proto::v1;
use windlass_proto::v1::workspace_service_server::{WorkspaceService, WorkspaceServiceServer};

use crate::args::Connection;
use crate::client::Client;
use crate::settings::Settings;

/// What one watch stream sends before it ends, or the refusal it begins with.
pub type Script = Result<Vec<v1::WatchWorkspacesResponse>, Status>;

/// The api's state.
#[derive(Default)]
pub struct Fake {
    /// What there is.
    pub workspaces: Vec<v1::Workspace>,
    /// One per watch call.
    pub scripts: Mutex<VecDeque<Script>>,
    /// The resume tokens that watch calls came with.
    pub resumed: Mutex<Vec<String>>,
    /// What a download sends.
    pub download: Mutex<Vec<Result<v1::DownloadArchiveResponse, Status>>>,
    /// What ListWorkspaceArchives answers.
    pub archives: Vec<v1::ArchiveInfo>,
    /// The ids that DeleteWorkspace was called with.
    pub deleted: Mutex<Vec<String>>,
}

impl Fake {
    /// Serves it on loopback, and makes a client for it.
    pub async fn serve(self) -> (Client, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Arc::new(self);
        let service = WorkspaceServiceServer::from_arc(fake.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let settings = Settings::load(&Connection {
            addr: Some(address.to_string()),
            token: Some("t".to_owned()),
            ..Connection::default()
        });
        (Client::new(settings.unwrap()), fake)
    }
}

impl Fake {
    fn the_first(
        &self,
        fits: impl Fn(&&v1::Workspace) -> bool,
    ) -> Result<Response<v1::Workspace>, Status> {
        let found = self.workspaces.iter().find(fits).cloned();
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found("no such workspace"))
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this fake"))
}

#[tonic::async_trait]
impl WorkspaceService for Fake {
    async fn list_workspaces(
        &self,
        request: Request<v1::ListWorkspacesRequest>,
    ) -> Result<Response<v1::ListWorkspacesResponse>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer t");
        let message = request.into_inner();
        let name = message
            .filter
            .strip_prefix("name = \"")
            .map(|n| n.trim_end_matches('"'));
        // Pages of two, the token being the place to go on.
        let from: usize = message.page_token.parse().unwrap_or(0);
        let fitting: Vec<v1::Workspace> = self
            .workspaces
            .iter()
            .filter(|w| name.is_none_or(|name| w.name == name))
            .filter(|w| message.show_deleted || w.delete_time.is_none())
            .cloned()
            .collect();
        let next_page_token = match from + 2 < fitting.len() {
            true => (from + 2).to_string(),
            false => String::new(),
        };
        Ok(Response::new(v1::ListWorkspacesResponse {
            workspaces: fitting.into_iter().skip(from).take(2).collect(),
            next_page_token,
        }))
    }

    async fn get_workspace(
        &self,
        request: Request<v1::GetWorkspaceRequest>,
    ) -> Result<Response<v1::Workspace>, Status> {
        let id = request.into_inner().id;
        self.the_first(|w| w.id == id)
    }

    type WatchWorkspacesStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchWorkspacesResponse, Status>> + Send>>;

    async fn watch_workspaces(
        &self,
        request: Request<v1::WatchWorkspacesRequest>,
    ) -> Result<Response<Self::WatchWorkspacesStream>, Status> {
        self.resumed
            .lock()
            .unwrap()
            .push(request.into_inner().resume_token);
        let script = self.scripts.lock().unwrap().pop_front();
        match script {
            Some(script) => {
                let messages = script?.into_iter().map(Ok);
                Ok(Response::new(Box::pin(futures::stream::iter(messages))))
            }
            // Out of script: nothing happens any more.
            None => Ok(Response::new(Box::pin(futures::stream::pending()))),
        }
    }

    /// As a repeated create: with the one of that name that there is.
    async fn create_workspace(
        &self,
        request: Request<v1::CreateWorkspaceRequest>,
    ) -> Result<Response<v1::Workspace>, Status> {
        let name = request.into_inner().workspace.unwrap_or_default().name;
        self.the_first(|w| w.name == name)
    }
    async fn update_workspace(
        &self,
        _: Request<v1::UpdateWorkspaceRequest>,
    ) -> Result<Response<v1::Workspace>, Status> {
        not_here()
    }
    async fn delete_workspace(
        &self,
        request: Request<v1::DeleteWorkspaceRequest>,
    ) -> Result<Response<v1::Workspace>, Status> {
        let id = request.into_inner().id;
        self.deleted.lock().unwrap().push(id.clone());
        self.the_first(|w| w.id == id)
    }
    async fn undelete_workspace(
        &self,
        _: Request<v1::UndeleteWorkspaceRequest>,
    ) -> Result<Response<v1::Workspace>, Status> {
        not_here()
    }
    async fn restore_workspace(
        &self,
        _: Request<v1::RestoreWorkspaceRequest>,
    ) -> Result<Response<v1::Workspace>, Status> {
        not_here()
    }
    async fn explain_workspace(
        &self,
        _: Request<v1::ExplainWorkspaceRequest>,
    ) -> Result<Response<v1::ExplainWorkspaceResponse>, Status> {
        not_here()
    }
    async fn keep_awake(
        &self,
        _: Request<v1::KeepAwakeRequest>,
    ) -> Result<Response<v1::KeepAwakeResponse>, Status> {
        not_here()
    }
    async fn list_workspace_archives(
        &self,
        _: Request<v1::ListWorkspaceArchivesRequest>,
    ) -> Result<Response<v1::ListWorkspaceArchivesResponse>, Status> {
        let archives = self.archives.clone();
        Ok(Response::new(v1::ListWorkspaceArchivesResponse {
            archives,
        }))
    }
    type DownloadArchiveStream =
        Pin<Box<dyn Stream<Item = Result<v1::DownloadArchiveResponse, Status>> + Send>>;

    async fn download_archive(
        &self,
        _: Request<v1::DownloadArchiveRequest>,
    ) -> Result<Response<Self::DownloadArchiveStream>, Status> {
        let chunks = std::mem::take(&mut *self.download.lock().unwrap());
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }
    type RebuildWorkspacesStream =
        Pin<Box<dyn Stream<Item = Result<v1::RebuildWorkspacesResponse, Status>> + Send>>;

    async fn rebuild_workspaces(
        &self,
        _: Request<v1::RebuildWorkspacesRequest>,
    ) -> Result<Response<Self::RebuildWorkspacesStream>, Status> {
        not_here()
    }

    async fn verify_archive(
        &self,
        _: Request<v1::VerifyArchiveRequest>,
    ) -> Result<Response<v1::VerifyArchiveResponse>, Status> {
        not_here()
    }
}
