//! The Docker engine: the one that is there, else a private one.
//!
//! A private engine has a bridge and addresses of its own, so that it disturbs no other engine. Where
//! another engine runs that is not ours to use, it also leaves the firewall alone: two engines that both
//! write it break each other's containers.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use windlass_local::Error;
use windlass_local::docker::{self, EngineConfig, PrivateEngine, start_engine};

use super::guard::Identity;
use super::keeper::{Keeper, Server};
use super::root::{self, Helper, Job};
use super::state::{State, digest};
use super::{failed, say};
use crate::error::CliError;

/// dockerd puts sockets of up to 40 characters more into its folder; 107 is the system's limit.
const LONGEST_DIR: usize = 60;
const READY: Duration = Duration::from_secs(60);

impl Server for PrivateEngine {
    type Config = EngineConfig;
    const NAME: &'static str = "the Docker engine";

    async fn start(config: &Self::Config) -> Result<Self, Error> {
        forget_containerd(&config.dir.join("exec/containerd/containerd.pid")).await;
        start_engine(config).await
    }
    async fn ended(&self) {
        match self.process() {
            Some(process) => {
                process.wait().await;
            }
            // One of an earlier run that is not our child.
            None => {
                while self.engine().ping().await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
            }
        }
    }
    async fn stop(self) {
        self.stop().await;
    }
}

/// dockerd waits 15 s for a containerd that its pid file names, even if that one is a zombie.
async fn forget_containerd(pid_file: &Path) {
    let named = || fs::read_to_string(pid_file).ok()?.trim().parse().ok();
    let Some(pid) = named() else {
        return;
    };
    // It was killed with its engine; one that outlived it is used again.
    for _ in 0..50 {
        if Identity::of(pid).is_none() {
            let _ = fs::remove_file(pid_file);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The engine in use.
pub struct Engine {
    host: String,
    owner: Owner,
}

enum Owner {
    /// It was there.
    Somebody,
    /// Ours.
    Us(Private),
    /// Ours, run by root for us.
    Root(Helper),
}

impl Engine {
    /// The engine named by WINDLASS_DOCKER_HOST or DOCKER_HOST; else the system's; else a private one.
    pub async fn find_or_start(state: &State) -> Result<Self, CliError> {
        let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let found = match named("WINDLASS_DOCKER_HOST") {
            Some(host) => {
                let path = host.strip_prefix("unix://").ok_or_else(|| {
                    CliError::Usage(
                        "WINDLASS_DOCKER_HOST has to be unix:///path/to/docker.sock".to_owned(),
                    )
                })?;
                docker::Engine::locate(Some(Path::new(path))).await
            }
            None => docker::Engine::locate(None).await,
        };
        match found {
            Ok(engine) => Ok(Self {
                host: engine.host().to_owned(),
                owner: Owner::Somebody,
            }),
            Err(error)
                if named("WINDLASS_DOCKER_HOST")
                    .or(named("DOCKER_HOST"))
                    .is_some() =>
            {
                Err(failed(error))
            }
            Err(error) => Self::start_private(state, &error).await,
        }
    }

    async fn start_private(state: &State, why: &Error) -> Result<Self, CliError> {
        let dir = private_dir(state)?;
        let socket = docker::private_socket(&dir);
        let host = format!("unix://{}", socket.display());
        let job = EngineJob {
            dir,
            group: rustix::process::getegid().as_raw(),
        };
        say(format!("{why}; starting a private one"));
        if rustix::process::geteuid().is_root() {
            let private = run_private(&job).await.map_err(failed)?;
            return Ok(Self {
                host,
                owner: Owner::Us(private),
            });
        }
        let helper = Helper::start(state, "docker", &Job::Engine(job))?;
        let ready = async {
            while docker::Engine::locate(Some(&socket)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = ready => {}
            why = helper.ended() => return Err(CliError::Failed(why)),
            () = tokio::time::sleep(READY) => {
                return Err(CliError::Failed(format!(
                    "the private Docker engine was not ready after {} s, see {}",
                    READY.as_secs(),
                    socket.with_file_name("dockerd.log").display()
                )));
            }
        }
        Ok(Self {
            host,
            owner: Owner::Root(helper),
        })
    }

    /// In the form of DOCKER_HOST.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whose it is.
    pub fn kind(&self) -> &'static str {
        match self.owner {
            Owner::Somebody => "was running",
            Owner::Us(_) | Owner::Root(_) => "private",
        }
    }

    /// To call it.
    pub async fn client(&self) -> Result<docker::Engine, CliError> {
        let found = match self.host.strip_prefix("unix://") {
            Some(path) => docker::Engine::locate(Some(Path::new(path))).await,
            None => docker::Engine::locate(None).await,
        };
        found.map_err(failed)
    }

    /// Ends, with the reason, when the engine is gone for good.
    pub async fn ended(&self) -> String {
        match &self.owner {
            Owner::Root(helper) => helper.ended().await,
            Owner::Somebody | Owner::Us(_) => std::future::pending().await,
        }
    }

    /// Stops it if it is ours. Somebody else's goes on, with our workspaces' containers.
    pub async fn stop(self) {
        match self.owner {
            Owner::Somebody => {}
            Owner::Us(private) => private.stop().await,
            Owner::Root(helper) => helper.stop().await,
        }
    }
}

/// `.windlass/docker`, or a shorter path if that would not do for sockets.
fn private_dir(state: &State) -> Result<PathBuf, CliError> {
    let dir = state.path("docker");
    let dir = if dir.as_os_str().len() <= LONGEST_DIR {
        dir
    } else {
        let uid = rustix::process::geteuid().as_raw();
        PathBuf::from(format!("/var/tmp/windlass-{uid}-{}", digest(state.dir())))
    };
    root::private_folder(&dir)?;
    Ok(dir)
}

/// What is needed to run a private engine.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct EngineJob {
    dir: PathBuf,
    /// Whose members may use its socket.
    group: u32,
}

/// A private engine and its bridge.
#[derive(Debug)]
pub struct Private {
    keeper: Keeper,
    bridge: Option<String>,
}

impl Private {
    /// Stops the engine and takes its bridge away.
    pub async fn stop(self) {
        self.keeper.stop().await;
        if let Some(bridge) = &self.bridge {
            ip(&["link", "del", bridge]).await;
        }
    }
}

/// Starts a private engine and keeps it running. Needs root.
pub async fn run_private(job: &EngineJob) -> Result<Private, Error> {
    let mut args = vec!["--group".to_owned(), job.group.to_string()];
    let alone = !another_engine();
    let bridge = bridge(&job.dir).await;
    if let Some(bridge) = &bridge {
        args.extend(["--bridge".to_owned(), bridge.clone()]);
    }
    let config = |extra_args: Vec<String>| EngineConfig {
        dir: job.dir.clone(),
        die_with_parent: true,
        isolated_network: false,
        extra_args,
    };
    let closed = {
        let mut args = args.clone();
        args.extend([
            "--iptables=false".to_owned(),
            "--ip6tables=false".to_owned(),
        ]);
        args
    };
    let mut chosen = config(if alone { args } else { closed.clone() });
    let engine = match PrivateEngine::start(&chosen).await {
        Err(Error::Died { .. }) if alone => {
            // Some kernels and containers have no usable firewall.
            chosen = config(closed);
            PrivateEngine::start(&chosen).await?
        }
        other => other?,
    };
    Ok(Private {
        keeper: Keeper::new(engine, chosen),
        bridge,
    })
}

/// Whether a dockerd runs in our network namespace.
fn another_engine() -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let ours = namespace("self");
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|process| {
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        name.trim() == "dockerd" && namespace(&process.file_name().to_string_lossy()) == ours
    })
}

/// Makes a bridge that belongs to this folder, with addresses nobody routes. None if that is not possible:
/// then the engine makes its usual one.
async fn bridge(dir: &Path) -> Option<String> {
    let id = digest(dir);
    let name = format!("wl-{}", &id[..8]);
    let exists = Path::new("/sys/class/net").join(&name).exists();
    if !exists && !ip(&["link", "add", &name, "type", "bridge"]).await {
        return None;
    }
    if exists && has_address(&name) {
        return Some(name);
    }
    let seed = u64::from_str_radix(&id, 16).unwrap_or_default();
    let routes = routes(&fs::read_to_string("/proc/net/route").unwrap_or_default());
    let address = subnets(seed).find(|subnet| !routes.iter().any(|r| overlaps(*r, *subnet)))?;
    let gateway = Ipv4Addr::from(u32::from(address) | 1);
    if !ip(&["addr", "add", &format!("{gateway}/24"), "dev", &name]).await {
        return None;
    }
    ip(&["link", "set", &name, "up"]).await;
    Some(name)
}

async fn ip(args: &[&str]) -> bool {
    let program = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some(program) = program else {
        return false;
    };
    let output = Command::new(program).args(args).output().await;
    output.is_ok_and(|output| output.status.success())
}

fn has_address(bridge: &str) -> bool {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    routes
        .lines()
        .any(|line| line.split_whitespace().next() == Some(bridge))
}

/// /24 networks to choose from, in an order of our own.
fn subnets(seed: u64) -> impl Iterator<Item = Ipv4Addr> {
    (0..4096_u64).map(move |step| {
        let n = seed.wrapping_add(step.wrapping_mul(257)) % (64 * 256);
        Ipv4Addr::new(10, 128 + (n / 256) as u8, (n % 256) as u8, 0)
    })
}

/// Network and mask of each route in the form of /proc/net/route; the default route has mask 0.
fn routes(table: &str) -> Vec<(u32, u32)> {
    let hex = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::swap_bytes);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some((hex(fields.get(1)?)?, hex(fields.get(7)?)?))
        })
        .filter(|(_, mask)| *mask != 0)
        .collect()
}

fn overlaps((network, mask): (u32, u32), subnet: Ipv4Addr) -> bool {
    let common = mask & 0xffff_ff00;
    network & common == u32::from(subnet) & common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_that_is_routed_is_passed_over() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask\n\
                     eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n\
                     x 0001800A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
        let routes = routes(table);
        assert_eq!(
            routes,
            [(u32::from(Ipv4Addr::new(10, 128, 1, 0)), 0xffff_ff00)]
        );
        assert!(overlaps(routes[0], Ipv4Addr::new(10, 128, 1, 0)));
        assert!(!overlaps(routes[0], Ipv4Addr::new(10, 128, 2, 0)));
        assert!(overlaps(
            (u32::from(Ipv4Addr::new(10, 0, 0, 0)), 0xff00_0000),
            Ipv4Addr::new(10, 130, 2, 0)
        ));
    }

    #[test]
    fn subnets_differ_and_are_private() {
        let some: Vec<Ipv4Addr> = subnets(u64::MAX).take(100).collect();
        assert!(
            some.iter()
                .all(|a| a.octets()[0] == 10 && (128..192).contains(&a.octets()[1]))
        );
        let mut unique = some.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), some.len());
    }
}
