//! A simulated agent: a real gRPC server on a free loopback port that serves generated containers, volumes,
//! jobs and archives through ListChanges (and, like v0.1.0, through the three lists), so that hosts of any
//! size can be had without an engine. It can be made to fail, hang, break off, repeat and shuffle, and it
//! counts what it is asked. Calls that change something are answered UNIMPLEMENTED, unless it is told to obey:
//! then starting and stopping are done at once.
//!
//! ```ignore
//! let agent = SimAgent::start().await;
//! for id in sim_agent::ids(1, 1000) { agent.populate(id, &Shape::RUNNING); }
//! register(agent.address());                       // a row in `hosts`
//! agent.set_container(id, ContainerState::Exited); // a change; tells nobody until `ring` or the next look
//! agent.counts().list_changes;
//! ```

mod changes;
mod generated;
mod log;
mod obey;
mod serve;

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::{net::TcpListener, sync::broadcast, sync::watch, task::JoinHandle};
use uuid::Uuid;
use windlass_domain::{WorkspaceId, names};
use windlass_proto::v1::{
    ArchiveInfo, Container, ContainerState, Job, RestoreInfo, Volume, WatchResponse,
    agent_service_server::AgentServiceServer,
};

pub use generated::{Shape, archive_key, archive_op, ids, volume_id};
use generated::{archive_info, running};
use log::Log;

/// Prefix of all names.
pub const PREFIX: &str = "windlass-ws-";

/// How the agent answers. The default is well and up to date.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Knows no ListChanges (v0.1.0): only the three lists.
    pub old: bool,
    /// The error of containers and volumes.
    pub host_error: Option<String>,
    /// The error of the archive store.
    pub archive_error: Option<String>,
    /// Does not answer ListChanges and the lists until this is taken back.
    pub hang: bool,
    /// Refuses every call, as a stopped agent would.
    pub refuse: bool,
    /// Breaks the next so many ListChanges answers off before their `end`.
    pub cut: u32,
    /// Sends every message but the last twice.
    pub duplicate: bool,
    /// Sends the messages before the last in the opposite order.
    pub reverse: bool,
    /// Tells the whole whatever the position.
    pub forgetful: bool,
    /// Carries Start and Stop out, at once, and sends a hint as the engine's events would be one.
    pub obey: bool,
}

/// What the agent was asked so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// ListChanges.
    pub list_changes: u64,
    /// Of these, with `prove`.
    pub proofs: u64,
    /// Of these, with ARCHIVE_SCOPE_ALL.
    pub archive_all: u64,
    /// Answers that told the whole host.
    pub wholes: u64,
    /// Entries sent, of all kinds.
    pub entries: u64,
    /// ListAll, ListVolumes, ListArchives.
    pub lists: u64,
    /// Watch.
    pub watches: u64,
}

#[derive(Debug, Default)]
struct Counters {
    list_changes: AtomicU64,
    proofs: AtomicU64,
    archive_all: AtomicU64,
    wholes: AtomicU64,
    entries: AtomicU64,
    lists: AtomicU64,
    watches: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// Tells one life of the agent from the next.
    instance: Uuid,
    containers: Log<Container>,
    volumes: Log<Volume>,
    jobs: Log<Job>,
    /// The index: what ARCHIVE_SCOPE_ALL tells.
    archives: Log<ArchiveInfo>,
    restores: Log<RestoreInfo>,
    /// What ARCHIVE_SCOPE_OWN tells.
    own_archives: Log<ArchiveInfo>,
    own_restores: Log<RestoreInfo>,
    list_number: u64,
    listed: Instant,
    /// The store's list, by the agent's clock: seconds.
    store_listed: i64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    behaviour: watch::Sender<Behaviour>,
    counters: Counters,
    hints: broadcast::Sender<WatchResponse>,
}

/// A simulated agent. Dropping it stops the server.
#[derive(Debug)]
pub struct SimAgent {
    shared: Arc<Shared>,
    address: String,
    server: JoinHandle<()>,
}

impl Drop for SimAgent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl SimAgent {
    /// An agent that holds nothing yet.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                instance: Uuid::new_v4(),
                containers: Log::default(),
                volumes: Log::default(),
                jobs: Log::default(),
                archives: Log::default(),
                restores: Log::default(),
                own_archives: Log::default(),
                own_restores: Log::default(),
                list_number: 1,
                listed: Instant::now(),
                store_listed: 1,
            }),
            behaviour: watch::Sender::default(),
            counters: Counters::default(),
            hints: broadcast::Sender::new(4096),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let service = AgentServiceServer::new(serve::Service(Arc::clone(&shared)));
        let incoming =
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .expect("the simulated agent serves");
        });
        Self {
            shared,
            address,
            server,
        }
    }

    /// Its URL.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it was asked so far.
    pub fn counts(&self) -> Counts {
        let c = &self.shared.counters;
        let get = |n: &AtomicU64| n.load(Ordering::SeqCst);
        Counts {
            list_changes: get(&c.list_changes),
            proofs: get(&c.proofs),
            archive_all: get(&c.archive_all),
            wholes: get(&c.wholes),
            entries: get(&c.entries),
            lists: get(&c.lists),
            watches: get(&c.watches),
        }
    }

    /// Changes how it answers.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        self.shared.behaviour.send_modify(change);
    }

    /// Starts anew: every position is forgotten, and so is what is its own.
    pub fn restart(&self) {
        let mut state = self.state();
        state.instance = Uuid::new_v4();
        state.list_number = 1;
        state.listed = Instant::now();
        state.own_archives = Log::default();
        state.own_restores = Log::default();
    }

    /// A full list of the host, as every resync interval makes one.
    pub fn list_host(&self) {
        let mut state = self.state();
        state.list_number += 1;
        state.listed = Instant::now();
    }

    /// A full list of the store.
    pub fn list_store(&self) {
        self.state().store_listed += 1;
    }

    /// Sends `count` hints to whoever watches.
    pub fn ring(&self, count: usize) {
        for _ in 0..count {
            // An error means that nobody watches.
            let _ = self.shared.hints.send(WatchResponse {
                kind: "container/start".to_owned(),
                ..WatchResponse::default()
            });
        }
    }

    /// How many follow its Watch stream now.
    pub fn watchers(&self) -> usize {
        self.shared.hints.receiver_count()
    }

    /// Gives a workspace what `shape` says, and takes away the rest of container and volume.
    pub fn populate(&self, workspace: Uuid, shape: &Shape) {
        match shape.container {
            true => self.set_container(workspace, ContainerState::Running),
            false => self.remove_container(workspace),
        }
        match shape.volume {
            true => self.set_volume(workspace, volume_id(workspace)),
            false => self.remove_volume(workspace),
        }
        for n in 0..shape.archives {
            self.list_archive(workspace, archive_op(workspace, n));
        }
    }

    /// Makes or changes a container.
    pub fn set_container(&self, workspace: Uuid, container: ContainerState) {
        let value = Container {
            state: container.into(),
            ..running(workspace, volume_id(workspace))
        };
        self.state().containers.put(value.name.clone(), value);
    }

    /// Takes a container away.
    pub fn remove_container(&self, workspace: Uuid) {
        let name = names::container(PREFIX, WorkspaceId(workspace));
        self.state().containers.remove(&name);
    }

    /// Makes or changes a home volume.
    pub fn set_volume(&self, workspace: Uuid, volume_id: Uuid) {
        let name = names::home_volume(PREFIX, WorkspaceId(workspace));
        let value = Volume {
            name: name.clone(),
            workspace_id: workspace.to_string(),
            volume_id: volume_id.to_string(),
        };
        self.state().volumes.put(name, value);
    }

    /// Takes a volume away.
    pub fn remove_volume(&self, workspace: Uuid) {
        let name = names::home_volume(PREFIX, WorkspaceId(workspace));
        self.state().volumes.remove(&name);
    }

    /// Makes or changes the job of a workspace.
    pub fn set_job(&self, job: Job) {
        self.state().jobs.put(job.workspace_id.clone(), job);
    }

    /// Forgets the job of a workspace.
    pub fn remove_job(&self, workspace: Uuid) {
        self.state().jobs.remove(&workspace.to_string());
    }

    /// An archive appears in the index, as by a list of the store. Returns its key.
    pub fn list_archive(&self, workspace: Uuid, archive_op: Uuid) -> String {
        let archive = archive_info(workspace, archive_op);
        let key = archive.key.clone();
        self.state().archives.put(key.clone(), archive);
        key
    }

    /// An archive vanishes from the index, as by a list of the store.
    pub fn unlist_archive(&self, key: &str) {
        self.state().archives.remove(key);
    }

    /// This agent makes an archive itself. Returns its key.
    pub fn make_archive(&self, workspace: Uuid, archive_op: Uuid) -> String {
        let key = self.list_archive(workspace, archive_op);
        let archive = archive_info(workspace, archive_op);
        self.state().own_archives.put(key.clone(), archive);
        key
    }

    /// This agent deletes an archive itself, whether it knew of it or not.
    pub fn delete_archive(&self, key: &str) {
        let mut state = self.state();
        state.archives.remove(key);
        state.own_archives.tombstone(key);
    }

    /// This agent completes a restore itself.
    pub fn make_restore(&self, workspace: Uuid, op: Uuid, archive_key: &str) {
        let restore = RestoreInfo {
            workspace_id: workspace.to_string(),
            op_id: op.to_string(),
            archive_key: archive_key.to_owned(),
            key: format!("{workspace}/restored/{op}"),
        };
        let mut state = self.state();
        state.restores.put(restore.key.clone(), restore.clone());
        state.own_restores.put(restore.key.clone(), restore);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no panic holds it")
    }
}

/// Counts of many agents in one.
pub fn total<'a>(agents: impl IntoIterator<Item = &'a SimAgent>) -> Counts {
    agents.into_iter().fold(Counts::default(), |sum, agent| {
        let c = agent.counts();
        Counts {
            list_changes: sum.list_changes + c.list_changes,
            proofs: sum.proofs + c.proofs,
            archive_all: sum.archive_all + c.archive_all,
            wholes: sum.wholes + c.wholes,
            entries: sum.entries + c.entries,
            lists: sum.lists + c.lists,
            watches: sum.watches + c.watches,
        }
    })
}
