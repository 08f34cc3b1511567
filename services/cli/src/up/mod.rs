//! `windlass up`: PostgreSQL, Redis, an S3 store, a Docker engine if there is none, and every service of
//! Windlass as a child process, on loopback, until Ctrl-C.
//!
//! Whatever dies is started again, and whatever a killed run left is cleared away by the next one: the
//! folder `.windlass` is all the state there is, and `kill -9` of any process, this one included, is an
//! ordinary event. What it starts dies with it.

mod engine;
mod guard;
mod infra;
mod keeper;
mod ports;
pub mod root;
mod services;
mod state;

use std::io::Write as _;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::UpArgs;
use crate::error::CliError;
use crate::{envfile, values};
use engine::Engine;
use infra::Infrastructure;
use ports::Plan;
use services::Services;
use state::State;

/// The image that workspaces have if they name none.
const DEMO_IMAGE: &str = "windlass/demo:latest";
/// The bucket of archives.
const BUCKET: &str = "windlass";
const REGION: &str = "us-east-1";

/// Prints to whoever listens; nobody listening is no reason to stop.
fn tell(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Says a step.
fn say(text: impl std::fmt::Display) {
    tell(&format!("windlass up: {text}"));
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}

/// Runs until a signal asks to stop.
pub async fn run(args: UpArgs) -> Result<(), CliError> {
    start_logging();
    let mut stop = StopSignal::new().map_err(failed)?;
    let began = std::time::Instant::now();
    let running = tokio::select! {
        started = Running::start(&args) => started?,
        // What was started dies with what is dropped here.
        () = stop.received() => return Err(CliError::Failed("stopped before it was ready".to_owned())),
    };
    running.announce(began.elapsed());
    let ended = tokio::select! {
        () = stop.received() => Ok(()),
        why = running.engine.ended() => Err(CliError::Failed(why)),
        why = running.services.ended() => Err(CliError::Failed(why)),
    };
    say("stopping (again Ctrl-C: at once)");
    tokio::select! {
        () = running.shutdown() => say("stopped; the next start resumes"),
        () = stop.received() => say("stopped at once; the next start resumes"),
    }
    ended
}

fn start_logging() {
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("WINDLASS_UP_LOG").unwrap_or_else(|_| {
            tracing_subscriber::EnvFilter::new("warn,windlass=info,windlass_local=info")
        });
    // A second subscriber, as in tests, is no harm.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .try_init();
}

/// Ctrl-C, SIGTERM, or the end of the terminal.
struct StopSignal([Signal; 3]);

impl StopSignal {
    fn new() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn received(&mut self) {
        let [int, term, hup] = &mut self.0;
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    }
}

/// Everything that runs. Fields are dropped in this order: services first.
struct Running {
    services: Services,
    engine: Engine,
    infra: Infrastructure,
    plan: Plan,
    state: State,
}

impl Running {
    async fn start(args: &UpArgs) -> Result<Self, CliError> {
        ports::refuse_secret_files()?;
        let plan = Plan::from_environment(args.port_base)?;
        let mut state = State::open(&args.state_dir)?;
        let programs = services::Programs::find()?;
        root::check()?;
        services::stop_leftovers(&state).await;
        plan.check_free()?;
        state.announce_running(&plan)?;

        let engine = Engine::find_or_start(&state).await?;
        say(format!(
            "Docker engine at {} ({})",
            engine.host(),
            engine.kind()
        ));
        let infra = Infrastructure::start(&mut state, args).await?;
        say(format!(
            "PostgreSQL on port {}, Redis on {}, S3 on {}",
            infra.postgres_port(),
            infra.redis_port(),
            infra.s3_endpoint().rsplit(':').next().unwrap_or_default()
        ));
        services::migrate(&programs, &infra, &state).await?;
        let docker = engine.client().await?;
        let image = windlass_local::image::ensure_demo_image(&docker, DEMO_IMAGE);
        if image.await.map_err(failed)? {
            say(format!("made the image {DEMO_IMAGE}"));
        }
        let services = Services::start(&programs, &plan, &infra, &engine, &state).await?;
        services.wait_ready(&plan, &state).await?;
        write_env(&plan, &infra, &engine, &state)?;
        Ok(Self {
            services,
            engine,
            infra,
            plan,
            state,
        })
    }

    fn announce(&self, took: Duration) {
        let env = self.state.path("env");
        let windlass = command_name();
        let mut lines = vec![String::new()];
        for service in self.plan.services() {
            let (grpc, http) = (service.url(), service.http_url());
            let name = service.name;
            lines.push(format!("  {name:<10} {grpc}   metrics and health {http}"));
        }
        let postgres = infra::without_password(&self.infra.postgres_url());
        lines.extend([
            format!("  {:<10} {postgres}", "postgres"),
            format!("  {:<10} {}", "redis", self.infra.redis_url()),
            format!(
                "  {:<10} {}   bucket {BUCKET}",
                "s3",
                self.infra.s3_endpoint()
            ),
            format!("  {:<10} {}", "logs", self.state.path("log").display()),
            String::new(),
            format!("The token is in {}, with all addresses.", env.display()),
            format!(
                "`windlass` finds it in this folder and below; other clients: . {}",
                env.display()
            ),
            String::new(),
            "Try next:".to_owned(),
            format!("  {windlass} ws create demo"),
            format!("  {windlass} ws archive demo"),
            format!("  {windlass} ws list"),
            String::new(),
        ]);
        tell(&lines.join("\n"));
        say(format!("took {}", values::duration(took)));
        tell("ready");
    }

    async fn shutdown(self) {
        self.services.shutdown().await;
        self.infra.stop().await;
        self.engine.stop().await;
        // The lock goes last.
        drop(self.state);
    }
}

/// How to call this program from here.
fn command_name() -> String {
    let name = std::env::args()
        .next()
        .unwrap_or_else(|| "windlass".to_owned());
    let here = std::env::current_dir().unwrap_or_default();
    match std::path::Path::new(&name).strip_prefix(&here) {
        Ok(relative) => relative.display().to_string(),
        Err(_) => name,
    }
}

/// `.windlass/env`.
fn write_env(
    plan: &Plan,
    infra: &Infrastructure,
    engine: &Engine,
    state: &State,
) -> Result<(), CliError> {
    let secrets = state.secrets();
    let addresses: Vec<(String, String)> = plan
        .services()
        .iter()
        .map(|s| match s.name {
            "api" => ("WINDLASS_ADDR".to_owned(), s.url()),
            name => (format!("WINDLASS_{}_ADDR", name.to_uppercase()), s.url()),
        })
        .collect();
    let (postgres, redis, s3) = (infra.postgres_url(), infra.redis_url(), infra.s3_endpoint());
    let mut variables: Vec<(&str, &str)> = addresses
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    variables.extend([
        ("WINDLASS_TOKEN", secrets.admin_token.as_str()),
        ("WINDLASS_SERVICE_TOKEN", secrets.admin_token.as_str()),
        ("DATABASE_URL", &postgres),
        ("REDIS_URL", &redis),
        ("S3_ENDPOINT", &s3),
        ("S3_BUCKET", BUCKET),
        ("AWS_ACCESS_KEY_ID", &secrets.s3_access_key),
        ("AWS_SECRET_ACCESS_KEY", &secrets.s3_secret_key),
        ("AWS_REGION", REGION),
        ("DOCKER_HOST", engine.host()),
    ]);
    let path = state.path("env");
    envfile::write_private(&path, &envfile::render(variables))
        .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))
}
