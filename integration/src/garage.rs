//! Garage, a distributed S3 server from crates.io: one node of it in a process of its own for each test.
//!
//! Unlike moto it checks signatures, digests and the sizes of parts. Building it takes a quarter of an hour, so
//! it is no part of `./dev test`: `just garage` does both.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::wait;

/// The key that a node is started with, in the form that Garage wants.
pub const KEY: &str = "GK31c2f218a2e44f485b94239e";
/// Its secret.
pub const SECRET: &str = "b892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835";

/// A running node; ended when dropped.
#[derive(Debug)]
pub struct Garage {
    /// Where its S3 API listens.
    pub addr: SocketAddr,
    process: Child,
    _dir: TempDir,
}

impl Garage {
    /// Starts one with a bucket and waits until it answers.
    ///
    /// # Panics
    /// When the program is not there (`just garage` installs it) or does not answer.
    pub async fn start(bucket: &str) -> Self {
        let [s3, rpc] = windlass_local::ports::free_ports().expect("free ports");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, s3));
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = dir.path().display();
        let config = format!(
            r#"
            metadata_dir = "{root}/meta"
            data_dir = "{root}/data"
            db_engine = "sqlite"
            replication_factor = 1
            rpc_bind_addr = "127.0.0.1:{rpc}"
            rpc_public_addr = "127.0.0.1:{rpc}"
            rpc_secret = "{SECRET}"
            [s3_api]
            api_bind_addr = "{addr}"
            s3_region = "us-east-1"
            root_domain = ".localhost"
            "#
        );
        let file = dir.path().join("garage.toml");
        fs::write(&file, config).expect("a configuration");
        let log = File::create(dir.path().join("garage.log")).expect("a log");
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.windlass/tools/bin/garage");
        let process = Command::new(program)
            .arg("--config")
            .arg(&file)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET)
            .env("GARAGE_DEFAULT_BUCKET", bucket)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("garage, which `just garage` installs into .windlass/tools");
        let garage = Self {
            addr,
            process,
            _dir: dir,
        };
        wait::until(
            "garage to listen",
            async || TcpStream::connect(addr).await.map(drop),
            Result::is_ok,
        )
        .await
        .expect("garage");
        garage
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
