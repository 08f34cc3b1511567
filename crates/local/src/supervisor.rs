//! The services of `windlass up`: kept running, with backoff, and stopped in reverse order.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::Error;
use crate::process::{Process, ProcessSpec, stop_stale};

/// One service to keep running.
#[derive(Debug, Clone)]
pub struct Service {
    /// Names its pid file (`<dir>/run/<name>.pid`) and log (`<dir>/log/<name>.log`).
    pub name: String,
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Added to our environment.
    pub env: Vec<(OsString, OsString)>,
}

/// How services are restarted and stopped.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pause before the first restart; doubles each time. Default 1 s.
    pub backoff: Duration,
    /// The longest pause. Default 30 s.
    pub max_backoff: Duration,
    /// A service that ran this long begins with the first pause again. Default 60 s.
    pub healthy_after: Duration,
    /// Between SIGTERM and SIGKILL. Default 10 s.
    pub grace: Duration,
    /// Whether services die with us even if we are killed. Default true.
    pub die_with_parent: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(30),
            healthy_after: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            die_with_parent: true,
        }
    }
}

/// How a service is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The service.
    pub name: String,
    /// Its process, while there is one.
    pub pid: Option<i32>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last, with its last words.
    pub last_exit: Option<String>,
}

/// Keeps services running until [`Supervisor::shutdown`]; dropping it kills them.
#[derive(Debug)]
pub struct Supervisor {
    dir: PathBuf,
    options: Options,
    services: Vec<Supervised>,
}

#[derive(Debug)]
struct Supervised {
    status: watch::Receiver<Status>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Supervisor {
    /// A supervisor of nothing yet, with its pid files and logs under `dir`.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn new(dir: impl Into<PathBuf>, options: Options) -> Result<Self, Error> {
        let dir = dir.into();
        for sub in ["run", "log"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(Error::io(path))?;
        }
        Ok(Self {
            dir,
            options,
            services: Vec::new(),
        })
    }

    /// Starts a service and keeps it running. What an earlier, killed run left of it is stopped first.
    ///
    /// # Errors
    /// When it cannot be spawned at all; an early end is not an error but a restart.
    pub async fn start(&mut self, service: Service) -> Result<(), Error> {
        let pid_file = self.dir.join(format!("run/{}.pid", service.name));
        stop_stale(&pid_file, self.options.grace).await;
        let log = self.dir.join(format!("log/{}.log", service.name));
        let spec = ProcessSpec {
            args: service.args,
            env: service.env,
            pid_file: Some(pid_file),
            die_with_parent: self.options.die_with_parent,
            ..ProcessSpec::new(service.name.clone(), service.program, log)
        };
        let process = Process::spawn(&spec)?;
        let (told, status) = watch::channel(Status {
            name: service.name,
            pid: Some(process.pid()),
            restarts: 0,
            last_exit: None,
        });
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(keep(process, spec, self.options.clone(), told, stopping));
        self.services.push(Supervised { status, stop, task });
        Ok(())
    }

    /// How each service is doing, in the order they were started.
    #[must_use]
    pub fn statuses(&self) -> Vec<Status> {
        let services = self.services.iter();
        services.map(|s| s.status.borrow().clone()).collect()
    }

    /// Stops all, the last started first, each with SIGTERM and its grace.
    pub async fn shutdown(mut self) {
        while let Some(mut service) = self.services.pop() {
            service.stop.send_replace(true);
            let _ = (&mut service.task).await;
        }
    }
}

/// Also when the supervisor is gone.
async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn keep(
    mut process: Process,
    spec: ProcessSpec,
    options: Options,
    told: watch::Sender<Status>,
    mut stop: watch::Receiver<bool>,
) {
    let mut pause = options.backoff;
    loop {
        let started = Instant::now();
        let exit = tokio::select! {
            exit = process.wait() => exit,
            () = asked_to_stop(&mut stop) => {
                process.stop(Signal::TERM, options.grace).await;
                told.send_modify(|status| status.pid = None);
                return;
            }
        };
        let exit = exit.map_or_else(|| "ended".to_owned(), |exit| exit.to_string());
        let exit = format!("{exit}: {}", process.log_tail());
        tracing::warn!(name = spec.name, exit, "a service ended");
        told.send_modify(|status| {
            status.pid = None;
            status.last_exit = Some(exit);
        });
        if started.elapsed() >= options.healthy_after {
            pause = options.backoff;
        }
        process = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = asked_to_stop(&mut stop) => return,
            }
            pause = (pause * 2).min(options.max_backoff);
            match Process::spawn(&spec) {
                Ok(process) => break process,
                Err(error) => {
                    tracing::warn!(name = spec.name, %error, "a service could not be started");
                    told.send_modify(|status| status.last_exit = Some(error.to_string()));
                }
            }
        };
        told.send_modify(|status| {
            status.pid = Some(process.pid());
            status.restarts += 1;
        });
    }
}
