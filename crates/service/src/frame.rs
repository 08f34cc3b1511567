//! The end of every service's `run`: serve, supervise, drain.
//!
//! One order of stopping for all: readiness says draining, health says NOT_SERVING, loops and calls get
//! the drain timeout, then whatever is left is cut. The HTTP server goes last.

use std::future::pending;
use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::ServerArgs;
use crate::http;
use crate::readiness::Readiness;
use crate::server::GrpcServer;
use crate::tasks::Tasks;

pub(crate) const HTTP_LISTEN_FLAG: &str = "--http-listen";

/// An address that could not be listened on. [`main`](crate::main) answers it with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({setting}): {why}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The flag or variable to change.
    pub setting: String,
    /// Why.
    pub why: std::io::Error,
}

/// Binds a listener.
///
/// # Errors
/// Names the address and `setting`, the variable that sets it.
pub async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|why| BindError {
        address,
        setting: setting.to_owned(),
        why,
    })
}

/// A service ready to run.
#[derive(Debug)]
pub struct Frame {
    /// The server with its services.
    pub grpc: GrpcServer,
    /// What /readyz tells.
    pub readiness: Readiness,
    /// The service's loops.
    pub tasks: Tasks,
}

impl Frame {
    /// Runs until `shutdown` (the token `tasks` was made with), then drains.
    ///
    /// # Errors
    /// When a task ends unasked, a server fails, or [`ServerArgs::http_listen`] cannot be bound.
    pub async fn run(self, args: &ServerArgs, listener: TcpListener) -> anyhow::Result<()> {
        let shutdown = self.tasks.shutdown();
        let side = match args.http_listen {
            Some(address) => Some(bind(address, HTTP_LISTEN_FLAG).await?),
            None => None,
        };
        let http = async {
            match side {
                Some(listener) => http::serve(listener, self.readiness.clone()).await,
                None => pending().await,
            }
        };
        let draining = async {
            shutdown.cancelled().await;
            self.readiness.set("serving", false, "draining");
            pending::<()>().await;
        };
        self.readiness.set("serving", true, "serving");

        let stop = shutdown.clone();
        let grpc = async {
            let result = self
                .grpc
                .tells_readiness(self.readiness.clone())
                .serve(listener, shutdown.clone())
                .await;
            stop.cancel();
            result
        };
        let work = async { tokio::join!(grpc, self.tasks.supervise(args.drain_timeout)) };
        tokio::select! {
            biased;
            () = draining => Ok(()),
            (served, supervised) = work => {
                supervised?;
                served?;
                Ok(())
            }
            failed = http => {
                cancel_and_fail(&shutdown, failed)
            }
        }
    }
}

fn cancel_and_fail(
    shutdown: &CancellationToken,
    failed: std::io::Result<()>,
) -> anyhow::Result<()> {
    shutdown.cancel();
    failed.context("HTTP server")?;
    anyhow::bail!("the HTTP server ended")
}
