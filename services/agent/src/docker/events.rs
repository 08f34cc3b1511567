//! The engine's events, as hints.

use std::collections::HashMap;

use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptions;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt};
use uuid::Uuid;

use super::{DockerError, Engine, TIMEOUT, label, uuid_label};

/// Something happened to a container or volume of this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// Such as `container/start` or `volume/destroy`.
    pub kind: String,
    /// The workspace, where it can be told.
    pub workspace: Option<Uuid>,
    /// The container's id; empty for volumes.
    pub container_id: String,
    /// When.
    pub at: DateTime<Utc>,
}

impl Engine {
    /// Follows the engine's events from now on; ends when the connection does.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn events(
        &self,
    ) -> Result<impl Stream<Item = Result<EngineEvent, DockerError>> + use<>, DockerError> {
        // Events of volumes carry no labels: everything comes, and names are looked at here.
        let types = vec!["container".to_owned(), "volume".to_owned()];
        let options = EventsOptions {
            filters: Some(HashMap::from([("type".to_owned(), types)])),
            ..EventsOptions::default()
        };
        let stream = self.client(TIMEOUT)?.events(Some(options));
        let prefix = self.prefix().to_owned();
        Ok(stream.filter_map(move |event| {
            let event = match event {
                Ok(event) => ours(&prefix, event).map(Ok),
                Err(error) => Some(Err(DockerError::new("follow the engine's events", error))),
            };
            std::future::ready(event)
        }))
    }
}

fn ours(prefix: &str, event: EventMessage) -> Option<EngineEvent> {
    let actor = event.actor?;
    let id = actor.id.unwrap_or_default();
    let attributes = actor.attributes.unwrap_or_default();
    let action = event.action.unwrap_or_default();
    let action = action.split(':').next().unwrap_or_default();
    let (kind, name, container_id) = match event.typ? {
        // exec_create, exec_start, exec_die: every health check is three of them.
        EventMessageTypeEnum::CONTAINER if !action.starts_with("exec_") => {
            ("container", attributes.get("name")?.clone(), id)
        }
        EventMessageTypeEnum::VOLUME => ("volume", id, String::new()),
        _ => return None,
    };
    let own = name.strip_prefix(prefix)?;
    let workspace = uuid_label(&attributes, label::WORKSPACE)
        .or_else(|| Uuid::try_parse(own.strip_suffix("-home").unwrap_or(own)).ok());
    Some(EngineEvent {
        kind: format!("{kind}/{action}"),
        workspace,
        container_id,
        at: event
            .time_nano
            .map(DateTime::from_timestamp_nanos)
            .unwrap_or_else(Utc::now),
    })
}
