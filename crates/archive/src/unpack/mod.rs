//! The restore job: empty the volume, check the space, download, extract, compare the digest, sync,
//! and only then the restore marker.
//!
//! A restore that fails or is killed anywhere is repeated from scratch by the same call. The marker
//! carries the operation's id, so that no other restore's marker completes this one; and where it
//! already stands, the volume is left alone, because somebody may be using it. If what was restored is
//! lost, its marker goes before anything else is done: no marker ever stands beside a half-filled volume.

mod extract;
mod failure;
mod metadata;
mod stream;

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chrono::Utc;
use futures::StreamExt;
use futures::stream::BoxStream;
use rustix::fs::{fstatvfs, syncfs};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::ArchiveError;
use crate::failpoints::failpoint;
use crate::fs::clean::{clean, is_empty};
use crate::fs::open::open_root;
use crate::layout;
use crate::marker::{ArchiveMarker, MAX_MARKER_BYTES, RestoreMarker};
use crate::progress::{Progress, Stage};
use crate::store::{Store, StoreErrorKind};
use crate::verify;

pub use stream::{UnpackSummary, unpack_stream};

use stream::{Limits, unpack_into};

/// Which restore this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreSpec {
    /// Whose home; the archive must be of the same workspace.
    pub workspace_id: Uuid,
    /// The restore operation, which is also the new volume's id.
    pub op_id: Uuid,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    /// The archive's marker.
    pub archive: ArchiveMarker,
    /// The restore marker that stands now.
    pub marker: RestoreMarker,
    /// Whether the same operation had completed before, so that nothing was done.
    pub already_complete: bool,
}

/// Restores the archive at `archive_key` into the volume mounted at `volume_root`, whose content is
/// removed first. Nothing else may use the volume.
///
/// Fails with `NoSpace` before anything is downloaded where the archive cannot fit, with `Corrupted`
/// where the archive is not what its marker says; then the volume is left empty and no restore marker
/// is written. Dropping the future cancels the job as `cancel` does.
pub async fn restore(
    store: &Store,
    archive_key: &str,
    volume_root: PathBuf,
    spec: RestoreSpec,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<RestoreReport, ArchiveError> {
    let cancel = cancel.child_token();
    let _stop_with_me = cancel.clone().drop_guard();
    failpoint!("restore::start");
    let archive = verify::read_marker(store, archive_key).await?;
    if archive.workspace_id != spec.workspace_id {
        return Err(ArchiveError::Invalid(format!(
            "{archive_key} is an archive of workspace {}, not of {}",
            archive.workspace_id, spec.workspace_id
        )));
    }
    failpoint!("restore::after-archive-marker");
    let marker_key = layout::restore_marker_key(store.prefix(), spec.workspace_id, spec.op_id);
    let root = Some(volume_root.clone());
    match earlier(store, &marker_key, archive_key, &archive, root).await? {
        Earlier::Complete(marker) => {
            progress.begin(Stage::Done, 0);
            return Ok(RestoreReport {
                archive,
                marker,
                already_complete: true,
            });
        }
        Earlier::None | Earlier::Forgotten => {}
    }

    progress.reset_entries();
    progress.begin(Stage::Cleaning, 0);
    failpoint!("restore::before-clean");
    prepare(&volume_root, &archive, &cancel).await?;
    failpoint!("restore::after-clean");

    progress.begin(Stage::Unpacking, archive.size);
    let unpacked = unpack(
        store,
        archive_key,
        &archive,
        &volume_root,
        &progress,
        &cancel,
    )
    .await;
    if let Err(error) = unpacked {
        tracing::warn!(key = archive_key, %error, "restore failed, emptying the volume");
        if let Err(error) = empty(&volume_root, &CancellationToken::new()).await {
            tracing::warn!(%error, "the volume of a failed restore is not empty");
        }
        return Err(error);
    }
    let marker = RestoreMarker {
        op_id: spec.op_id,
        archive_key: archive_key.to_owned(),
        finished_at: Utc::now(),
    };
    failpoint!("restore::before-marker");
    store.put_small(&marker_key, marker.to_bytes()?).await?;
    failpoint!("restore::after-marker");
    progress.begin(Stage::Done, 0);
    Ok(RestoreReport {
        archive,
        marker,
        already_complete: false,
    })
}

/// Takes the marker of this very restore away if what it completed was lost: `volume_root` says where it
/// is, `None` that there is no volume. Returns its key then. [`restore`] does it as well; whoever makes the
/// volume does it before, or the new one would pass for complete.
pub async fn forget_lost(
    store: &Store,
    archive_key: &str,
    archive: &ArchiveMarker,
    volume_root: Option<PathBuf>,
    op_id: Uuid,
) -> Result<Option<String>, ArchiveError> {
    let key = layout::restore_marker_key(store.prefix(), archive.workspace_id, op_id);
    match earlier(store, &key, archive_key, archive, volume_root).await? {
        Earlier::Forgotten => Ok(Some(key)),
        Earlier::None | Earlier::Complete(_) => Ok(None),
    }
}

/// What became of an earlier run of this very restore.
enum Earlier {
    /// None completed.
    None,
    /// One did.
    Complete(RestoreMarker),
    /// One did, but what it restored is lost. Its marker has been taken away.
    Forgotten,
}

/// A marker without a volume, or with an empty one although the archive is not, means that another volume
/// was restored (a host was lost meanwhile): then the work is done again.
async fn earlier(
    store: &Store,
    marker_key: &str,
    archive_key: &str,
    archive: &ArchiveMarker,
    volume_root: Option<PathBuf>,
) -> Result<Earlier, ArchiveError> {
    let bytes = match store.get_small(marker_key, MAX_MARKER_BYTES).await {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == StoreErrorKind::NotFound => return Ok(Earlier::None),
        Err(e) => return Err(e.into()),
    };
    let marker = RestoreMarker::parse(&bytes)?;
    if marker.archive_key != archive_key {
        return Err(ArchiveError::Invalid(format!(
            "restore {} completed before, from {} and not from {archive_key}",
            marker.op_id, marker.archive_key
        )));
    }
    let lost = match volume_root {
        None => true,
        Some(root) => {
            let look = move || is_empty(open_root(&root)?.as_fd());
            archive.entry_count > 1 && blocking("look into the volume", look).await?
        }
    };
    if !lost {
        return Ok(Earlier::Complete(marker));
    }
    tracing::warn!(
        key = marker_key,
        "restored before, but what was restored is gone"
    );
    for (_, result) in store.delete(&[marker_key.to_owned()]).await {
        result?;
    }
    Ok(Earlier::Forgotten)
}

/// Empties the volume and checks that the archive fits.
async fn prepare(
    volume_root: &Path,
    archive: &ArchiveMarker,
    cancel: &CancellationToken,
) -> Result<(), ArchiveError> {
    empty(volume_root, cancel).await?;
    let root = volume_root.to_owned();
    let (needed_bytes, needed_inodes) = (archive.disk_size, archive.entry_count);
    blocking("check the space", move || {
        let root = open_root(&root)?;
        let space = fstatvfs(&root).map_err(|e| ArchiveError::io("stat file system of", b"", e))?;
        let available_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        let available_inodes = match space.f_files {
            0 => u64::MAX,
            _ => space.f_favail,
        };
        if needed_bytes > available_bytes || needed_inodes > available_inodes {
            return Err(ArchiveError::InsufficientSpace {
                needed_bytes,
                available_bytes,
                needed_inodes,
                available_inodes,
            });
        }
        Ok(())
    })
    .await
}

async fn empty(volume_root: &Path, cancel: &CancellationToken) -> Result<(), ArchiveError> {
    let (root, cancel) = (volume_root.to_owned(), cancel.clone());
    blocking("empty the volume", move || {
        clean(open_root(&root)?.as_fd(), &cancel)
    })
    .await
}

/// Downloads and extracts, compares the digest, syncs.
async fn unpack(
    store: &Store,
    archive_key: &str,
    archive: &ArchiveMarker,
    volume_root: &Path,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<(), ArchiveError> {
    let stream = DownloadReader {
        data: verify::data(store, archive_key, archive.size).boxed(),
        runtime: Handle::current(),
        cancel: cancel.clone(),
        current: Bytes::new(),
        digest: Sha256::new(),
        progress: progress.clone(),
    };
    let limits = Limits {
        tar_size: archive.tar_size,
        entries: archive.entry_count,
    };
    let (root, progress_in, cancel_in) = (volume_root.to_owned(), progress.clone(), cancel.clone());
    let (summary, stream, root) = blocking("extract", move || {
        // Before anything is written: syncfs tells a descriptor of the losses since it was opened.
        let root = open_root(&root)?;
        let (summary, stream) =
            unpack_into(stream, root.as_fd(), limits, &progress_in, &cancel_in)?;
        Ok((summary, stream, root))
    })
    .await?;
    failpoint!("restore::after-unpack");
    verify::expect(archive_key, stream.digest, &archive.sha256)?;
    if summary.entries != archive.entry_count {
        return Err(ArchiveError::corrupted(format!(
            "{archive_key}: {} entries, its marker says {}",
            summary.entries, archive.entry_count
        )));
    }
    progress.begin(Stage::Syncing, 0);
    failpoint!("restore::before-sync");
    blocking("sync", move || {
        syncfs(root).map_err(|e| ArchiveError::io("sync file system of", b"", e))
    })
    .await?;
    failpoint!("restore::after-sync");
    Ok(())
}

/// The blocking side of a download: hashes what it hands on. Between it and the store there is no further
/// queue: what is fetched ahead is all that waits in memory.
struct DownloadReader {
    data: BoxStream<'static, Result<Bytes, ArchiveError>>,
    runtime: Handle,
    cancel: CancellationToken,
    current: Bytes,
    digest: Sha256,
    progress: Arc<Progress>,
}

impl Read for DownloadReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let (cancel, data) = (&self.cancel, &mut self.data);
            let next = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => Some(Err(ArchiveError::Cancelled)),
                    next = data.next() => next,
                }
            });
            match next {
                Some(chunk) => self.current = chunk.map_err(ArchiveError::into_stream)?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        let taken = self.current.split_to(length);
        self.digest.update(&taken);
        self.progress.add_bytes(length as u64);
        buffer[..length].copy_from_slice(&taken);
        Ok(length)
    }
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| ArchiveError::Internal(format!("{what}: {e}")))?
}
