//! The small HTTP server beside every gRPC server: /metrics, /healthz, /readyz.
//!
//! It has no authentication and tells nothing secret; it listens on loopback unless told otherwise.
//! /healthz says that the process answers, never more: a database being away must not get it killed.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::readiness::Readiness;
use crate::telemetry::metrics_handle;

/// How often the metrics recorder folds what it has collected.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

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
    let served = axum::serve(listener, router(readiness));
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
        .with_state(readiness)
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
