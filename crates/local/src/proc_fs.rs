//! What /proc tells of processes that are not ours to wait for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often a foreign process is looked at while waiting for its end.
const POLL: Duration = Duration::from_millis(20);

/// When a process started, in clock ticks since boot: with the pid, its identity. None once it holds nothing
/// any more (a zombie, which only waits for its parent).
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    if ended && threads(pid) <= 1 {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The threads of a process, an ended first one included: it stays in the table until the last one ends, and
/// until then the ports and files of all stay open.
fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// The file name of a process's program.
pub(crate) fn program(pid: i32) -> Option<String> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = exe.file_name()?.to_string_lossy().into_owned();
    Some(name.trim_end_matches(" (deleted)").to_owned())
}

/// Every process id there is.
pub(crate) fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// The working folder of a process.
pub(crate) fn working_dir(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// The processes of this name that work in `dir`, each with its start time. One that is ending loses its program
/// before its files and ports, its name and folder after them.
pub(crate) fn working_in(dir: &Path, name: &str) -> Vec<(i32, u64)> {
    let named = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids()
        .into_iter()
        .filter(|pid| working_dir(*pid).is_some_and(|cwd| cwd == dir))
        .filter(|pid| named(*pid).trim_end() == name)
        .filter_map(|pid| Some((pid, start_time(pid)?)))
        .collect()
}

/// Sends a signal to a process that is not our child; says whether it could be sent.
pub(crate) fn signal(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Waits until `done` says so; says whether it did in time.
pub(crate) async fn wait_until(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
}
