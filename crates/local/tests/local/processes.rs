use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use windlass_local::process::{Process, ProcessSpec, stop_stale};
use windlass_local::supervisor::{Options, Service, Supervisor};

use crate::{eventually, is_alive, kill_9};

fn shell(dir: &Path, script: &str) -> ProcessSpec {
    let mut spec = ProcessSpec::new("shell", "/bin/sh", dir.join("log")).args(["-c", script]);
    spec.pid_file = Some(dir.join("pid"));
    spec
}

#[tokio::test]
async fn stop_asks_first_and_kills_then() {
    let dir = tempfile::tempdir().unwrap();
    let polite = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done";
    let process = Process::spawn(&shell(dir.path(), polite)).unwrap();
    eventually("it is up", || process.log_tail() == "up").await;
    let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
    assert_eq!(pid.lines().next().unwrap(), process.pid().to_string());
    for file in ["pid", "pid.started"] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o644, "{file}");
    }
    let exit = process.stop(Signal::TERM, Duration::from_secs(20)).await;
    assert_eq!(exit.unwrap().code(), Some(7));
    assert_eq!(process.log_tail(), "up | bye");
    assert!(!dir.path().join("pid").exists());

    let stubborn = "trap '' TERM; echo up2; while :; do sleep 0.05; done";
    let process = Process::spawn(&shell(dir.path(), stubborn)).unwrap();
    eventually("it is up", || process.log_tail() == "up2").await;
    let exit = process.stop(Signal::TERM, Duration::from_millis(200)).await;
    assert_eq!(exit.unwrap().code(), None);
    assert!(!is_alive(process.pid()));
}

#[tokio::test]
async fn a_stale_pid_file_ends_its_process_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::spawn(&shell(dir.path(), "exec sleep 1000")).unwrap();
    let pid_file = dir.path().join("pid");
    let [pid, started] =
        [&pid_file, &dir.path().join("pid.started")].map(|f| fs::read_to_string(f).unwrap());
    fs::write(dir.path().join("pid.started"), "1\n").unwrap();
    assert!(!stop_stale(&pid_file, Duration::from_secs(5)).await);
    assert!(is_alive(process.pid()));
    assert!(!pid_file.exists(), "it names nobody who lives");
    fs::write(&pid_file, pid).unwrap();
    fs::write(dir.path().join("pid.started"), started).unwrap();
    assert!(stop_stale(&pid_file, Duration::from_secs(5)).await);
    assert!(!is_alive(process.pid()));
}

/// A killed server of many threads may look ended while its last thread still holds its port.
#[tokio::test]
async fn a_process_lives_as_long_as_its_last_thread() {
    const FIRST_THREAD_ENDS: &str = "import ctypes, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
ctypes.CDLL(None).pthread_exit(None)";
    let dir = tempfile::tempdir().unwrap();
    let python = shell(
        dir.path(),
        &format!("exec python3 -c '{FIRST_THREAD_ENDS}'"),
    );
    let process = Process::spawn(&python).unwrap();
    eventually("the first thread has ended", || !is_alive(process.pid())).await;
    assert!(process.exited().is_none());
    assert!(stop_stale(&dir.path().join("pid"), Duration::from_secs(20)).await);
    eventually("its end is known", || process.exited().is_some()).await;
}

/// Runs itself again as the parent to be killed.
#[tokio::test]
async fn children_die_with_a_killed_parent() {
    const CHILD: &str = "WINDLASS_LOCAL_TEST_DIR";
    if let Some(dir) = std::env::var_os(CHILD) {
        let mut spec = shell(Path::new(&dir), "exec sleep 1000");
        spec.die_with_parent = true;
        // Spawned from a thread that ends: only the end of the process may end the child.
        let spawned = std::thread::spawn(move || Process::spawn(&spec).unwrap());
        let process = spawned.join().unwrap();
        println!("\npid {}", process.pid());
        tokio::time::sleep(Duration::from_secs(1000)).await;
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("processes::children_die_with_a_killed_parent")
        .env(CHILD, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid: i32 = BufReader::new(parent.stdout.take().unwrap())
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("pid ")?.parse().ok())
        .unwrap();
    let cmdline = format!("/proc/{pid}/cmdline");
    eventually("the child runs", || {
        fs::read_to_string(&cmdline).is_ok_and(|c| c.starts_with("sleep"))
    })
    .await;
    parent.kill().unwrap();
    parent.wait().unwrap();
    eventually("the child is gone", || !is_alive(pid)).await;
}

fn service(name: &str, script: &str) -> Service {
    Service {
        name: name.into(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("WHO".into(), name.into())],
    }
}

#[tokio::test]
async fn a_supervisor_restarts_and_stops_in_reverse() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(100),
        ..Options::default()
    };
    let order = dir.path().join("order");
    let script = format!(
        "trap 'echo $WHO >> {}; exit 0' TERM; echo up; while :; do sleep 0.05; done",
        order.display()
    );
    let mut supervisor = Supervisor::new(dir.path(), options).unwrap();
    for name in ["one", "two"] {
        supervisor.start(service(name, &script)).await.unwrap();
    }
    let crash = service("crash", "echo broken; exit 3");
    supervisor.start(crash).await.unwrap();
    let killed = supervisor.statuses()[0].pid.unwrap();
    let log = dir.path().join("log/one.log");
    let ups = || fs::read_to_string(&log).unwrap().matches("up").count();
    eventually("one is up", || ups() == 1).await;
    kill_9(killed);
    eventually("one is up again", || ups() == 2).await;
    eventually("the crashing one was restarted", || {
        supervisor.statuses()[2].restarts >= 3
    })
    .await;
    let statuses = supervisor.statuses();
    let exit = statuses[2].last_exit.clone().unwrap();
    assert!(exit.contains("exit status: 3: broken"), "{exit}");
    assert_eq!(statuses[1].restarts, 0);
    let pid = statuses[0].pid.unwrap();
    let file = fs::read_to_string(dir.path().join("run/one.pid")).unwrap();
    assert_eq!(file.lines().next().unwrap(), pid.to_string());
    eventually("two is up", || {
        fs::read_to_string(dir.path().join("log/two.log")).unwrap() == "up\n"
    })
    .await;
    supervisor.shutdown().await;
    assert_eq!(fs::read_to_string(order).unwrap(), "two\none\n");
    assert_eq!(fs::read_dir(dir.path().join("run")).unwrap().count(), 0);
}
