//! Logs to standard error, metrics for Prometheus, spans to the exporter if there is one.
//!
//! Both are one per process. Tests start many services in one process, so starting twice is fine: the
//! first start counts.

use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, filter, reload};

use crate::config::{LogArgs, LogFormat};
use crate::export::Exporter;

/// Upper bounds, in seconds, of every histogram whose name ends in `_seconds`.
const SECONDS_BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// The same of those that measure what may move a whole home.
const LONG_SECONDS_BUCKETS: [f64; 12] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0,
];
const LONG: [&str; 2] = [
    "windlass_operation_duration_seconds",
    "windlass_agent_job_seconds",
];

static LEVEL: OnceLock<LevelHandle> = OnceLock::new();
static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Changes what is logged while the process runs.
#[derive(Debug)]
pub struct LevelHandle {
    handle: reload::Handle<EnvFilter, Registry>,
    configured: String,
    current: Mutex<String>,
}

impl LevelHandle {
    /// Sets the filter, such as `debug` or `info,windlass_wc=trace`.
    ///
    /// # Errors
    /// When it is not a filter.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let parsed = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        // One at a time, so that what is told is what holds. A text is whole after any panic.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle
            .reload(parsed)
            .map_err(|error| error.to_string())?;
        filter.clone_into(&mut current);
        Ok(())
    }

    /// The filter that holds now.
    pub fn current(&self) -> String {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Goes back to what the configuration says.
    ///
    /// # Errors
    /// When the subscriber is gone.
    pub fn reset(&self) -> Result<(), String> {
        self.set(&self.configured)
    }
}

/// Starts logging as configured, and exporting spans if there is an exporter, and returns the handle to
/// change what is logged. `None` when something else, such as a test, has installed a subscriber.
///
/// What is exported does not depend on what is logged: of Windlass's own code, spans at level info and above,
/// and events at level warn and above.
pub fn init(args: &LogArgs, exporter: Option<&Exporter>) -> Option<&'static LevelHandle> {
    if let Some(level) = LEVEL.get() {
        return Some(level);
    }
    // The configuration has been checked; a filter that does not parse here is a caller's own.
    let filter = EnvFilter::try_new(&args.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let installed = match exporter {
        // One filter for everything: what is not logged costs nothing at all.
        None => tracing_subscriber::registry()
            .with(filter)
            .with(output(args.log_format))
            .try_init(),
        Some(exporter) => tracing_subscriber::registry()
            .with(output(args.log_format).with_filter(filter))
            .with(exporter.layer().with_filter(filter::filter_fn(is_exported)))
            .try_init(),
    };
    installed.ok()?;
    Some(LEVEL.get_or_init(|| LevelHandle {
        handle,
        configured: args.log_level.clone(),
        current: Mutex::new(args.log_level.clone()),
    }))
}

fn output<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let output = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Human => Box::new(output.with_target(false)),
        LogFormat::Json => Box::new(output.json().flatten_event(true).with_current_span(true)),
    }
}

fn is_exported(meta: &Metadata<'_>) -> bool {
    let level = if meta.is_span() {
        Level::INFO
    } else {
        Level::WARN
    };
    *meta.level() <= level && meta.target().starts_with("windlass")
}

/// The handle to change what is logged, where [`init`] has installed the log.
pub fn level() -> Option<&'static LevelHandle> {
    LEVEL.get()
}

/// The metrics of this process; the first call installs the recorder.
///
/// Whoever serves them has to call `run_upkeep` on the handle from time to time.
pub fn metrics_handle() -> &'static PrometheusHandle {
    METRICS.get_or_init(|| {
        let long = LONG.map(|name| (Matcher::Full(name.to_owned()), &LONG_SECONDS_BUCKETS[..]));
        let all = Matcher::Suffix("_seconds".to_owned());
        let recorder = std::iter::once((all, &SECONDS_BUCKETS[..]))
            .chain(long)
            .try_fold(PrometheusBuilder::new(), |builder, (of, buckets)| {
                builder.set_buckets_for_metric(of, buckets)
            })
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
        let level = init(&args, None).unwrap();
        assert!(init(&args, None).is_some());
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        level.set("debug").unwrap();
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        level.reset().unwrap();
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        assert_eq!(level.current(), "info");
        assert!(level.set("a=b=c").is_err());
        assert_eq!(level.current(), "info");
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
