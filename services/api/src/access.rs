//! Who sees what: a user their own workspaces, an admin all of them. What is not in view is answered as
//! if it were not there.

use tonic::{Request, Status};
use windlass_db::{WorkspaceRecord, write::api::Author};
use windlass_domain::UserId;
use windlass_service::{Identity, TraceContext, error::internal};

/// The user behind a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub id: UserId,
    pub name: String,
    pub admin: bool,
}

impl Caller {
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let identity = Identity::of(request)?;
        let id = identity
            .user_id
            .ok_or_else(|| internal("an identity that is no user reached the api"))?;
        Ok(Self {
            id: UserId(id),
            name: identity.name.clone(),
            admin: identity.admin,
        })
    }

    /// Whom a change is by, and in which trace.
    pub fn author(&self) -> Author {
        Author {
            name: self.name.clone(),
            trace: TraceContext::current().map(|context| context.to_string()),
        }
    }

    /// The owner whose workspaces are in view; `None`: everybody's.
    pub fn view(&self) -> Option<UserId> {
        (!self.admin).then_some(self.id)
    }

    pub fn sees(&self, record: &WorkspaceRecord) -> bool {
        self.view().is_none_or(|owner| owner == record.owner_id)
    }
}
