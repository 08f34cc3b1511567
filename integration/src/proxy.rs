//! A network that misbehaves on purpose: a TCP proxy between a client and an S3 server.
//!
//! Every connection carries exactly one request (the proxy asks the server to close after its answer),
//! so that a [`Rule`] can pick single requests by method and URL, and every retry is seen as a request
//! of its own. Offsets count bytes of a request's or an answer's body, headers left out.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

const MAX_HEAD: usize = 64 * 1024;
/// How long a client may take to notice a canned answer and to stop sending.
const DRAIN: Duration = Duration::from_secs(10);

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing, but only after this long.
    Delay(Duration),
    /// Nothing, but only once the gate is open.
    Hold(Gate),
    /// The connection is reset at once.
    Reset,
    /// Everything is read and nothing ever answered.
    Hang,
    /// The connection closes after so many bytes of the request's body.
    CutUp(u64),
    /// The connection closes after so many bytes of the answer's body.
    CutDown(u64),
    /// Half-open: after so many bytes of the answer's body nothing more comes, and nothing ends.
    StallDown(u64),
    /// The request's body byte at this offset is altered.
    CorruptUp(u64),
    /// The answer's body byte at this offset is altered.
    CorruptDown(u64),
    /// The request's body trickles at so many bytes per second.
    SlowUp(u64),
    /// The answer's body trickles at so many bytes per second.
    SlowDown(u64),
    /// The server is not asked; this status and S3 error code is the answer.
    Answer(u16, &'static str),
    /// The server is not asked; the answer is 200 with this XML.
    Say(&'static str),
}

/// A gate that requests wait at; closed at first.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        // The sender lives in `self`.
        self.0.subscribe().wait_for(|open| *open).await.ok();
    }
}

/// Which requests a fault is for; without conditions, all.
#[derive(Debug, Clone)]
pub struct Rule {
    fault: Fault,
    method: Option<&'static str>,
    parts: Vec<String>,
    left: Option<u32>,
}

impl Rule {
    /// A rule for every request.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            method: None,
            parts: Vec::new(),
            left: None,
        }
    }

    /// Only for this method.
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = Some(method);
        self
    }

    /// Only where the request's head (path, query, headers) contains this, in the case it is sent in.
    pub fn with(mut self, part: impl Into<String>) -> Self {
        self.parts.push(part.into());
        self
    }

    /// Only the first `times` such requests.
    pub fn times(mut self, times: u32) -> Self {
        self.left = Some(times);
        self
    }

    fn take(&mut self, head: &str) -> Option<Fault> {
        let fits = self.left != Some(0)
            && self
                .method
                .is_none_or(|m| head.strip_prefix(m).is_some_and(|h| h.starts_with(' ')))
            && self.parts.iter().all(|part| head.contains(part.as_str()));
        if fits && let Some(left) = &mut self.left {
            *left -= 1;
        }
        fits.then(|| self.fault.clone())
    }
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    heads: Vec<String>,
}

/// A running proxy on loopback; dropping it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of its own, passing everything on to `server`.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let state = Arc::<Mutex<State>>::default();
        let task = tokio::spawn(accept(listener, server, state.clone()));
        Self { addr, state, task }
    }

    /// The URL to configure clients with.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Adds a rule; of several that fit a request, the first counts.
    pub fn add(&self, rule: Rule) {
        lock(&self.state).rules.push(rule);
    }

    /// Forgets rules and the requests seen so far.
    pub fn clear(&self) {
        *lock(&self.state) = State::default();
    }

    /// Heads of the requests seen so far, each beginning with its request line.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.state).heads.clone()
    }

    /// How many requests of this method had `part` in their head.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let begins = format!("{method} ");
        let heads = self.requests();
        let fits = |head: &&String| head.starts_with(&begins) && head.contains(part);
        heads.iter().filter(fits).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, server: SocketAddr, state: Arc<Mutex<State>>) {
    // Aborted with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                client.set_nodelay(true).ok();
                let state = state.clone();
                // An end of either side is what this is about, not an error.
                connections.spawn(async move { serve(client, server, &state).await.ok() });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut client: TcpStream, server: SocketAddr, state: &Mutex<State>) -> io::Result<()> {
    let mut buffer = Vec::new();
    let Some(end) = read_head(&mut client, &mut buffer).await? else {
        return Ok(());
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let fault = {
        let mut state = lock(state);
        let fault = state.rules.iter_mut().find_map(|rule| rule.take(&head));
        state.heads.push(head.clone());
        fault
    };
    let (mut up, mut down) = (Change::None, Change::None);
    match fault {
        None => {}
        Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
        Some(Fault::Hold(gate)) => gate.pass().await,
        Some(Fault::Reset) => return client.set_zero_linger(),
        Some(Fault::Hang) => {
            drain(&mut client).await;
            std::future::pending::<()>().await;
        }
        Some(Fault::Answer(status, code)) => {
            let body =
                format!("<Error><Code>{code}</Code><Message>said the proxy</Message></Error>");
            return answer(client, status, &body).await;
        }
        Some(Fault::Say(body)) => return answer(client, 200, body).await,
        Some(Fault::CutUp(after)) => up = Change::Cut(after),
        Some(Fault::CorruptUp(at)) => up = Change::Corrupt(at),
        Some(Fault::SlowUp(rate)) => up = Change::Slow(rate),
        Some(Fault::SlowDown(rate)) => down = Change::Slow(rate),
        Some(Fault::CutDown(after)) => down = Change::Cut(after),
        Some(Fault::CorruptDown(at)) => down = Change::Corrupt(at),
        Some(Fault::StallDown(after)) => down = Change::Stall(after),
    }
    let mut upstream = TcpStream::connect(server).await?;
    upstream.set_nodelay(true)?;
    upstream.write_all(&closing(&head)).await?;
    let ((client_in, mut client_out), (mut server_in, server_out)) =
        (client.into_split(), upstream.into_split());
    let body = buffer.split_off(end);
    let sending = pump(body, client_in, server_out, up);
    let receiving = async {
        let mut answer = Vec::new();
        loop {
            let Some(end) = read_head(&mut server_in, &mut answer).await? else {
                return Ok(());
            };
            client_out.write_all(&answer[..end]).await?;
            // "100 Continue" is followed by the answer proper.
            let interim = answer.starts_with(b"HTTP/1.1 1");
            answer.drain(..end);
            if !interim {
                break;
            }
        }
        pump(answer, server_in, client_out, down).await.map(drop)
    };
    let sending = async {
        match sending.await? {
            Ended::Cut => Ok(()),
            // A client that has sent everything still waits for the answer.
            Ended::Eof => std::future::pending::<io::Result<()>>().await,
        }
    };
    tokio::select! {
        result = sending => result,
        result = receiving => result,
    }
}

/// Reads until `buffer` holds a whole head; returns its length, `None` where the peer ended before.
async fn read_head(
    from: &mut (impl AsyncReadExt + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<usize>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if buffer.len() > MAX_HEAD || from.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// The head with the wish to close after the answer, which no signature covers.
fn closing(head: &str) -> Vec<u8> {
    let mut lines: Vec<&str> = head.trim_end().split("\r\n").collect();
    lines.retain(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    lines.insert(1, "connection: close");
    (lines.join("\r\n") + "\r\n\r\n").into_bytes()
}

async fn answer(mut client: TcpStream, status: u16, body: &str) -> io::Result<()> {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}");
    let head = format!(
        "HTTP/1.1 {status} Fault\r\nconnection: close\r\ncontent-type: application/xml\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all((head + &body).as_bytes()).await?;
    client.shutdown().await?;
    drain(&mut client).await;
    Ok(())
}

/// Reads what still comes, so that the client sees the answer and not a reset.
async fn drain(client: &mut TcpStream) {
    let mut sink = vec![0; 64 * 1024];
    let reading = async { while client.read(&mut sink).await.is_ok_and(|n| n > 0) {} };
    tokio::time::timeout(DRAIN, reading).await.ok();
}

#[derive(Debug, Clone, Copy)]
enum Change {
    None,
    Cut(u64),
    Stall(u64),
    Corrupt(u64),
    Slow(u64),
}

enum Ended {
    Eof,
    Cut,
}

/// Passes bytes on, `buffer` first, with the change made to them.
async fn pump(
    mut buffer: Vec<u8>,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    change: Change,
) -> io::Result<Ended> {
    let mut passed = 0_u64;
    loop {
        let length = buffer.len() as u64;
        match change {
            Change::None => {}
            Change::Cut(after) | Change::Stall(after) => {
                let keep = after.saturating_sub(passed).min(length);
                buffer.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
            }
            Change::Corrupt(at) => {
                let at = at
                    .checked_sub(passed)
                    .and_then(|at| usize::try_from(at).ok());
                if let Some(byte) = at.and_then(|at| buffer.get_mut(at)) {
                    *byte ^= 0x20;
                }
            }
            Change::Slow(rate) => {
                // In small pieces: it never stands still.
                let piece = usize::try_from(rate / 20).unwrap_or(usize::MAX).max(1);
                for some in buffer.chunks(piece) {
                    let micros = some.len() as u64 * 1_000_000 / rate.max(1);
                    tokio::time::sleep(Duration::from_micros(micros)).await;
                    to.write_all(some).await?;
                }
                buffer.clear();
            }
        }
        to.write_all(&buffer).await?;
        passed += length;
        match change {
            Change::Cut(after) if passed >= after => return Ok(Ended::Cut),
            Change::Stall(after) if passed >= after => std::future::pending::<()>().await,
            _ => {}
        }
        buffer.clear();
        buffer.reserve(64 * 1024);
        if from.read_buf(&mut buffer).await? == 0 {
            to.shutdown().await?;
            return Ok(Ended::Eof);
        }
    }
}
