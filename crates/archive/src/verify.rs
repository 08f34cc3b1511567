//! Reading an archive without restoring it: its marker, its digest, its bytes.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::error::ArchiveError;
use crate::layout::{self, ParsedKey};
use crate::marker::{ArchiveMarker, MAX_MARKER_BYTES};
use crate::progress::Progress;
use crate::store::{Store, StoreError, StoreErrorKind};

/// The marker of the archive whose data is at `archive_key`. `Store(NotFound)` where there is none
/// (then there is no archive), `Corrupted` where it is damaged or belongs under another key.
pub async fn read_marker(store: &Store, archive_key: &str) -> Result<ArchiveMarker, ArchiveError> {
    let key = layout::marker_key(archive_key);
    let bytes = match store.get_small(&key, MAX_MARKER_BYTES).await {
        Err(e) if e.kind() == StoreErrorKind::Invalid && e.status().is_none() => {
            return Err(ArchiveError::corrupted(e.to_string()));
        }
        other => other?,
    };
    let marker = ArchiveMarker::parse(&bytes)?;
    let expected = ParsedKey::Data {
        workspace_id: marker.workspace_id,
        op_id: marker.archive_op_id,
    };
    if layout::parse_key(store.prefix(), archive_key) != Some(expected) {
        return Err(ArchiveError::corrupted(format!(
            "{key} is the marker of another archive ({} of workspace {})",
            marker.archive_op_id, marker.workspace_id
        )));
    }
    Ok(marker)
}

/// Reads the whole object and compares it with its marker, which is returned. `Corrupted` says how
/// they differ. Nothing is written anywhere.
pub async fn verify(store: &Store, archive_key: &str) -> Result<ArchiveMarker, ArchiveError> {
    let marker = read_marker(store, archive_key).await?;
    let progress = Progress::default();
    compare(store, archive_key, marker.size, &marker.sha256, &progress).await?;
    Ok(marker)
}

/// Streams the object (a `.tar.zst`) into `writer` and verifies it on the way. On `Corrupted` what was
/// written is not the archive and must be thrown away.
pub async fn download<W>(
    store: &Store,
    archive_key: &str,
    mut writer: W,
) -> Result<ArchiveMarker, ArchiveError>
where
    W: AsyncWrite + Unpin,
{
    let marker = read_marker(store, archive_key).await?;
    let failed = |source| ArchiveError::Stream {
        action: "write download",
        source,
    };
    let mut digest = Sha256::new();
    let mut chunks = std::pin::pin!(data(store, archive_key, marker.size));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        digest = hash(digest, chunk.clone()).await?;
        writer.write_all(&chunk).await.map_err(failed)?;
    }
    writer.flush().await.map_err(failed)?;
    expect(archive_key, digest, &marker.sha256)?;
    Ok(marker)
}

/// Reads the object back and compares size and digest.
pub(crate) async fn compare(
    store: &Store,
    key: &str,
    size: u64,
    sha256: &str,
    progress: &Progress,
) -> Result<(), ArchiveError> {
    let mut digest = Sha256::new();
    let mut chunks = std::pin::pin!(data(store, key, size));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        let length = chunk.len() as u64;
        digest = hash(digest, chunk).await?;
        progress.add_bytes(length);
    }
    expect(key, digest, sha256)
}

/// An archive's data with what its marker promises: missing or short data is damage here, not just
/// a store's answer.
pub(crate) fn data(
    store: &Store,
    key: &str,
    size: u64,
) -> impl Stream<Item = Result<Bytes, ArchiveError>> + Send + use<> {
    let name = key.to_owned();
    store
        .get_stream(key, size)
        .map(move |chunk| chunk.map_err(|e| data_error(&name, e)))
}

fn data_error(key: &str, error: StoreError) -> ArchiveError {
    match error.kind() {
        StoreErrorKind::Corrupt => ArchiveError::corrupted(error.to_string()),
        StoreErrorKind::NotFound => {
            ArchiveError::corrupted(format!("{key}: the data is missing ({error})"))
        }
        StoreErrorKind::Unreachable
        | StoreErrorKind::Denied
        | StoreErrorKind::Throttled
        | StoreErrorKind::Invalid
        | StoreErrorKind::Other => ArchiveError::Store(error),
    }
}

pub(crate) fn expect(key: &str, digest: Sha256, sha256: &str) -> Result<(), ArchiveError> {
    let found = hex::encode(digest.finalize());
    if found != sha256 {
        return Err(ArchiveError::corrupted(format!(
            "{key}: SHA-256 is {found}, should be {sha256}"
        )));
    }
    Ok(())
}

/// Hashes off the async threads.
async fn hash(mut digest: Sha256, chunk: Bytes) -> Result<Sha256, ArchiveError> {
    tokio::task::spawn_blocking(move || {
        digest.update(&chunk);
        digest
    })
    .await
    .map_err(|e| ArchiveError::Internal(format!("hashing: {e}")))
}
