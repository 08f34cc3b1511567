//! Flags and variables of the api.

use std::time::Duration;

use chrono::TimeDelta;
use clap::Parser;
use windlass_coordinator::{DatabaseUrl, RedisUrl, ServiceToken};
use windlass_db::write::api::Quota;
use windlass_domain::{Policy, names};
use windlass_service::{ServerArgs, parse_duration};

use crate::validate;

/// Serves users and their tools: creates, lists, changes, deletes, watches and explains workspaces.
#[derive(Clone, Debug, Parser)]
pub struct Config {
    #[command(flatten)]
    pub server: ServerArgs,

    #[command(flatten)]
    pub database_url: DatabaseUrl,

    #[command(flatten)]
    pub redis_url: Option<RedisUrl>,

    // For agents, to read archives; without it, archives are neither downloaded nor verified.
    #[command(flatten)]
    pub service_token: Option<ServiceToken>,

    /// Connections to PostgreSQL at most
    #[arg(long, env = "WINDLASS_DATABASE_POOL_SIZE", default_value_t = 16,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub database_pool_size: usize,

    /// Image of workspaces that name none
    #[arg(long, env = "WINDLASS_DEFAULT_IMAGE", default_value = "windlass/demo:latest", value_parser = image)]
    pub default_image: String,

    /// Workspaces of one user that are to run at the same time
    #[arg(long, env = "WINDLASS_MAX_RUNNING_PER_USER", default_value_t = 3)]
    pub max_running_per_user: u32,

    /// Workspaces of all users that are to run at the same time
    #[arg(long, env = "WINDLASS_MAX_RUNNING", default_value_t = 100)]
    pub max_running: u32,

    /// Workspaces of one user, deleted ones aside
    #[arg(long, env = "WINDLASS_MAX_WORKSPACES_PER_USER", default_value_t = 20)]
    pub max_workspaces_per_user: u32,

    /// Idle time after which RUNNING becomes STANDBY, as ttl is told; for ExplainWorkspace. 0: never
    #[arg(long, env = "WINDLASS_STANDBY_TTL", default_value = "600s", value_parser = ttl)]
    pub standby_ttl: Duration,

    /// Time in STANDBY after which a workspace is archived, as ttl is told; for ExplainWorkspace. 0: never
    #[arg(long, env = "WINDLASS_ARCHIVE_TTL", default_value = "1800s", value_parser = ttl)]
    pub archive_ttl: Duration,

    /// Failures in a row that end in ERROR, as wc is told; for ExplainWorkspace
    #[arg(long, env = "WINDLASS_MAX_RETRIES", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_retries: u32,

    /// Time limit of an operation, as wc is told; for ExplainWorkspace
    #[arg(long, env = "WINDLASS_OPERATION_TIMEOUT", default_value = "10m", value_parser = parse_duration)]
    pub operation_timeout: Duration,

    /// A host that was not observed for this long gets no new operation, as wc is told; for ExplainWorkspace,
    /// and new workspaces rather go to other hosts
    #[arg(long, env = "WINDLASS_STALE_AFTER", default_value = "60s", value_parser = parse_duration)]
    pub stale_after: Duration,

    /// URL of the agent of the host `default`, which is registered at start; without it, hosts are
    /// registered with HostService
    #[arg(long, env = "WINDLASS_AGENT_ADDRESS", value_name = "URL", value_parser = address)]
    pub agent_address: Option<String>,
}

impl AsRef<ServerArgs> for Config {
    fn as_ref(&self) -> &ServerArgs {
        &self.server
    }
}

/// What requests are judged and answered by.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub default_image: String,
    pub quota: Quota,
    pub standby_ttl: TimeDelta,
    pub archive_ttl: TimeDelta,
    pub policy: Policy,
}

impl Config {
    pub(crate) fn settings(&self) -> Settings {
        // The parser has bounded both TTLs.
        let delta = |d| TimeDelta::from_std(d).unwrap_or(TimeDelta::MAX);
        Settings {
            default_image: self.default_image.clone(),
            quota: Quota {
                per_user: self.max_workspaces_per_user.into(),
                running_per_user: self.max_running_per_user.into(),
                running: self.max_running.into(),
            },
            standby_ttl: delta(self.standby_ttl),
            archive_ttl: delta(self.archive_ttl),
            policy: Policy {
                max_retries: self.max_retries,
                operation_timeout: delta(self.operation_timeout),
                stale_after: delta(self.stale_after),
                ..Policy::default()
            },
        }
    }
}

fn image(text: &str) -> Result<String, String> {
    names::check_image(text).map_err(|e| e.to_string())?;
    Ok(text.to_owned())
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text)?;
    if ttl > Duration::from_secs(validate::MAX_TTL.num_seconds().unsigned_abs()) {
        return Err("must be at most 10 years".to_owned());
    }
    Ok(ttl)
}

fn address(text: &str) -> Result<String, String> {
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    validate::agent_address("address", &url).map_err(|e| e.description)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, clap::Error> {
        let given = ["api", "--database-url", "postgres://x@127.0.0.1/x"];
        Config::try_parse_from(given.iter().chain(args))
    }

    #[test]
    fn defaults_are_the_designs() {
        let config = parse(&[]).unwrap();
        let settings = config.settings();
        let quota = Quota {
            per_user: 20,
            running_per_user: 3,
            running: 100,
        };
        assert_eq!(settings.quota, quota);
        assert_eq!(settings.standby_ttl, TimeDelta::seconds(600));
        assert_eq!(settings.archive_ttl, TimeDelta::seconds(1800));
        assert_eq!(settings.default_image, "windlass/demo:latest");
        assert_eq!(settings.policy, Policy::default());
        assert_eq!(config.agent_address, None);
    }

    #[test]
    fn what_cannot_be_used_is_refused_at_start() {
        for (flag, bad) in [
            ("--default-image", "NO"),
            ("--standby-ttl", "99999d"),
            ("--agent-address", "https://"),
            ("--agent-address", "http://a"),
            ("--database-pool-size", "0"),
        ] {
            assert!(parse(&[flag, bad]).is_err(), "{flag} {bad}");
        }
        let config = parse(&["--agent-address", "127.0.0.1:7401"]).unwrap();
        assert_eq!(
            config.agent_address.as_deref(),
            Some("http://127.0.0.1:7401")
        );
    }
}
