//! A service with one method for each way a call can go, on a real server on a free port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use windlass_service::server::ServerError;
use windlass_service::{
    AuthChannel, GrpcServer, Identity, Readiness, Secret, ServerArgs, StaticToken,
};

pub const TOKEN: &str = "probe-token";
pub const NAME: &str = "test.v1.Probe";

/// Unary methods answer Empty; those that stream send one Empty and then go on as their name says.
const METHODS: [(&str, bool); 7] = [
    ("WhoAmI", false),
    ("Panic", false),
    ("Slow", false),
    ("Short", false),
    ("Drip", true),
    ("Break", true),
    ("WatchThings", true),
];

static DESCRIPTORS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let method = |(name, streams): &(&str, bool)| MethodDescriptorProto {
        name: Some((*name).to_owned()),
        input_type: Some(".test.v1.Nothing".to_owned()),
        output_type: Some(".test.v1.Nothing".to_owned()),
        server_streaming: Some(*streams),
        ..Default::default()
    };
    let service = |name: &str| ServiceDescriptorProto {
        name: Some(name.to_owned()),
        method: METHODS.iter().map(method).collect(),
        ..Default::default()
    };
    FileDescriptorSet {
        file: vec![FileDescriptorProto {
            name: Some("test/v1/probe.proto".to_owned()),
            package: Some("test.v1".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![DescriptorProto {
                name: Some("Nothing".to_owned()),
                ..Default::default()
            }],
            service: vec![service("Probe"), service("ServedElsewhere")],
            ..Default::default()
        }],
    }
    .encode_to_vec()
});

/// Calls of `Slow` that are running.
#[derive(Clone, Default)]
pub struct Probe {
    pub running: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl tonic::server::NamedService for Probe {
    const NAME: &'static str = NAME;
}

impl tower::Service<http::Request<tonic::body::Body>> for Probe {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let count = self.running.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<(), ()>::default());
            let streams = METHODS
                .iter()
                .find(|(name, _)| *name == method)
                .map(|(_, streams)| *streams);
            Ok(match streams {
                None => Status::unimplemented("").into_http(),
                Some(false) => {
                    let unary = tower::service_fn(move |request: Request<()>| {
                        unary(method.clone(), request, Running::new(&count))
                    });
                    grpc.unary(unary, request).await
                }
                Some(true) => {
                    let streaming = tower::service_fn(move |_: Request<()>| {
                        let stream = streaming(&method, Running::new(&count));
                        async { Ok::<_, Status>(Response::new(stream)) }
                    });
                    grpc.server_streaming(streaming, request).await
                }
            })
        })
    }
}

async fn unary(
    method: String,
    request: Request<()>,
    running: Running,
) -> Result<Response<()>, Status> {
    let identity = Identity::of(&request)?;
    assert_eq!(identity.name, "tester");
    match method.as_str() {
        "Panic" => panic!("the probe's secret"),
        "Slow" => tokio::time::sleep(Duration::from_secs(600)).await,
        "Short" => tokio::time::sleep(Duration::from_millis(300)).await,
        _ => {}
    }
    drop(running);
    Ok(Response::new(()))
}

fn streaming(method: &str, running: Running) -> BoxStream<'static, Result<(), Status>> {
    let breaks = method == "Break";
    stream::once(async { Ok(()) })
        .chain(stream::once(async move {
            let _running = running;
            if breaks {
                // Messages that are ready together leave together: let the first go.
                tokio::task::yield_now().await;
                panic!("the stream's secret");
            }
            std::future::pending().await
        }))
        .boxed()
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<Result<(), ServerError>>,
    pub probe: Probe,
}

impl Server {
    pub async fn start(args: ServerArgs) -> Self {
        Self::start_and_tell(args, None).await
    }

    pub async fn start_and_tell(args: ServerArgs, readiness: Option<Readiness>) -> Self {
        windlass_service::telemetry::metrics_handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let probe = Probe::default();
        let token = Arc::new(StaticToken::new(TOKEN, "tester"));
        let mut server = GrpcServer::new(&DESCRIPTORS, token, &args).add_service(probe.clone());
        if let Some(readiness) = readiness {
            server = server.tells_readiness(readiness);
        }
        Self {
            address,
            served: tokio::spawn(server.serve(listener, shutdown.clone())),
            shutdown,
            probe,
        }
    }

    pub fn channel(&self) -> Channel {
        windlass_service::channel(&self.address.to_string()).unwrap()
    }

    pub fn client(&self) -> AuthChannel {
        windlass_service::connect(&self.address.to_string(), &Secret::new(TOKEN)).unwrap()
    }

    /// Waits until `count` calls of the probe are running.
    pub async fn running(&self, count: usize) {
        tokio::time::timeout(Duration::from_secs(5), async {
            while self.probe.running.load(Ordering::SeqCst) != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the probe's calls");
    }
}

/// Calls a unary method.
pub async fn call<S>(channel: S, method: &str, request: Request<()>) -> Result<(), Status>
where
    S: tonic::client::GrpcService<tonic::body::Body>,
    S::Error: std::error::Error + Send + Sync + 'static,
    S::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
    <S::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| Status::from_error(Box::new(error)))?;
    let path = format!("/{NAME}/{method}").parse().unwrap();
    grpc.unary(request, path, ProstCodec::<(), ()>::default())
        .await
        .map(Response::into_inner)
}

/// Calls a streaming method.
pub async fn open(
    channel: AuthChannel,
    method: &str,
    request: Request<()>,
) -> Result<Streaming<()>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| Status::from_error(Box::new(error)))?;
    let path = format!("/{NAME}/{method}").parse().unwrap();
    grpc.server_streaming(request, path, ProstCodec::<(), ()>::default())
        .await
        .map(Response::into_inner)
}
