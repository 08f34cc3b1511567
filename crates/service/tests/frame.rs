//! The whole frame of a service: servers, loops, readiness, and how they end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use windlass_local::ports::free_port;
use windlass_service::frame::BindError;
use windlass_service::server::READINESS;
use windlass_service::{Frame, GrpcServer, Readiness, ServerArgs, StaticToken, Tasks};

fn frame(args: &ServerArgs, shutdown: &CancellationToken) -> Frame {
    Frame {
        grpc: GrpcServer::new(&[], Arc::new(StaticToken::new("t", "tester")), args),
        readiness: Readiness::new(),
        tasks: Tasks::new(shutdown.clone()),
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test]
async fn it_serves_http_and_stops_when_asked() {
    let shutdown = CancellationToken::new();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let args = ServerArgs {
        http_listen: Some(address),
        ..ServerArgs::default()
    };
    let frame = frame(&args, &shutdown);
    let readiness = frame.readiness.clone();
    let listener = listener().await;
    let grpc = listener.local_addr().unwrap().to_string();
    let running = tokio::spawn(async move { frame.run(&args, listener).await });

    let answer = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            match get(address, "/readyz").await {
                Some(answer) => return answer,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
    .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains(r#""ready":true"#),
        "{answer}"
    );
    let request = HealthCheckRequest {
        service: READINESS.to_owned(),
    };
    let mut health = HealthClient::new(windlass_service::channel(&grpc).unwrap())
        .watch(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        health.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    readiness.set("postgres", false, "away");
    assert_eq!(
        health.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    assert!(
        get(address, "/readyz")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 503")
    );
    assert!(
        get(address, "/healthz")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );

    shutdown.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(readiness.report().checks["serving"].reason, "draining");
}

#[tokio::test]
async fn a_loop_that_dies_takes_the_process_down() {
    let shutdown = CancellationToken::new();
    let args = ServerArgs::default();
    let mut frame = frame(&args, &shutdown);
    frame
        .tasks
        .spawn("tick", async { anyhow::bail!("gave up") });
    let error = frame.run(&args, listener().await).await.unwrap_err();
    assert_eq!(error.to_string(), "task tick failed: gave up");
    assert!(shutdown.is_cancelled());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = listener().await;
    let args = ServerArgs {
        http_listen: Some(taken.local_addr().unwrap()),
        ..ServerArgs::default()
    };
    let error = frame(&args, &CancellationToken::new())
        .run(&args, listener().await)
        .await
        .unwrap_err();
    assert!(error.is::<BindError>());
    let text = error.to_string();
    assert!(
        text.contains(&taken.local_addr().unwrap().to_string()) && text.contains("--http-listen"),
        "{text}"
    );
}
