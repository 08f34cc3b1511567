//! A private Redis that keeps nothing: hints and buffered activity only.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::{Process, ProcessSpec, stop_stale};
use crate::{Error, find, ports};

const READY: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(5);

/// How Redis is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its folder (log, pid file); made if absent.
    pub dir: PathBuf,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// Killed by the kernel when this process ends.
    pub die_with_parent: bool,
}

/// A running Redis; dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
}

impl Redis {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When redis-server is not installed, the port is taken, or it does not come up.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        let program = find::program("redis-server", "redis-server")?;
        fs::create_dir_all(&config.dir).map_err(Error::io(&config.dir))?;
        let pid_file = config.dir.join("redis.pid");
        stop_stale(&pid_file, GRACE).await;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, config.port));
        ports::check_free(addr)?;
        let port = config.port.to_string();
        let mut spec = ProcessSpec::new("Redis", program, config.dir.join("redis.log")).args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
            "--protected-mode",
            "yes",
        ]);
        spec.current_dir = Some(config.dir.clone());
        spec.pid_file = Some(pid_file);
        spec.die_with_parent = config.die_with_parent;
        let process = Process::spawn(&spec)?;
        let pid = process.pid();
        process.wait_ready(READY, || answers(addr, pid)).await?;
        Ok(Self {
            process,
            port: config.port,
        })
    }

    /// `redis://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process, for those who kill it.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops it: SIGTERM, after 5 s SIGKILL.
    pub async fn stop(self) {
        self.process.stop(Signal::TERM, GRACE).await;
    }
}

/// Whether the Redis at `addr` is process `pid`, and not another one that had the port first.
async fn answers(addr: SocketAddr, pid: i32) -> Result<(), String> {
    let ask = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(b"INFO server\r\nQUIT\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(Duration::from_secs(2), ask).await {
        Ok(Ok(answer)) if answer.contains(&format!("process_id:{pid}\r")) => Ok(()),
        Ok(Ok(_)) => Err("another Redis answers at the port".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
