//! The services of Windlass as child processes: what each is told, in which order they start, and when
//! they are ready. Secrets go by environment, never by arguments.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use windlass_local::process::stop_stale;
use windlass_local::supervisor::{Options, Service, Status, Supervisor};

use super::engine::Engine;
use super::infra::Infrastructure;
use super::ports::Plan;
use super::root::{Helper, Job, ServiceJob};
use super::state::State;
use super::{BUCKET, DEMO_IMAGE, REGION, failed};
use crate::error::CliError;

/// In the order they start; they stop in the reverse one.
const ORDER: [&str; 6] = ["agent", "observer", "wc", "ttl", "gc", "api"];
const READY: Duration = Duration::from_secs(60);
const MIGRATED: Duration = Duration::from_secs(300);
/// Longer than root's helper gives the agent to end.
const HELPER_GRACE: Duration = Duration::from_secs(15);
/// A service that ended this often before it was ready will not become so.
const HOPELESS: u32 = 3;

/// The binaries, which lie where this one lies.
#[derive(Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// Finds them all, so that a missing one is told before anything starts.
    pub fn find() -> Result<Self, CliError> {
        let own = std::env::current_exe().map_err(failed)?;
        let dir = own.parent().map(PathBuf::from).unwrap_or_default();
        let programs = Self(dir);
        for name in ORDER.into_iter().chain(["migrate"]) {
            let path = programs.path(name);
            if !path.is_file() {
                return Err(CliError::Failed(format!(
                    "{} is missing: build it with `cargo build --workspace --bins` (`./dev up` does)",
                    path.display()
                )));
            }
        }
        Ok(programs)
    }

    fn path(&self, service: &str) -> PathBuf {
        self.0.join(format!("windlass-{service}"))
    }
}

/// Ends services of an earlier, killed run, so that their ports are free. Root's agent we may not signal: its
/// helper ends it as soon as it sees that we were killed.
pub async fn stop_leftovers(state: &State) {
    for name in ORDER {
        let pid_file = state.path("run").join(format!("{name}.pid"));
        let grace = if name == "agent" && !rustix::process::geteuid().is_root() {
            HELPER_GRACE
        } else {
            Duration::from_secs(5)
        };
        stop_stale(&pid_file, grace).await;
    }
}

/// Brings the schema up to date and makes the roles and the admin's token.
pub async fn migrate(
    programs: &Programs,
    infra: &Infrastructure,
    state: &State,
) -> Result<(), CliError> {
    let path = state.path("log").join("migrate.log");
    let io = |e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()));
    let log = File::create(&path).map_err(io)?;
    let secrets = state.secrets();
    let mut command = tokio::process::Command::new(programs.path("migrate"));
    for service in ORDER {
        // All roles have the one password of our secrets.
        let own = format!("WINDLASS_{}_DB_PASSWORD", service.to_uppercase());
        command.env_remove(format!("{own}_FILE")).env_remove(own);
    }
    let mut child = command
        .env("WINDLASS_DATABASE_URL", infra.postgres_url())
        .env("WINDLASS_ROLE_PASSWORD", &secrets.role_password)
        .env("WINDLASS_ADMIN_TOKEN", &secrets.admin_token)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(io)?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| CliError::Failed(format!("windlass-migrate: {e}")))?;
    let ended = tokio::time::timeout(MIGRATED, child.wait()).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let said = text.lines().rev().find(|line| !line.trim().is_empty());
            Err(CliError::Failed(format!(
                "the migration failed ({status}): {} (log: {})",
                said.unwrap_or("it said nothing"),
                path.display()
            )))
        }
        Ok(Err(e)) => Err(failed(e)),
        Err(_) => Err(CliError::Failed(format!(
            "the migration took longer than {} s (log: {})",
            MIGRATED.as_secs(),
            path.display()
        ))),
    }
}

/// The running services.
pub struct Services {
    supervisor: Supervisor,
    /// The agent, where root has to run it for us.
    agent: Option<Helper>,
}

impl Services {
    /// Starts all.
    pub async fn start(
        programs: &Programs,
        plan: &Plan,
        infra: &Infrastructure,
        engine: &Engine,
        state: &State,
    ) -> Result<Self, CliError> {
        let supervisor = Supervisor::new(state.dir(), Options::default()).map_err(failed)?;
        let mut services = Self {
            supervisor,
            agent: None,
        };
        for name in ORDER {
            let facts = Facts {
                plan,
                state,
                role_url: infra
                    .role_url(&format!("windlass_{name}"), &state.secrets().role_password),
                redis_url: infra.redis_url(),
                s3_endpoint: infra.s3_endpoint(),
                docker_host: engine.host().to_owned(),
            };
            let set_already = |variable: &str| std::env::var_os(variable).is_some();
            let env = environment(name, &facts, set_already).into_iter();
            let service = Service {
                name: name.to_owned(),
                program: programs.path(name),
                args: Vec::new(),
                env: env.map(|(n, v)| (n.into(), OsString::from(v))).collect(),
            };
            if name == "agent" && !rustix::process::geteuid().is_root() {
                let job = Job::Service(ServiceJob::new(state, &service));
                services.agent = Some(Helper::start(state, name, &job)?);
            } else {
                services.supervisor.start(service).await.map_err(failed)?;
            }
        }
        Ok(services)
    }

    /// Waits until each says on /readyz that it can work.
    pub async fn wait_ready(&self, plan: &Plan, state: &State) -> Result<(), CliError> {
        let end = Instant::now() + READY;
        for name in ORDER {
            let address = plan.service(name).http_address();
            let log = state.path("log").join(format!("{name}.log"));
            loop {
                let why = match readyz(address).await {
                    Ok(()) => break,
                    Err(why) => why,
                };
                if let Some(exit) = self.hopeless(name) {
                    return Err(CliError::Failed(format!(
                        "{name} does not start: {exit} (log: {})",
                        log.display()
                    )));
                }
                if let Some(helper) = &self.agent {
                    // Only looks: a helper that has ended answers at once.
                    if let Ok(why) = tokio::time::timeout(Duration::ZERO, helper.ended()).await {
                        return Err(CliError::Failed(format!("agent: {why}")));
                    }
                }
                if Instant::now() >= end {
                    return Err(CliError::Failed(format!(
                        "{name} was not ready after {} s: {why} (log: {})",
                        READY.as_secs(),
                        log.display()
                    )));
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        Ok(())
    }

    fn hopeless(&self, name: &str) -> Option<String> {
        let hopeless = |s: &Status| s.name == name && s.restarts >= HOPELESS;
        let status = self.supervisor.statuses().into_iter().find(hopeless)?;
        status.last_exit
    }

    /// Ends, with the reason, when root's helper has ended; the others are started again for ever.
    pub async fn ended(&self) -> String {
        match &self.agent {
            Some(helper) => helper.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Stops all, the last started first.
    pub async fn shutdown(self) {
        self.supervisor.shutdown().await;
        if let Some(helper) = self.agent {
            helper.stop().await;
        }
    }
}

/// What the environments are made of.
struct Facts<'a> {
    plan: &'a Plan,
    state: &'a State,
    role_url: String,
    redis_url: String,
    s3_endpoint: String,
    docker_host: String,
}

/// What a service is told beyond our own environment; `set_already` keeps a user's own settings.
fn environment(
    name: &str,
    facts: &Facts<'_>,
    set_already: impl Fn(&str) -> bool,
) -> Vec<(String, String)> {
    let secrets = facts.state.secrets();
    let listen = facts.plan.service(name);
    let mut env = vec![
        (listen.grpc_variable(), listen.grpc.to_string()),
        (listen.http_variable(), listen.http.to_string()),
        (
            "WINDLASS_SERVICE_TOKEN".to_owned(),
            secrets.admin_token.clone(),
        ),
    ];
    let mut set = |name: &str, value: &str| env.push((name.to_owned(), value.to_owned()));
    if name == "agent" {
        let state_dir = facts.state.path("agent");
        set("WINDLASS_AGENT_STATE_DIR", &state_dir.to_string_lossy());
        set("WINDLASS_DOCKER_HOST", &facts.docker_host);
        set("WINDLASS_S3_ENDPOINT", &facts.s3_endpoint);
        set("WINDLASS_S3_BUCKET", BUCKET);
        set("WINDLASS_S3_REGION", REGION);
        set("WINDLASS_S3_ACCESS_KEY_ID", &secrets.s3_access_key);
        set("WINDLASS_S3_SECRET_ACCESS_KEY", &secrets.s3_secret_key);
        set("WINDLASS_S3_PATH_STYLE", "true");
    } else {
        set("WINDLASS_DATABASE_URL", &facts.role_url);
        set("WINDLASS_REDIS_URL", &facts.redis_url);
        set("WINDLASS_AGENT_ADDRESS", &facts.plan.service("agent").url());
    }
    for (variable, value) in [
        ("WINDLASS_ARCHIVE_RESYNC", "30s"),
        ("WINDLASS_MAX_RUNNING_PER_USER", "100"),
        ("WINDLASS_MAX_RUNNING", "1000"),
        ("WINDLASS_MAX_WORKSPACES_PER_USER", "1000"),
        ("WINDLASS_DEFAULT_IMAGE", DEMO_IMAGE),
    ] {
        if !set_already(variable) {
            set(variable, value);
        }
    }
    env
}

/// Asks a service whether it is ready; the error says what is not.
async fn readyz(address: SocketAddr) -> Result<(), String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(64 << 10).read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(Duration::from_secs(5), ask).await {
        Ok(Ok(answer)) => verdict(&answer),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// What an answer of /readyz says.
fn verdict(answer: &str) -> Result<(), String> {
    if answer.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let report: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let checks = report["checks"].as_object().into_iter().flatten();
    let missing: Vec<String> = checks
        .filter(|(_, check)| check["ready"] == false)
        .map(|(name, check)| format!("{name}: {}", check["reason"].as_str().unwrap_or("?")))
        .collect();
    if missing.is_empty() {
        return Err(answer
            .lines()
            .next()
            .unwrap_or("an empty answer")
            .to_owned());
    }
    Err(missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env_of(name: &str, set: &[&str]) -> std::collections::BTreeMap<String, String> {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(root.path()).unwrap();
        let plan = Plan::new(17400, |_| None).unwrap();
        let facts = Facts {
            plan: &plan,
            state: &state,
            role_url: format!("postgres://windlass_{name}:p@127.0.0.1:1/windlass"),
            redis_url: "redis://127.0.0.1:2".to_owned(),
            s3_endpoint: "http://127.0.0.1:3".to_owned(),
            docker_host: "unix:///d".to_owned(),
        };
        let env = environment(name, &facts, |variable| set.contains(&variable));
        env.into_iter().collect()
    }

    #[test]
    fn the_agent_gets_the_store_and_no_database() {
        let env = env_of("agent", &[]);
        assert!(!env.contains_key("WINDLASS_DATABASE_URL"));
        assert_eq!(env["WINDLASS_S3_ENDPOINT"], "http://127.0.0.1:3");
        assert_eq!(env["WINDLASS_AGENT_LISTEN"], "127.0.0.1:17401");
        assert_eq!(env["WINDLASS_AGENT_HTTP_LISTEN"], "127.0.0.1:17501");
    }

    #[test]
    fn the_others_get_their_own_role_and_no_store() {
        let env = env_of("wc", &[]);
        assert!(env["WINDLASS_DATABASE_URL"].contains("windlass_wc"));
        assert!(!env.contains_key("WINDLASS_S3_SECRET_ACCESS_KEY"));
        assert_eq!(env["WINDLASS_AGENT_ADDRESS"], "http://127.0.0.1:17401");
        assert_eq!(env["WINDLASS_ARCHIVE_RESYNC"], "30s");
    }

    #[test]
    fn what_the_user_set_stays() {
        let env = env_of("api", &["WINDLASS_MAX_RUNNING", "WINDLASS_DEFAULT_IMAGE"]);
        assert!(!env.contains_key("WINDLASS_MAX_RUNNING"));
        assert!(!env.contains_key("WINDLASS_DEFAULT_IMAGE"));
        assert_eq!(env["WINDLASS_MAX_RUNNING_PER_USER"], "100");
    }

    #[test]
    fn readiness_says_what_is_missing() {
        assert_eq!(verdict("HTTP/1.1 200 OK\r\n\r\n{}"), Ok(()));
        let body = r#"{"ready":false,"checks":{"postgres":{"ready":false,"reason":"refused"},"x":{"ready":true,"reason":""}}}"#;
        let answer = format!("HTTP/1.1 503 Service Unavailable\r\nx: y\r\n\r\n{body}");
        assert_eq!(verdict(&answer), Err("postgres: refused".to_owned()));
        assert_eq!(verdict(""), Err("an empty answer".to_owned()));
    }
}
