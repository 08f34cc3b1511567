//! The object store: S3 through aws-sdk-s3, the only place that knows of it.
//!
//! Every call has timeouts and bounded retries, and every failure becomes a [`StoreError`] whose kind
//! says what it means and whose text keeps the store's own code. Absence is believed only where the
//! store says so about the key itself: a missing bucket, a refused or failed call is never "not found".

mod client;
mod config;
mod download;
mod error;
mod list;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, Delete, ObjectIdentifier,
};
use bytes::Bytes;

pub use config::{ChecksumMode, ServerSideEncryption, StoreConfig};
pub use download::RangePart;
pub use error::{StoreError, StoreErrorKind};
pub use list::{ObjectEntry, StaleUpload};
pub use upload::{Upload, Uploaded};

use error::{failed, io_failed};

/// Keys that one DeleteObjects request may name.
const DELETE_BATCH: usize = 1000;
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A handle on the bucket; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    config: Arc<StoreConfig>,
}

/// What a key's object is, by its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// Size in bytes.
    pub size: u64,
    /// Entity tag as the store gives it.
    pub etag: String,
}

impl Store {
    /// Prepares a client. Does no I/O beyond reading local configuration: an unreachable store shows
    /// at the first call (see [`Store::probe`]), not here. Fails with `Invalid` on a bad configuration.
    pub async fn new(config: StoreConfig) -> Result<Self, StoreError> {
        config.validate()?;
        let client = client::build(&config).await?;
        Ok(Self {
            client,
            config: Arc::new(config),
        })
    }

    /// The key prefix of everything that belongs to this installation.
    pub fn prefix(&self) -> &str {
        &self.config.prefix
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.config.bucket
    }

    /// Cheap reachability and permission check: one list request for one key, no retries, 5 s.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(PROBE_TIMEOUT)
            .connect_timeout(self.config.connect_timeout)
            .build();
        let overrides = aws_sdk_s3::config::Builder::new()
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled());
        self.client
            .list_objects_v2()
            .bucket(&self.config.bucket)
            .prefix(&self.config.prefix)
            .max_keys(1)
            .customize()
            .config_override(overrides)
            .send()
            .await
            .map(drop)
            .map_err(|e| failed(format!("probe bucket {}", self.config.bucket), e))
    }

    /// Creates the bucket where it does not exist yet.
    pub async fn ensure_bucket(&self) -> Result<(), StoreError> {
        let bucket = &self.config.bucket;
        match self.client.head_bucket().bucket(bucket).send().await {
            Ok(_) => return Ok(()),
            Err(e) => {
                let error = failed(format!("look for bucket {bucket}"), e);
                if error.status() != Some(404) {
                    return Err(error);
                }
            }
        }
        let mut request = self.client.create_bucket().bucket(bucket);
        if self.config.region != "us-east-1" {
            let location = BucketLocationConstraint::from(self.config.region.as_str());
            request = request.create_bucket_configuration(
                CreateBucketConfiguration::builder()
                    .location_constraint(location)
                    .build(),
            );
        }
        match request.send().await {
            Ok(_) => Ok(()),
            Err(e) => {
                let error = failed(format!("create bucket {bucket}"), e);
                match error.code() {
                    Some("BucketAlreadyOwnedByYou") => Ok(()),
                    _ => Err(error),
                }
            }
        }
    }

    /// Size and etag of an object; `NotFound` where the store answers 404, in which HEAD cannot say why.
    pub async fn head(&self, key: &str) -> Result<ObjectHead, StoreError> {
        let head = self
            .retrying(self.config.repeats, 0, || async {
                self.client
                    .head_object()
                    .bucket(&self.config.bucket)
                    .key(key)
                    .send()
                    .await
                    .map_err(|e| failed(format!("head {key}"), e))
            })
            .await?;
        Ok(ObjectHead {
            size: head
                .content_length()
                .and_then(|n| n.try_into().ok())
                .unwrap_or(0),
            etag: head.e_tag().unwrap_or_default().to_owned(),
        })
    }

    /// A whole small object. Fails with `Invalid` where it is larger than `limit` bytes.
    pub async fn get_small(&self, key: &str, limit: usize) -> Result<Bytes, StoreError> {
        // Where jobs begin: nothing is lost yet, and somebody may be waiting for the reason.
        let repeats = self.config.repeats.min(2);
        self.retrying(repeats, limit, || async {
            let output = self
                .client
                .get_object()
                .bucket(&self.config.bucket)
                .key(key)
                .send()
                .await
                .map_err(|e| failed(format!("get {key}"), e).of_get())?;
            self.collect(key, output.body, limit).await
        })
        .await
    }

    /// Writes a small object in one request; visible wholly or not at all.
    pub async fn put_small(&self, key: &str, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        self.put(key, bytes.into()).await.map(drop)
    }

    /// The longest that so many bytes may be under way.
    fn transfer_time(&self, bytes: usize) -> Duration {
        let seconds = bytes as u64 / self.config.min_rate.max(1);
        self.config.read_timeout + Duration::from_secs(seconds)
    }

    /// Timeouts for a request that carries so many bytes: the SDK's read timeout runs from the first
    /// byte sent, and would take a slow link for a store that hangs.
    fn patience(&self, bytes: usize) -> aws_sdk_s3::config::Builder {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.config.connect_timeout)
            .read_timeout(self.transfer_time(bytes))
            .build();
        aws_sdk_s3::config::Builder::new().timeout_config(timeouts)
    }

    /// PutObject with the configured encryption; returns the etag.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<String, StoreError> {
        let sse = self.config.sse.as_ref();
        self.retrying(self.config.repeats, bytes.len(), || async {
            let output = self
                .client
                .put_object()
                .bucket(&self.config.bucket)
                .key(key)
                .set_server_side_encryption(sse.map(|s| s.algorithm.as_str().into()))
                .set_ssekms_key_id(sse.and_then(|s| s.kms_key_id.clone()))
                .body(ByteStream::from(bytes.clone()))
                .customize()
                .config_override(self.patience(bytes.len()))
                .send()
                .await
                .map_err(|e| failed(format!("put {key}"), e))?;
            Ok(output.e_tag().unwrap_or_default().to_owned())
        })
        .await
    }

    /// Deletes exactly these keys; each has its own result, in the given order. A key that does not
    /// exist counts as deleted.
    pub async fn delete(&self, keys: &[String]) -> Vec<(String, Result<(), StoreError>)> {
        let mut results = Vec::with_capacity(keys.len());
        for batch in keys.chunks(DELETE_BATCH) {
            let outcome = self.delete_batch(batch).await;
            for key in batch {
                let result = match &outcome {
                    Err(error) => Err(error.clone()),
                    Ok(failures) => match failures.iter().find(|(failed, _)| failed == key) {
                        Some((_, error)) => Err(error.clone()),
                        None => Ok(()),
                    },
                };
                results.push((key.clone(), result));
            }
        }
        results
    }

    async fn delete_batch(&self, keys: &[String]) -> Result<Vec<(String, StoreError)>, StoreError> {
        let action = || format!("delete {} objects", keys.len());
        let mut delete = Delete::builder().quiet(true);
        for key in keys {
            let object = ObjectIdentifier::builder().key(key).build();
            delete = delete.objects(object.map_err(|e| io_failed(action(), e))?);
        }
        let output = self
            .client
            .delete_objects()
            .bucket(&self.config.bucket)
            .delete(delete.build().map_err(|e| io_failed(action(), e))?)
            .send()
            .await
            .map_err(|e| failed(action(), e))?;
        let mut failures = Vec::new();
        for e in output.errors() {
            let failure = |what| {
                let code = e.code().unwrap_or("Unknown");
                StoreError::from_code(what, code, e.message().unwrap_or_default())
            };
            // Of which key it is nobody knows: then none counts as deleted.
            let Some(key) = e.key() else {
                return Err(failure(action()));
            };
            let error = failure(format!("delete {key}"));
            if error.kind() != StoreErrorKind::NotFound {
                failures.push((key.to_owned(), error));
            }
        }
        Ok(failures)
    }
}
