//! CPU time and memory of processes, by /proc.

use std::{fs, ops::Sub};

/// Ticks per second in /proc, on every Linux.
const USER_HZ: f64 = 100.0;

/// What a process used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Seconds of CPU since its start, all threads.
    pub cpu: f64,
    /// Resident memory now, in MiB.
    pub rss: f64,
    /// The most resident memory so far, in MiB.
    pub peak: f64,
}

/// What a process used so far.
///
/// # Panics
/// When there is no such process.
pub fn usage(pid: i32) -> Usage {
    let read = |what: &str| {
        fs::read_to_string(format!("/proc/{pid}/{what}")).expect("a process that still runs")
    };
    let stat = read("stat");
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number of ticks");
    let status = read("status");
    let mib = |field: &str| {
        let line = status.lines().find(|l| l.starts_with(field));
        let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    };
    Usage {
        cpu: (ticks(11) + ticks(12)) / USER_HZ,
        rss: mib("VmRSS:"),
        peak: mib("VmHWM:"),
    }
}

/// What a process and its children that run now used so far; shared memory counts once for each.
pub fn family(pid: i32) -> Usage {
    let parent = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields = stat.rsplit(')').next()?;
        fields.split_whitespace().nth(1)?.parse::<i32>().ok()
    };
    let all = fs::read_dir("/proc").expect("/proc");
    let children = all
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|child| parent(child) == Some(pid));
    children.map(usage).fold(usage(pid), |sum, child| Usage {
        cpu: sum.cpu + child.cpu,
        rss: sum.rss + child.rss,
        peak: sum.peak + child.peak,
    })
}

/// MiB that this process had written to disks so far; `None` where the kernel does not count. What goes
/// through sockets is not among it.
pub fn written() -> Option<f64> {
    let io = fs::read_to_string("/proc/self/io").ok()?;
    let line = io.lines().find(|l| l.starts_with("write_bytes:"))?;
    let bytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(bytes / f64::from(1 << 20))
}

/// Lets the peak begin anew.
pub fn forget_peak(pid: i32) {
    // Where that is not allowed, the peak is that of the whole life, which is no less true.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

impl Sub for Usage {
    type Output = Self;

    /// CPU time in between; memory as it is now.
    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu - earlier.cpu,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let me = i32::try_from(std::process::id()).unwrap();
        let began = usage(me);
        assert!(began.rss > 0.5 && began.peak >= began.rss, "{began:?}");
        let mut spin = 0u64;
        while (usage(me) - began).cpu < 0.02 {
            spin = std::hint::black_box(spin + 1);
        }
    }
}
