//! Keeps one server (PostgreSQL, Redis, the private engine) running: what dies is started again.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use windlass_local::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A server that can be started, watched and stopped.
pub trait Server: Sized + Send + Sync + 'static {
    /// How it is started; the same at every start.
    type Config: Clone + Send + Sync + 'static;
    /// For messages.
    const NAME: &'static str;

    /// Starts it and waits until it can be used.
    fn start(config: &Self::Config) -> impl Future<Output = Result<Self, Error>> + Send;
    /// Ends when it has ended.
    fn ended(&self) -> impl Future<Output = ()> + Send;
    /// Stops it, within a bound.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

/// Dropping it kills the server.
#[derive(Debug)]
pub struct Keeper {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Keeps a started server.
    pub fn new<S: Server>(server: S, config: S::Config) -> Self {
        let (stop, asked) = watch::channel(false);
        let task = tokio::spawn(keep(server, config, asked));
        Self { stop, task }
    }

    /// Stops the server.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.task).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Also when the keeper is gone.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn keep<S: Server>(mut server: S, config: S::Config, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = server.ended() => {}
            () = asked(&mut stop) => return server.stop().await,
        }
        tracing::warn!("{} ended; starting it again", S::NAME);
        // Clears away what is left of it before the next one comes.
        drop(server);
        let mut pause = FIRST_PAUSE;
        server = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = asked(&mut stop) => return,
            }
            match S::start(&config).await {
                Ok(server) => break server,
                Err(error) => tracing::warn!("{} did not start: {error}", S::NAME),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        tracing::info!("{} is back", S::NAME);
    }
}
