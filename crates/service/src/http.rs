//! The small HTTP server beside every gRPC server: /metrics, /healthz, /readyz, /loglevel.
//!
//! It has no authentication and tells nothing secret; it listens on loopback unless told otherwise. What is
//! logged can be changed from loopback only, wherever it listens: by who is on the machine, or in the pod.
//! /healthz says that the process answers, never more: a database being away must not get it killed.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::readiness::Readiness;
use crate::telemetry::{self, metrics_handle};

/// How often the metrics recorder folds what it has collected.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Longest filter that is taken.
const MAX_FILTER_BYTES: usize = 4096;

/// Serves until it is dropped. It goes on while the gRPC server drains, so that probes see why.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, readiness: Readiness) -> std::io::Result<()> {
    let upkeep = async {
        let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            tick.tick().await;
            metrics_handle().run_upkeep();
        }
    };
    let router = router(readiness).into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, router);
    tokio::select! {
        result = served => result,
        never = upkeep => never,
    }
}

fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route(
            "/loglevel",
            get(log_level).put(set_log_level).delete(reset_log_level),
        )
        .layer(DefaultBodyLimit::max(MAX_FILTER_BYTES))
        .with_state(readiness)
}

type Told = (StatusCode, String);

/// What is logged now.
async fn log_level() -> Told {
    match telemetry::level() {
        Some(level) => (StatusCode::OK, format!("{}\n", level.current())),
        None => no_log(),
    }
}

/// Logs by another filter, the request's body, until the process ends or it is taken back.
async fn set_log_level(ConnectInfo(peer): ConnectInfo<SocketAddr>, filter: String) -> Told {
    change(peer, |level| level.set(filter.trim()))
}

/// Logs as configured again.
async fn reset_log_level(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Told {
    change(peer, telemetry::LevelHandle::reset)
}

fn change(
    peer: SocketAddr,
    how: impl FnOnce(&telemetry::LevelHandle) -> Result<(), String>,
) -> Told {
    if !peer.ip().to_canonical().is_loopback() {
        let why = "only from loopback: from the machine itself, or through a port-forward\n";
        return (StatusCode::FORBIDDEN, why.to_owned());
    }
    let Some(level) = telemetry::level() else {
        return no_log();
    };
    match how(level) {
        Ok(()) => {
            let filter = level.current();
            tracing::warn!(filter, "log level changed over HTTP");
            (StatusCode::OK, format!("{filter}\n"))
        }
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

fn no_log() -> Told {
    let why = "this process does not log by itself\n";
    (StatusCode::NOT_FOUND, why.to_owned())
}

async fn metrics() -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        metrics_handle().render(),
    )
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    let report = readiness.report();
    let code = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    // A struct of booleans and strings always serialises.
    let body = serde_json::to_string(&report).unwrap_or_default();
    (code, [(header::CONTENT_TYPE, "application/json")], body)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn ask(method: &str, body: &'static str, peer: &str) -> (StatusCode, String) {
        let peer: SocketAddr = peer.parse().unwrap();
        let request = Request::builder().method(method).uri("/loglevel");
        let request = request.extension(ConnectInfo(peer));
        let request = request.body(Body::from(body)).unwrap();
        let response = router(Readiness::new()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        (status, String::from_utf8(body.unwrap().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_is_logged_changes_from_loopback_only() {
        const HERE: &str = "127.0.0.1:5000";
        telemetry::init(&crate::LogArgs::default(), None).unwrap();
        for there in [
            "192.0.2.7:5000",
            "[2001:db8::7]:5000",
            "[::ffff:192.0.2.7]:5000",
        ] {
            assert_eq!(ask("PUT", "debug", there).await.0, StatusCode::FORBIDDEN);
            assert_eq!(ask("DELETE", "", there).await.0, StatusCode::FORBIDDEN);
        }
        assert_eq!(ask("GET", "", "192.0.2.7:5000").await.1, "info\n");
        let filter = "info,http_test=trace";
        assert_eq!(ask("PUT", filter, HERE).await.0, StatusCode::OK);
        assert!(tracing::enabled!(target: "http_test", tracing::Level::TRACE));
        assert!(!tracing::enabled!(target: "http_other", tracing::Level::TRACE));
        assert_eq!(ask("PUT", "a=b=c", HERE).await.0, StatusCode::BAD_REQUEST);
        assert_eq!(ask("GET", "", HERE).await.1, format!("{filter}\n"));
        let mapped = "[::ffff:127.0.0.1]:5000";
        assert_eq!(ask("DELETE", "", mapped).await.1, "info\n");
        assert!(!tracing::enabled!(target: "http_test", tracing::Level::TRACE));
    }

    async fn get(readiness: &Readiness, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(readiness.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_is_told_with_reasons_and_health_is_not_readiness() {
        let readiness = Readiness::new();
        readiness.set("postgres", false, "connection refused");
        let (status, body) = get(&readiness, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(json["ready"], false);
        assert_eq!(json["checks"]["postgres"]["reason"], "connection refused");
        assert_eq!(get(&readiness, "/healthz").await.0, StatusCode::OK);

        readiness.set("postgres", true, "connected");
        assert_eq!(get(&readiness, "/readyz").await.0, StatusCode::OK);
        assert_eq!(get(&readiness, "/nothing").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        metrics_handle();
        metrics::counter!("http_test_total").increment(2);
        let (status, body) = get(&Readiness::new(), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("http_test_total 2"), "{body}");
    }
}
