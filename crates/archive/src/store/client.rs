//! Builds the SDK client: TLS by rustls with ring, timeouts, retries, checksums, credentials.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder as HttpBuilder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use super::{ChecksumMode, StoreConfig, StoreError, StoreErrorKind};

pub(super) async fn build(config: &StoreConfig) -> Result<Client, StoreError> {
    let http = HttpBuilder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let region = Region::new(config.region.clone());
    let credentials = match &config.credentials {
        Some((id, secret)) => SharedCredentialsProvider::new(Credentials::new(
            id.clone(),
            secret.clone(),
            None,
            None,
            "windlass",
        )),
        None => {
            let shared = aws_config::defaults(BehaviorVersion::v2026_01_12())
                .http_client(http.clone())
                .region(region.clone())
                .load()
                .await;
            shared.credentials_provider().ok_or_else(|| {
                StoreError::new(
                    StoreErrorKind::Denied,
                    "configure the store".into(),
                    "no credentials given and the default chain has none",
                )
            })?
        }
    };
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.read_timeout)
        .build();
    let stalled = StalledStreamProtectionConfig::enabled()
        .grace_period(config.stall_timeout)
        .build();
    let (request_checksums, response_checksums) = match config.checksum {
        ChecksumMode::WhenRequired => (
            RequestChecksumCalculation::WhenRequired,
            ResponseChecksumValidation::WhenRequired,
        ),
        ChecksumMode::WhenSupported => (
            RequestChecksumCalculation::WhenSupported,
            ResponseChecksumValidation::WhenSupported,
        ),
    };
    let retries = RetryConfig::standard()
        .with_max_attempts(config.max_attempts)
        .with_max_backoff(Duration::from_secs(10));
    let mut builder = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .region(region)
        .credentials_provider(credentials)
        .force_path_style(config.force_path_style)
        .timeout_config(timeouts)
        .retry_config(retries)
        .stalled_stream_protection(stalled)
        .request_checksum_calculation(request_checksums)
        .response_checksum_validation(response_checksums);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(builder.build()))
}
