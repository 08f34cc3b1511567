//! One child process: spawned with log and pid file, stopped gracefully, never left behind.
//!
//! The kernel ties "die with the parent" to the *thread* that spawned, so all children are spawned by one
//! thread that lives as long as this process. Signals are sent under the lock that reaping takes: a pid is
//! never signalled after it may belong to somebody else.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};
use tokio::sync::watch;

use crate::{Error, find, proc_fs};

/// The user a child runs as, when we are root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id; no supplementary groups.
    pub gid: u32,
}

/// What to spawn.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// For messages.
    pub name: String,
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Added to our environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working folder; ours if not given.
    pub current_dir: Option<PathBuf>,
    /// Appended with both its outputs.
    pub log: PathBuf,
    /// Holds the pid while it runs, and beside it `<name>.started` the start time.
    pub pid_file: Option<PathBuf>,
    /// Runs as this user instead of us.
    pub user: Option<User>,
    /// Killed by the kernel when this process ends, however it ends.
    pub die_with_parent: bool,
}

impl ProcessSpec {
    /// A spec with no arguments, our environment and user, no pid file, outliving us.
    #[must_use]
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, log: PathBuf) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            current_dir: None,
            log,
            pid_file: None,
            user: None,
            die_with_parent: false,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
}

/// A running (or ended) child. Dropping it kills it and its process group at once.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: i32,
    log: PathBuf,
    log_start: u64,
    pid_file: Option<PathBuf>,
    /// None once reaped.
    child: Arc<Mutex<Option<Child>>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Spawns it, in a process group of its own (a Ctrl-C in the terminal is ours to pass on).
    ///
    /// # Errors
    /// When the program or `setpriv` (for `die_with_parent`) is missing, or a file cannot be written.
    pub fn spawn(spec: &ProcessSpec) -> Result<Self, Error> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&spec.log)
            .map_err(Error::io(&spec.log))?;
        let log_start = log.metadata().map_err(Error::io(&spec.log))?.len();
        let command = command(spec, log)?;
        let child = spawn_lasting(command).map_err(Error::io(&spec.program))?;
        let pid = i32::try_from(child.id()).map_err(|e| Error::Internal(e.to_string()))?;
        let child = Arc::new(Mutex::new(Some(child)));
        let (told, exit) = watch::channel(None);
        let reaped = child.clone();
        std::thread::Builder::new()
            .name(format!("wait-{}", spec.name))
            .spawn(move || reap(pid, &reaped, &told))
            .map_err(|e| Error::Internal(e.to_string()))?;
        let process = Self {
            name: spec.name.clone(),
            pid,
            log: spec.log.clone(),
            log_start,
            pid_file: spec.pid_file.clone(),
            child,
            exit,
        };
        if let Some(path) = &process.pid_file {
            write_pid(path, pid).map_err(Error::io(path))?;
        }
        Ok(process)
    }

    /// Its process id (of the program itself: wrappers exec).
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exited(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits for its end; may be cancelled and repeated.
    pub async fn wait(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.ok()?;
        *status
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        self.with_pid(|pid| {
            let _ = kill_process(pid, signal);
        });
    }

    /// Sends `signal`, waits up to `grace` for the end, then kills its group; returns when it is gone.
    pub async fn stop(&self, signal: Signal, grace: Duration) -> Option<ExitStatus> {
        self.signal(signal);
        let status = match tokio::time::timeout(grace, self.wait()).await {
            Ok(status) => status,
            Err(_) => {
                tracing::warn!(name = self.name, pid = self.pid, "did not stop: killed");
                self.kill();
                self.wait().await
            }
        };
        self.remove_pid_file();
        status
    }

    /// What it wrote last, as one line.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(
                self.log_start.max(end.saturating_sub(4096)),
            ))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(text)
        };
        find::one_line(&read().unwrap_or_default(), "it said nothing")
    }

    /// The error of a server that ended before it was ready.
    pub(crate) fn died(&self) -> Option<Error> {
        Some(Error::Died {
            name: self.name.clone(),
            status: self.exited()?.to_string(),
            tail: self.log_tail(),
            log: self.log.clone(),
        })
    }

    /// Polls `ready` until it says yes; an end of the process or of patience is the error.
    pub(crate) async fn wait_ready<F, R>(&self, patience: Duration, ready: F) -> Result<(), Error>
    where
        F: Fn() -> R,
        R: Future<Output = Result<(), String>>,
    {
        let end = tokio::time::Instant::now() + patience;
        loop {
            if let Some(died) = self.died() {
                return Err(died);
            }
            let refusal = match ready().await {
                // Whoever answered, it was not ours if ours has ended.
                Ok(()) => return self.died().map_or(Ok(()), Err),
                Err(refusal) => refusal,
            };
            if tokio::time::Instant::now() >= end {
                return Err(Error::NotReady {
                    name: self.name.clone(),
                    seconds: patience.as_secs(),
                    tail: format!("{refusal}; {}", self.log_tail()),
                    log: self.log.clone(),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn kill(&self) {
        self.with_pid(|pid| {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = kill_process(pid, Signal::KILL);
        });
    }

    fn with_pid(&self, act: impl FnOnce(Pid)) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if child.is_some()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            act(pid);
        }
    }

    fn remove_pid_file(&self) {
        if let Some(path) = &self.pid_file
            && read_pid(path).is_some_and(|(pid, _)| pid == self.pid)
        {
            remove_pid(path);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.remove_pid_file();
    }
}

fn command(spec: &ProcessSpec, log: File) -> Result<Command, Error> {
    let mut command = if spec.die_with_parent {
        // Execs the program, so the pid stays; runs behind the change of user, which would reset it.
        let mut wrapper = Command::new(find::program("setpriv", "util-linux")?);
        wrapper.args(["--pdeathsig", "KILL", "--"]);
        wrapper.arg(&spec.program);
        wrapper
    } else {
        Command::new(&spec.program)
    };
    command
        .args(&spec.args)
        .envs(spec.env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stderr(log.try_clone().map_err(Error::io(&spec.log))?)
        .stdout(log)
        .process_group(0);
    if let Some(dir) = &spec.current_dir {
        command.current_dir(dir);
    }
    if let Some(user) = spec.user {
        command.uid(user.uid).gid(user.gid);
    }
    if !find::is_executable(&spec.program) && spec.program.is_absolute() {
        return Err(Error::io(&spec.program)(io::ErrorKind::NotFound.into()));
    }
    Ok(command)
}

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// The thread whose end would end the children: it never ends.
static SPAWNER: LazyLock<io::Result<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name("spawner".to_owned())
        .spawn(move || {
            for (mut command, reply) in queue {
                let _ = reply.send(command.spawn());
            }
        })?;
    Ok(jobs)
});

fn spawn_lasting(command: Command) -> io::Result<Child> {
    let jobs = SPAWNER.as_ref().map_err(|e| io::Error::from(e.kind()))?;
    let (reply, answer) = mpsc::channel();
    let gone = |_| io::Error::other("the spawning thread has ended");
    jobs.send((command, reply)).map_err(|_| gone(()))?;
    answer.recv().map_err(|_| gone(()))?
}

fn reap(pid: i32, child: &Mutex<Option<Child>>, told: &watch::Sender<Option<ExitStatus>>) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    if let Some(pid) = Pid::from_raw(pid) {
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
    }
    let mut slot = child.lock().unwrap_or_else(PoisonError::into_inner);
    let status = slot.take().and_then(|mut child| child.wait().ok());
    drop(slot);
    told.send_replace(status);
}

/// The pid file holds the pid alone, for scripts; its companion the start time, which with the pid is the
/// process's identity. The companion is written first: a pid file without it names nobody. Everybody may read
/// them: who comes next need not be root, as we may have been.
fn write_pid(path: &Path, pid: i32) -> io::Result<()> {
    let started = proc_fs::start_time(pid).unwrap_or_default();
    for (path, number) in [
        (started_file(path), started.to_string()),
        (path.to_owned(), pid.to_string()),
    ] {
        let parent = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        writeln!(file, "{number}")?;
        let readable = fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(readable)?;
        file.persist(path).map_err(|e| e.error)?;
    }
    Ok(())
}

fn started_file(pid_file: &Path) -> PathBuf {
    pid_file.with_extension("started")
}

fn read_pid(path: &Path) -> Option<(i32, u64)> {
    let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    let started = fs::read_to_string(started_file(path)).ok()?;
    Some((pid, started.trim().parse().ok()?))
}

fn remove_pid(path: &Path) {
    // Either is worthless without the other, and a leftover harms nobody.
    let _ = fs::remove_file(path);
    let _ = fs::remove_file(started_file(path));
}

/// Ends what a killed earlier run left running under this pid file (written by [`Process::spawn`]): SIGTERM,
/// then after `grace` SIGKILL. One that is not ours to signal (root's) is only waited for. Says whether there
/// was such a process; as long as it lives it keeps its pid file. A pid that now belongs to another process is
/// left alone.
pub async fn stop_stale(pid_file: &Path, grace: Duration) -> bool {
    let Some((pid, started)) = read_pid(pid_file) else {
        return false;
    };
    let gone = || proc_fs::start_time(pid) != Some(started);
    let found = !gone();
    if found {
        tracing::info!(pid, "stopping what an earlier run left");
        let ours = proc_fs::signal(pid, Signal::TERM);
        if !proc_fs::wait_until(grace, gone).await && ours {
            proc_fs::signal(pid, Signal::KILL);
            proc_fs::wait_until(grace, gone).await;
        }
    }
    if gone() {
        remove_pid(pid_file);
    }
    found
}
