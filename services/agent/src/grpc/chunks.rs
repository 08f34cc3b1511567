//! Answers cut into chunks of at most 1,000 entries, each made only as it is sent.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use tonic::{Response, Status};
use windlass_proto::{convert, v1};

use crate::index::{ArchiveEntry, ArchiveKey, Listing};
use crate::model::{Delta, HostEntry, HostKey};

/// Entries in one chunk.
const CHUNK: usize = 1000;

/// What a stream answers with.
pub(super) type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) fn streamed<T: Send + 'static>(
    chunks: impl Iterator<Item = T> + Send + 'static,
) -> Response<Chunks<T>> {
    Response::new(Box::pin(stream::iter(chunks.map(Ok))))
}

/// Moves the entries into chunks, one at a time.
pub(super) fn chunks<T>(entries: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    weighed(entries, |_| 1)
}

/// The same where one may count for several. None counts for more than a chunk holds.
fn weighed<T>(entries: Vec<T>, weight: impl Fn(&T) -> usize) -> impl Iterator<Item = Vec<T>> {
    let mut entries = entries.into_iter().peekable();
    std::iter::from_fn(move || {
        let (mut chunk, mut room) = (Vec::new(), CHUNK);
        while let Some(entry) = entries.next_if(|entry| weight(entry) <= room) {
            room -= weight(&entry);
            chunk.push(entry);
        }
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// A list of the store. The first chunk is there even if nothing is, to tell the time of the list.
pub(super) fn of_listing(
    listing: Listing,
    loose: bool,
) -> impl Iterator<Item = v1::ListArchivesResponse> {
    let empty = v1::ListArchivesResponse {
        list_time: Some(convert::timestamp(listing.list_time)),
        ..v1::ListArchivesResponse::default()
    };
    let (first, blank) = (empty.clone(), empty.clone());
    let entries = chunks(listing.entries).map(move |entries| {
        let mut chunk = empty.clone();
        for entry in entries {
            match &*entry {
                ArchiveEntry::Archive(archive) => chunk.archives.push(archive.clone()),
                ArchiveEntry::Restore(restore) => chunk.restores.push(restore.clone()),
                ArchiveEntry::Gone => {}
            }
        }
        chunk
    });
    let objects = if loose { listing.loose } else { Vec::new() };
    let loose = chunks(objects).map(move |objects| v1::ListArchivesResponse {
        loose: objects
            .into_iter()
            .map(|object| v1::LooseObject {
                key: object.key,
                bytes: object.size,
                update_time: Some(convert::timestamp(object.last_modified)),
            })
            .collect(),
        ..blank.clone()
    });
    std::iter::once(first).chain(entries).chain(loose)
}

/// Changes of the host. A whole has at least one chunk.
pub(super) fn of_host(
    delta: Delta<HostKey, HostEntry>,
) -> impl Iterator<Item = v1::ListChangesResponse> {
    let whole = delta.whole;
    let weight = |(_, entry): &(HostKey, Option<Arc<HostEntry>>)| match entry.as_deref() {
        Some(HostEntry::Jobs(jobs)) => jobs.len(),
        Some(HostEntry::Container(_) | HostEntry::Volume(_)) | None => 1,
    };
    at_least_one(whole, weighed(delta.changes, weight)).map(move |changes| {
        let mut host = v1::HostChanges {
            whole,
            ..v1::HostChanges::default()
        };
        for (key, entry) in changes {
            match (entry.as_deref(), key) {
                (Some(HostEntry::Container(container)), _) => {
                    host.containers.push(container.clone());
                }
                (Some(HostEntry::Volume(volume)), _) => host.volumes.push(volume.clone()),
                (Some(HostEntry::Jobs(jobs)), _) => host.jobs.extend(jobs.iter().cloned()),
                (None, HostKey::Container(name)) => host.removed_containers.push(name),
                (None, HostKey::Volume(name)) => host.removed_volumes.push(name),
                (None, HostKey::Jobs(id)) => host.removed_jobs.push(id.to_string()),
            }
        }
        v1::ListChangesResponse {
            host: Some(host),
            ..v1::ListChangesResponse::default()
        }
    })
}

/// Changes of the archives. A whole has at least one chunk.
pub(super) fn of_archives(
    delta: Delta<ArchiveKey, ArchiveEntry>,
) -> impl Iterator<Item = v1::ListChangesResponse> {
    let whole = delta.whole;
    at_least_one(whole, chunks(delta.changes)).map(move |changes| {
        let mut archives = v1::ArchiveChanges {
            whole,
            ..v1::ArchiveChanges::default()
        };
        for (key, entry) in changes {
            match (entry.as_deref(), key) {
                (Some(ArchiveEntry::Archive(archive)), _) => {
                    archives.archives.push(archive.clone());
                }
                (Some(ArchiveEntry::Restore(restore)), _) => {
                    archives.restores.push(restore.clone());
                }
                (Some(ArchiveEntry::Gone) | None, ArchiveKey::Archive(key)) => {
                    archives.removed_archives.push(key);
                }
                (Some(ArchiveEntry::Gone) | None, ArchiveKey::Restore(key)) => {
                    archives.removed_restores.push(key);
                }
            }
        }
        v1::ListChangesResponse {
            archives: Some(archives),
            ..v1::ListChangesResponse::default()
        }
    })
}

fn at_least_one<T>(
    wanted: bool,
    chunks: impl Iterator<Item = Vec<T>>,
) -> impl Iterator<Item = Vec<T>> {
    let mut chunks = chunks.peekable();
    let missing = wanted && chunks.peek().is_none();
    missing.then(Vec::new).into_iter().chain(chunks)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{HostModel, Position};

    #[test]
    fn chunks_hold_a_thousand() {
        let sizes: Vec<usize> = chunks(vec![0; 2500]).map(|c| c.len()).collect();
        assert_eq!(sizes, [1000, 1000, 500]);
        assert_eq!(chunks(Vec::<u8>::new()).count(), 0);
        let sizes: Vec<usize> = weighed(vec![3; 700], |w| *w).map(|c| c.len()).collect();
        assert_eq!(sizes, [333, 333, 34]);
    }

    #[test]
    fn an_empty_list_still_tells_its_time() {
        let chunks: Vec<_> = of_listing(Listing::default(), true).collect();
        assert_eq!(chunks.len(), 1);
        assert!(chunks[0].list_time.is_some());
    }

    #[test]
    fn an_empty_whole_says_that_it_is_one() {
        let mut model = HostModel::new(Uuid::new_v4());
        let position: Position = model.since(None).position;
        let chunks: Vec<_> = of_host(model.since(None)).collect();
        assert!(chunks.len() == 1 && chunks[0].host.as_ref().unwrap().whole);
        assert_eq!(of_host(model.since(Some(position))).count(), 0);

        // The jobs of a workspace stay together.
        let id = Uuid::new_v4();
        let jobs = vec![v1::Job::default(); 2];
        model.all_jobs([(id, jobs)].into());
        let chunks: Vec<_> = of_host(model.since(Some(position))).collect();
        assert_eq!(chunks.len(), 1);
        let host = chunks[0].host.as_ref().unwrap();
        assert_eq!((host.whole, host.jobs.len()), (false, 2));
    }
}
