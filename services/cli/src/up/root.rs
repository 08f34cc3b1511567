//! What needs root where `windlass up` is not root: the agent (it works in the volumes' folder) and a
//! private engine. `sudo -n` runs this program again as a helper that does the one job it is given.
//!
//! The kernel's "die with the parent" does not reach through sudo, and nobody may signal root's processes:
//! so the helper itself watches whether the one it works for lives and still wants it, and ends the job
//! otherwise. The job comes in a file only its owner can read, never in the arguments.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass_local::process::{Process, ProcessSpec};
use windlass_local::supervisor::{Options, Service, Supervisor};

use super::engine::{EngineJob, run_private};
use super::failed;
use super::guard::Identity;
use super::state::State;
use crate::args::UpRootArgs;
use crate::envfile::write_private;
use crate::error::CliError;

const POLL: Duration = Duration::from_millis(200);
/// For the job to end; longer than a service's or the engine's own grace.
const GRACE: Duration = Duration::from_secs(45);

/// What root is asked to run.
#[derive(Debug, Serialize, Deserialize)]
pub enum Job {
    /// A private engine.
    Engine(EngineJob),
    /// A service, kept running.
    Service(ServiceJob),
}

/// A service and where its pid file and log go.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServiceJob {
    dir: PathBuf,
    name: String,
    program: PathBuf,
    env: Vec<(String, String)>,
}

impl ServiceJob {
    /// The service, as a job in our environment.
    pub fn new(state: &State, service: &Service) -> Self {
        Self::with(std::env::vars_os(), state, service)
    }

    fn with(
        own: impl Iterator<Item = (OsString, OsString)>,
        state: &State,
        service: &Service,
    ) -> Self {
        let text = |text: &OsString| text.to_string_lossy().into_owned();
        Self {
            dir: state.dir().to_owned(),
            name: service.name.clone(),
            program: service.program.clone(),
            env: own
                .filter(|(name, _)| is_passed_on(&text(name)))
                .chain(service.env.iter().cloned())
                .map(|(n, v)| (text(&n), text(&v)))
                .collect(),
        }
    }
}

/// Whether a service gets this variable of ours: sudo passes none on. What is for this program alone is not.
fn is_passed_on(name: &str) -> bool {
    let starts = |with: &[&str]| with.iter().any(|prefix| name.starts_with(prefix));
    let proxy = name.to_ascii_uppercase().ends_with("_PROXY");
    (proxy || starts(&["WINDLASS_", "AWS_", "OTEL_", "RUST_"]))
        && !starts(&["WINDLASS_TOKEN", "WINDLASS_UP_"])
}

/// The `sudo` of the PATH.
fn sudo() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("sudo"))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| PathBuf::from("/usr/bin/sudo"))
}

/// Whether we are root, or may be without being asked for a password.
pub fn check() -> Result<(), CliError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let sudo = std::process::Command::new(sudo())
        .args(["-n", "true"])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    if sudo.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(CliError::Failed(
        "the agent needs root (it works in the Docker volumes' folder): run as root, or as a user \
         whom sudo asks for no password (`sudo -v` may be enough)"
            .to_owned(),
    ))
}

/// A folder that only its owner may change: nobody can have put it there before us.
pub fn private_folder(dir: &Path) -> Result<(), CliError> {
    let io = |e: std::io::Error| CliError::Failed(format!("{}: {e}", dir.display()));
    match fs::DirBuilder::new().mode(0o711).create(dir) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(io(e)),
    }
    let meta = fs::symlink_metadata(dir).map_err(io)?;
    let us = rustix::process::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != us || meta.mode() & 0o022 != 0 {
        return Err(CliError::Failed(format!(
            "{} is not a folder of ours alone: remove it",
            dir.display()
        )));
    }
    Ok(())
}

/// A helper at work.
#[derive(Debug)]
pub struct Helper {
    process: Process,
    job_file: PathBuf,
    log: PathBuf,
}

impl Helper {
    /// Starts one for a job.
    pub fn start(state: &State, name: &str, job: &Job) -> Result<Self, CliError> {
        let job_file = state.path("run").join(format!("{name}.job"));
        let text = serde_json::to_string(job).map_err(failed)?;
        write_private(&job_file, &text)
            .map_err(|e| CliError::Failed(format!("{}: {e}", job_file.display())))?;
        let log = state.path("log").join(format!("{name}-root.log"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut arguments: Vec<OsString> = vec!["-n".into(), "--".into(), program.into()];
        arguments.extend(["up-root", "--parent"].map(OsString::from));
        arguments.push(std::process::id().to_string().into());
        arguments.extend(["--job".into(), job_file.clone().into_os_string()]);
        let spec = ProcessSpec::new(format!("root's {name}"), sudo(), log.clone()).args(arguments);
        Ok(Self {
            process: Process::spawn(&spec).map_err(failed)?,
            job_file,
            log,
        })
    }

    /// Ends, with the reason, when the helper has ended.
    pub async fn ended(&self) -> String {
        self.process.wait().await;
        format!("{} (log: {})", self.process.log_tail(), self.log.display())
    }

    /// Asks it to end the job, and waits for that.
    pub async fn stop(self) {
        let _ = fs::remove_file(&self.job_file);
        if tokio::time::timeout(GRACE, self.process.wait())
            .await
            .is_err()
        {
            tracing::warn!("root's helper does not end, see {}", self.log.display());
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.job_file);
    }
}

/// The helper: does the job until its parent is gone, or has removed the job's file.
pub async fn run(args: UpRootArgs) -> Result<(), CliError> {
    super::start_logging();
    let parent = Identity::of(args.parent)
        .ok_or_else(|| CliError::Failed("the one it works for is gone".to_owned()))?;
    let text = fs::read_to_string(&args.job)
        .map_err(|e| CliError::Failed(format!("{}: {e}", args.job.display())))?;
    let job: Job = serde_json::from_str(&text).map_err(failed)?;
    let wanted = async {
        let mut stop = super::StopSignal::new().map_err(failed)?;
        while parent.lives() && args.job.exists() {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = stop.received() => break,
            }
        }
        Ok::<_, CliError>(())
    };
    match job {
        Job::Engine(job) => {
            let engine = run_private(&job).await.map_err(failed)?;
            wanted.await?;
            engine.stop().await;
        }
        Job::Service(job) => {
            let options = Options::default();
            let mut supervisor = Supervisor::new(&job.dir, options).map_err(failed)?;
            let env = job.env.into_iter().map(|(n, v)| (n.into(), v.into()));
            let service = Service {
                name: job.name,
                program: job.program,
                args: Vec::new(),
                env: env.collect(),
            };
            supervisor.start(service).await.map_err(failed)?;
            wanted.await?;
            supervisor.shutdown().await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn folders_others_may_change_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("engine");
        private_folder(&dir).unwrap();
        private_folder(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(private_folder(&dir).is_err());
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path(), &link).unwrap();
        assert!(private_folder(&link).is_err());
    }

    #[test]
    fn what_services_know_is_passed_on() {
        for name in [
            "WINDLASS_ZSTD_LEVEL",
            "WINDLASS_LOG",
            "AWS_CA_BUNDLE",
            "OTEL_SERVICE_NAME",
            "RUST_BACKTRACE",
            "HTTPS_PROXY",
            "no_proxy",
        ] {
            assert!(is_passed_on(name), "{name}");
        }
        for name in [
            "WINDLASS_TOKEN",
            "WINDLASS_TOKEN_FILE",
            "WINDLASS_UP_LOG",
            "PATH",
            "LD_PRELOAD",
        ] {
            assert!(!is_passed_on(name), "{name}");
        }
    }

    #[test]
    fn a_job_has_our_environment_and_then_the_services_own() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(root.path()).unwrap();
        let service = Service {
            name: "agent".to_owned(),
            program: PathBuf::from("/bin/true"),
            args: Vec::new(),
            env: vec![("WINDLASS_S3_REGION".into(), "here".into())],
        };
        let own = [
            ("WINDLASS_S3_REGION", "there"),
            ("WINDLASS_ZSTD_LEVEL", "9"),
            ("HOME", "/root"),
        ];
        let own = own.map(|(n, v)| (n.into(), v.into()));
        let job = ServiceJob::with(own.into_iter(), &state, &service);
        let env = job.env.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        // Of one name the last one holds.
        assert_eq!(
            env.collect::<Vec<_>>(),
            [
                ("WINDLASS_S3_REGION", "there"),
                ("WINDLASS_ZSTD_LEVEL", "9"),
                ("WINDLASS_S3_REGION", "here"),
            ]
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_ends_when_its_file_goes() {
        let root = tempfile::tempdir().unwrap();
        let job_file = root.path().join("x.job");
        let job = Job::Service(ServiceJob {
            dir: root.path().to_owned(),
            name: "sleeper".to_owned(),
            program: PathBuf::from("/bin/cat"),
            env: vec![("SECRET".to_owned(), "s".to_owned())],
        });
        fs::write(&job_file, serde_json::to_string(&job).unwrap()).unwrap();
        let args = UpRootArgs {
            parent: std::process::id() as i32,
            job: job_file.clone(),
        };
        let helper = tokio::spawn(run(args));
        // `cat` of nothing ends at once: it is started again, and its pid file comes and goes.
        while !root.path().join("log/sleeper.log").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fs::remove_file(&job_file).unwrap();
        tokio::time::timeout(Duration::from_secs(30), helper)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let orphan = run(UpRootArgs {
            parent: i32::MAX,
            job: job_file,
        })
        .await;
        assert!(orphan.is_err());
    }
}
