//! From `main` to a service's `run`, the same for all.
//!
//! Exit codes: 0 stopped as asked, 1 failed, 2 cannot start as configured (one line says what).

use std::future::Future;
use std::process::ExitCode;

use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{LogArgs, ServerArgs, Service, parse_command_or_exit, parse_or_exit};
use crate::export::{ExportError, Exporter};
use crate::frame::{BindError, HTTP_LISTEN_FLAG, bind};
use crate::{shutdown, telemetry};

/// Parses the configuration, starts logging and metrics, binds the gRPC listener and runs the service
/// until SIGTERM or SIGINT. The whole of a service's `main.rs`:
///
/// ```no_run
/// # use windlass_service::{Frame, ServerArgs, Service};
/// # #[derive(clap::Parser)] struct Config { #[command(flatten)] server: ServerArgs }
/// # impl AsRef<ServerArgs> for Config { fn as_ref(&self) -> &ServerArgs { &self.server } }
/// # async fn run(_: Config, _: tokio::net::TcpListener, _: tokio_util::sync::CancellationToken)
/// #     -> anyhow::Result<()> { Ok(()) }
/// fn main() -> std::process::ExitCode {
///     windlass_service::main(&Service { name: "api", port: 7400 }, run)
/// }
/// ```
pub fn main<C, F, Fut>(service: &Service, run: F) -> ExitCode
where
    C: Parser + AsRef<ServerArgs>,
    F: FnOnce(C, TcpListener, CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let config: C = parse_or_exit(service);
    let args = config.as_ref().clone();
    let exporter = || Exporter::start(&args.trace, service, args.listen);
    start(&service.binary(), &args.log, exporter, async |stop| {
        let listener = bind(args.listen, &service.listen_env()).await?;
        metrics::gauge!(
            "windlass_build_info",
            "service" => service.name, "version" => env!("CARGO_PKG_VERSION")
        )
        .set(1.0);
        run(config, listener, stop)
            .await
            .map_err(|error| name_variable(error, service))
    })
}

/// A frame knows the flag it could not bind; here it gets the name of its variable.
fn name_variable(error: anyhow::Error, service: &Service) -> anyhow::Error {
    match error.downcast::<BindError>() {
        Ok(bind) if bind.setting == HTTP_LISTEN_FLAG => BindError {
            setting: service.http_listen_env(),
            ..bind
        }
        .into(),
        Ok(bind) => bind.into(),
        Err(other) => other,
    }
}

/// As [`main`] for a command that does its work and ends, such as `migrate`. The token tells it to give
/// up.
pub fn run_job<C, F, Fut>(name: &'static str, run: F) -> ExitCode
where
    C: Parser + AsRef<LogArgs>,
    F: FnOnce(C, CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let command = C::command().name(name).version(env!("CARGO_PKG_VERSION"));
    let config: C = parse_command_or_exit(command);
    let log = config.as_ref().clone();
    start(
        name,
        &log,
        || Ok(None),
        async |stop| run(config, stop).await,
    )
}

fn start<E, F>(name: &str, log: &LogArgs, exporter: E, run: F) -> ExitCode
where
    E: FnOnce() -> Result<Option<Exporter>, ExportError>,
    F: AsyncFnOnce(CancellationToken) -> anyhow::Result<()>,
{
    telemetry::metrics_handle();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(name, &error.into()),
    };
    let result = runtime.block_on(async {
        let exporter = exporter()?;
        let level = telemetry::init(log, exporter.as_ref());
        let stop = shutdown::on_signal()?;
        if let Some(level) = level {
            tokio::spawn(follow_level_signals(level));
        }
        let result = run(stop).await;
        if let Some(exporter) = exporter {
            exporter.flush().await;
        }
        result
    });
    // Blocking work that does not end must not keep a stopped process alive.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(name, &error),
    }
}

/// One line, whatever the format of the log: whoever started the process reads it.
fn failed(name: &str, error: &anyhow::Error) -> ExitCode {
    eprintln!("{name}: {error:#}");
    ExitCode::from(if error.is::<BindError>() { 2 } else { 1 })
}

/// SIGUSR1 logs at debug level, SIGUSR2 goes back to the configured filter.
async fn follow_level_signals(level: &'static telemetry::LevelHandle) {
    let (Ok(mut more), Ok(mut back)) = (
        signal(SignalKind::user_defined1()),
        signal(SignalKind::user_defined2()),
    ) else {
        return;
    };
    loop {
        let changed = tokio::select! {
            _ = more.recv() => level.set("debug,h2=info,hyper=info,tower=info"),
            _ = back.recv() => level.reset(),
        };
        match changed {
            Ok(()) => tracing::info!("log level changed by signal"),
            Err(error) => tracing::warn!("log level not changed: {error}"),
        }
    }
}
