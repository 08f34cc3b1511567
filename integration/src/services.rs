//! The service processes of one world.

use std::{
    collections::HashMap,
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use windlass_local::{
    ports::free_port,
    process::{Process, ProcessSpec},
};

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    Api,
    Agent,
    Observer,
    Wc,
    Ttl,
    Gc,
}

impl Name {
    /// Every service, in the order they are started.
    pub const ALL: [Self; 6] = [
        Self::Agent,
        Self::Observer,
        Self::Wc,
        Self::Ttl,
        Self::Gc,
        Self::Api,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Agent => "agent",
            Self::Observer => "observer",
            Self::Wc => "wc",
            Self::Ttl => "ttl",
            Self::Gc => "gc",
        }
    }
}

/// The processes of one world.
#[derive(Debug)]
pub struct Services {
    dir: PathBuf,
    env: HashMap<String, String>,
    ports: HashMap<Name, u16>,
    http_ports: HashMap<Name, u16>,
    running: HashMap<Name, Process>,
}

impl Services {
    /// None runs yet. All get `env`; logs go to `dir`.
    pub fn new(
        dir: &Path,
        env: HashMap<String, String>,
        ports: HashMap<Name, u16>,
        http_ports: HashMap<Name, u16>,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            env,
            ports,
            http_ports,
            running: HashMap::new(),
        }
    }

    /// Where a service listens.
    pub fn address(&self, name: Name) -> String {
        format!("http://127.0.0.1:{}", self.ports[&name])
    }

    /// Where it serves metrics and health.
    pub fn http_address(&self, name: Name) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.http_ports[&name]))
    }

    /// Every address of it.
    pub(crate) fn listens_at(&self, name: Name) -> [SocketAddr; 2] {
        let grpc = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[&name]));
        [grpc, self.http_address(name)]
    }

    /// Changes the environment of what is started from now on.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.env.insert(key.to_owned(), value.to_owned());
    }

    /// Kills every service.
    pub fn kill_all(&mut self) {
        self.running.clear();
    }

    /// Starts a service.
    pub fn start(&mut self, name: Name) {
        let http = self.http_address(name);
        let process = self.spawn(name, name.as_str(), self.ports[&name], http);
        self.running.insert(name, process);
    }

    /// Starts one more of a service, and says where it listens.
    pub fn start_beside(&self, name: Name) -> (Process, String) {
        let port = free_port().expect("a free port");
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let process = self.spawn(name, &format!("{}-{port}", name.as_str()), port, http);
        (process, format!("http://127.0.0.1:{port}"))
    }

    fn spawn(&self, name: Name, log: &str, port: u16, http: SocketAddr) -> Process {
        let word = name.as_str();
        let log = self.dir.join(format!("{log}.log"));
        let mut spec = ProcessSpec::new(word, binary(&format!("windlass-{word}")), log);
        spec.die_with_parent = true;
        let upper = word.to_uppercase();
        let own = [
            (
                format!("WINDLASS_{upper}_LISTEN"),
                format!("127.0.0.1:{port}"),
            ),
            (format!("WINDLASS_{upper}_HTTP_LISTEN"), http.to_string()),
            (
                "WINDLASS_DATABASE_URL".to_owned(),
                self.env
                    .get(&format!("DATABASE_URL_{word}"))
                    .cloned()
                    .unwrap_or_default(),
            ),
        ];
        let pair = |(k, v): (String, String)| (OsString::from(k), OsString::from(v));
        spec.env = self.env.clone().into_iter().chain(own).map(pair).collect();
        Process::spawn(&spec).expect("the service starts")
    }

    /// `kill -9`.
    pub async fn kill(&mut self, name: Name) {
        let process = self.running.remove(&name).expect("the service runs");
        process.signal(Signal::KILL);
        process.wait().await;
    }

    /// SIGTERM, and waits until it has stopped.
    pub async fn stop(&mut self, name: Name) {
        let process = self.running.remove(&name).expect("the service runs");
        process.stop(Signal::TERM, Duration::from_secs(20)).await;
    }

    /// Whether it still runs.
    pub fn is_running(&self, name: Name) -> bool {
        self.running
            .get(&name)
            .is_some_and(|p| p.exited().is_none())
    }

    /// The process id of a service.
    ///
    /// # Panics
    /// When it was not started.
    pub fn pid(&self, name: Name) -> i32 {
        self.running[&name].pid()
    }

    /// The last lines of every log, for a failing test.
    pub fn logs(&self) -> String {
        let tail =
            |(name, p): (&Name, &Process)| format!("--- {}\n{}\n", name.as_str(), p.log_tail());
        self.running.iter().map(tail).collect()
    }
}

/// The binary beside the test's own: `just test` builds them all before it runs any test.
pub(crate) fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the test's own path");
    let target = exe
        .parent()
        .and_then(Path::parent)
        .expect("target/<profile>");
    let path = target.join(name);
    assert!(
        path.exists(),
        "{} is missing: build the services first (`just build`)",
        path.display()
    );
    path
}
