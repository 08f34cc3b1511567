//! Requests to what the database stores. Pure; every error names its field by the path in the request.

use chrono::TimeDelta;
use http::Uri;
use uuid::Uuid;
use windlass_db::write::api::{Changes, NewWorkspace};
use windlass_domain::{DesiredState, WorkspaceId, control::Limits, names};
use windlass_proto::{
    convert::{self, InvalidField},
    v1,
};

use crate::access::Caller;

/// Longest TTL: ten years.
pub const MAX_TTL: TimeDelta = TimeDelta::days(3653);
const MIN_TTL: TimeDelta = TimeDelta::seconds(1);
const MIN_CHECKPOINT_INTERVAL: TimeDelta = TimeDelta::minutes(1);
const MAX_CHECKPOINT_INTERVAL: TimeDelta = TimeDelta::days(30);
/// Longest lease of KeepAwake.
const MAX_LEASE: TimeDelta = TimeDelta::days(7);
/// Longest text of a client that an error repeats.
const QUOTED: usize = 64;

type Result<T> = std::result::Result<T, InvalidField>;

/// A change of a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub id: WorkspaceId,
    /// The generation the client saw, if it cares.
    pub seen: Option<i64>,
    pub changes: Changes,
}

pub fn workspace_id(field: &str, text: &str) -> Result<WorkspaceId> {
    convert::uuid(field, text).map(WorkspaceId)
}

pub fn create(
    request: v1::CreateWorkspaceRequest,
    caller: &Caller,
    default_image: &str,
) -> Result<NewWorkspace> {
    let request_id = convert::optional_uuid("request_id", &request.request_id)?;
    let workspace = request
        .workspace
        .ok_or_else(|| InvalidField::new("workspace", "is required"))?;
    let desired = if workspace.desired_state == i32::from(v1::DesiredState::Unspecified) {
        DesiredState::Running
    } else {
        desired_state(workspace.desired_state)?
    };
    let limits = match &workspace.limits {
        Some(limits) => convert::limits_from("workspace.limits", limits)?,
        None => Limits::default(),
    };
    Ok(NewWorkspace {
        id: WorkspaceId(Uuid::new_v4()),
        owner: caller.id,
        author: caller.author(),
        request_id,
        name: name(workspace.name)?,
        description: description(workspace.description)?,
        image: image(workspace.image, default_image)?,
        limits,
        standby_ttl: ttl("workspace.standby_ttl", workspace.standby_ttl.as_ref())?,
        archive_ttl: ttl("workspace.archive_ttl", workspace.archive_ttl.as_ref())?,
        checkpoint_interval: checkpoint_interval(workspace.checkpoint_interval.as_ref())?,
        desired,
    })
}

pub fn update(request: v1::UpdateWorkspaceRequest, default_image: &str) -> Result<Update> {
    let workspace = request
        .workspace
        .ok_or_else(|| InvalidField::new("workspace", "is required"))?;
    let id = workspace_id("workspace.id", &workspace.id)?;
    let seen = etag("workspace.etag", &workspace.etag)?;
    let paths = request.update_mask.unwrap_or_default().paths;
    if paths.is_empty() {
        return Err(InvalidField::new(
            "update_mask",
            "must name at least one field",
        ));
    }
    let mut changes = Changes::default();
    for path in &paths {
        change(path, &workspace, default_image, &mut changes)?;
    }
    Ok(Update { id, seen, changes })
}

fn change(
    path: &str,
    workspace: &v1::Workspace,
    default_image: &str,
    changes: &mut Changes,
) -> Result<()> {
    let limits = |keep: fn(&v1::Limits) -> v1::Limits| {
        let masked = keep(&workspace.limits.unwrap_or_default());
        convert::limits_from("workspace.limits", &masked)
    };
    match path {
        "name" => changes.name = Some(name(workspace.name.clone())?),
        "description" => {
            changes.description = Some(description(workspace.description.clone())?);
        }
        "image" => changes.image = Some(image(workspace.image.clone(), default_image)?),
        "desired_state" => changes.desired = Some(desired_state(workspace.desired_state)?),
        "standby_ttl" => {
            let given = workspace.standby_ttl.as_ref();
            changes.standby_ttl = Some(ttl("workspace.standby_ttl", given)?);
        }
        "archive_ttl" => {
            let given = workspace.archive_ttl.as_ref();
            changes.archive_ttl = Some(ttl("workspace.archive_ttl", given)?);
        }
        "checkpoint_interval" => {
            let given = workspace.checkpoint_interval.as_ref();
            changes.checkpoint_interval = Some(checkpoint_interval(given)?);
        }
        "limits" => {
            let all = limits(|l| *l)?;
            changes.cpu_millis = Some(all.cpu_millis);
            changes.memory_bytes = Some(all.memory_bytes);
            changes.pids = Some(all.pids);
        }
        "limits.cpu_millis" => {
            let cpu = limits(|l| v1::Limits {
                cpu_millis: l.cpu_millis,
                ..v1::Limits::default()
            })?;
            changes.cpu_millis = Some(cpu.cpu_millis);
        }
        "limits.memory_bytes" => {
            let memory = limits(|l| v1::Limits {
                memory_bytes: l.memory_bytes,
                ..v1::Limits::default()
            })?;
            changes.memory_bytes = Some(memory.memory_bytes);
        }
        "limits.pids" => {
            let pids = limits(|l| v1::Limits {
                pids: l.pids,
                ..v1::Limits::default()
            })?;
            changes.pids = Some(pids.pids);
        }
        other => {
            let shown: String = other.chars().take(QUOTED).collect();
            return Err(InvalidField::new(
                "update_mask",
                format!("{shown:?} is no field that can be changed"),
            ));
        }
    }
    Ok(())
}

/// The generation behind an etag; empty is none.
pub fn etag(field: &str, text: &str) -> Result<Option<i64>> {
    if text.is_empty() {
        return Ok(None);
    }
    // from_str_radix alone would take a sign.
    let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
    i64::from_str_radix(text, 16)
        .ok()
        .filter(|_| digits)
        .map(Some)
        .ok_or_else(|| InvalidField::new(field, "is no etag of this server"))
}

/// Key of an archive. Whether there is one is asked of the database.
pub fn archive_key(text: &str) -> Result<String> {
    if text.is_empty() {
        return Err(InvalidField::new("archive_key", "must not be empty"));
    }
    Ok(text.to_owned())
}

/// How long KeepAwake is to hold.
pub fn lease(duration: Option<&prost_types::Duration>) -> Result<TimeDelta> {
    let field = "duration";
    let duration = duration.ok_or_else(|| InvalidField::new(field, "is required"))?;
    let delta = convert::delta(field, duration)?;
    if delta < TimeDelta::zero() || delta > MAX_LEASE {
        return Err(InvalidField::new(field, "must be between 0 and 7 days"));
    }
    Ok(delta)
}

/// Name of a host: unlike a workspace's, it may begin with a digit.
pub fn host_name(field: &str, name: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=names::MAX_NAME).contains(&name.len()) && name.bytes().all(good) {
        Ok(())
    } else {
        Err(InvalidField::new(
            field,
            "must have 1 to 63 characters: lower-case letters, digits and hyphens",
        ))
    }
}

/// URL of an agent, in one spelling. No client here speaks TLS, so https is refused at once.
pub fn agent_address(field: &str, text: &str) -> Result<String> {
    let wrong = || {
        InvalidField::new(
            field,
            "must be an http URL with a port, such as http://10.0.0.5:7401",
        )
    };
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let scheme = uri
        .scheme_str()
        .filter(|scheme| *scheme == "http")
        .ok_or_else(wrong)?;
    let authority = uri.authority().ok_or_else(wrong)?;
    let plain = !authority.as_str().contains('@')
        && !authority.host().is_empty()
        && authority.port_u16().is_some_and(|port| port != 0)
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && text.len() <= names::MAX_IMAGE;
    if plain {
        Ok(format!("{scheme}://{authority}"))
    } else {
        Err(wrong())
    }
}

fn name(name: String) -> Result<String> {
    named("workspace.name", names::check_name(&name))?;
    Ok(name)
}

fn description(text: String) -> Result<String> {
    named("workspace.description", names::check_description(&text))?;
    Ok(text)
}

/// Empty is the server's default, which is set then and there.
fn image(image: String, default_image: &str) -> Result<String> {
    if image.is_empty() {
        return Ok(default_image.to_owned());
    }
    named("workspace.image", names::check_image(&image))?;
    Ok(image)
}

fn named(field: &str, checked: std::result::Result<(), names::InvalidName>) -> Result<()> {
    checked.map_err(|e| InvalidField::new(field, e.to_string()))
}

fn desired_state(number: i32) -> Result<DesiredState> {
    let field = "workspace.desired_state";
    let desired = convert::enumeration::<v1::DesiredState, DesiredState>(field, number)?;
    if desired == DesiredState::Deleted {
        return Err(InvalidField::new(field, "use DeleteWorkspace"));
    }
    Ok(desired)
}

/// Absent is the default, zero never. Less than a millisecond is not kept.
fn ttl(field: &str, duration: Option<&prost_types::Duration>) -> Result<Option<TimeDelta>> {
    let Some(duration) = duration else {
        return Ok(None);
    };
    let delta = convert::delta(field, duration)?;
    if delta.is_zero() || (MIN_TTL..=MAX_TTL).contains(&delta) {
        Ok(Some(delta))
    } else {
        Err(InvalidField::new(
            field,
            "must be 0 (never), or between 1 s and 10 years",
        ))
    }
}

/// Absent and zero are off, and stored as absent.
fn checkpoint_interval(duration: Option<&prost_types::Duration>) -> Result<Option<TimeDelta>> {
    let field = "workspace.checkpoint_interval";
    let Some(duration) = duration else {
        return Ok(None);
    };
    let delta = convert::delta(field, duration)?;
    if delta.is_zero() {
        Ok(None)
    } else if (MIN_CHECKPOINT_INTERVAL..=MAX_CHECKPOINT_INTERVAL).contains(&delta) {
        Ok(Some(delta))
    } else {
        Err(InvalidField::new(
            field,
            "must be 0 (off), or between 1 min and 30 days",
        ))
    }
}

#[cfg(test)]
mod tests;
