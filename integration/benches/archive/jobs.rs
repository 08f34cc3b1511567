//! Our jobs, each in a process of its own, so that its CPU time and peak memory are its own.
//!
//! The jobs that should need no temporary file may not write one: archiving and verifying run with a
//! file size limit of 0, and no process of ours has a temporary folder.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use windlass_archive::pack::{PackOptions, Verify, pack_stream};
use windlass_archive::unpack::unpack_stream;
use windlass_archive::{
    ArchiveSpec, CancellationToken, Progress, RestoreSpec, Store, StoreConfig, archive, layout,
    restore, verify,
};
use windlass_embedded_s3::{Config, EmbeddedS3};

use windlass_integration::bench::process;

use crate::Measure;

/// The embedded S3 store in a process of its own.
pub struct Server {
    process: Child,
    endpoint: String,
}

impl Server {
    pub fn start(root: &Path) -> Self {
        let (process, line) = spawn(&["serve", text(root)]);
        Self {
            process,
            endpoint: line,
        }
    }

    /// The archive without its read-back, which [`Server::verify`] measures, and its key.
    pub fn archive(&self, root: &Path) -> (Measure, String) {
        let ids = format!("{} {}", Uuid::now_v7(), Uuid::now_v7());
        let measure = self.measured(&["archive", &self.endpoint, &ids, text(root)]);
        (measure, ids)
    }

    pub fn verify(&self, ids: &str) -> Measure {
        self.measured(&["verify", &self.endpoint, ids])
    }

    pub fn restore(&self, ids: &str, target: &Path) -> Measure {
        self.measured(&["restore", &self.endpoint, ids, text(target)])
    }

    pub fn clear(&self) {
        run(&["clear", &self.endpoint]);
    }

    fn measured(&self, args: &[&str]) -> Measure {
        let before = self.cpu();
        let mut measure = run(args);
        measure.store_cpu = Some(self.cpu() - before);
        measure
    }

    /// Seconds of CPU that the store used so far.
    fn cpu(&self) -> f64 {
        let pid = i32::try_from(self.process.id()).unwrap();
        process::usage(pid).cpu
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// tar, zstd and SHA-256 in one process, without a store: what the floor does.
pub fn pack(root: &Path) -> Measure {
    run(&["pack", text(root)])
}

/// The same into a file, not measured, for [`unpack`].
pub fn pack_to(root: &Path, packed: &Path) {
    run(&["pack-to", text(root), text(packed)]);
}

/// The reverse, from a file, until it is on the disk.
pub fn unpack(packed: &Path, target: &Path) -> Measure {
    run(&["unpack", text(packed), text(target)])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a readable path")
}

fn spawn(args: &[&str]) -> (Child, String) {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .arg("--job")
        .args(args)
        .env("TMPDIR", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out: BufReader<ChildStdout> = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "{args:?} failed");
    (process, line.trim().to_owned())
}

fn run(args: &[&str]) -> Measure {
    let (mut process, line) = spawn(args);
    assert!(process.wait().unwrap().success(), "{args:?}");
    let numbers: Vec<f64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
    Measure {
        wall: numbers[0],
        cpu: numbers[1],
        peak: Some(numbers[2]),
        disk: Some(numbers[3]),
        store_cpu: None,
    }
}

/// One job in this process; prints seconds, CPU seconds, peak MiB and the MiB it had written to disk.
pub fn child(args: &[String]) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if matches!(args[0], "archive" | "verify" | "pack") {
        let nothing = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(Resource::Fsize, nothing).unwrap();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let begun = Instant::now();
    match args[..] {
        ["serve", root] => return runtime.block_on(serve(root)),
        ["pack", root] => pack_here(Path::new(root), io::sink()),
        ["pack-to", root, packed] => pack_here(Path::new(root), File::create(packed).unwrap()),
        ["unpack", packed, target] => unpack_here(Path::new(packed), Path::new(target)),
        ["archive", endpoint, ids, root] => runtime.block_on(async {
            let mut spec = ArchiveSpec::new(parse(ids).0, parse(ids).1);
            spec.verify = Verify::Head;
            let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
            let store = store(endpoint).await;
            archive(&store, root.into(), spec, progress, cancel)
                .await
                .unwrap();
        }),
        ["verify", endpoint, ids] => runtime.block_on(async {
            verify(&store(endpoint).await, &key(ids)).await.unwrap();
        }),
        ["restore", endpoint, ids, target] => runtime.block_on(async {
            let spec = RestoreSpec {
                workspace_id: parse(ids).0,
                op_id: Uuid::now_v7(),
            };
            let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
            let (store, key) = (store(endpoint).await, key(ids));
            let restoring = restore(&store, &key, target.into(), spec, progress, cancel);
            restoring.await.unwrap();
        }),
        ["clear", endpoint] => runtime.block_on(async {
            let store = store(endpoint).await;
            let keys: Vec<_> = store
                .list("")
                .await
                .unwrap()
                .into_iter()
                .map(|o| o.key)
                .collect();
            assert!(
                store
                    .delete(&keys)
                    .await
                    .iter()
                    .all(|(_, result)| result.is_ok())
            );
        }),
        _ => panic!("{args:?}"),
    }
    let wall = begun.elapsed().as_secs_f64();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    let peak = process::usage(i32::try_from(std::process::id()).unwrap()).peak;
    let written = process::written().expect("a kernel that counts what is written");
    println!("{wall} {cpu} {peak} {written}");
}

async fn serve(root: &str) {
    let server = EmbeddedS3::start(Config {
        root: root.into(),
        addr: "127.0.0.1:0".parse().unwrap(),
        access_key: "key".into(),
        secret_key: "secret".into(),
        buckets: vec!["homes".into()],
    });
    let server = server.await.unwrap();
    println!("{}", server.endpoint());
    std::future::pending::<()>().await;
}

async fn store(endpoint: &str) -> Store {
    let config = StoreConfig {
        endpoint: Some(endpoint.to_owned()),
        bucket: "homes".into(),
        force_path_style: true,
        credentials: Some(("key".into(), "secret".into())),
        ..StoreConfig::default()
    };
    Store::new(config).await.unwrap()
}

fn parse(ids: &str) -> (Uuid, Uuid) {
    let (workspace, op) = ids.split_once(' ').unwrap();
    (workspace.parse().unwrap(), op.parse().unwrap())
}

fn key(ids: &str) -> String {
    layout::data_key("", parse(ids).0, parse(ids).1)
}

struct Hashing<W>(Sha256, W);

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        self.1.write_all(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pack_here(root: &Path, sink: impl Write) {
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let sink = Hashing(Sha256::new(), sink);
    pack_stream(root, &PackOptions::default(), sink, &progress, &cancel).unwrap();
}

fn unpack_here(packed: &Path, target: &Path) {
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    unpack_stream(File::open(packed).unwrap(), target, &progress, &cancel).unwrap();
    rustix::fs::syncfs(File::open(target).unwrap()).unwrap();
}
