//! The least that does the same work: GNU tar, zstd and sha256sum, nothing stored on the way out.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Measure;

/// Reads, compresses and hashes; what is archived goes nowhere.
pub fn archive(root: &Path) -> Measure {
    timed(
        "tar -C \"$1\" -cf - . | zstd -q -T0 -3 | sha256sum",
        root,
        root,
    )
}

/// The archive that the restores begin with; not timed.
pub fn packed(root: &Path, packed: &Path) {
    timed(
        "tar -C \"$1\" -cf - . | zstd -q -T0 -3 -o \"$2\"",
        root,
        packed,
    );
}

/// Decompresses and extracts with owners and modes, until it is on the disk. No digest is checked.
pub fn restore(packed: &Path, target: &Path) -> Measure {
    timed(
        "zstd -q -dc \"$1\" | tar -C \"$2\" -xpf - && sync -f \"$2\"",
        packed,
        target,
    )
}

fn timed(pipeline: &str, first: &Path, second: &Path) -> Measure {
    // bash's `time` counts all of a pipeline's processes.
    let script = format!("set -o pipefail; TIMEFORMAT='%R %U %S'; time {{ {pipeline}; }}");
    let output = Command::new("bash")
        .args(["-c", &script, "bash"])
        .args([first, second])
        .stdout(Stdio::null())
        .output()
        .expect("bash");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{pipeline}: {text}");
    let seconds: Vec<f64> = text
        .split_whitespace()
        .map(|number| number.parse().unwrap_or_else(|_| panic!("{text}")))
        .collect();
    Measure {
        wall: seconds[0],
        cpu: seconds[1] + seconds[2],
        peak: None,
        disk: None,
        store_cpu: None,
    }
}
