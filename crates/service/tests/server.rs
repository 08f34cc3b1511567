//! A real server on loopback: what every service inherits from the frame.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::{NAME, Server, call, open};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use windlass_service::server::READINESS;
use windlass_service::{Backoff, Readiness, ServerArgs, reason_of};

fn health_of(name: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: name.to_owned(),
    }
}

/// Both versions have the same messages in modules of their own.
macro_rules! listed_services {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version as pb;
        use pb::server_reflection_request::MessageRequest;
        use pb::server_reflection_response::MessageResponse;
        let ask = |message_request| pb::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message_request),
        };
        let requests = futures::stream::iter([
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol(NAME.to_owned())),
        ]);
        let mut client = pb::server_reflection_client::ServerReflectionClient::new($channel);
        let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
        let listed = answers.message().await.unwrap().unwrap().message_response.unwrap();
        let file = answers.message().await.unwrap().unwrap().message_response.unwrap();
        assert!(matches!(file, MessageResponse::FileDescriptorResponse(f) if f.file_descriptor_proto.len() == 1));
        match listed {
            MessageResponse::ListServicesResponse(list) => {
                list.service.into_iter().map(|s| s.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn reflection_and_health_answer_anyone_and_know_what_is_served_here() {
    let server = Server::start(ServerArgs::default()).await;
    for names in [
        listed_services!(v1, server.channel()),
        listed_services!(v1alpha, server.channel()),
    ] {
        assert!(names.contains(&NAME.to_owned()), "{names:?}");
        assert!(
            names.contains(&"grpc.health.v1.Health".to_owned()),
            "{names:?}"
        );
        assert!(
            !names.contains(&"test.v1.ServedElsewhere".to_owned()),
            "{names:?}"
        );
    }
    let mut health = HealthClient::new(server.channel());
    for name in ["", NAME] {
        let answer = health.check(health_of(name)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    for name in ["no.such", READINESS] {
        assert_eq!(
            health.check(health_of(name)).await.unwrap_err().code(),
            Code::NotFound
        );
    }
}

#[tokio::test]
async fn the_health_of_readiness_follows_the_checks_and_nothing_else_does() {
    let readiness = Readiness::new();
    readiness.expect("postgres");
    let server = Server::start_and_tell(ServerArgs::default(), Some(readiness.clone())).await;
    let mut health = HealthClient::new(server.channel());
    let mut watch = health
        .watch(health_of(READINESS))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    for (ready, told) in [
        (true, ServingStatus::Serving),
        (false, ServingStatus::NotServing),
        (true, ServingStatus::Serving),
    ] {
        readiness.set("postgres", ready, "");
        assert_eq!(watch.message().await.unwrap().unwrap().status(), told);
        for (name, expected) in [
            (READINESS, told),
            ("", ServingStatus::Serving),
            (NAME, ServingStatus::Serving),
        ] {
            let answer = health.check(health_of(name)).await.unwrap().into_inner();
            assert_eq!(answer.status(), expected, "{name:?}");
        }
    }

    server.shutdown.cancel();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    server.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn only_a_known_caller_reaches_a_method() {
    let server = Server::start(ServerArgs::default()).await;
    let status = call(server.channel(), "WhoAmI", Request::new(()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(reason_of(&status).as_deref(), Some("TOKEN_MISSING"));

    let mut wrong = Request::new(());
    wrong
        .metadata_mut()
        .insert("authorization", "Bearer guess".parse().unwrap());
    let status = call(server.channel(), "WhoAmI", wrong).await.unwrap_err();
    assert_eq!(reason_of(&status).as_deref(), Some("TOKEN_INVALID"));

    call(server.client(), "WhoAmI", Request::new(()))
        .await
        .unwrap();
    let status = call(server.client(), "NoSuch", Request::new(()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_panic_is_internal_and_the_server_goes_on() {
    let server = Server::start(ServerArgs::default()).await;
    let client = server.client();
    let status = call(client.clone(), "Panic", Request::new(()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(reason_of(&status).as_deref(), Some("INTERNAL"));
    assert!(!format!("{status:?}").contains("secret"));

    let mut watch = open(client.clone(), "WatchThings", Request::new(()))
        .await
        .unwrap();
    let mut broken = open(client.clone(), "Break", Request::new(()))
        .await
        .unwrap();
    assert!(broken.message().await.unwrap().is_some());
    let status = broken.message().await.unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status).as_deref()),
        (Code::Internal, Some("INTERNAL"))
    );
    // The other stream of the same connection does not notice.
    assert!(watch.message().await.unwrap().is_some());
    call(client, "WhoAmI", Request::new(())).await.unwrap();

    let metrics = windlass_service::telemetry::metrics_handle().render();
    let counted =
        r#"windlass_rpc_requests_total{service="test.v1.Probe",method="Panic",code="INTERNAL"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert!(
        metrics.contains("windlass_rpc_duration_seconds_bucket"),
        "{metrics}"
    );
    assert!(!metrics.contains("NoSuch"));
}

#[tokio::test]
async fn a_deadline_is_kept_before_and_after_the_first_answer() {
    let server = Server::start(ServerArgs {
        request_timeout: Duration::from_millis(200),
        ..ServerArgs::default()
    })
    .await;
    let client = server.client();
    let status = call(client.clone(), "Slow", Request::new(()))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status).as_deref()),
        (Code::DeadlineExceeded, Some("DEADLINE"))
    );

    let mut drip = open(client.clone(), "Drip", Request::new(()))
        .await
        .unwrap();
    assert!(drip.message().await.unwrap().is_some());
    assert_eq!(
        drip.message().await.unwrap_err().code(),
        Code::DeadlineExceeded
    );

    // A method that lives as long as its client has no deadline but the client's own.
    let mut watch = open(client.clone(), "WatchThings", Request::new(()))
        .await
        .unwrap();
    assert!(watch.message().await.unwrap().is_some());
    let more = tokio::time::timeout(Duration::from_millis(400), watch.message()).await;
    assert!(more.is_err(), "{more:?}");
    drop(watch);
    server.running(0).await;
}

#[tokio::test]
async fn a_clients_deadline_is_answered_with_deadline_exceeded() {
    let server = Server::start(ServerArgs::default()).await;
    let mut request = Request::new(());
    request.set_timeout(Duration::from_secs(1));
    let status = call(server.client(), "Slow", request).await.unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status).as_deref()),
        (Code::DeadlineExceeded, Some("DEADLINE"))
    );
    server.running(0).await;
}

#[tokio::test]
async fn what_is_over_the_limit_is_shed() {
    let server = Server::start(ServerArgs {
        max_concurrent_requests: 1,
        ..ServerArgs::default()
    })
    .await;
    let client = server.client();
    // A stream without end does not use the limit up.
    let _watch = open(client.clone(), "WatchThings", Request::new(()))
        .await
        .unwrap();
    let slow = tokio::spawn({
        let client = client.clone();
        async move { call(client, "Slow", Request::new(())).await }
    });
    server.running(2).await;
    // Another connection: the limit is the server's, not a connection's.
    let status = call(server.client(), "WhoAmI", Request::new(()))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status).as_deref()),
        (Code::ResourceExhausted, Some("OVERLOADED"))
    );
    HealthClient::new(server.channel())
        .check(health_of(""))
        .await
        .unwrap();

    slow.abort();
    server.running(1).await;
    Backoff::CALL
        .call(|| call(client.clone(), "WhoAmI", Request::new(())))
        .await
        .unwrap();
}

#[tokio::test]
async fn draining_tells_health_ends_streams_and_lets_calls_finish() {
    // Nothing here waits for its end.
    let server = Server::start(ServerArgs {
        drain_timeout: Duration::from_secs(3600),
        ..ServerArgs::default()
    })
    .await;
    let client = server.client();
    let mut health = HealthClient::new(server.channel())
        .watch(health_of(NAME))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        health.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    let mut watch = open(client.clone(), "WatchThings", Request::new(()))
        .await
        .unwrap();
    assert!(watch.message().await.unwrap().is_some());
    let short = tokio::spawn(async move { call(client, "Short", Request::new(())).await });
    server.running(2).await;

    server.shutdown.cancel();
    assert_eq!(
        health.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    let status = watch.message().await.unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status).as_deref()),
        (Code::Unavailable, Some("DRAINING"))
    );
    short.await.unwrap().unwrap();
    server.served.await.unwrap().unwrap();
    assert!(
        tokio::net::TcpStream::connect(server.address)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_call_that_does_not_finish_is_cut_with_its_connection() {
    let server = Server::start(ServerArgs {
        drain_timeout: Duration::from_millis(300),
        ..ServerArgs::default()
    })
    .await;
    // Something connected that never speaks must not hold the stop up either.
    let _mute = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let client = server.client();
    let slow = tokio::spawn(async move { call(client, "Slow", Request::new(())).await });
    server.running(1).await;

    let asked = Instant::now();
    server.shutdown.cancel();
    slow.await.unwrap().unwrap_err();
    server.running(0).await;
    // Sooner than by default: the bound is the configured one.
    assert!(asked.elapsed() < ServerArgs::default().drain_timeout);
    server.served.await.unwrap().unwrap();
}
