//! Logs to standard error, metrics for Prometheus.
//!
//! Both are one per process. Tests start many services in one process, so starting twice is fine: the
//! first start counts.

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{LogArgs, LogFormat};

/// Upper bounds, in seconds, of every histogram whose name ends in `_seconds`.
const SECONDS_BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

static LEVEL: OnceLock<LevelHandle> = OnceLock::new();
static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Changes what is logged while the process runs.
#[derive(Debug, Clone)]
pub struct LevelHandle {
    handle: reload::Handle<EnvFilter, Registry>,
    configured: String,
}

impl LevelHandle {
    /// Sets the filter, such as `debug` or `info,windlass_wc=trace`.
    ///
    /// # Errors
    /// When it is not a filter.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let parsed = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        self.handle
            .reload(parsed)
            .map_err(|error| error.to_string())
    }

    /// Goes back to what the configuration says.
    ///
    /// # Errors
    /// When the subscriber is gone.
    pub fn reset(&self) -> Result<(), String> {
        self.set(&self.configured)
    }
}

/// Starts logging as configured and returns the handle to change it. `None` when something else, such
/// as a test, has installed a subscriber.
pub fn init(args: &LogArgs) -> Option<&'static LevelHandle> {
    if let Some(level) = LEVEL.get() {
        return Some(level);
    }
    // The configuration has been checked; a filter that does not parse here is a caller's own.
    let filter = EnvFilter::try_new(&args.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let output = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let output: Box<dyn Layer<_> + Send + Sync> = match args.log_format {
        LogFormat::Human => Box::new(output.with_target(false)),
        LogFormat::Json => Box::new(output.json().flatten_event(true).with_current_span(true)),
    };
    let installed = tracing_subscriber::registry()
        .with(filter)
        .with(output)
        .try_init();
    installed.ok()?;
    Some(LEVEL.get_or_init(|| LevelHandle {
        handle,
        configured: args.log_level.clone(),
    }))
}

/// The metrics of this process; the first call installs the recorder.
///
/// Whoever serves them has to call `run_upkeep` on the handle from time to time.
pub fn metrics_handle() -> &'static PrometheusHandle {
    METRICS.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let recorder = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
            .unwrap_or_else(|_| PrometheusBuilder::new()) // only an empty list is refused
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed: /metrics stays empty");
        }
        handle
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starting_twice_is_fine_and_the_level_can_change() {
        let args = LogArgs::default();
        let level = init(&args).unwrap();
        assert!(init(&args).is_some());
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        level.set("debug").unwrap();
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        level.reset().unwrap();
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        assert!(level.set("a=b=c").is_err());
    }

    #[test]
    fn metrics_are_rendered_with_buckets() {
        let handle = metrics_handle();
        metrics_handle();
        metrics::histogram!("telemetry_test_seconds").record(0.2);
        assert!(
            handle
                .render()
                .contains("telemetry_test_seconds_bucket{le=\"0.25\"} 1")
        );
    }
}
