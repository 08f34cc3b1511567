//! The engine's events: which names may have changed.

use std::collections::HashMap;

use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptions;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt};

use super::{DockerError, Engine, TIMEOUT};
use crate::model::HostKey;

/// What happens to a container without changing anything that is told of it.
const NO_CHANGE: [&str; 10] = [
    "attach",
    "detach",
    "resize",
    "top",
    "copy",
    "export",
    "commit",
    "archive-path",
    "extract-to-dir",
    "prune",
];

/// Something happened to a container or volume of this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// Such as `container/start` or `volume/destroy`.
    pub kind: String,
    /// What it happened to: under its old and its new name, if it was renamed.
    pub things: Vec<HostKey>,
    /// The engine's id of a container that was created.
    pub created: Option<String>,
    /// When, by the engine's clock.
    pub at: DateTime<Utc>,
}

impl Engine {
    /// Follows the engine's events from `since` on (the engine remembers the last 256, of all kinds);
    /// ends when the connection does.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub fn events(
        &self,
        since: DateTime<Utc>,
    ) -> Result<impl Stream<Item = Result<EngineEvent, DockerError>> + use<>, DockerError> {
        // Events of volumes carry no labels: everything comes, and names are looked at here.
        let types = vec!["container".to_owned(), "volume".to_owned()];
        let since = format!(
            "{}.{:09}",
            since.timestamp(),
            since.timestamp_subsec_nanos()
        );
        let options = EventsOptions {
            since: Some(since),
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
    let created = id.clone();
    let own = |name: &String| name.starts_with(prefix);
    let (kind, things): (_, Vec<HostKey>) = match event.typ? {
        // exec_create, exec_start, exec_die: every health check is three of them.
        EventMessageTypeEnum::CONTAINER
            if !action.starts_with("exec_") && !NO_CHANGE.contains(&action) =>
        {
            let before = attributes.get("oldName");
            let before = before.map(|name| name.trim_start_matches('/').to_owned());
            let names = attributes.get("name").cloned().into_iter().chain(before);
            let things = names.filter(own).map(HostKey::Container);
            ("container", things.collect())
        }
        // Mounts change nothing.
        EventMessageTypeEnum::VOLUME if action == "create" || action == "destroy" => {
            let things = Some(id).filter(own).map(HostKey::Volume);
            ("volume", things.into_iter().collect())
        }
        _ => return None,
    };
    if things.is_empty() {
        return None;
    }
    let created = (kind == "container" && action == "create").then_some(created);
    Some(EngineEvent {
        kind: format!("{kind}/{action}"),
        things,
        created,
        at: event
            .time_nano
            .map(DateTime::from_timestamp_nanos)
            .unwrap_or_else(Utc::now),
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(typ: EventMessageTypeEnum, action: &str, attributes: &[(&str, &str)]) -> EventMessage {
        EventMessage {
            typ: Some(typ),
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                id: Some("p-vol".to_owned()),
                attributes: Some(
                    attributes
                        .iter()
                        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                        .collect(),
                ),
            }),
            ..EventMessage::default()
        }
    }

    #[test]
    fn names_of_ours_that_may_have_changed() {
        use EventMessageTypeEnum::{CONTAINER, VOLUME};
        let container = |name: &str| HostKey::Container(name.to_owned());
        let things = |event| ours("p-", event).map(|e| (e.kind, e.things));

        let name = [("name", "p-a")];
        let health = things(event(CONTAINER, "health_status: healthy", &name)).unwrap();
        assert_eq!(health.0, "container/health_status");
        assert_eq!(health.1, [container("p-a")]);
        let created = |action| ours("p-", event(CONTAINER, action, &name)).unwrap().created;
        assert_eq!(created("create").as_deref(), Some("p-vol"));
        assert_eq!(created("start"), None);
        assert_eq!(things(event(CONTAINER, "exec_die", &name)), None);
        assert_eq!(things(event(CONTAINER, "attach", &name)), None);
        assert_eq!(things(event(CONTAINER, "start", &[("name", "x")])), None);

        let renamed = [("name", "x"), ("oldName", "/p-a")];
        let renamed = things(event(CONTAINER, "rename", &renamed)).unwrap();
        assert_eq!(renamed.1, [container("p-a")]);

        assert_eq!(
            things(event(VOLUME, "destroy", &[])).unwrap().1,
            [HostKey::Volume("p-vol".to_owned())]
        );
        assert_eq!(things(event(VOLUME, "mount", &[])), None);
    }
}
