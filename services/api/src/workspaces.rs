//! WorkspaceService, thin: check, store or read, answer. What a method decides stands in `validate`, in
//! the database's transaction, or in the domain.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use windlass_db::{
    Pool, WorkspaceRecord,
    read::{ListQuery, PageStart},
    write::api::{Changed, Created},
};
use windlass_domain::WorkspaceId;
use windlass_proto::{
    convert::{InvalidField, timestamp},
    v1::{self, workspace_service_server::WorkspaceService},
};
use windlass_service::{Identity, error::internal};

use crate::{
    access::Caller,
    archives::{Archives, Download},
    auth::token_of,
    config::Settings,
    errors, explain, filter, page, present,
    publish::Publisher,
    rebuild::{self, Rebuilder},
    validate,
    watch::{Stream, Watch},
};

#[derive(Debug)]
pub struct Workspaces {
    pool: Pool,
    settings: Arc<Settings>,
    publisher: Publisher,
    watch: Watch,
    archives: Archives,
    rebuilder: Rebuilder,
}

type Answer<T> = Result<Response<T>, Status>;

impl Workspaces {
    pub fn new(
        pool: Pool,
        settings: Settings,
        publisher: Publisher,
        watch: Watch,
        archives: Archives,
        rebuilder: Rebuilder,
    ) -> Self {
        Self {
            pool,
            settings: Arc::new(settings),
            publisher,
            watch,
            archives,
            rebuilder,
        }
    }

    async fn read(&self, id: WorkspaceId) -> Result<Option<WorkspaceRecord>, Status> {
        self.pool.workspace(id).await.map_err(errors::database)
    }

    async fn in_view(&self, caller: &Caller, id: WorkspaceId) -> Result<WorkspaceRecord, Status> {
        let record = self.read(id).await?;
        record
            .filter(|record| caller.sees(record))
            .ok_or_else(errors::workspace_not_found)
    }

    /// The workspace that a request's `id` names.
    async fn named<T>(
        &self,
        request: &Request<T>,
        id: &str,
    ) -> Result<(Caller, WorkspaceRecord), Status> {
        let caller = Caller::of(request)?;
        let id = validate::workspace_id("id", id).map_err(errors::invalid)?;
        about(id);
        let record = self.in_view(&caller, id).await?;
        Ok((caller, record))
    }

    async fn answer(&self, id: WorkspaceId) -> Answer<v1::Workspace> {
        let record = self
            .read(id)
            .await?
            .ok_or_else(errors::workspace_not_found)?;
        Ok(Response::new(present::workspace(&record)))
    }

    async fn changed(&self, id: WorkspaceId, changed: Changed) -> Answer<v1::Workspace> {
        match changed {
            Changed::Applied => {
                self.publisher.changed();
                self.answer(id).await
            }
            Changed::Stale => Err(errors::etag_mismatch()),
            Changed::Missing => Err(errors::workspace_not_found()),
            Changed::Deleted => Err(errors::workspace_deleted()),
            Changed::NotDeleted => Err(errors::not_deleted()),
            Changed::HomeGone => Err(errors::home_gone()),
            Changed::ArchiveNotFound => Err(errors::archive_not_found()),
            Changed::NameTaken => Err(errors::name_taken()),
            Changed::OverQuota(over) => Err(errors::over_quota(over, self.settings.quota)),
        }
    }
}

/// Tells log and trace which workspace the call is about.
fn about(id: WorkspaceId) {
    tracing::Span::current().record("workspace_id", tracing::field::display(id));
}

#[tonic::async_trait]
impl WorkspaceService for Workspaces {
    async fn create_workspace(
        &self,
        request: Request<v1::CreateWorkspaceRequest>,
    ) -> Answer<v1::Workspace> {
        let caller = Caller::of(&request)?;
        let image = &self.settings.default_image;
        let new =
            validate::create(request.into_inner(), &caller, image).map_err(errors::invalid)?;
        let quota = self.settings.quota;
        let stale_after = self.settings.policy.stale_after;
        let created = self.pool.create_workspace(new, quota, stale_after).await;
        match created.map_err(errors::database)? {
            Created::New(id) => {
                about(id);
                self.publisher.changed();
                self.answer(id).await
            }
            Created::Earlier(id) => self.answer(id).await,
            Created::NameTaken => Err(errors::name_taken()),
            Created::OverQuota(over) => Err(errors::over_quota(over, quota)),
            Created::NoHost => Err(errors::no_host()),
        }
    }

    async fn get_workspace(
        &self,
        request: Request<v1::GetWorkspaceRequest>,
    ) -> Answer<v1::Workspace> {
        let (_, record) = self.named(&request, &request.get_ref().id).await?;
        Ok(Response::new(present::workspace(&record)))
    }

    async fn list_workspaces(
        &self,
        request: Request<v1::ListWorkspacesRequest>,
    ) -> Answer<v1::ListWorkspacesResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let size = page::size(request.page_size).map_err(errors::invalid)?;
        let (order_by, descending) = page::order_by(&request.order_by).map_err(errors::invalid)?;
        let filter = filter::parse(&request.filter)
            .map_err(|why| errors::invalid(InvalidField::new("filter", why)))?;
        let list = ListQuery {
            owner: caller.view(),
            filter,
            order_by,
            descending,
            show_deleted: request.show_deleted,
            after: page::start(&request).map_err(errors::invalid)?,
            // One more tells whether there is a next page.
            limit: size + 1,
        };
        let records = self.pool.list_workspaces(&list).await;
        let mut records = records.map_err(errors::database)?;
        let page = usize::try_from(size).map_err(internal)?;
        let more = records.len() > page;
        records.truncate(page);
        let next_page_token = match records.last() {
            Some(last) if more => page::token(&request, &PageStart::after(last, order_by)),
            Some(_) | None => String::new(),
        };
        Ok(Response::new(v1::ListWorkspacesResponse {
            workspaces: records.iter().map(present::workspace).collect(),
            next_page_token,
        }))
    }

    async fn update_workspace(
        &self,
        request: Request<v1::UpdateWorkspaceRequest>,
    ) -> Answer<v1::Workspace> {
        let caller = Caller::of(&request)?;
        let image = &self.settings.default_image;
        let update = validate::update(request.into_inner(), image).map_err(errors::invalid)?;
        about(update.id);
        self.in_view(&caller, update.id).await?;
        let changed = self
            .pool
            .update_workspace(
                update.id,
                update.seen,
                update.changes,
                self.settings.quota,
                caller.author(),
            )
            .await;
        self.changed(update.id, changed.map_err(errors::database)?)
            .await
    }

    async fn delete_workspace(
        &self,
        request: Request<v1::DeleteWorkspaceRequest>,
    ) -> Answer<v1::Workspace> {
        let asked = request.get_ref();
        let seen = validate::etag("etag", &asked.etag).map_err(errors::invalid)?;
        let discard_home = asked.discard_home;
        let (caller, record) = self.named(&request, &asked.id).await?;
        let id = record.workspace.id;
        let changed = self
            .pool
            .delete_workspace(id, seen, discard_home, caller.author())
            .await;
        self.changed(id, changed.map_err(errors::database)?).await
    }

    async fn undelete_workspace(
        &self,
        request: Request<v1::UndeleteWorkspaceRequest>,
    ) -> Answer<v1::Workspace> {
        let (caller, record) = self.named(&request, &request.get_ref().id).await?;
        let id = record.workspace.id;
        let quota = self.settings.quota;
        let changed = self
            .pool
            .undelete_workspace(id, quota, caller.author())
            .await;
        self.changed(id, changed.map_err(errors::database)?).await
    }

    async fn restore_workspace(
        &self,
        request: Request<v1::RestoreWorkspaceRequest>,
    ) -> Answer<v1::Workspace> {
        let asked = request.get_ref();
        let seen = validate::etag("etag", &asked.etag).map_err(errors::invalid)?;
        let key = validate::archive_key(&asked.archive_key).map_err(errors::invalid)?;
        let (caller, record) = self.named(&request, &asked.id).await?;
        let id = record.workspace.id;
        let changed = self
            .pool
            .restore_workspace(id, seen, key, caller.author())
            .await;
        self.changed(id, changed.map_err(errors::database)?).await
    }

    type WatchWorkspacesStream = Stream;

    async fn watch_workspaces(
        &self,
        request: Request<v1::WatchWorkspacesRequest>,
    ) -> Answer<Stream> {
        let caller = Caller::of(&request)?;
        let token = token_of(&request)?;
        let request = request.into_inner();
        let id = if request.id.is_empty() {
            None
        } else {
            let id = validate::workspace_id("id", &request.id).map_err(errors::invalid)?;
            Some(self.in_view(&caller, id).await?.workspace.id)
        };
        let stream = self
            .watch
            .open(caller, token, id, &request.resume_token)
            .await?;
        Ok(Response::new(stream))
    }

    async fn explain_workspace(
        &self,
        request: Request<v1::ExplainWorkspaceRequest>,
    ) -> Answer<v1::ExplainWorkspaceResponse> {
        let (_, record) = self.named(&request, &request.get_ref().id).await?;
        let history = self.pool.history(record.workspace.id, explain::HISTORY);
        let history = history.await.map_err(errors::database)?;
        let now = self.pool.now().await.map_err(errors::database)?;
        let place = explain::place(&self.pool, &record, &self.settings.policy).await;
        let place = place.map_err(errors::database)?;
        let response = explain::response(&record, place, history, &self.settings, now);
        Ok(Response::new(response))
    }

    async fn keep_awake(
        &self,
        request: Request<v1::KeepAwakeRequest>,
    ) -> Answer<v1::KeepAwakeResponse> {
        let asked = request.get_ref();
        let duration = validate::lease(asked.duration.as_ref()).map_err(errors::invalid)?;
        let (_, record) = self.named(&request, &asked.id).await?;
        let until = self.pool.keep_awake(record.workspace.id, duration).await;
        let until = until
            .map_err(errors::database)?
            .ok_or_else(errors::workspace_deleted)?;
        self.publisher.changed();
        Ok(Response::new(v1::KeepAwakeResponse {
            expire_time: until.map(timestamp),
        }))
    }

    async fn list_workspace_archives(
        &self,
        request: Request<v1::ListWorkspaceArchivesRequest>,
    ) -> Answer<v1::ListWorkspaceArchivesResponse> {
        let (_, record) = self.named(&request, &request.get_ref().id).await?;
        Ok(Response::new(v1::ListWorkspaceArchivesResponse {
            archives: present::archives(&record),
        }))
    }

    type DownloadArchiveStream = Download;

    async fn download_archive(
        &self,
        request: Request<v1::DownloadArchiveRequest>,
    ) -> Answer<Download> {
        let (_, record) = self.named(&request, &request.get_ref().id).await?;
        let key = request.into_inner().archive_key;
        Ok(Response::new(self.archives.download(&record, key).await?))
    }

    type RebuildWorkspacesStream = rebuild::Answer;

    async fn rebuild_workspaces(
        &self,
        request: Request<v1::RebuildWorkspacesRequest>,
    ) -> Answer<rebuild::Answer> {
        Identity::of(&request)?.require_admin()?;
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let applied = request.apply;
        let answer = self.rebuilder.run(&caller, request).await?;
        if applied {
            self.publisher.changed();
        }
        Ok(Response::new(answer))
    }

    async fn verify_archive(
        &self,
        request: Request<v1::VerifyArchiveRequest>,
    ) -> Answer<v1::VerifyArchiveResponse> {
        let (_, record) = self.named(&request, &request.get_ref().id).await?;
        let key = request.into_inner().archive_key;
        Ok(Response::new(self.archives.verify(&record, key).await?))
    }
}
