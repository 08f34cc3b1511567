//! Streaming upload: bytes in, one object out, memory bounded, nothing left behind on failure.
//!
//! Bytes gather in a part; full parts are hashed and sent by tasks of their own, each holding its bytes
//! so that a retry can replay them. A part is begun only with a permit of the budget
//! (`parts_in_flight` x `part_size`), which it gives back when it has been sent *and* hashed. An upload
//! that ends within its first part is a single PutObject.

use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use super::error::{failed, io_failed};
use super::{ChecksumMode, Store, StoreError, StoreErrorKind};
use crate::failpoints::store_failpoint;

/// S3's limit.
const MAX_PARTS: i32 = 10_000;
/// From this part on parts are [`GROWTH`] times as large (and fewer at a time), so that 10,000 of them
/// hold more than an upload of unknown size will have: 400 GB with the default part size.
const GROW_AFTER: i32 = 5_000;
const GROWTH: usize = 4;
/// Growing a buffer by doubling up to here, then at once to the part's size.
const SMALL: usize = 1 << 20;

/// A finished upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Bytes sent.
    pub size: u64,
    /// SHA-256 of them, 64 hex digits.
    pub sha256: String,
    /// The object's etag as the store gives it.
    pub etag: String,
}

struct Part {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// An upload in progress. Dropped unfinished, it aborts itself in the background.
pub struct Upload {
    store: Store,
    key: String,
    runtime: Handle,
    budget: Arc<Semaphore>,
    buffer: Vec<u8>,
    permit: Option<OwnedSemaphorePermit>,
    size: u64,
    parts: i32,
    upload_id: Option<String>,
    sending: JoinSet<Result<CompletedPart, StoreError>>,
    sent: Vec<CompletedPart>,
    hasher: Option<(mpsc::UnboundedSender<Arc<Part>>, JoinHandle<Sha256>)>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("key", &self.key)
            .field("size", &self.size)
            .field("upload_id", &self.upload_id)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Begins an upload to `key`; nothing is sent before the first part is full. Must be called, and
    /// the result used, within a tokio runtime.
    pub fn upload(&self, key: &str) -> Upload {
        Upload {
            store: self.clone(),
            key: key.to_owned(),
            runtime: Handle::current(),
            budget: Arc::new(Semaphore::new(self.config.parts_in_flight)),
            buffer: Vec::new(),
            permit: None,
            size: 0,
            parts: 0,
            upload_id: None,
            sending: JoinSet::new(),
            sent: Vec::new(),
            hasher: None,
        }
    }
}

impl Upload {
    /// Takes the next bytes; waits while the budget is used up. Fails with what a part failed with.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            if self.permit.is_none() {
                self.begin_part().await?;
            }
            let part_size = self.part_size();
            let take = bytes.len().min(part_size - self.buffer.len());
            let after = self.buffer.len() + take;
            if after > SMALL && self.buffer.capacity() < part_size {
                self.buffer.reserve_exact(part_size - self.buffer.len());
            }
            self.buffer.extend_from_slice(&bytes[..take]);
            self.size += take as u64;
            bytes = &bytes[take..];
            if self.buffer.len() == part_size {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Sends what is left and completes the object.
    pub async fn finish(mut self) -> Result<Uploaded, StoreError> {
        let result = self.complete().await;
        if result.is_err() {
            self.abort().await;
        }
        result
    }

    /// Stops and frees the parts already sent. Failures are logged: gc aborts what stays.
    pub async fn abort(mut self) {
        self.sending.shutdown().await;
        if let Some(upload_id) = self.upload_id.take()
            && let Err(error) = self.store.abort_upload(&self.key, &upload_id).await
        {
            tracing::warn!(key = %self.key, %error, "upload not aborted; gc will");
        }
    }

    fn part_size(&self) -> usize {
        let base = usize::try_from(self.store.config.part_size).unwrap_or(usize::MAX);
        match self.parts >= GROW_AFTER {
            true => base.saturating_mul(GROWTH),
            false => base,
        }
    }

    async fn begin_part(&mut self) -> Result<(), StoreError> {
        if self.parts >= MAX_PARTS {
            return Err(StoreError::new(
                StoreErrorKind::Invalid,
                format!("upload {}", self.key),
                format!("more than {MAX_PARTS} parts; raise part_size"),
            ));
        }
        let permits = match self.parts >= GROW_AFTER {
            true => GROWTH.min(self.store.config.parts_in_flight),
            false => 1,
        };
        let permit = self
            .budget
            .clone()
            .acquire_many_owned(u32::try_from(permits).unwrap_or(1))
            .await
            .map_err(|e| io_failed(format!("upload {}", self.key), e))?;
        self.permit = Some(permit);
        // What ended meanwhile, so that a failure stops the producer within one part.
        while let Some(done) = self.sending.try_join_next() {
            self.sent.push(joined(&self.key, done)?);
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        let Some(permit) = self.permit.take() else {
            return Ok(());
        };
        let upload_id = match &self.upload_id {
            Some(id) => id.clone(),
            None => self.create().await?,
        };
        self.parts += 1;
        let part = Arc::new(Part {
            bytes: std::mem::take(&mut self.buffer).into(),
            _permit: permit,
        });
        let (to_hasher, _) = self.hasher.get_or_insert_with(start_hasher);
        // A hasher that died shows when it is joined.
        to_hasher.send(part.clone()).ok();
        let (store, key, number) = (self.store.clone(), self.key.clone(), self.parts);
        self.sending
            .spawn(async move { send(&store, &key, &upload_id, number, &part).await });
        Ok(())
    }

    async fn create(&mut self) -> Result<String, StoreError> {
        let action = || format!("begin upload of {}", self.key);
        let store = &self.store;
        let sse = store.config.sse.as_ref();
        let output = store
            .retrying(store.config.repeats, 0, || async {
                store
                    .client
                    .create_multipart_upload()
                    .bucket(&store.config.bucket)
                    .key(&self.key)
                    .set_server_side_encryption(sse.map(|s| s.algorithm.as_str().into()))
                    .set_ssekms_key_id(sse.and_then(|s| s.kms_key_id.clone()))
                    // What the SDK adds to every part then; S3 refuses parts with a checksum not named here.
                    .set_checksum_algorithm(match store.config.checksum {
                        ChecksumMode::WhenRequired => None,
                        ChecksumMode::WhenSupported => Some(ChecksumAlgorithm::Crc32),
                    })
                    .send()
                    .await
                    .map_err(|e| failed(action(), e))
            })
            .await?;
        let id = output.upload_id().map(str::to_owned).ok_or_else(|| {
            StoreError::new(
                StoreErrorKind::Other,
                action(),
                "no upload id in the answer",
            )
        })?;
        self.upload_id = Some(id.clone());
        store_failpoint!("upload::after-create");
        Ok(id)
    }

    async fn complete(&mut self) -> Result<Uploaded, StoreError> {
        if self.upload_id.is_none() {
            let bytes = Bytes::from(std::mem::take(&mut self.buffer));
            let sha256 = hex::encode(Sha256::digest(&bytes));
            let etag = self.store.put(&self.key, bytes).await?;
            return Ok(Uploaded {
                size: self.size,
                sha256,
                etag,
            });
        }
        if !self.buffer.is_empty() {
            self.send_part().await?;
        }
        while let Some(done) = self.sending.join_next().await {
            self.sent.push(joined(&self.key, done)?);
        }
        let sha256 = match self.hasher.take() {
            Some((to_hasher, hasher)) => {
                drop(to_hasher);
                let digest = hasher
                    .await
                    .map_err(|e| io_failed(format!("hash {}", self.key), e))?;
                hex::encode(digest.finalize())
            }
            None => hex::encode(Sha256::digest(b"")),
        };
        let mut parts = std::mem::take(&mut self.sent);
        parts.sort_by_key(CompletedPart::part_number);
        store_failpoint!("upload::before-complete");
        let etag = self.complete_multipart(parts).await?;
        self.upload_id = None;
        store_failpoint!("upload::after-complete");
        Ok(Uploaded {
            size: self.size,
            sha256,
            etag,
        })
    }

    async fn complete_multipart(&self, parts: Vec<CompletedPart>) -> Result<String, StoreError> {
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let store = &self.store;
        let complete = || async {
            let result = store
                .client
                .complete_multipart_upload()
                .bucket(&store.config.bucket)
                .key(&self.key)
                .set_upload_id(self.upload_id.clone())
                .multipart_upload(parts.clone())
                .send()
                .await;
            match result {
                Ok(output) => Ok(output.e_tag().unwrap_or_default().to_owned()),
                Err(e) => {
                    let error = failed(format!("complete upload of {}", self.key), e);
                    // A retry of a completion whose answer was lost finds the upload gone: done all the
                    // same if the object stands there. (Nothing relies on it before it is verified.)
                    if error.code() == Some("NoSuchUpload")
                        && let Ok(head) = store.head(&self.key).await
                        && head.size == self.size
                    {
                        return Ok(head.etag);
                    }
                    Err(error)
                }
            }
        };
        store.retrying(store.config.repeats, 0, complete).await
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(upload_id) = self.upload_id.take() else {
            return;
        };
        self.sending.abort_all();
        let (store, key) = (self.store.clone(), std::mem::take(&mut self.key));
        self.runtime.spawn(async move {
            if let Err(error) = store.abort_upload(&key, &upload_id).await {
                tracing::warn!(%key, %error, "dropped upload not aborted; gc will");
            }
        });
    }
}

async fn send(
    store: &Store,
    key: &str,
    upload_id: &str,
    number: i32,
    part: &Part,
) -> Result<CompletedPart, StoreError> {
    let etag = store
        .retrying(store.config.repeats, part.bytes.len(), || async {
            store
                .client
                .upload_part()
                .bucket(&store.config.bucket)
                .key(key)
                .upload_id(upload_id)
                .part_number(number)
                .body(ByteStream::from(part.bytes.clone()))
                .customize()
                .config_override(store.patience(part.bytes.len()))
                .send()
                .await
                .map_err(|e| failed(format!("upload part {number} of {key}"), e))
        })
        .await?;
    store_failpoint!("upload::after-part");
    Ok(CompletedPart::builder()
        .part_number(number)
        .set_e_tag(etag.e_tag().map(str::to_owned))
        .set_checksum_crc32(etag.checksum_crc32().map(str::to_owned))
        .build())
}

fn joined<T>(
    key: &str,
    done: Result<Result<T, StoreError>, tokio::task::JoinError>,
) -> Result<T, StoreError> {
    done.unwrap_or_else(|e| Err(io_failed(format!("upload {key}"), e)))
}

/// Hashes parts in order on a thread of its own, beside packing and sending.
fn start_hasher() -> (mpsc::UnboundedSender<Arc<Part>>, JoinHandle<Sha256>) {
    // Unbounded, but what is in it holds permits of the budget.
    let (sender, mut parts) = mpsc::unbounded_channel::<Arc<Part>>();
    let hasher = tokio::task::spawn_blocking(move || {
        let mut digest = Sha256::new();
        while let Some(part) = parts.blocking_recv() {
            digest.update(&part.bytes);
        }
        digest
    });
    (sender, hasher)
}
