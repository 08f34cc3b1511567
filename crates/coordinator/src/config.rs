//! What every coordinator is told.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Args;
use windlass_db::Pool;
use windlass_domain::shard::MAX_SHARDS;
use windlass_service::{PreviousServiceToken, Secret, StaticToken, parse_duration};

use crate::{hints::Hints, run::Periods};

windlass_service::secret_arg!(
    /// The database, as this service's own role.
    pub DatabaseUrl, "database-url", "WINDLASS_DATABASE_URL",
    "PostgreSQL URL of this service's role"
);
windlass_service::secret_arg!(
    /// Where hints and activity go.
    pub RedisUrl, "redis-url", "WINDLASS_REDIS_URL",
    "Redis URL; without it hints travel over PostgreSQL"
);
windlass_service::secret_arg!(
    /// The token that services show each other.
    pub ServiceToken, "service-token", "WINDLASS_SERVICE_TOKEN",
    "Bearer token between services, and of operators who debug them"
);

/// What every coordinator is told; flatten it into a service's own configuration.
#[derive(Clone, Debug, Args)]
pub struct CoordinatorArgs {
    #[command(flatten)]
    pub database_url: DatabaseUrl,

    #[command(flatten)]
    pub redis_url: Option<RedisUrl>,

    #[command(flatten)]
    pub service_token: ServiceToken,

    #[command(flatten)]
    pub previous_service_token: Option<PreviousServiceToken>,

    /// Connections to PostgreSQL at most
    #[arg(long, env = "WINDLASS_DATABASE_POOL_SIZE", default_value_t = 4)]
    pub database_pool_size: usize,

    /// How long a leader that is gone keeps others waiting
    #[arg(long, env = "WINDLASS_LEASE_TTL", default_value = "10s", value_parser = parse_duration)]
    pub lease_ttl: Duration,

    /// Name of this machine in the leader row [default: its host name]
    #[arg(long, env = "WINDLASS_HOSTNAME")]
    pub hostname: Option<String>,

    /// Take no hints: poll alone
    #[arg(long, env = "WINDLASS_NO_HINTS")]
    pub no_hints: bool,
}

impl CoordinatorArgs {
    /// The database, for those who neither send nor take hints. Nothing is connected yet.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn pool(&self) -> anyhow::Result<Pool> {
        let pool = Pool::new(self.database_url.expose(), self.database_pool_size)?;
        Ok(pool)
    }

    /// The database and the hints. Nothing is connected yet.
    ///
    /// # Errors
    /// When a URL is malformed.
    pub fn connect(&self) -> anyhow::Result<(Pool, Hints)> {
        let pool = self.pool()?;
        let hints = match self.no_hints {
            true => Hints::off(),
            false => Hints::new(self.redis_url.as_ref().map(|url| url.expose()), &pool)?,
        };
        Ok((pool, hints))
    }

    /// Lets in whoever shows the service token.
    pub fn authenticator(&self) -> Arc<StaticToken> {
        let token: &Secret = &self.service_token;
        let previous = self.previous_service_token.as_ref();
        Arc::new(StaticToken::new(token.clone(), "service").or(previous))
    }

    /// Who leads: this machine and the address that only one of its processes can listen on.
    pub fn holder(&self, listen: SocketAddr) -> String {
        let machine = self.hostname.clone().unwrap_or_else(|| {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        });
        format!("{machine}/{listen}")
    }
}

/// Among how many leaders a coordinator's work is divided.
#[derive(Clone, Copy, Debug, Args)]
pub struct ShardArgs {
    /// Shards that replicas divide among them; the same in all replicas
    #[arg(long, env = "WINDLASS_SHARDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SHARDS)))]
    pub shards: u32,
}

/// How often a coordinator that hints wake makes passes.
#[derive(Clone, Copy, Debug, Args)]
pub struct PeriodArgs {
    /// Time between passes while something is in progress
    #[arg(long, env = "WINDLASS_ACTIVE_PERIOD", default_value = "1s", value_parser = parse_duration)]
    pub active_period: Duration,

    /// Time between passes otherwise
    #[arg(long, env = "WINDLASS_IDLE_PERIOD", default_value = "15s", value_parser = parse_duration)]
    pub idle_period: Duration,

    /// How long the active period goes on after the last reason for it
    #[arg(long, env = "WINDLASS_ACTIVE_FOR", default_value = "30s", value_parser = parse_duration)]
    pub active_for: Duration,
}

impl From<PeriodArgs> for Periods {
    fn from(args: PeriodArgs) -> Self {
        Self {
            active: args.active_period,
            idle: args.idle_period,
            active_for: args.active_for,
        }
    }
}
