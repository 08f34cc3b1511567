//! What a world, and the plane of a benchmark, stand on: a PostgreSQL with the schema and a login for each service,
//! a Redis, and the environment that services find all of it by.

use std::{collections::HashMap, path::Path};

use windlass_db::Bootstrap;
use windlass_embedded_s3::Config as S3Config;
use windlass_local::{
    postgres::{self, Postgres},
    redis::{self, Redis},
};

use crate::world::{BUCKET, IMAGE};

const PASSWORD: &str = "test-password";

pub(crate) async fn start_postgres(dir: &Path, port: u16) -> Postgres {
    let config = postgres::Config::for_test(dir.join("postgres"), port);
    Postgres::start(&config).await.expect("PostgreSQL")
}

pub(crate) async fn start_redis(dir: &Path, port: u16) -> Redis {
    let config = redis::Config {
        dir: dir.join("redis"),
        port,
        die_with_parent: true,
    };
    Redis::start(&config).await.expect("Redis")
}

pub(crate) async fn migrate(postgres: &Postgres, token: &str) {
    use sha2::Digest as _;
    let roles = ["api", "observer", "wc", "ttl", "gc"];
    let bootstrap = Bootstrap {
        role_passwords: roles
            .map(|r| (format!("windlass_{r}"), PASSWORD.to_owned()))
            .to_vec(),
        admin: Some(("admin".to_owned(), sha2::Sha256::digest(token).into())),
    };
    windlass_db::migrate(&postgres.url(), &bootstrap)
        .await
        .expect("migrated");
}

pub(crate) fn role_url(postgres: &Postgres, role: &str) -> String {
    let url = postgres.url();
    let (_, host) = url.rsplit_once('@').expect("a URL with credentials");
    format!("postgres://windlass_{role}:{PASSWORD}@{host}")
}

pub(crate) fn environment(
    prefix: &str,
    token: &str,
    dir: &Path,
    postgres: &Postgres,
    redis: Option<&Redis>,
    s3: &S3Config,
) -> HashMap<String, String> {
    let mut env: HashMap<String, String> = [
        ("WINDLASS_PREFIX", prefix.to_owned()),
        ("WINDLASS_SERVICE_TOKEN", token.to_owned()),
        (
            "WINDLASS_AGENT_STATE_DIR",
            dir.join("agent").display().to_string(),
        ),
        ("WINDLASS_S3_ENDPOINT", format!("http://{}", s3.addr)),
        ("WINDLASS_S3_BUCKET", BUCKET.to_owned()),
        ("WINDLASS_S3_ACCESS_KEY_ID", s3.access_key.clone()),
        ("WINDLASS_S3_SECRET_ACCESS_KEY", s3.secret_key.clone()),
        ("WINDLASS_S3_PATH_STYLE", "true".to_owned()),
        ("WINDLASS_ARCHIVE_RESYNC", "1s".to_owned()),
        ("WINDLASS_DEFAULT_IMAGE", IMAGE.to_owned()),
        ("WINDLASS_MAX_RUNNING_PER_USER", "100".to_owned()),
        ("WINDLASS_MAX_WORKSPACES_PER_USER", "100".to_owned()),
        ("WINDLASS_LOG", "info".to_owned()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    for role in ["api", "observer", "wc", "ttl", "gc"] {
        env.insert(format!("DATABASE_URL_{role}"), role_url(postgres, role));
    }
    if let Some(redis) = redis {
        env.insert("WINDLASS_REDIS_URL".to_owned(), redis.url());
    }
    env
}

pub(crate) fn psql(url: &str, statement: &str) -> Result<String, String> {
    let output = std::process::Command::new("psql")
        .args([
            url,
            "-X",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "VERBOSITY=verbose",
            "-c",
            statement,
        ])
        .output()
        .expect("the psql program");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}
