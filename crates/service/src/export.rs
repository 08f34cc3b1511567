//! Where traces go: a collector that speaks OTLP over gRPC.
//!
//! Spans are sent in the background, in batches, from a queue of bounded length: a collector that is slow or
//! away costs spans, never a call. What is sampled is decided where a trace begins; everybody after that
//! follows the caller (parent-based).

use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry::trace::{Link, SpanKind, TraceId, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample,
};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Service, TraceArgs};
use crate::trace::{self, UserCall};

/// How long the last spans may take to be sent when the process stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the collector may take to accept a batch.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("cannot export traces to {endpoint}: {why}")]
pub struct ExportError {
    endpoint: String,
    why: String,
}

/// Exports the spans of this process until it is [flushed](Self::flush).
#[derive(Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Starts exporting if an endpoint is configured. Within a tokio runtime; nothing is connected yet.
    ///
    /// # Errors
    /// When the endpoint is none.
    pub fn start(
        args: &TraceArgs,
        service: &Service,
        listen: SocketAddr,
    ) -> Result<Option<Self>, ExportError> {
        let Some(endpoint) = args.endpoint() else {
            return Ok(None);
        };
        let failed = |why: String| ExportError {
            endpoint: endpoint.to_owned(),
            why,
        };
        let channel = crate::client::channel(endpoint).map_err(|e| failed(e.to_string()))?;
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(channel)
            .with_timeout(SEND_TIMEOUT)
            .build()
            .map_err(|e| failed(e.to_string()))?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(UserCalls {
                ratio: Sampler::TraceIdRatioBased(args.trace_sample),
            })))
            .with_resource(resource(service, listen))
            .build();
        trace::enable();
        Ok(Some(Self { provider }))
    }

    /// What turns `tracing` spans into exported ones.
    pub(crate) fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_tracer(self.provider.tracer("windlass"))
    }

    /// Sends what is left, within a bound.
    pub async fn flush(self) {
        let flushed =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_TIMEOUT));
        if let Ok(Err(error)) = flushed.await {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }
}

fn resource(service: &Service, listen: SocketAddr) -> Resource {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().into_owned();
    Resource::builder()
        .with_service_name(service.binary())
        .with_attributes([
            KeyValue::new("service.namespace", "windlass"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            // Only one process can listen there.
            KeyValue::new("service.instance.id", format!("{host}/{listen}")),
            KeyValue::new("host.name", host),
        ])
        .build()
}

/// Samples the calls of users, by ratio; what belongs to no call is dropped.
#[derive(Debug, Clone)]
struct UserCalls {
    ratio: Sampler,
}

impl ShouldSample for UserCalls {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self
            .ratio
            .should_sample(parent, trace_id, name, kind, attributes, links);
        if parent.and_then(Context::get::<UserCall>).is_none() {
            result.decision = SamplingDecision::Drop;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(ratio: f64, parent: &Context) -> SamplingDecision {
        let sampler = UserCalls {
            ratio: Sampler::TraceIdRatioBased(ratio),
        };
        let id = TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        let kind = SpanKind::Internal;
        let result = sampler.should_sample(Some(parent), id, "x", &kind, &[], &[]);
        result.decision
    }

    #[test]
    fn only_calls_of_users_begin_traces() {
        let call = Context::new().with_value(UserCall);
        assert_eq!(decision(1.0, &call), SamplingDecision::RecordAndSample);
        assert_eq!(decision(0.0, &call), SamplingDecision::Drop);
        assert_eq!(decision(1.0, &Context::new()), SamplingDecision::Drop);
    }
}
