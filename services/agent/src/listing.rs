//! All containers in one request to the engine.
//!
//! The list does not tell everything (times, OOM), so new and changed containers are looked at closely,
//! a few at a time, and remembered: in a steady state there is nothing but the list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use windlass_domain::conditions::Health;
use windlass_proto::{convert, v1};

use crate::docker::{DockerError, Engine, Listed, State};

/// Containers looked at closely at once.
const PARALLEL: usize = 16;

/// What the list tells; a change means looking again.
type Key = (Option<State>, Option<i32>);

#[derive(Debug, Clone)]
struct Detail {
    key: Key,
    image: String,
    oom_killed: bool,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

/// The containers of this agent; cheap to clone.
#[derive(Debug, Clone)]
pub struct Containers {
    engine: Engine,
    details: Arc<Mutex<HashMap<String, Detail>>>,
}

impl Containers {
    /// Nothing remembered yet.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            details: Arc::default(),
        }
    }

    /// An event: what is remembered of this container (or of all) may be wrong.
    pub fn forget(&self, container_id: Option<&str>) {
        let mut details = self.lock();
        match container_id {
            Some(id) => drop(details.remove(id)),
            None => details.clear(),
        }
    }

    /// Containers whose name begins with `prefix`.
    ///
    /// # Errors
    /// When the engine cannot be asked: then nothing is known of any.
    pub async fn list(&self, prefix: &str) -> Result<Vec<v1::Container>, DockerError> {
        let listed = self.engine.list_containers(prefix).await?;
        if prefix == self.engine.prefix() {
            let mut details = self.lock();
            let present: std::collections::HashSet<&str> =
                listed.iter().map(|c| c.id.as_str()).collect();
            details.retain(|id, _| present.contains(id.as_str()));
        }
        let containers: Vec<Option<v1::Container>> = stream::iter(listed)
            .map(|container| self.complete(container))
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        Ok(containers.into_iter().flatten().collect())
    }

    /// `None` if it is gone meanwhile.
    async fn complete(&self, listed: Listed) -> Result<Option<v1::Container>, DockerError> {
        let key = (listed.state, listed.exit_code);
        let known = self.lock().get(&listed.id).cloned();
        if let Some(detail) = known.filter(|detail| detail.key == key) {
            return Ok(Some(wire(listed, &detail)));
        }
        metrics::counter!("windlass_agent_inspects_total").increment(1);
        let Some(container) = self.engine.inspect_container(&listed.id).await? else {
            return Ok(None);
        };
        let detail = Detail {
            key: (container.listed.state, container.listed.exit_code),
            image: container.listed.image.clone(),
            oom_killed: container.oom_killed,
            started_at: container.started_at,
            finished_at: container.finished_at,
        };
        // All of it from the one look: two moments must not mix.
        let listed = container.listed;
        self.lock().insert(listed.id.clone(), detail.clone());
        Ok(Some(wire(listed, &detail)))
    }

    // Every change is one insert or remove.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Detail>> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wire(listed: Listed, detail: &Detail) -> v1::Container {
    let state = listed
        .state
        .map_or(v1::ContainerState::Unspecified, v1::ContainerState::from);
    let health = match listed.health {
        None => v1::ContainerHealth::Unspecified,
        Some(Health::Starting) => v1::ContainerHealth::Starting,
        Some(Health::Healthy) => v1::ContainerHealth::Healthy,
        Some(Health::Unhealthy) => v1::ContainerHealth::Unhealthy,
    };
    let text = |id: Option<uuid::Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    v1::Container {
        name: listed.name,
        container_id: listed.id,
        workspace_id: text(listed.workspace),
        // As it was asked for: the list tells a bare id once the tag has moved on.
        image: detail.image.clone(),
        state: state.into(),
        health: health.into(),
        exit_code: listed.exit_code.unwrap_or(0),
        oom_killed: detail.oom_killed,
        start_time: detail.started_at.map(convert::timestamp),
        finish_time: detail.finished_at.map(convert::timestamp),
        op_id: text(listed.op_id),
        attempt: listed.attempt,
    }
}
