//! Reading objects: ranges with retries, and whole objects as ordered parallel ranges.

use std::future::Future;
use std::time::{Duration, Instant};

use aws_sdk_s3::primitives::ByteStream;
use backon::{ExponentialBuilder, Retryable};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use tokio_util::task::AbortOnDropHandle;

use super::error::{failed, io_failed};
use super::{Store, StoreError, StoreErrorKind};

/// Bytes of one range, and what the store says of the whole object.
#[derive(Debug, Clone)]
pub struct RangePart {
    /// The range's bytes, exactly as many as asked for.
    pub bytes: Bytes,
    /// Size of the whole object, where the store tells it.
    pub object_size: Option<u64>,
    /// The object's etag: two ranges with different ones are not of one object.
    pub etag: Option<String>,
}

/// Bytes per range of a parallel download.
const RANGE: u64 = 4 << 20;
/// Most ranges in memory at a time: being fetched, fetched ahead, and the one that the consumer has.
const RANGES: usize = 4;

impl Store {
    /// `length` bytes (at least 1) from `offset`. A transfer that breaks off is repeated; fewer bytes
    /// than asked for are `Corrupt`.
    pub async fn get_range(
        &self,
        key: &str,
        offset: u64,
        length: u64,
    ) -> Result<RangePart, StoreError> {
        let action = || format!("get {key} at {offset}");
        let limit = usize::try_from(length).map_err(|e| io_failed(action(), e))?;
        self.retrying(self.config.repeats, limit, || async {
            let output = self
                .client
                .get_object()
                .bucket(&self.config.bucket)
                .key(key)
                .range(format!(
                    "bytes={offset}-{}",
                    offset.saturating_add(length).saturating_sub(1)
                ))
                .send()
                .await
                .map_err(|e| failed(action(), e).of_get())?;
            let object_size = output
                .content_range()
                .and_then(|range| range.rsplit_once('/'))
                .and_then(|(_, total)| total.parse().ok());
            let etag = output.e_tag().map(str::to_owned);
            let bytes = self.collect(key, output.body, limit).await?;
            if bytes.len() != limit {
                return Err(StoreError::new(
                    StoreErrorKind::Corrupt,
                    action(),
                    format!("{} bytes came instead of {length}", bytes.len()),
                ));
            }
            Ok(RangePart {
                bytes,
                object_size,
                etag,
            })
        })
        .await
    }

    /// The whole object of `size` bytes as ordered chunks, several ranges being fetched at a time. An
    /// object of another size, or one replaced meanwhile, is `Corrupt`.
    pub fn get_stream(
        &self,
        key: &str,
        size: u64,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let store = self.clone();
        let key = key.to_owned();
        let parallel = self.config.parts_in_flight.min(RANGES);
        let ranges = stream::iter((0..size.div_ceil(RANGE)).map(|i| i * RANGE));
        let fetched = ranges.map(move |offset| {
            let (store, key) = (store.clone(), key.clone());
            // A task each, so that transfers go on while the consumer is busy.
            let task = AbortOnDropHandle::new(tokio::spawn(async move {
                let part = store
                    .get_range(&key, offset, RANGE.min(size - offset))
                    .await?;
                match part.object_size {
                    Some(real) if real != size => Err(StoreError::new(
                        StoreErrorKind::Corrupt,
                        format!("get {key}"),
                        format!("the object has {real} bytes, its marker says {size}"),
                    )),
                    _ => Ok(part),
                }
            }));
            async move {
                task.await
                    .unwrap_or_else(|e| Err(io_failed("download".into(), e)))
            }
        });
        let mut first_etag = None;
        fetched.buffered(parallel).map(move |part| {
            let part = part?;
            if first_etag.is_none() {
                first_etag = part.etag.clone();
            }
            if part.etag != first_etag {
                return Err(StoreError::new(
                    StoreErrorKind::Corrupt,
                    "download".into(),
                    "the object was replaced while it was read",
                ));
            }
            Ok(part.bytes)
        })
    }

    /// Reads a body to its end into memory of `limit` bytes; more than that are `Invalid`.
    pub(super) async fn collect(
        &self,
        key: &str,
        mut body: ByteStream,
        limit: usize,
    ) -> Result<Bytes, StoreError> {
        let ended = |kind, why: String| StoreError::new(kind, format!("read {key}"), why);
        let reading = async {
            // At once: growing would double it, and several ranges wait in memory.
            let mut bytes = BytesMut::with_capacity(limit);
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|e| io_failed(format!("read {key}"), e))?;
                if chunk.len() > limit - bytes.len() {
                    let why = format!("more than {limit} bytes");
                    return Err(ended(StoreErrorKind::Invalid, why));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes.freeze())
        };
        // The SDK ends a body that stands still, and takes one that trickles for alive. Others are under way
        // at the same time and on the same line.
        let longest = self.transfer_time(limit * RANGES);
        tokio::time::timeout(longest, reading)
            .await
            .unwrap_or_else(|_| {
                let why = format!("only part of {limit} bytes came in {longest:?}");
                Err(ended(StoreErrorKind::Unreachable, why))
            })
    }

    /// Repeats a call that moves so many bytes, and that may pass later: its body broke off half-way, which
    /// the SDK's own retries do not cover, the store refused it for now (a storm of 503) or took no
    /// connection. Not for longer than the SDK's attempts could have taken with a store that hangs.
    pub(super) async fn retrying<T, F, Fut>(
        &self,
        repeats: usize,
        bytes: usize,
        call: F,
    ) -> Result<T, StoreError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, StoreError>>,
    {
        let policy = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(repeats)
            .with_jitter();
        let begun = Instant::now();
        let longest = self.transfer_time(bytes) * self.config.max_attempts;
        call.retry(policy)
            .when(|e| e.worth_repeating() && begun.elapsed() < longest)
            .notify(|e, delay| tracing::warn!(error = %e, ?delay, "store call failed, repeating"))
            .await
    }
}
