//! What an agent can be told.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use windlass_archive::pack::Verify;
use windlass_archive::store::{ChecksumMode, ServerSideEncryption, StoreConfig};
use windlass_service::{PreviousServiceToken, ServerArgs, parse_duration, secret_arg};

secret_arg!(
    /// The token that services present to each other.
    pub ServiceToken, "service-token", "WINDLASS_SERVICE_TOKEN", "Token that callers must present"
);
secret_arg!(
    /// S3 access key id.
    pub S3AccessKeyId, "s3-access-key-id", "WINDLASS_S3_ACCESS_KEY_ID",
    "S3 access key id; without it the AWS default chain is asked"
);
secret_arg!(
    /// S3 secret access key.
    pub S3SecretAccessKey, "s3-secret-access-key", "WINDLASS_S3_SECRET_ACCESS_KEY",
    "S3 secret access key"
);

/// The data plane of one Docker host: containers, home volumes and archives
#[derive(Debug, Clone, Parser)]
pub struct Config {
    /// Shared by all servers
    #[command(flatten)]
    pub server: ServerArgs,

    /// Token that callers must present
    #[command(flatten)]
    pub service_token: ServiceToken,

    /// Token that callers may present until all have the new one
    #[command(flatten)]
    pub previous_service_token: Option<PreviousServiceToken>,

    /// Where highest epochs are kept; one agent per folder
    #[arg(
        long,
        env = "WINDLASS_AGENT_STATE_DIR",
        default_value = "/var/lib/windlass/agent"
    )]
    pub state_dir: PathBuf,

    /// The engine and how containers are made
    #[command(flatten)]
    pub docker: DockerArgs,

    /// The archive store
    #[command(flatten)]
    pub store: StoreArgs,

    /// How much is done at once
    #[command(flatten)]
    pub jobs: JobArgs,
}

impl AsRef<ServerArgs> for Config {
    fn as_ref(&self) -> &ServerArgs {
        &self.server
    }
}

/// The engine and how containers are made.
#[derive(Debug, Clone, Args)]
pub struct DockerArgs {
    /// The engine, such as unix:///var/run/docker.sock [default: DOCKER_HOST, else the system's socket]
    #[arg(long, env = "WINDLASS_DOCKER_HOST", value_name = "URL")]
    pub docker_host: Option<String>,

    /// How often all containers and volumes are listed, to prove what events have told
    #[arg(long, env = "WINDLASS_RESYNC_INTERVAL", default_value = "15s", value_parser = parse_interval)]
    pub resync_interval: Duration,

    /// What the names of this agent's containers and volumes begin with
    #[arg(long, env = "WINDLASS_PREFIX", default_value = "windlass-ws-", value_parser = parse_prefix)]
    pub prefix: String,

    /// Address on which the workspaces' HTTP port is published
    #[arg(long, env = "WINDLASS_PUBLISH_ADDRESS", default_value = "127.0.0.1")]
    pub publish_address: IpAddr,

    /// HTTP port inside the workspaces
    #[arg(long, env = "WINDLASS_WORKSPACE_PORT", default_value_t = 8080)]
    pub workspace_port: u16,

    /// Owner (uid) of a new home
    #[arg(long, env = "WINDLASS_HOME_UID", default_value_t = 1000)]
    pub home_uid: u32,

    /// Group (gid) of a new home
    #[arg(long, env = "WINDLASS_HOME_GID", default_value_t = 1000)]
    pub home_gid: u32,

    /// Whether an empty home gets what the image has at /home/coder when its container is created
    #[arg(
        long,
        env = "WINDLASS_SEED_HOME",
        default_value_t = true,
        action = clap::ArgAction::Set,
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub seed_home: bool,

    /// CPU limit in thousandths of a core, where a workspace sets none
    #[arg(long, env = "WINDLASS_DEFAULT_CPU_MILLIS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_024_000))]
    pub default_cpu_millis: u32,

    /// Memory limit in bytes, where a workspace sets none
    #[arg(long, env = "WINDLASS_DEFAULT_MEMORY_BYTES", default_value_t = 2 << 30, value_parser = clap::value_parser!(u64).range(16 << 20..=1 << 50))]
    pub default_memory_bytes: u64,

    /// Limit of processes and threads, where a workspace sets none
    #[arg(long, env = "WINDLASS_DEFAULT_PIDS", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(16..=4_194_304))]
    pub default_pids: u32,

    /// Time between SIGTERM and SIGKILL, where the caller names none
    #[arg(long, env = "WINDLASS_STOP_GRACE", default_value = "10s", value_parser = parse_duration)]
    pub stop_grace: Duration,

    /// Longest time an image pull may take
    #[arg(long, env = "WINDLASS_PULL_TIMEOUT", default_value = "10m", value_parser = parse_duration)]
    pub pull_timeout: Duration,
}

/// The archive store.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// URL of an S3-compatible server [default: AWS]
    #[arg(long, env = "WINDLASS_S3_ENDPOINT", value_name = "URL")]
    pub s3_endpoint: Option<String>,

    /// Region
    #[arg(long, env = "WINDLASS_S3_REGION", default_value = "us-east-1")]
    pub s3_region: String,

    /// Bucket
    #[arg(long, env = "WINDLASS_S3_BUCKET")]
    pub s3_bucket: String,

    /// What every key begins with, such as `windlass/`
    #[arg(long, env = "WINDLASS_S3_PREFIX", default_value = "")]
    pub s3_prefix: String,

    /// Address objects as http://host/bucket/key
    #[arg(
        long,
        env = "WINDLASS_S3_PATH_STYLE",
        default_value_t = false,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub s3_path_style: bool,

    /// When the SDK adds checksums of its own
    #[arg(long, env = "WINDLASS_S3_CHECKSUM", value_enum, default_value_t = Checksum::WhenRequired)]
    pub s3_checksum: Checksum,

    /// Access key id
    #[command(flatten)]
    pub s3_access_key_id: Option<S3AccessKeyId>,

    /// Secret access key
    #[command(flatten)]
    pub s3_secret_access_key: Option<S3SecretAccessKey>,

    /// Server-side encryption: AES256, aws:kms or aws:kms:dsse [default: what the bucket prescribes]
    #[arg(long, env = "WINDLASS_S3_SSE", value_name = "ALGORITHM")]
    pub s3_sse: Option<String>,

    /// KMS key of the server-side encryption
    #[arg(
        long,
        env = "WINDLASS_S3_SSE_KMS_KEY_ID",
        value_name = "ID",
        requires = "s3_sse"
    )]
    pub s3_sse_kms_key_id: Option<String>,

    /// How an archive is verified before it counts
    #[arg(long, env = "WINDLASS_ARCHIVE_VERIFY", value_enum, default_value_t = VerifyMode::Readback)]
    pub archive_verify: VerifyMode,

    /// Level of zstd
    #[arg(long, env = "WINDLASS_ZSTD_LEVEL", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub zstd_level: i32,

    /// How often the store is listed in full, while all archives are asked for
    #[arg(long, env = "WINDLASS_ARCHIVE_RESYNC", default_value = "5m", value_parser = parse_duration)]
    pub archive_resync: Duration,
}

impl StoreArgs {
    /// The store's own configuration.
    ///
    /// # Errors
    /// When only one half of the credentials is set.
    pub fn store_config(&self) -> anyhow::Result<StoreConfig> {
        let credentials = match (&self.s3_access_key_id, &self.s3_secret_access_key) {
            (Some(id), Some(secret)) => Some((id.expose().to_owned(), secret.expose().to_owned())),
            (None, None) => None,
            (Some(_), None) => anyhow::bail!(
                "WINDLASS_S3_ACCESS_KEY_ID is set but WINDLASS_S3_SECRET_ACCESS_KEY is not"
            ),
            (None, Some(_)) => anyhow::bail!(
                "WINDLASS_S3_SECRET_ACCESS_KEY is set but WINDLASS_S3_ACCESS_KEY_ID is not"
            ),
        };
        let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        Ok(StoreConfig {
            endpoint: given(&self.s3_endpoint),
            region: self.s3_region.clone(),
            bucket: self.s3_bucket.clone(),
            prefix: self.s3_prefix.clone(),
            force_path_style: self.s3_path_style,
            checksum: match self.s3_checksum {
                Checksum::WhenRequired => ChecksumMode::WhenRequired,
                Checksum::WhenSupported => ChecksumMode::WhenSupported,
            },
            credentials,
            sse: given(&self.s3_sse).map(|algorithm| ServerSideEncryption {
                algorithm,
                kms_key_id: given(&self.s3_sse_kms_key_id),
            }),
            ..StoreConfig::default()
        })
    }
}

/// When the SDK adds checksums of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Checksum {
    /// Where S3 demands one
    WhenRequired,
    /// Wherever S3 supports one
    WhenSupported,
}

/// How an archive is verified before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerifyMode {
    /// Read it back and compare its SHA-256
    Readback,
    /// Compare its size and trust the store
    Head,
}

impl From<VerifyMode> for Verify {
    fn from(mode: VerifyMode) -> Self {
        match mode {
            VerifyMode::Readback => Self::Readback,
            VerifyMode::Head => Self::Head,
        }
    }
}

/// How much is done at once.
#[derive(Debug, Clone, Args)]
pub struct JobArgs {
    /// Archives made at once
    #[arg(long, env = "WINDLASS_MAX_ARCHIVE_JOBS", default_value_t = 2, value_parser = at_least_one)]
    pub max_archive_jobs: usize,

    /// Checkpoints of running workspaces taken at once
    #[arg(long, env = "WINDLASS_MAX_CHECKPOINT_JOBS", default_value_t = 1, value_parser = at_least_one)]
    pub max_checkpoint_jobs: usize,

    /// Archives restored at once
    #[arg(long, env = "WINDLASS_MAX_RESTORE_JOBS", default_value_t = 2, value_parser = at_least_one)]
    pub max_restore_jobs: usize,

    /// Containers started at once
    #[arg(long, env = "WINDLASS_MAX_START_JOBS", default_value_t = 8, value_parser = at_least_one)]
    pub max_start_jobs: usize,

    /// Containers stopped at once
    #[arg(long, env = "WINDLASS_MAX_STOP_JOBS", default_value_t = 32, value_parser = at_least_one)]
    pub max_stop_jobs: usize,

    /// Volumes made, volumes deleted, and empty archives made at once, each
    #[arg(long, env = "WINDLASS_MAX_VOLUME_JOBS", default_value_t = 8, value_parser = at_least_one)]
    pub max_volume_jobs: usize,

    /// Jobs of one kind that may wait
    #[arg(long, env = "WINDLASS_MAX_QUEUED_JOBS", default_value_t = 256)]
    pub max_queued_jobs: usize,
}

/// Lists without a pause would only keep the engine busy.
fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(interval) if interval < Duration::from_millis(100) => {
            Err("must be at least 100ms".to_owned())
        }
        Ok(interval) => Ok(interval),
        Err(error) => Err(error.to_string()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err("must be a whole number".to_owned()),
    }
}

/// The engine's own rule for names, which the prefix begins.
fn parse_prefix(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let good = text
        .as_bytes()
        .first()
        .is_some_and(u8::is_ascii_alphanumeric)
        && text.bytes().all(allowed)
        && text.len() <= 64;
    if good {
        Ok(text.to_owned())
    } else {
        Err(
            "must have 1 to 64 letters, digits, '_', '.' or '-' and begin with a letter or digit"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn defaults() {
        let config =
            Config::try_parse_from(["x", "--service-token", "t", "--s3-bucket", "b"]).unwrap();
        assert_eq!(config.docker.prefix, "windlass-ws-");
        assert_eq!(config.docker.default_memory_bytes, 2 << 30);
        assert_eq!(config.jobs.max_start_jobs, 8);
        let store = config.store.store_config().unwrap();
        assert_eq!((store.credentials, store.prefix.as_str()), (None, ""));
        assert!(Config::try_parse_from(["x", "--s3-bucket", "b"]).is_err());
        assert!(Config::try_parse_from(["x", "--service-token", "t"]).is_err());
    }

    #[test]
    fn half_credentials_are_refused() {
        let args = ["x", "--service-token", "t", "--s3-bucket", "b"];
        let half = args.into_iter().chain(["--s3-access-key-id", "k"]);
        let config = Config::try_parse_from(half).unwrap();
        let error = config.store.store_config().unwrap_err().to_string();
        assert!(error.contains("WINDLASS_S3_SECRET_ACCESS_KEY"), "{error}");
    }

    #[test]
    fn prefixes_are_names() {
        for (prefix, good) in [("a-", true), ("-a", false), ("", false), ("a/b", false)] {
            assert_eq!(parse_prefix(prefix).is_ok(), good, "{prefix}");
        }
    }
}
