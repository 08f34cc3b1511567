//! Reading the engine: everything at once, or single names.
//!
//! The list does not tell everything (times, OOM), so new and changed containers are looked at closely,
//! a few at a time, and the rest is taken from what is known: in a steady state there is nothing but the
//! list. A restart shows in the list's words even if its events were lost: what is said to be up for
//! three seconds did not start an hour ago.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use windlass_domain::conditions::Health;
use windlass_proto::{convert, v1};

use super::Cause;
use crate::docker::{
    ContainerInfo, DockerError, DockerErrorKind, Engine, Listed, State, VolumeInfo,
};
use crate::model::{Found, HostEntry, HostKey};

/// Containers and volumes looked at closely at once.
const PARALLEL: usize = 16;
/// Longest time a list may take.
const LIST_BOUND: Duration = Duration::from_secs(10);
/// Longest time one closer look may take. The engine looks at a container only when nothing else is
/// being done to it, so that one that hangs would hold up the rest.
const LOOK_BOUND: Duration = Duration::from_secs(3);
/// How far the list's words may be from the time they are about.
const SLACK: Duration = Duration::from_secs(2);

/// What is known of a container.
pub type Known<'a> = &'a (dyn Fn(&str) -> Option<Arc<HostEntry>> + Sync);

/// All containers and volumes of this agent, all or nothing. What is `known` of a container is used
/// unless its name is `dirty` or the list contradicts.
///
/// # Errors
/// When the engine cannot be asked, or does not answer within 10 s.
pub async fn everything(
    engine: &Engine,
    known: Known<'_>,
    dirty: &BTreeSet<String>,
) -> Result<Found, DockerError> {
    let prefix = engine.prefix();
    let lists =
        async { tokio::try_join!(engine.list_containers(prefix), engine.list_volumes(prefix)) };
    let (listed, volumes) = tokio::time::timeout(LIST_BOUND, lists)
        .await
        .map_err(|_| DockerError::hanging("list containers and volumes"))??;
    let containers = complete(engine, listed, known, dirty).await?;
    let mut found: Found = by_name(containers).collect();
    found.extend(volumes.into_iter().map(|volume| {
        let key = HostKey::Volume(volume.name.clone());
        (key, Some(Arc::new(HostEntry::Volume(volume_wire(volume)))))
    }));
    Ok(found)
}

/// Containers whose name begins with a prefix that is not this agent's, looked at one by one.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn foreign_containers(
    engine: &Engine,
    prefix: &str,
) -> Result<Vec<v1::Container>, DockerError> {
    let listed = engine.list_containers(prefix).await?;
    let entries = complete(engine, listed, &|_| None, &BTreeSet::new()).await?;
    let container = |entry| match Arc::unwrap_or_clone(entry) {
        HostEntry::Container(container) => Some(container),
        HostEntry::Volume(_) | HostEntry::Jobs(_) => None,
    };
    Ok(entries.into_iter().filter_map(container).collect())
}

/// These containers and volumes, one by one. A container that was just created is listed: a closer look
/// would wait for its start to end, and there is nothing more to see.
///
/// # Errors
/// When one of them cannot be looked at in time.
pub async fn names(
    engine: &Engine,
    names: &BTreeMap<HostKey, Option<Cause>>,
) -> Result<Found, DockerError> {
    let created = |cause: &Option<Cause>| cause.as_ref().and_then(|c| c.created.clone());
    let ids: Vec<String> = names.values().filter_map(created).collect();
    let rest: Vec<HostKey> = names
        .iter()
        .filter(|(_, cause)| created(cause).is_none())
        .map(|(key, _)| key.clone())
        .collect();
    let (new, mut found) = tokio::try_join!(new_containers(engine, ids), one_by_one(engine, rest))?;
    for key in names.keys() {
        found.entry(key.clone()).or_insert(None);
    }
    found.extend(new);
    Ok(found)
}

async fn new_containers(engine: &Engine, ids: Vec<String>) -> Result<Found, DockerError> {
    if ids.is_empty() {
        return Ok(Found::new());
    }
    let listed = tokio::time::timeout(LOOK_BOUND, engine.list_these(ids))
        .await
        .map_err(|_| DockerError::hanging("list new containers"))??;
    let entries = complete(engine, listed, &|_| None, &BTreeSet::new()).await?;
    Ok(by_name(entries).collect())
}

async fn one_by_one(engine: &Engine, names: Vec<HostKey>) -> Result<Found, DockerError> {
    stream::iter(names)
        .map(|key| async move {
            let entry = match &key {
                HostKey::Container(name) => look(engine, name)
                    .await?
                    .filter(|c| c.listed.belongs_to(engine.prefix()))
                    .map(|c| HostEntry::Container(inspected(c))),
                HostKey::Volume(name) => {
                    let found = engine.inspect_volume(name);
                    let found = tokio::time::timeout(LOOK_BOUND, found)
                        .await
                        .map_err(|_| DockerError::hanging(format!("inspect volume {name}")))??;
                    found.map(|v| HostEntry::Volume(volume_wire(v)))
                }
                HostKey::Jobs(_) => None,
            };
            Ok((key, entry.map(Arc::new)))
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<BTreeMap<_, _>>()
        .await
}

fn by_name(
    containers: Vec<Arc<HostEntry>>,
) -> impl Iterator<Item = (HostKey, Option<Arc<HostEntry>>)> {
    containers.into_iter().filter_map(|entry| match &*entry {
        HostEntry::Container(c) => Some((HostKey::Container(c.name.clone()), Some(entry))),
        HostEntry::Volume(_) | HostEntry::Jobs(_) => None,
    })
}

async fn complete(
    engine: &Engine,
    listed: Vec<Listed>,
    known: Known<'_>,
    dirty: &BTreeSet<String>,
) -> Result<Vec<Arc<HostEntry>>, DockerError> {
    let now = Utc::now();
    let mut entries = Vec::with_capacity(listed.len());
    let mut unclear = Vec::new();
    for container in listed {
        if container.state == Some(State::Created) {
            // There is no more to see, and a closer look would wait for a start that is under way.
            entries.push(Arc::new(HostEntry::Container(wire(container))));
            continue;
        }
        let same = |entry: &Arc<HostEntry>| match &**entry {
            HostEntry::Container(c) => agrees(c, &container, now),
            HostEntry::Volume(_) | HostEntry::Jobs(_) => false,
        };
        match known(&container.name).filter(same) {
            Some(entry) if !dirty.contains(&container.name) => entries.push(entry),
            _ => unclear.push(container),
        }
    }
    let looked_at: Vec<Option<v1::Container>> = stream::iter(unclear)
        .map(|listed| async move {
            match look(engine, &listed.id).await {
                // All of it from the one look: two moments must not mix.
                Ok(found) => Ok::<_, DockerError>(found.map(inspected)),
                // One that hangs or is broken blinds nobody to the rest, as long as the engine is there:
                // what the list tells is true.
                Err(error) => {
                    if error.kind == DockerErrorKind::Unreachable {
                        engine.ping().await?;
                    }
                    tracing::warn!(container = %listed.name, "told without its times: {error}");
                    Ok(Some(wire(listed)))
                }
            }
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    let looked_at = looked_at.into_iter().flatten();
    entries.extend(looked_at.map(|c| Arc::new(HostEntry::Container(c))));
    Ok(entries)
}

async fn look(engine: &Engine, name: &str) -> Result<Option<ContainerInfo>, DockerError> {
    metrics::counter!("windlass_agent_inspects_total").increment(1);
    tokio::time::timeout(LOOK_BOUND, engine.inspect_container(name))
        .await
        .map_err(|_| DockerError::hanging(format!("inspect container {name}")))?
}

/// Whether the list tells what is known.
fn agrees(known: &v1::Container, listed: &Listed, now: DateTime<Utc>) -> bool {
    let at = match listed.state {
        Some(State::Running | State::Paused) => known.start_time,
        Some(State::Exited) => known.finish_time,
        Some(State::Created | State::Restarting | State::Removing | State::Dead) | None => {
            return false;
        }
    };
    let Some(at) = at.and_then(|at| convert::time("time", &at).ok()) else {
        // It could not be looked at closely.
        return false;
    };
    let age = (now - at).to_std().unwrap_or_default();
    known.container_id == listed.id
        && known.state() == state(listed)
        && known.health() == health(listed)
        && known.exit_code == listed.exit_code.unwrap_or(0)
        && listed
            .age
            .as_ref()
            .is_none_or(|told| age + SLACK >= told.start && age <= told.end + SLACK)
}

fn state(listed: &Listed) -> v1::ContainerState {
    let state = listed.state.map(v1::ContainerState::from);
    state.unwrap_or(v1::ContainerState::Unspecified)
}

fn health(listed: &Listed) -> v1::ContainerHealth {
    match listed.health {
        None => v1::ContainerHealth::Unspecified,
        Some(Health::Starting) => v1::ContainerHealth::Starting,
        Some(Health::Healthy) => v1::ContainerHealth::Healthy,
        Some(Health::Unhealthy) => v1::ContainerHealth::Unhealthy,
    }
}

fn inspected(container: ContainerInfo) -> v1::Container {
    v1::Container {
        oom_killed: container.oom_killed,
        start_time: container.started_at.map(convert::timestamp),
        finish_time: container.finished_at.map(convert::timestamp),
        ..wire(container.listed)
    }
}

fn wire(listed: Listed) -> v1::Container {
    v1::Container {
        state: state(&listed).into(),
        health: health(&listed).into(),
        exit_code: listed.exit_code.unwrap_or(0),
        workspace_id: text(listed.workspace),
        op_id: text(listed.op_id),
        attempt: listed.attempt,
        name: listed.name,
        container_id: listed.id,
        // A closer look tells it as it was asked for; the list tells a bare id once the tag has moved on.
        image: listed.image,
        ..v1::Container::default()
    }
}

/// A volume for the wire.
pub fn volume_wire(volume: VolumeInfo) -> v1::Volume {
    v1::Volume {
        workspace_id: text(volume.workspace),
        volume_id: text(volume.volume_id),
        name: volume.name,
    }
}

fn text(id: Option<uuid::Uuid>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_shows_in_the_lists_words() {
        let now = Utc::now();
        let ago = |seconds: i64| Some(convert::timestamp(now - chrono::Duration::seconds(seconds)));
        let listed = |age: std::ops::Range<u64>| Listed {
            id: "1".to_owned(),
            name: "p-a".to_owned(),
            image: "i".to_owned(),
            state: Some(State::Running),
            health: None,
            exit_code: None,
            workspace: None,
            op_id: None,
            attempt: 0,
            labelled: true,
            prefix: None,
            age: Some(Duration::from_secs(age.start)..Duration::from_secs(age.end)),
        };
        let known = v1::Container {
            start_time: ago(40),
            ..wire(listed(0..1))
        };
        assert!(agrees(&known, &listed(39..40), now));
        assert!(agrees(&known, &listed(42..43), now));
        // Up 3 seconds.
        assert!(!agrees(&known, &listed(3..4), now));
        let another = Listed {
            id: "2".to_owned(),
            ..listed(40..41)
        };
        assert!(!agrees(&known, &another, now));
        let unwell = Listed {
            health: Some(Health::Unhealthy),
            ..listed(40..41)
        };
        assert!(!agrees(&known, &unwell, now));
        let without_times = wire(listed(40..41));
        assert!(!agrees(&without_times, &listed(40..41), now));
    }
}
