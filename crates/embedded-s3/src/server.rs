//! Listening: HTTP/1.1 on loopback, and a stop that lets requests finish but not for ever.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::api::Api;
use crate::store::Store;
use crate::{Config, Error};

/// How long running requests may take to finish at shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// How long a connection may dawdle over its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// A listening store. Dropping it closes all connections at once; what was answered stays stored.
#[derive(Debug)]
pub struct Running {
    /// Where it listens (the port chosen, where 0 was asked for).
    pub addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    /// The URL to configure clients with (path-style addressing).
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops listening, lets running requests finish for up to 5 s and closes the rest.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn start(config: Config) -> Result<Running, Error> {
    let addr = config.addr;
    if !addr.ip().is_loopback() {
        return Err(Error::NotLoopback(addr));
    }
    for name in &config.buckets {
        if !s3s::path::check_bucket_name(name) {
            return Err(Error::BucketName(name.clone()));
        }
    }
    let listener = TcpListener::bind(addr).await.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            Error::PortTaken(addr)
        } else {
            Error::Listen { addr, source }
        }
    })?;
    let addr = listener
        .local_addr()
        .map_err(|source| Error::Listen { addr, source })?;
    let (root, buckets) = (config.root, config.buckets);
    let store = tokio::task::spawn_blocking(move || {
        let store = Store::open(&root)?;
        for bucket in &buckets {
            store.create_bucket(bucket).map_err(Error::io(&root))?;
        }
        Ok::<_, Error>(store)
    })
    .await
    .map_err(|e| Error::Internal(e.to_string()))??;
    let mut service = S3ServiceBuilder::new(Api::new(Arc::new(store)));
    service.set_auth(SimpleAuth::from_single(
        config.access_key,
        config.secret_key,
    ));
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(listener, service.build(), stopped));
    Ok(Running {
        addr,
        stop: Some(stop),
        task,
    })
}

async fn serve(listener: TcpListener, service: S3Service, mut stop: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    // Aborted with this task, so that dropping `Running` closes every connection.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = &mut stop => break,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "the S3 store could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = socket.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(socket), service.clone());
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an S3 connection ended early");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("closing S3 connections that did not finish in time");
    }
    connections.shutdown().await;
}
