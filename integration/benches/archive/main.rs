//! Archive, verify and restore of homes of a gigabyte against the shell pipelines that do the least of
//! the same work, in the same run: `just bench archive [RUNS]`.
//!
//! - `homes`: what is archived
//! - `jobs`: one measured job, in a process of its own; the S3 store runs in another
//! - `floor`: the shell pipelines
//! - `report`: the table, and target/bench/archive.json
//!
//! Figures of different machines or runs say nothing about each other; the ratios are what counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod floor;
mod homes;
mod jobs;
mod report;

use std::fs;
use std::path::{Path, PathBuf};

use report::{Measure, Report};
use tempfile::TempDir;

const RUNS: usize = 3;

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if args.first().is_some_and(|a| a == "--job") {
        return jobs::child(&args[1..]);
    }
    let runs = args
        .first()
        .map_or(RUNS, |n| n.parse().expect("a number of runs"));
    let folder = target_folder().join("bench");
    fs::create_dir_all(&folder).unwrap();
    // On the disk that is built on, not in a /tmp that may be memory.
    let work = TempDir::new_in(&folder).unwrap();
    let server = jobs::Server::start(&work.path().join("s3"));
    let mut report = Report::default();
    for home in homes::ALL {
        let root = work.path().join("home");
        fs::create_dir(&root).unwrap();
        eprintln!("{}: filling", home.name);
        (home.fill)(&root);
        for run in 1..=runs {
            eprintln!("{}: run {run} of {runs}", home.name);
            one_run(&mut report, home.name, &server, work.path(), &root);
        }
        remove(&root);
    }
    drop(server);
    report.save(&folder.join("archive.json"));
    println!("{report}");
}

fn one_run(
    report: &mut Report,
    home: &'static str,
    server: &jobs::Server,
    work: &Path,
    root: &Path,
) {
    let (packed, target) = (work.join("packed"), work.join("target"));
    let mut add = |what, measure: Measure| report.add(home, what, measure);
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
    let fresh = || {
        fs::create_dir(&target).unwrap();
        rustix::fs::sync();
    };
    fresh();
    add("floor restore", floor::restore(&packed, &target));
    remove(&target);
    fs::remove_file(&packed).unwrap();
    jobs::pack_to(root, &packed);
    fresh();
    add("unpack only", jobs::unpack(&packed, &target));
    remove(&target);
    fresh();
    add("restore", server.restore(&key, &target));
    remove(&target);
    fs::remove_file(&packed).unwrap();
    server.clear();
}

/// std's own removal is slow on trees of this size and fails on deep ones.
fn remove(path: &Path) {
    let status = std::process::Command::new("rm")
        .arg("-rf")
        .arg(path)
        .status();
    assert!(status.unwrap().success(), "rm");
}

fn target_folder() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"))
}
