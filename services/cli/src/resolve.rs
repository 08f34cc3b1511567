//! From what a person types to the one workspace or host meant: a UUID, a name, or a unique prefix.
//!
//! An exact name wins over any prefix; what fits several is an error that lists them, never a guess.

use uuid::Uuid;
use windlass_proto::v1;

use crate::client::{Client, request};
use crate::error::CliError;
use crate::values::time;

const PAGE: i32 = 500;
/// The shortest prefix that is taken for one.
const SHORTEST: usize = 3;
/// How many candidates an error names.
const SHOWN: usize = 5;

/// What may be meant by a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Any workspace that is not deleted.
    Live,
    /// Deleted ones too, if no other fits.
    Deleted,
    /// As Live, but a prefix of a name does not suffice: for what cannot be taken back easily.
    Careful,
    /// As Deleted, with the same care.
    CarefulDeleted,
    /// Deleted ones alone, with the same care.
    Gone,
}

impl Scope {
    fn allows(self, w: &v1::Workspace) -> bool {
        self != Self::Gone || w.delete_time.is_some()
    }

    fn is_careful(self) -> bool {
        match self {
            Self::Live | Self::Deleted => false,
            Self::Careful | Self::CarefulDeleted | Self::Gone => true,
        }
    }
}

/// The workspace meant.
pub async fn workspace(
    client: &Client,
    text: &str,
    scope: Scope,
) -> Result<v1::Workspace, CliError> {
    if let Ok(id) = Uuid::try_parse(text) {
        let get = v1::GetWorkspaceRequest { id: id.to_string() };
        let answer = client.workspaces()?.get_workspace(request(get)).await;
        return Ok(answer.map_err(client.api_error())?.into_inner());
    }
    if !could_be_one(text) {
        return Err(CliError::Usage(format!(
            "{text:?} is neither an id nor a name of a workspace"
        )));
    }
    let shown: &[bool] = match scope {
        Scope::Deleted | Scope::CarefulDeleted => &[false, true],
        Scope::Live | Scope::Careful => &[false],
        Scope::Gone => &[true],
    };
    // A deleted one's name is exact too: it wins over a prefix of a live one's.
    for &deleted in shown {
        let named = list(client, &format!("name = \"{text}\""), "", deleted, None).await?;
        if let Some(found) = exactly(text, named, scope)? {
            return Ok(found);
        }
    }
    let mut alike = Vec::new();
    if text.len() >= SHORTEST {
        for &deleted in shown {
            let all = list(client, "", "", deleted, None).await?;
            alike = named_alike(text, &all, scope);
            if let Some(found) = by_prefix(text, all, scope)? {
                return Ok(found);
            }
        }
    }
    Err(nobody(text, scope, &alike))
}

/// Letters, digits and hyphens: names and UUIDs have no others, and a filter has to be safe from them.
fn could_be_one(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The one of that name; the one deleted last if an owner deleted several of it.
fn exactly(
    text: &str,
    candidates: Vec<v1::Workspace>,
    scope: Scope,
) -> Result<Option<v1::Workspace>, CliError> {
    let fits = |w: &v1::Workspace| scope.allows(w) && w.name == text;
    let mut fitting: Vec<_> = candidates.into_iter().filter(fits).collect();
    let owner = fitting.first().map(|w| w.owner.clone());
    let one_after_the_other =
        |w: &v1::Workspace| w.delete_time.is_some() && Some(&w.owner) == owner.as_ref();
    if fitting.iter().all(one_after_the_other) {
        fitting.sort_by_key(|w| time(w.delete_time.as_ref()));
        return Ok(fitting.pop());
    }
    the_only(text, fitting)
}

/// The one whose id or, without care, name begins so.
fn by_prefix(
    text: &str,
    candidates: Vec<v1::Workspace>,
    scope: Scope,
) -> Result<Option<v1::Workspace>, CliError> {
    let lower = text.to_ascii_lowercase();
    let by_name = !scope.is_careful();
    let begins =
        |w: &v1::Workspace| w.id.starts_with(&lower) || (by_name && w.name.starts_with(text));
    let fitting = candidates
        .into_iter()
        .filter(|w| scope.allows(w) && begins(w))
        .collect();
    the_only(text, fitting)
}

fn the_only(
    text: &str,
    mut fitting: Vec<v1::Workspace>,
) -> Result<Option<v1::Workspace>, CliError> {
    if fitting.len() > 1 {
        return Err(ambiguous(text, &fitting));
    }
    Ok(fitting.pop())
}

/// Those whose name begins so.
fn named_alike(text: &str, candidates: &[v1::Workspace], scope: Scope) -> Vec<v1::Workspace> {
    let alike = |w: &&v1::Workspace| scope.allows(w) && w.name.starts_with(text);
    candidates.iter().filter(alike).cloned().collect()
}

/// Nothing fits: what was looked for, and how it can be named. Only with care names begin so that do not fit.
fn nobody(text: &str, scope: Scope, alike: &[v1::Workspace]) -> CliError {
    let mut message = match scope {
        Scope::Live | Scope::Deleted | Scope::Careful => format!("no workspace {text:?}"),
        Scope::CarefulDeleted => format!("no workspace {text:?}, deleted or not"),
        Scope::Gone => format!("no deleted workspace {text:?}"),
    };
    if scope.is_careful() && (!alike.is_empty() || text.len() < SHORTEST) {
        message += &format!(
            ": a name has to be whole here; of an id, its first {SHORTEST} characters or more will do"
        );
    }
    if !alike.is_empty() {
        message += &format!("; names that begin so: {}", listed(alike));
    }
    CliError::NotFound(message)
}

fn ambiguous(text: &str, fitting: &[v1::Workspace]) -> CliError {
    CliError::Usage(format!(
        "{text:?} fits {} workspaces: {}",
        fitting.len(),
        listed(fitting)
    ))
}

/// The first few, for an error.
fn listed(workspaces: &[v1::Workspace]) -> String {
    let mut shown: Vec<String> = workspaces
        .iter()
        .take(SHOWN)
        .map(|w| format!("{} ({}, owner {})", w.id, w.name, w.owner))
        .collect();
    if workspaces.len() > SHOWN {
        shown.push(format!("and {} more", workspaces.len() - SHOWN));
    }
    shown.join(", ")
}

/// All workspaces of a filter, page by page, up to `limit`.
pub async fn list(
    client: &Client,
    filter: &str,
    order_by: &str,
    deleted: bool,
    limit: Option<usize>,
) -> Result<Vec<v1::Workspace>, CliError> {
    let mut service = client.workspaces()?;
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let message = v1::ListWorkspacesRequest {
            page_size: PAGE,
            page_token,
            filter: filter.to_owned(),
            order_by: order_by.to_owned(),
            show_deleted: deleted,
        };
        let answer = service.list_workspaces(request(message)).await;
        let page = answer.map_err(client.api_error())?.into_inner();
        all.extend(page.workspaces);
        let enough = limit.is_some_and(|limit| all.len() >= limit);
        if page.next_page_token.is_empty() || enough {
            all.truncate(limit.unwrap_or(usize::MAX));
            return Ok(all);
        }
        page_token = page.next_page_token;
    }
}

/// The id of the host meant: a UUID as it is, else the host of that name.
pub fn host(hosts: &[v1::Host], text: &str) -> Result<String, CliError> {
    if let Ok(id) = Uuid::try_parse(text) {
        return Ok(id.to_string());
    }
    let found = hosts.iter().find(|host| host.name == text);
    found
        .map(|host| host.id.clone())
        .ok_or_else(|| CliError::NotFound(format!("no host {text:?}")))
}

#[cfg(test)]
mod tests;
