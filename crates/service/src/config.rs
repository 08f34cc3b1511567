//! One way of configuring: flags, each with an environment variable, checked once at start.
//!
//! The listen addresses are the one thing in which services differ: `--listen` of the api is
//! `WINDLASS_API_LISTEN`, so that one environment can be handed to all of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

#[doc(hidden)]
pub use clap;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Command, Parser, ValueEnum};

/// What a service is called and where it listens by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Short name, such as `api`: the metric label, and the middle of `WINDLASS_API_LISTEN`.
    pub name: &'static str,
    /// Default gRPC port on 127.0.0.1; metrics and health are served on this port + 100.
    pub port: u16,
}

impl Service {
    /// The binary's name.
    pub fn binary(&self) -> String {
        format!("windlass-{}", self.name)
    }

    /// The variable of `--listen`, such as `WINDLASS_API_LISTEN`.
    pub fn listen_env(&self) -> String {
        format!("WINDLASS_{}_LISTEN", self.env_part())
    }

    /// The variable of `--http-listen`, such as `WINDLASS_API_HTTP_LISTEN`.
    pub fn http_listen_env(&self) -> String {
        format!("WINDLASS_{}_HTTP_LISTEN", self.env_part())
    }

    fn env_part(&self) -> String {
        self.name.to_uppercase().replace('-', "_")
    }
}

/// Format of the log on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// How a process logs.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Format of the log
    #[arg(long, env = "WINDLASS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,

    /// What is logged: a level, or directives such as `info,windlass_wc=debug`
    #[arg(long, env = "WINDLASS_LOG", default_value = "info", value_name = "FILTER", value_parser = parse_filter)]
    pub log_level: String,
}

impl Default for LogArgs {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Human,
            log_level: "info".to_owned(),
        }
    }
}

/// Where traces go.
#[derive(Debug, Clone, Args)]
pub struct TraceArgs {
    /// OTLP collector that traces are sent to by gRPC, such as http://127.0.0.1:4317; empty: no traces
    #[arg(long, env = "WINDLASS_OTLP_ENDPOINT", default_value = "", value_name = "URL", value_parser = parse_endpoint)]
    pub otlp_endpoint: String,

    /// Share of users' calls that begin a trace, 0 to 1; a call that comes with a trace follows its caller
    #[arg(long, env = "WINDLASS_TRACE_SAMPLE", default_value_t = 1.0, value_name = "RATIO", value_parser = parse_ratio)]
    pub trace_sample: f64,
}

impl TraceArgs {
    /// The collector, if there is one.
    pub fn endpoint(&self) -> Option<&str> {
        (!self.otlp_endpoint.is_empty()).then_some(self.otlp_endpoint.as_str())
    }
}

/// No traces.
impl Default for TraceArgs {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            trace_sample: 1.0,
        }
    }
}

/// What every server can be told; flatten it into a service's own configuration.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Address of the gRPC server; give 0.0.0.0:PORT to be reached from other machines
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,

    /// Address of /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<SocketAddr>,

    /// How long calls in flight may take to finish after SIGTERM before they are cut
    #[arg(long, env = "WINDLASS_DRAIN_TIMEOUT", default_value = "10s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// Longest time a call may take (a client's shorter deadline wins; Watch methods have none)
    #[arg(long, env = "WINDLASS_REQUEST_TIMEOUT", default_value = "60s", value_parser = parse_duration)]
    pub request_timeout: Duration,

    /// Calls in progress at once; more are answered with RESOURCE_EXHAUSTED
    #[arg(long, env = "WINDLASS_MAX_CONCURRENT_REQUESTS", default_value_t = 1024)]
    pub max_concurrent_requests: usize,

    /// How the process logs
    #[command(flatten)]
    pub log: LogArgs,

    /// Where its traces go
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// For tests: any free port on loopback, no HTTP server.
impl Default for ServerArgs {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            http_listen: None,
            drain_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            max_concurrent_requests: 1024,
            log: LogArgs::default(),
            trace: TraceArgs::default(),
        }
    }
}

/// Reads a duration: `500ms`, `10s`, `5m`, `2h`, `7d`; a bare number is seconds.
///
/// # Errors
/// Says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor_ms: u64 = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        unit => return Err(format!("unknown unit {unit:?}; use ms, s, m, h or d")),
    };
    let count: u64 = digits.parse().map_err(|_| {
        "expected a whole number and a unit, such as 500ms, 10s, 5m, 2h or 7d".to_owned()
    })?;
    count
        .checked_mul(factor_ms)
        .map(Duration::from_millis)
        .ok_or_else(|| "too long".to_owned())
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    if !text.is_empty() {
        crate::client::check_address(text).map_err(|error| error.to_string())?;
    }
    Ok(text.to_owned())
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.0..=1.0).contains(&ratio) {
        Ok(ratio)
    } else {
        Err("expected a number from 0 to 1".to_owned())
    }
}

fn parse_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Gives the shared flags of `command` the variables and defaults of `service`.
pub fn command_for(command: Command, service: &Service) -> Command {
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let default = |port: u16| leak(SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string());
    let listen = (leak(service.listen_env()), default(service.port));
    let http = (leak(service.http_listen_env()), default(service.port + 100));
    command
        .name(leak(service.binary()))
        .version(env!("CARGO_PKG_VERSION"))
        .mut_arg("listen", |arg| arg.env(listen.0).default_value(listen.1))
        .mut_arg("http_listen", |arg| arg.env(http.0).default_value(http.1))
}

/// Parses the command line and environment, or prints one message and exits with code 2.
///
/// `--help` and `--version` print and exit with 0.
pub fn parse_or_exit<C: Parser>(service: &Service) -> C {
    parse_command_or_exit(command_for(C::command(), service))
}

/// As [`parse_or_exit`] for a command that serves nothing.
pub fn parse_command_or_exit<C: Parser>(command: Command) -> C {
    match parse_from(command.clone(), std::env::args_os()) {
        Ok(config) => config,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            error.exit()
        }
        Err(error) => {
            eprintln!("{}: {}", command.get_name(), explain(&command, &error));
            std::process::exit(2)
        }
    }
}

fn parse_from<C, I, T>(mut command: Command, args: I) -> Result<C, clap::Error>
where
    C: Parser,
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let matches = command.try_get_matches_from_mut(args)?;
    C::from_arg_matches(&matches)
}

/// clap's sentence on one line, with the variables of the flags it speaks of.
fn explain(command: &Command, error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let first = rendered.split("\n\n").next().unwrap_or_default();
    let sentence = first
        .trim_start_matches("error: ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let named: Vec<&str> = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => vec![arg],
        Some(ContextValue::Strings(args)) => args.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let mut command = command.clone();
    command.build();
    let variables: Vec<_> = command
        .get_arguments()
        .filter(|arg| named.contains(&arg.to_string().as_str()))
        .filter_map(|arg| arg.get_env().map(|env| env.to_string_lossy()))
        .collect();
    if variables.is_empty() {
        sentence
    } else {
        format!("{sentence} ({})", variables.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const SERVICE: Service = Service {
        name: "api",
        port: 7400,
    };

    /// What this service is for.
    #[derive(Parser, Debug)]
    struct Config {
        #[command(flatten)]
        server: ServerArgs,
        #[arg(long, env = "WINDLASS_CONFIG_TEST_REQUIRED")]
        required: String,
    }

    fn parse(args: &[&str]) -> Result<Config, String> {
        let command = command_for(Config::command(), &SERVICE);
        parse_from(
            command.clone(),
            std::iter::once("x").chain(args.iter().copied()),
        )
        .map_err(|error| explain(&command, &error))
    }

    #[test]
    fn defaults_are_loopback_and_the_services_ports() {
        let config = parse(&["--required", "r"]).unwrap();
        assert_eq!(config.required, "r");
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:7400");
        assert_eq!(
            config.server.http_listen.unwrap().to_string(),
            "127.0.0.1:7500"
        );
        assert_eq!(config.server.drain_timeout, Duration::from_secs(10));
        let open = parse(&["--required", "r", "--listen", "0.0.0.0:7400"]).unwrap();
        assert_eq!(open.server.listen.to_string(), "0.0.0.0:7400");
    }

    #[test]
    fn help_is_about_the_service() {
        let help = command_for(Config::command(), &SERVICE)
            .render_help()
            .to_string();
        assert!(help.starts_with("What this service is for\n"), "{help}");
        assert!(help.contains("[env: WINDLASS_API_HTTP_LISTEN="), "{help}");
    }

    #[test]
    fn errors_are_one_line_that_names_the_variable() {
        let wrong = parse(&["--required", "r", "--listen", "nonsense"]).unwrap_err();
        assert!(
            wrong.contains("(WINDLASS_API_LISTEN)") && !wrong.contains('\n'),
            "{wrong}"
        );
        let missing = parse(&[]).unwrap_err();
        assert!(
            missing.contains("(WINDLASS_CONFIG_TEST_REQUIRED)"),
            "{missing}"
        );
        let filter = parse(&["--required", "r", "--log-level", "a=b=c"]).unwrap_err();
        assert!(filter.contains("(WINDLASS_LOG)"), "{filter}");
        let endpoint = [
            "--required",
            "r",
            "--otlp-endpoint",
            "https://collector:4317",
        ];
        let endpoint = parse(&endpoint).unwrap_err();
        assert!(endpoint.contains("(WINDLASS_OTLP_ENDPOINT)"), "{endpoint}");
        let ratio = parse(&["--required", "r", "--trace-sample", "1.5"]).unwrap_err();
        assert!(ratio.contains("(WINDLASS_TRACE_SAMPLE)"), "{ratio}");
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("500ms", 500),
            ("10", 10_000),
            ("10s", 10_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "-1s",
            "1.5s",
            "10 s",
            "3w",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
