//! What was measured, as a table for people and as JSON for programs.

use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// One job, once.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Seconds from begin to end.
    pub wall: f64,
    /// Seconds of CPU, all threads and processes of the job.
    pub cpu: f64,
    /// Peak resident memory in MiB, of our own processes.
    pub peak: Option<f64>,
    /// Seconds of CPU that the S3 store used meanwhile.
    pub store_cpu: Option<f64>,
}

#[derive(Debug)]
struct Row {
    home: &'static str,
    what: &'static str,
    runs: Vec<Measure>,
}

/// All rows, in the order in which they were first measured.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

/// What each job is compared with.
const FLOORS: [(&str, &str); 4] = [
    ("pack only", "floor archive"),
    ("archive", "floor archive"),
    ("unpack only", "floor restore"),
    ("restore", "floor restore"),
];

impl Report {
    pub fn add(&mut self, home: &'static str, what: &'static str, measure: Measure) {
        match self.find(home, what) {
            Some(at) => self.rows[at].runs.push(measure),
            None => self.rows.push(Row {
                home,
                what,
                runs: vec![measure],
            }),
        }
    }

    fn find(&self, home: &str, what: &str) -> Option<usize> {
        let same = |row: &Row| row.home == home && row.what == what;
        self.rows.iter().position(same)
    }

    /// Median time over the floor's median time.
    fn ratio(&self, row: &Row) -> Option<f64> {
        let (_, floor) = FLOORS.iter().find(|(what, _)| *what == row.what)?;
        let floor = &self.rows[self.find(row.home, floor)?];
        Some(row.spread(|m| m.wall)?.1 / floor.spread(|m| m.wall)?.1)
    }

    pub fn save(&self, file: &Path) {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "home": row.home,
                    "job": row.what,
                    "wall_seconds": row.all(|m| Some(m.wall)),
                    "cpu_seconds": row.all(|m| Some(m.cpu)),
                    "peak_mib": row.all(|m| m.peak),
                    "store_cpu_seconds": row.all(|m| m.store_cpu),
                    "wall_over_floor": self.ratio(row),
                })
            })
            .collect();
        let whole = json!({ "benchmark": "archive", "machine": machine(), "rows": rows });
        fs::write(file, serde_json::to_string_pretty(&whole).unwrap() + "\n").unwrap();
    }
}

impl Row {
    fn all(&self, of: impl Fn(&Measure) -> Option<f64>) -> Vec<f64> {
        self.runs.iter().filter_map(of).collect()
    }

    /// Minimum, median, maximum.
    fn spread(&self, of: impl Fn(&Measure) -> f64) -> Option<(f64, f64, f64)> {
        let mut values = self.all(|m| Some(of(m)));
        values.sort_by(f64::total_cmp);
        Some((*values.first()?, values[values.len() / 2], *values.last()?))
    }

    fn median(&self, of: impl Fn(&Measure) -> Option<f64>) -> Option<f64> {
        let mut values = self.all(of);
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", machine())?;
        writeln!(
            f,
            "| home | job | median s | min - max s | x floor | CPU s | store CPU s | peak MiB |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        let or_nothing = |value: Option<f64>, digits: usize| {
            value.map_or(String::new(), |v| format!("{v:.digits$}"))
        };
        for row in &self.rows {
            let (min, median, max) = row.spread(|m| m.wall).unwrap_or_default();
            writeln!(
                f,
                "| {} | {} | {median:.3} | {min:.3} - {max:.3} | {} | {} | {} | {} |",
                row.home,
                row.what,
                or_nothing(self.ratio(row), 2),
                or_nothing(row.median(|m| Some(m.cpu)), 2),
                or_nothing(row.median(|m| m.store_cpu), 2),
                or_nothing(row.median(|m| m.peak), 0),
            )?;
        }
        Ok(())
    }
}

/// CPU, memory, kernel and load: enough to know what the figures cannot be compared with.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap_or_default();
        line.split_once(':')
            .map_or("", |(_, value)| value)
            .trim()
            .to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    format!(
        "{} x {}, {} memory, Linux {}, load {}",
        cores,
        field(&read("/proc/cpuinfo"), "model name"),
        field(&read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").trim(),
    )
}
