//! When the engine was asked what: a Unix socket before the engine's, which passes everything on and notes
//! the instant at which each request arrives.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

type Log = Arc<Mutex<Vec<(SystemTime, String)>>>;

/// A running recorder; ended when dropped.
#[derive(Debug)]
pub struct Recorder {
    socket: PathBuf,
    log: Log,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Listens in `dir` before the engine at `host`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(dir: &Path, host: &str) -> Self {
        let socket = dir.join("recorder.sock");
        let listener = UnixListener::bind(&socket).expect("a short path");
        let engine = PathBuf::from(host.strip_prefix("unix://").expect("a Unix socket"));
        let log = Log::default();
        let task = tokio::spawn(accept(listener, engine, Arc::clone(&log)));
        Self { socket, log, task }
    }

    /// In the form of DOCKER_HOST.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// When the first request at or after `since` came whose line contains `part`.
    pub fn first(&self, since: SystemTime, part: &str) -> Option<(SystemTime, String)> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(at, line): &&(SystemTime, String)| *at >= since && line.contains(part);
        log.iter().find(fits).cloned()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, engine: PathBuf, log: Log) {
    while let Ok((client, _)) = listener.accept().await {
        let (engine, log) = (engine.clone(), Arc::clone(&log));
        // A connection that breaks is its ends' affair.
        tokio::spawn(async move { pass(client, &engine, &log).await.ok() });
    }
}

async fn pass(client: UnixStream, engine: &Path, log: &Log) -> io::Result<()> {
    let (mut from_engine, mut to_engine) = UnixStream::connect(engine).await?.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = from_client.read(&mut buffer).await?;
            if length == 0 {
                return to_engine.shutdown().await;
            }
            // Clients send a request only after the answer to the one before: a head begins a read.
            if let Some(line) = request_line(&buffer[..length]) {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.push((SystemTime::now(), line));
            }
            to_engine.write_all(&buffer[..length]).await?;
        }
    };
    let down = async {
        tokio::io::copy(&mut from_engine, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}

fn request_line(bytes: &[u8]) -> Option<String> {
    let line = bytes.split(|&b| b == b'\r').next()?;
    let methods: [&[u8]; 5] = [b"GET ", b"POST ", b"DELETE ", b"HEAD ", b"PUT "];
    let is_request = methods.iter().any(|m| line.starts_with(m));
    is_request.then(|| String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_told_from_bodies() {
        let line = request_line(b"POST /containers/create?name=a HTTP/1.1\r\nhost: x\r\n");
        assert_eq!(line.unwrap(), "POST /containers/create?name=a HTTP/1.1");
        assert_eq!(request_line(b"{\"Image\":\"GET \"}"), None);
    }
}
