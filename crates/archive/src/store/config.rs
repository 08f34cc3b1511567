//! What a store is: where, with which credentials, in which sizes.

use std::fmt;
use std::time::Duration;

use super::{StoreError, StoreErrorKind};

/// Whether the SDK adds its own checksums (CRC trailers) to requests and checks those of responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChecksumMode {
    /// Only where S3 demands one. The default: many S3-compatible servers refuse the trailers.
    #[default]
    WhenRequired,
    /// Wherever S3 supports one.
    WhenSupported,
}

/// Server-side encryption, passed through with every object that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSideEncryption {
    /// "AES256", "aws:kms" or "aws:kms:dsse".
    pub algorithm: String,
    /// KMS key, where the algorithm takes one.
    pub kms_key_id: Option<String>,
}

/// Configuration of a [`super::Store`]. `..Default::default()` fills everything but the bucket.
#[derive(Clone)]
pub struct StoreConfig {
    /// Endpoint URL of an S3-compatible server; `None` means AWS.
    pub endpoint: Option<String>,
    /// Region; default "us-east-1".
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// Prefix of every key: "" (default) or something ending in a separator, such as "x/".
    pub prefix: String,
    /// `http://host/bucket/key` instead of `http://bucket.host/key`; default false.
    pub force_path_style: bool,
    /// Default [`ChecksumMode::WhenRequired`].
    pub checksum: ChecksumMode,
    /// Access key id and secret; `None` (default) takes the SDK's default chain (environment, profile,
    /// web identity, instance role).
    pub credentials: Option<(String, String)>,
    /// Default none: whatever the bucket prescribes.
    pub sse: Option<ServerSideEncryption>,
    /// Bytes per part of an upload, 5 MiB to 1 GiB; default 16 MiB.
    pub part_size: u64,
    /// Parts held in memory at a time, 1 to 64; default 4.
    pub parts_in_flight: usize,
    /// Default 5 s.
    pub connect_timeout: Duration,
    /// Longest wait for the first byte of an answer, per attempt; default 60 s.
    pub read_timeout: Duration,
    /// Slowest transfer of a part or range that is waited for, in bytes per second: it may take this much
    /// time on top of `read_timeout`. Default 128 KiB/s.
    pub min_rate: u64,
    /// How long a body may stand still, either way, before the attempt fails; default 30 s.
    pub stall_timeout: Duration,
    /// Attempts per request, the first included; default 4.
    pub max_attempts: u32,
    /// How often what still fails, and may pass, is begun anew, with pauses of 0.2 s doubling to 5 s where
    /// work would be lost. Default 6: a store that refuses connections is waited for about half a minute.
    pub repeats: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".into(),
            bucket: String::new(),
            prefix: String::new(),
            force_path_style: false,
            checksum: ChecksumMode::default(),
            credentials: None,
            sse: None,
            part_size: 16 * 1024 * 1024,
            parts_in_flight: 4,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            min_rate: 128 * 1024,
            // The SDK's own 5 s (20 s for uploads in later versions) kill slow but living uploads.
            stall_timeout: Duration::from_secs(30),
            max_attempts: 4,
            repeats: 6,
        }
    }
}

impl StoreConfig {
    pub(super) fn validate(&self) -> Result<(), StoreError> {
        let problem = if self.bucket.is_empty() {
            "the bucket has no name"
        } else if !(5 << 20..=1 << 30).contains(&self.part_size) {
            "part_size must be 5 MiB to 1 GiB"
        } else if !(1..=64).contains(&self.parts_in_flight) {
            "parts_in_flight must be 1 to 64"
        } else if self.prefix.starts_with('/') {
            "the prefix must not begin with a slash"
        } else {
            return Ok(());
        };
        Err(StoreError::new(
            StoreErrorKind::Invalid,
            "configure the store".into(),
            problem,
        ))
    }
}

impl fmt::Debug for StoreConfig {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("force_path_style", &self.force_path_style)
            .field("checksum", &self.checksum)
            .field("access_key_id", &self.credentials.as_ref().map(|c| &c.0))
            .field("sse", &self.sse)
            .field("part_size", &self.part_size)
            .field("parts_in_flight", &self.parts_in_flight)
            .finish_non_exhaustive()
    }
}
