//! Archive, verify and restore of homes of a gigabyte against the shell pipelines that do the least of
//! the same work, in the same run: `just bench archive [--quick] [--runs 3]`.
//!
//! - `homes`: what is archived
//! - `jobs`: one measured job, in a process of its own; the S3 store runs in another
//! - `floor`: the shell pipelines
//! - `disk`: what is restored to
//!
//! Archiving is without its read-back, which `verify` measures by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod disk;
mod floor;
mod homes;
mod jobs;

use std::fs;
use std::path::Path;

use disk::Disk;
use tempfile::TempDir;
use windlass_integration::bench::report::folder;
use windlass_integration::bench::{Args, Goal, Report};

/// One job, once.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Seconds from begin to end.
    pub wall: f64,
    /// Seconds of CPU, all threads and processes of the job.
    pub cpu: f64,
    /// Peak resident memory in MiB, of our own processes.
    pub peak: Option<f64>,
    /// MiB that our own process had written to disk: for a restore the home itself, else temporary.
    pub disk: Option<f64>,
    /// Seconds of CPU that the S3 store used meanwhile.
    pub store_cpu: Option<f64>,
}

fn main() {
    let child: Vec<String> = std::env::args().skip(1).collect();
    if child.first().is_some_and(|a| a == "--job") {
        return jobs::child(&child[1..]);
    }
    let args = Args::parse(
        "archive",
        &[("runs", "times that each home is measured [3]")],
    );
    let runs = args.get("runs", 3, 1);
    let smaller = if args.quick { 64 } else { 1 };
    // On the disk that is built on, not in a /tmp that may be memory.
    let work = TempDir::new_in(folder()).unwrap();
    let server = jobs::Server::start(&work.path().join("s3"));
    let mut report = Report::new("archive", args.quick);
    report
        .note("archive: without read-back, which is the row `verify`; zstd level 3 on both sides");
    report.note("restore, unpack and their floor: until it is on the disk, each onto a new ext4 with a journal (loop device)");
    for home in homes::ALL {
        let root = work.path().join("home");
        fs::create_dir(&root).unwrap();
        eprintln!("{}: filling", home.name);
        (home.fill)(&root, smaller);
        for run in 1..=runs {
            eprintln!("{}: run {run} of {runs}", home.name);
            one_run(&mut report, home.name, &server, work.path(), &root);
        }
        remove(&root);
    }
    drop(server);
    report.finish();
}

fn one_run(
    report: &mut Report,
    home: &'static str,
    server: &jobs::Server,
    work: &Path,
    root: &Path,
) {
    let packed = work.join("packed");
    let mut add = |what: &str, measure: Measure| add(report, home, what, measure);
    let quiet = || rustix::fs::sync();

    quiet();
    add("floor archive", floor::archive(root));
    quiet();
    add("pack only", jobs::pack(root));
    quiet();
    let (archive, key) = server.archive(root);
    add("archive", archive);
    quiet();
    add("verify", server.verify(&key));

    floor::packed(root, &packed);
    {
        let disk = Disk::new(work);
        add("floor restore", floor::restore(&packed, &disk.target()));
    }
    fs::remove_file(&packed).unwrap();
    jobs::pack_to(root, &packed);
    {
        let disk = Disk::new(work);
        add("unpack only", jobs::unpack(&packed, &disk.target()));
    }
    {
        let disk = Disk::new(work);
        add("restore", server.restore(&key, &disk.target()));
    }
    fs::remove_file(&packed).unwrap();
    server.clear();
}

fn add(report: &mut Report, home: &str, what: &str, measure: Measure) {
    let small = home == "13 bytes";
    let goal = match what {
        "archive" | "restore" if small => Some(Goal::AtMost(0.05)),
        "archive" => Some(Goal::Within(1.3, "floor archive".to_owned())),
        "restore" => Some(Goal::Within(1.5, "floor restore".to_owned())),
        "pack only" => Some(Goal::Beside("floor archive".to_owned())),
        "unpack only" => Some(Goal::Beside("floor restore".to_owned())),
        _ => None,
    };
    let row = report.add(home, what, "s", measure.wall);
    row.with("CPU s", measure.cpu);
    for (column, value) in [
        ("peak MiB", measure.peak),
        ("disk MiB", measure.disk),
        ("store CPU s", measure.store_cpu),
    ] {
        if let Some(value) = value {
            row.with(column, value);
        }
    }
    if let Some(goal) = goal {
        row.goal(goal);
    }
    if let (Some(peak), "archive" | "verify" | "restore") = (measure.peak, what) {
        let what = format!("{what}: peak memory");
        report
            .add(home, what, "MiB", peak)
            .goal(Goal::AtMost(128.0));
    }
    if let (Some(disk), "archive" | "verify") = (measure.disk, what) {
        let what = format!("{what}: temporary disk");
        // The process may write no file. The kernel counts a few pages all the same, such as inodes that it wrote
        // back for others meanwhile.
        report.add(home, what, "MiB", disk).goal(Goal::AtMost(1.0));
    }
}

/// std's own removal is slow on trees of this size and fails on deep ones.
fn remove(path: &Path) {
    let status = std::process::Command::new("rm")
        .arg("-rf")
        .arg(path)
        .status();
    assert!(status.unwrap().success(), "rm");
}
