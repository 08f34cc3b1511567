//! Brings the database up to date before the services start: schema, one login role per service with its
//! password, and the first admin. It is the only program that logs in as the database's owner.
//!
//! Safe to run twice and concurrently: all of it happens under one lock, and what is there already stays.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::time::Duration;

use anyhow::Context as _;
use backon::Retryable as _;
use clap::Parser;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use windlass_db::{Bootstrap, DbErrorKind, migrate};
use windlass_service::{Backoff, LogArgs, Secret, parse_duration, secret_arg};

secret_arg!(
    /// The database, as its owner.
    pub DatabaseUrl, "database-url", "WINDLASS_DATABASE_URL",
    "PostgreSQL URL of the database's owner, who may create roles"
);
secret_arg!(
    /// Password of every role that has none of its own.
    pub RolePassword, "role-password", "WINDLASS_ROLE_PASSWORD",
    "Password of the services' roles; without one, passwords stay as they are"
);
secret_arg!(
    /// Password of `windlass_api`.
    pub ApiPassword, "api-db-password", "WINDLASS_API_DB_PASSWORD", "Password of windlass_api instead"
);
secret_arg!(
    /// Password of `windlass_observer`.
    pub ObserverPassword, "observer-db-password", "WINDLASS_OBSERVER_DB_PASSWORD",
    "Password of windlass_observer instead"
);
secret_arg!(
    /// Password of `windlass_wc`.
    pub WcPassword, "wc-db-password", "WINDLASS_WC_DB_PASSWORD", "Password of windlass_wc instead"
);
secret_arg!(
    /// Password of `windlass_ttl`.
    pub TtlPassword, "ttl-db-password", "WINDLASS_TTL_DB_PASSWORD", "Password of windlass_ttl instead"
);
secret_arg!(
    /// Password of `windlass_gc`.
    pub GcPassword, "gc-db-password", "WINDLASS_GC_DB_PASSWORD", "Password of windlass_gc instead"
);
secret_arg!(
    /// Token of the first admin.
    pub AdminToken, "admin-token", "WINDLASS_ADMIN_TOKEN",
    "Token of the first admin; without one, no admin is made"
);

/// Brings Windlass' database up to date, sets the roles' passwords and makes the first admin.
#[derive(Clone, Debug, Parser)]
pub struct Config {
    #[command(flatten)]
    pub database_url: DatabaseUrl,

    #[command(flatten)]
    pub role_password: Option<RolePassword>,

    #[command(flatten)]
    pub api_password: Option<ApiPassword>,

    #[command(flatten)]
    pub observer_password: Option<ObserverPassword>,

    #[command(flatten)]
    pub wc_password: Option<WcPassword>,

    #[command(flatten)]
    pub ttl_password: Option<TtlPassword>,

    #[command(flatten)]
    pub gc_password: Option<GcPassword>,

    /// Name of the first admin
    #[arg(long, env = "WINDLASS_ADMIN_NAME", default_value = "admin", value_parser = user_name)]
    pub admin_name: String,

    #[command(flatten)]
    pub admin_token: Option<AdminToken>,

    /// How long to wait for a PostgreSQL that does not answer yet
    #[arg(long, env = "WINDLASS_MIGRATE_WAIT", default_value = "30s", value_parser = parse_duration)]
    pub wait: Duration,

    #[command(flatten)]
    pub log: LogArgs,
}

impl AsRef<LogArgs> for Config {
    fn as_ref(&self) -> &LogArgs {
        &self.log
    }
}

fn user_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > 63 || text.chars().any(char::is_control) {
        return Err("expected 1 to 63 characters without control characters".to_owned());
    }
    Ok(text.to_owned())
}

impl Config {
    /// What the migrate step is to see to.
    fn bootstrap(&self) -> Bootstrap {
        let own: [(&str, Option<&Secret>); 5] = [
            ("windlass_api", self.api_password.as_deref()),
            ("windlass_observer", self.observer_password.as_deref()),
            ("windlass_wc", self.wc_password.as_deref()),
            ("windlass_ttl", self.ttl_password.as_deref()),
            ("windlass_gc", self.gc_password.as_deref()),
        ];
        let common = self.role_password.as_deref();
        let role_passwords = own
            .into_iter()
            .filter_map(|(role, own)| {
                let password = own.or(common)?.expose().to_owned();
                Some((role.to_owned(), password))
            })
            .collect();
        let admin = self.admin_token.as_ref().map(|token| {
            let sha256 = Sha256::digest(token.expose().as_bytes());
            (self.admin_name.clone(), sha256.into())
        });
        Bootstrap {
            role_passwords,
            admin,
        }
    }
}

/// Runs the step once; waits [`Config::wait`] at most for a PostgreSQL that is still starting.
///
/// # Errors
/// When PostgreSQL does not answer in time, refuses the owner, or a migration fails.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let bootstrap = config.bootstrap();
    let attempt = || migrate(config.database_url.expose(), &bootstrap);
    let migrated = attempt
        .retry(
            Backoff::RECONNECT
                .builder()
                .with_total_delay(Some(config.wait)),
        )
        .when(|error| error.kind() == DbErrorKind::Unavailable)
        .notify(|error, _| tracing::info!("waiting for PostgreSQL: {error}"));
    let applied = tokio::select! {
        applied = migrated => applied.context("the database could not be brought up to date")?,
        () = shutdown.cancelled() => anyhow::bail!("asked to stop before the database was up to date"),
    };
    if applied.is_empty() {
        tracing::info!("the schema is up to date");
    } else {
        tracing::info!(?applied, "the schema was brought up to date");
    }
    Ok(())
}
