//! Archives handed out or read back without restoring them.
//!
//! Invariant: memory is bounded. At most [`MOST`] archives are read at a time, each with a few ranges in
//! flight, and no faster than its caller takes it; one that takes nothing loses its place.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;
use windlass_archive::{Store, verify};
use windlass_proto::v1;

use crate::error::{Failure, Reason};
use crate::index::archive_info;

/// Archives read at a time.
const MOST: usize = 8;
/// Bytes of one chunk at most.
const CHUNK: usize = 1 << 20;
/// How long a caller may take nothing.
const STALLED: Duration = Duration::from_secs(60);

/// The places; cheap to clone.
#[derive(Debug, Clone)]
pub struct Readers {
    places: Arc<Semaphore>,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MOST)),
        }
    }
}

impl Readers {
    /// What the archive at `key` is, and its data. A stream that ends without an error was the archive.
    ///
    /// # Errors
    /// `QueueFull`, `ArchiveNotFound`, `ArchiveCorrupted` (its marker is), `StoreUnavailable`.
    pub async fn read(
        &self,
        store: &Store,
        key: String,
    ) -> Result<
        (
            v1::ArchiveInfo,
            impl Stream<Item = Result<Bytes, Failure>> + Send + use<>,
        ),
        Failure,
    > {
        let place = self.place()?;
        let marker = verify::read_marker(store, &key).await?;
        let (sender, chunks) = mpsc::channel(1);
        tokio::spawn(send(store.clone(), key.clone(), sender, place));
        Ok((archive_info(key, &marker), ReceiverStream::new(chunks)))
    }

    /// Reads the archive at `key` back and compares it with its marker.
    ///
    /// # Errors
    /// As [`Readers::read`].
    pub async fn verify(&self, store: &Store, key: String) -> Result<v1::ArchiveInfo, Failure> {
        let _place = self.place()?;
        let marker = windlass_archive::verify(store, &key).await?;
        Ok(archive_info(key, &marker))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            Failure::new(
                Reason::QueueFull,
                format!("{MOST} archives are being read; try again later"),
            )
        })
    }
}

/// Reads the archive into `sender`; the last message is the failure, if there was one.
async fn send(
    store: Store,
    key: String,
    sender: mpsc::Sender<Result<Bytes, Failure>>,
    _place: OwnedSemaphorePermit,
) {
    let (writer, reader) = tokio::io::duplex(CHUNK);
    let download = windlass_archive::download(&store, &key, writer);
    // Owns the reader: where it ends early, the download's next write fails.
    let forward = async {
        let mut chunks = ReaderStream::with_capacity(reader, CHUNK);
        // Our own pipe has no errors to tell.
        while let Some(Ok(chunk)) = chunks.next().await {
            match sender.send_timeout(Ok(chunk), STALLED).await {
                Ok(()) => {}
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => return Forwarded::Stalled,
                Err(mpsc::error::SendTimeoutError::Closed(_)) => return Forwarded::Gone,
            }
        }
        Forwarded::All
    };
    let (downloaded, forwarded) = tokio::join!(download, forward);
    let failure = match (forwarded, downloaded) {
        (Forwarded::Gone, _) | (Forwarded::All, Ok(_)) => return,
        (Forwarded::All, Err(error)) => error.into(),
        (Forwarded::Stalled, _) => Failure::new(
            Reason::ReaderStalled,
            format!("nothing was taken for {} s", STALLED.as_secs()),
        ),
    };
    tracing::warn!(key, %failure, "an archive was not handed out whole");
    // A full channel means that the caller is still there or gone; it hears of it if it comes back.
    let _ = sender.send_timeout(Err(failure), STALLED).await;
}

/// How handing on ended.
enum Forwarded {
    All,
    Stalled,
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_given_back() {
        let readers = Readers::default();
        let held: Vec<_> = (0..MOST).map(|_| readers.place().unwrap()).collect();
        assert_eq!(readers.place().unwrap_err().reason, Reason::QueueFull);
        drop(held);
        drop(readers.place().unwrap());
    }
}
