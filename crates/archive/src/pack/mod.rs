//! The archive job: pack, upload, verify, and only then the commit marker.
//!
//! The order is the promise. Data goes first under a key that no other operation uses; the object is
//! verified against the digest taken on the way out; the marker makes it count. A job that fails or is
//! cancelled anywhere leaves no marker and no multipart parts, and the same call may be repeated: a
//! complete archive of the same operation is returned as it is, an incomplete one is made anew.

mod compress;
mod header;
mod stream;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::Utc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::ArchiveError;
use crate::failpoints::failpoint;
use crate::inventory::scan_bytes;
use crate::layout;
use crate::marker::{ArchiveMarker, FORMAT_VERSION};
use crate::progress::{Progress, Stage};
use crate::store::{Store, StoreError, StoreErrorKind, Upload, Uploaded};
use crate::tar::{EntryKind, Header};
use crate::verify;

pub use compress::LEVELS;
pub use stream::{PackOptions, PackSummary, pack_stream};

/// How an uploaded object is verified before the marker is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Read it back and compare size and SHA-256. The default.
    #[default]
    Readback,
    /// Compare its size only and trust the store's own checksums.
    Head,
}

/// What to archive, and how. [`ArchiveSpec::new`] gives the defaults.
#[derive(Debug, Clone)]
pub struct ArchiveSpec {
    /// Whose home.
    pub workspace_id: Uuid,
    /// The archive operation; with the workspace it decides the key.
    pub op_id: Uuid,
    /// The volume's id, recorded in the marker; `None` for an archive made empty.
    pub volume_id: Option<Uuid>,
    /// What to record of the workspace (name, owner, image); at most about 60 KiB as JSON.
    pub workspace: BTreeMap<String, String>,
    /// zstd level, 1 to 19; default 3. Up to 12 the memory bound holds.
    pub compression_level: i32,
    /// zstd threads; default 0, all cores as far as the memory bound allows.
    pub threads: u32,
    /// Default [`Verify::Readback`].
    pub verify: Verify,
    /// The workspace is running; see [`PackOptions::crash_consistent`]. Default false.
    pub crash_consistent: bool,
    /// Owner and group of an empty archive's root; default 1000:1000.
    pub empty_owner: (u32, u32),
}

impl ArchiveSpec {
    /// A spec with every default.
    pub fn new(workspace_id: Uuid, op_id: Uuid) -> Self {
        Self {
            workspace_id,
            op_id,
            volume_id: None,
            workspace: BTreeMap::new(),
            compression_level: 3,
            threads: 0,
            verify: Verify::default(),
            crash_consistent: false,
            empty_owner: (1000, 1000),
        }
    }
}

/// Archives the volume mounted at `volume_root` and returns the marker it wrote, or the marker of the
/// same operation's archive where that is complete already.
///
/// Nothing may write to the volume meanwhile, unless the spec says `crash_consistent`. Dropping the
/// future cancels the job as `cancel` does.
pub async fn archive(
    store: &Store,
    volume_root: PathBuf,
    spec: ArchiveSpec,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<ArchiveMarker, ArchiveError> {
    let cancel = cancel.child_token();
    let _stop_with_me = cancel.clone().drop_guard();
    run(store, Some(volume_root), spec, progress, cancel).await
}

/// Makes the archive of an empty home: a root directory of mode 0755 and nothing else. Otherwise as
/// [`archive`].
pub async fn empty_archive(
    store: &Store,
    spec: ArchiveSpec,
) -> Result<ArchiveMarker, ArchiveError> {
    let progress = Arc::new(Progress::default());
    run(store, None, spec, progress, CancellationToken::new()).await
}

async fn run(
    store: &Store,
    volume_root: Option<PathBuf>,
    spec: ArchiveSpec,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Result<ArchiveMarker, ArchiveError> {
    failpoint!("archive::start");
    if !LEVELS.contains(&spec.compression_level) {
        return Err(ArchiveError::Invalid(format!(
            "compression level {} is not in {LEVELS:?}",
            spec.compression_level
        )));
    }
    let key = layout::data_key(store.prefix(), spec.workspace_id, spec.op_id);
    let empty = volume_root.is_none();
    if let Some(marker) = existing(store, &key, &spec, empty).await? {
        progress.begin(Stage::Done, 0);
        return Ok(marker);
    }
    failpoint!("archive::after-marker-check");
    let started_at = Utc::now();
    progress.reset_entries();
    progress.begin(Stage::Packing, 0);

    failpoint!("archive::before-upload");
    let (summary, uploaded) =
        pack_and_upload(store, &key, volume_root, &spec, &progress, &cancel).await?;
    failpoint!("archive::after-upload");

    progress.begin(Stage::Verifying, uploaded.size);
    failpoint!("archive::before-verify");
    let verified = or_cancelled(&cancel, check(store, &key, &spec, &uploaded, &progress)).await;
    if let Err(error) = verified {
        discard(store, &key, &error).await;
        return Err(error);
    }
    failpoint!("archive::after-verify");

    let marker = ArchiveMarker {
        format_version: FORMAT_VERSION,
        sha256: uploaded.sha256,
        size: uploaded.size,
        tar_size: summary.tar_size,
        disk_size: summary.disk_size,
        entry_count: summary.entry_count,
        skipped_sockets: summary.skipped_sockets,
        changed_files: summary.changed_files,
        fingerprint: summary.fingerprint,
        volume_id: spec.volume_id,
        workspace_id: spec.workspace_id,
        archive_op_id: spec.op_id,
        workspace: spec.workspace,
        started_at,
        finished_at: Utc::now(),
        windlass_version: env!("CARGO_PKG_VERSION").to_owned(),
        crash_consistent: spec.crash_consistent,
        empty,
    };
    failpoint!("archive::before-marker");
    // Not cancellable from here: whether the marker stands must not be a matter of timing.
    store
        .put_small(&layout::marker_key(&key), marker.to_bytes()?)
        .await?;
    failpoint!("archive::after-marker");
    progress.begin(Stage::Done, 0);
    Ok(marker)
}

/// The marker of this very operation, if its archive is complete. A damaged one is taken away (its
/// volume is still the home of record while this job runs) so that the archive is made anew.
async fn existing(
    store: &Store,
    key: &str,
    spec: &ArchiveSpec,
    empty: bool,
) -> Result<Option<ArchiveMarker>, ArchiveError> {
    let marker = match verify::read_marker(store, key).await {
        Ok(marker) => marker,
        Err(ArchiveError::Store(e)) if e.kind() == StoreErrorKind::NotFound => return Ok(None),
        Err(error @ ArchiveError::Corrupted(_)) => {
            remove_marker(store, key, &error.to_string()).await?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // A checkpoint is never taken for an archive of the volume at rest.
    if marker.crash_consistent && !spec.crash_consistent {
        return Err(ArchiveError::Invalid(format!(
            "{key} exists and is a checkpoint"
        )));
    }
    if marker.volume_id != spec.volume_id || marker.empty != empty {
        return Err(ArchiveError::Invalid(format!(
            "{key} exists and is the archive of another volume ({:?}, not {:?})",
            marker.volume_id, spec.volume_id
        )));
    }
    match store.head(key).await {
        Ok(head) if head.size == marker.size => Ok(Some(marker)),
        Ok(_) => {
            remove_marker(store, key, "the data has another size").await?;
            Ok(None)
        }
        Err(e) if e.kind() == StoreErrorKind::NotFound => {
            remove_marker(store, key, "its data is missing").await?;
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

async fn remove_marker(store: &Store, key: &str, why: &str) -> Result<(), ArchiveError> {
    let marker = layout::marker_key(key);
    tracing::warn!(key = %marker, why, "removing an unusable archive marker; archiving anew");
    for (_, result) in store.delete(&[marker]).await {
        result?;
    }
    Ok(())
}

async fn pack_and_upload(
    store: &Store,
    key: &str,
    volume_root: Option<PathBuf>,
    spec: &ArchiveSpec,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<(PackSummary, Uploaded), ArchiveError> {
    let options = PackOptions {
        compression_level: spec.compression_level,
        threads: spec.threads,
        crash_consistent: spec.crash_consistent,
    };
    let sink = UploadSink {
        upload: store.upload(key),
        runtime: Handle::current(),
        cancel: cancel.clone(),
    };
    if let Some(root) = volume_root.clone() {
        let (progress, cancel) = (progress.clone(), cancel.clone());
        // Only an estimate for people; the packing thread reports what matters.
        tokio::task::spawn_blocking(move || scan_bytes(&root, &progress, &cancel).ok());
    }
    let (progress, cancel_pack) = (progress.clone(), cancel.clone());
    let owner = spec.empty_owner;
    let packing = tokio::task::spawn_blocking(move || match volume_root {
        Some(root) => pack_stream(&root, &options, sink, &progress, &cancel_pack),
        None => pack_empty(owner, &options, sink),
    });
    // On an error the sink was dropped in the thread, and the upload aborts itself.
    let (summary, sink) = packing
        .await
        .map_err(|e| ArchiveError::Internal(format!("packing: {e}")))??;
    failpoint!("archive::after-pack");
    if cancel.is_cancelled() {
        sink.upload.abort().await;
        return Err(ArchiveError::Cancelled);
    }
    let uploaded = or_cancelled(cancel, async { Ok(sink.upload.finish().await?) }).await?;
    Ok((summary, uploaded))
}

/// A stream with only a root directory.
fn pack_empty<W: Write>(
    (uid, gid): (u32, u32),
    options: &PackOptions,
    sink: W,
) -> Result<(PackSummary, W), ArchiveError> {
    let mut root = Header::new(Vec::new(), EntryKind::Directory);
    root.mode = 0o755;
    (root.uid, root.gid) = (uid, gid);
    root.mtime = (Utc::now().timestamp(), 0);
    let mut tar = stream::begin(sink, options)?;
    tar.entry(&root)
        .map_err(|e| ArchiveError::from_stream("write archive", e))?;
    let (sink, tar_size) = stream::end(tar)?;
    let summary = PackSummary {
        tar_size,
        disk_size: 4096,
        entry_count: 1,
        skipped_sockets: 0,
        changed_files: 0,
        fingerprint: crate::inventory::fingerprint_of_root(&root),
    };
    Ok((summary, sink))
}

async fn check(
    store: &Store,
    key: &str,
    spec: &ArchiveSpec,
    uploaded: &Uploaded,
    progress: &Progress,
) -> Result<(), ArchiveError> {
    match spec.verify {
        Verify::Readback => {
            verify::compare(store, key, uploaded.size, &uploaded.sha256, progress).await
        }
        Verify::Head => {
            let head = store.head(key).await?;
            if head.size != uploaded.size {
                return Err(ArchiveError::corrupted(format!(
                    "{key}: {} bytes were sent, the store has {}",
                    uploaded.size, head.size
                )));
            }
            Ok(())
        }
    }
}

/// Takes away data that failed verification; there is no marker, so nothing refers to it.
async fn discard(store: &Store, key: &str, reason: &ArchiveError) {
    tracing::warn!(%key, error = %reason, "upload not verified, discarding it");
    for (key, result) in store.delete(&[key.to_owned()]).await {
        if let Err(error) = result {
            tracing::warn!(%key, %error, "not discarded; gc will");
        }
    }
}

async fn or_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, ArchiveError>>,
) -> Result<T, ArchiveError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ArchiveError::Cancelled),
        result = work => result,
    }
}

/// The blocking side of an upload: a writer for the packing thread.
struct UploadSink {
    upload: Upload,
    runtime: Handle,
    cancel: CancellationToken,
}

impl Write for UploadSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (cancel, upload) = (&self.cancel, &mut self.upload);
        let result: Result<(), StoreError> = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(ArchiveError::Cancelled.into_stream()),
                result = upload.write(bytes) => Ok(result),
            }
        })?;
        result.map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
