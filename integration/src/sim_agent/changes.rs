//! What changed since a position, as messages of ListChanges.

use std::time::Duration;

use windlass_proto::v1::{
    ArchiveChanges, ArchiveScope, ChangesEnd, HostChanges, ListChangesResponse,
};

use super::{Behaviour, State};

/// Entries in one message at most.
const CHUNK: usize = 1000;

/// `instance.word.a.b.c`: where a caller stands in each log of one life.
fn position(state: &State, word: &str, revisions: &[u64]) -> String {
    let numbers: Vec<String> = revisions.iter().map(u64::to_string).collect();
    format!("{}.{word}.{}", state.instance.simple(), numbers.join("."))
}

/// The revisions of a position; `None`: not known.
fn known(state: &State, word: &str, position: &str) -> Option<Vec<u64>> {
    let rest = position.strip_prefix(&format!("{}.{word}.", state.instance.simple()))?;
    rest.split('.').map(|n| n.parse().ok()).collect()
}

pub(super) fn chunks<T>(mut all: Vec<T>) -> Vec<Vec<T>> {
    let mut chunks = Vec::new();
    while all.len() > CHUNK {
        let rest = all.split_off(CHUNK);
        chunks.push(std::mem::replace(&mut all, rest));
    }
    if !all.is_empty() {
        chunks.push(all);
    }
    chunks
}

pub(super) fn host_messages(state: &State, asked: &str) -> (bool, Vec<HostChanges>) {
    let since = known(state, "h", asked);
    let whole = since.is_none();
    let at = |n: usize| since.as_ref().and_then(|s| s.get(n)).copied().unwrap_or(0);
    let (containers, removed_containers) = state.containers.since(at(0));
    let (volumes, removed_volumes) = state.volumes.since(at(1));
    let (jobs, removed_jobs) = state.jobs.since(at(2));
    let mut messages = Vec::new();
    messages.extend(
        chunks(containers)
            .into_iter()
            .map(|containers| HostChanges {
                containers,
                ..HostChanges::default()
            }),
    );
    messages.extend(chunks(volumes).into_iter().map(|volumes| HostChanges {
        volumes,
        ..HostChanges::default()
    }));
    messages.extend(chunks(jobs).into_iter().map(|jobs| HostChanges {
        jobs,
        ..HostChanges::default()
    }));
    let gone =
        !(removed_containers.is_empty() && removed_volumes.is_empty() && removed_jobs.is_empty());
    if !whole && gone {
        messages.push(HostChanges {
            removed_containers,
            removed_volumes,
            removed_jobs,
            ..HostChanges::default()
        });
    }
    if whole && messages.is_empty() {
        messages.push(HostChanges::default());
    }
    messages.iter_mut().for_each(|m| m.whole = whole);
    (whole, messages)
}

pub(super) fn archive_messages(state: &State, own: bool, asked: &str) -> Vec<ArchiveChanges> {
    let (word, archives, restores) = match own {
        true => ("o", &state.own_archives, &state.own_restores),
        false => ("a", &state.archives, &state.restores),
    };
    let since = known(state, word, asked);
    let whole = since.is_none();
    let at = |n: usize| since.as_ref().and_then(|s| s.get(n)).copied().unwrap_or(0);
    let (archives, removed_archives) = archives.since(at(0));
    let (restores, removed_restores) = restores.since(at(1));
    let mut messages = Vec::new();
    messages.extend(chunks(archives).into_iter().map(|archives| ArchiveChanges {
        archives,
        ..ArchiveChanges::default()
    }));
    messages.extend(chunks(restores).into_iter().map(|restores| ArchiveChanges {
        restores,
        ..ArchiveChanges::default()
    }));
    // What it deleted itself is told with the whole, too: another's list may still show it.
    let gone = !(removed_archives.is_empty() && removed_restores.is_empty());
    if gone && (own || !whole) {
        messages.push(ArchiveChanges {
            removed_archives,
            removed_restores,
            ..ArchiveChanges::default()
        });
    }
    if whole && messages.is_empty() {
        messages.push(ArchiveChanges::default());
    }
    messages.iter_mut().for_each(|m| m.whole = whole);
    messages
}

pub(super) fn entries(message: &ListChangesResponse) -> u64 {
    let host = message.host.as_ref().map_or(0, |h| {
        h.containers.len()
            + h.volumes.len()
            + h.jobs.len()
            + h.removed_containers.len()
            + h.removed_volumes.len()
            + h.removed_jobs.len()
    });
    let archives = message.archives.as_ref().map_or(0, |a| {
        a.archives.len() + a.restores.len() + a.removed_archives.len() + a.removed_restores.len()
    });
    (host + archives) as u64
}

pub(super) fn end(state: &State, scope: ArchiveScope, behaviour: &Behaviour) -> ChangesEnd {
    let age = state.listed.elapsed();
    let revisions = match scope {
        ArchiveScope::Own => [state.own_archives.revision(), state.own_restores.revision()],
        ArchiveScope::All | ArchiveScope::Unspecified => {
            [state.archives.revision(), state.restores.revision()]
        }
    };
    let word = match scope {
        ArchiveScope::Own => "o",
        ArchiveScope::All | ArchiveScope::Unspecified => "a",
    };
    let host = [
        state.containers.revision(),
        state.volumes.revision(),
        state.jobs.revision(),
    ];
    ChangesEnd {
        host_position: position(state, "h", &host),
        list_number: state.list_number,
        list_age: Some(duration(age)),
        host_error: behaviour.host_error.clone().unwrap_or_default(),
        archive_position: position(state, word, &revisions),
        archive_list_time: (scope == ArchiveScope::All).then_some(list_time(state)),
        archive_error: behaviour
            .archive_error
            .clone()
            .filter(|_| scope == ArchiveScope::All)
            .unwrap_or_default(),
    }
}

fn duration(d: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: d.as_secs() as i64,
        nanos: d.subsec_nanos() as i32,
    }
}

pub(super) fn list_time(state: &State) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: 1_700_000_000 + state.store_listed,
        nanos: 0,
    }
}
