//! An S3 server that is not ours: moto from PyPI, in memory, one process for each test.
//!
//! It checks neither signatures nor digests, which is what makes it worth having: whatever it alters or
//! forgets, the archive pipeline itself has to notice.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::wait;

/// A running moto; ended when dropped.
#[derive(Debug)]
pub struct Moto {
    /// Where it listens.
    pub addr: SocketAddr,
    process: Child,
    _dir: TempDir,
}

impl Moto {
    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// When `moto_server` is not there (`./dev test` installs it) or does not answer.
    pub async fn start() -> Self {
        let [port] = windlass_local::ports::free_ports().expect("a free port");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = File::create(dir.path().join("moto.log")).expect("a log");
        let process = Command::new(program())
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            // Its spooled objects go with the folder.
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("moto_server, which `./dev test` installs into .windlass/tools (PyPI: moto)");
        let moto = Self {
            addr,
            process,
            _dir: dir,
        };
        wait::until(
            "moto to listen",
            async || TcpStream::connect(addr).await.map(drop),
            Result::is_ok,
        )
        .await
        .expect("moto");
        moto
    }

    /// Headers of an object as moto has them, in lower case, one per line.
    pub async fn head(&self, bucket: &str, key: &str) -> String {
        let mut socket = TcpStream::connect(self.addr).await.expect("moto");
        // Any signature will do.
        let request = format!(
            "HEAD /{bucket}/{key} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             authorization: AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n",
            self.addr
        );
        socket.write_all(request.as_bytes()).await.expect("moto");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("moto");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.to_lowercase()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The one that `./dev` installed, else the one in PATH.
fn program() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.windlass/tools/bin/moto_server");
    match tools.exists() {
        true => tools,
        false => "moto_server".into(),
    }
}
