//! Connections in between: to the engine, where they can be cut, its events kept back and looks at containers
//! refused; and to the store, where requests are counted and answers kept back.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const BROKEN: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
    Content-Length: 20\r\nConnection: close\r\n\r\n{\"message\":\"broken\"}";

/// A socket that leads to the engine.
pub struct ToEngine {
    path: PathBuf,
    state: Arc<EngineWire>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct EngineWire {
    /// Every answer to a request for events is kept back: connected, but silent.
    silent: AtomicBool,
    /// Nothing is let through.
    hanging: AtomicBool,
    /// No pull is let through.
    pulls_hang: AtomicBool,
    /// Containers, by name and id, that the engine cannot tell of.
    broken: Mutex<Vec<String>>,
    /// Connections that carry events.
    events: Mutex<Vec<CancellationToken>>,
}

impl ToEngine {
    /// A socket at `path` that leads to the engine at `engine` (`unix://..`).
    pub fn new(path: &Path, engine: &str) -> Self {
        let engine = engine.strip_prefix("unix://").expect("a Unix socket");
        let engine = PathBuf::from(engine);
        let listener = UnixListener::bind(path).unwrap();
        let state = Arc::new(EngineWire::default());
        let wire = state.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (wire, engine) = (wire.clone(), engine.clone());
                connections.spawn(async move {
                    let server = UnixStream::connect(engine).await.unwrap();
                    wire.carry(client, server).await;
                });
            }
        });
        Self {
            path: path.to_owned(),
            state,
            _task: task,
        }
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    pub fn keep_events_back(&self) {
        self.state.silent.store(true, Ordering::SeqCst);
    }

    pub fn hang(&self, hang: bool) {
        self.state.hanging.store(hang, Ordering::SeqCst);
    }

    /// Pulls are begun and never end.
    pub fn hang_pulls(&self) {
        self.state.pulls_hang.store(true, Ordering::SeqCst);
    }

    /// The engine lists this container, but answers 500 to a closer look at it.
    pub fn break_container(&self, name: &str, id: &str) {
        let mut broken = self.state.broken.lock().unwrap();
        broken.extend([name.to_owned(), id.to_owned()]);
    }

    /// Cuts every connection that carries events; returns how many there were.
    pub fn cut_events(&self) -> usize {
        let cut: Vec<_> = self.state.events.lock().unwrap().drain(..).collect();
        for connection in &cut {
            connection.cancel();
        }
        cut.len()
    }
}

impl EngineWire {
    fn is_broken(&self, request: &[u8]) -> bool {
        let broken = self.broken.lock().unwrap();
        let looks_at = |name: &String| find(request, format!("/{name}/json").as_bytes());
        request.starts_with(b"GET ") && broken.iter().any(looks_at)
    }

    async fn carry(&self, client: UnixStream, server: UnixStream) {
        let cut = CancellationToken::new();
        let silent = AtomicBool::new(false);
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let up = async {
            let mut bytes = vec![0; 64 << 10];
            loop {
                let n = from_client.read(&mut bytes).await.unwrap_or(0);
                if n == 0 {
                    return false;
                }
                if self.pulls_hang.load(Ordering::SeqCst) && find(&bytes[..n], b"/images/create?") {
                    std::future::pending::<()>().await;
                }
                if self.is_broken(&bytes[..n]) {
                    return true;
                }
                if bytes[..n].starts_with(b"GET /events") || find(&bytes[..n], b"/events?") {
                    self.events.lock().unwrap().push(cut.clone());
                    silent.store(self.silent.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                if to_server.write_all(&bytes[..n]).await.is_err() {
                    return false;
                }
            }
        };
        let down = async {
            let mut bytes = vec![0; 64 << 10];
            loop {
                let n = from_server.read(&mut bytes).await.unwrap_or(0);
                if n == 0 {
                    return;
                }
                while self.hanging.load(Ordering::SeqCst) {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                if silent.load(Ordering::SeqCst) && !bytes.starts_with(b"HTTP/1.1") {
                    continue;
                }
                if to_client.write_all(&bytes[..n]).await.is_err() {
                    return;
                }
            }
        };
        let broken = tokio::select! {
            () = cut.cancelled() => false,
            broken = up => broken,
            () = down => false,
        };
        if broken {
            to_client.write_all(BROKEN).await.unwrap();
        }
    }
}

/// An address that leads to the store, and the requests that took the way.
pub struct ToStore {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
    hanging: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl ToStore {
    pub async fn new(endpoint: &str) -> Self {
        let server = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let hanging = Arc::new(AtomicBool::new(false));
        let hangs = hanging.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (log, server, hangs) = (log.clone(), server.clone(), hangs.clone());
                connections.spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    let (from_client, mut to_client) = client.into_split();
                    let (mut from_server, to_server) = server.into_split();
                    let answer = async {
                        let mut bytes = vec![0; 64 << 10];
                        loop {
                            let n = from_server.read(&mut bytes).await.unwrap_or(0);
                            if hangs.load(Ordering::SeqCst) {
                                std::future::pending::<()>().await;
                            }
                            if n == 0 || to_client.write_all(&bytes[..n]).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! {
                        () = count(from_client, to_server, &log) => {}
                        () = answer => {}
                    }
                });
            }
        });
        Self {
            address,
            seen,
            hanging,
            _task: task,
        }
    }

    /// The store takes requests and never answers again.
    pub fn hang(&self) {
        self.hanging.store(true, Ordering::SeqCst);
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far but for the checks whether the store is there.
    pub fn requests(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let checks =
            |line: &&String| !line.contains("max-keys=1&") && !line.contains("max-keys=1 ");
        seen.iter().filter(checks).cloned().collect()
    }

    /// Lists among them.
    pub fn lists(&self) -> usize {
        let requests = self.requests();
        requests
            .iter()
            .filter(|r| r.contains("list-type=2"))
            .count()
    }
}

/// Notes every line that begins a request. Bodies are taken for lines, too, but hold none such.
async fn count(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    log: &Mutex<Vec<String>>,
) {
    let (mut bytes, mut line) = (vec![0; 64 << 10], Vec::new());
    loop {
        let n = from.read(&mut bytes).await.unwrap_or(0);
        if n == 0 {
            return;
        }
        for &byte in &bytes[..n] {
            if byte != b'\n' {
                if line.len() < 4096 {
                    line.push(byte);
                }
                continue;
            }
            if line.ends_with(b" HTTP/1.1\r") {
                log.lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&line).into_owned());
            }
            line.clear();
        }
        if to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

fn find(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
