//! What was measured: one table for people, and JSON for programs, in `target/bench`.
//!
//! A row is one measure in one case, with every value that was taken of it. A goal is a bound on the
//! row's median, or on its ratio to the median of another row of the same case.

mod table;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// What a measure should be.
#[derive(Debug, Clone, PartialEq)]
pub enum Goal {
    /// The median is at most this.
    AtMost(f64),
    /// The median is at most so many times that of another row of this case.
    Within(f64, String),
    /// The median is at least so many times that of another row of this case.
    Beyond(f64, String),
    /// The ratio to another row of this case is shown; nothing is wanted of it.
    Beside(String),
}

impl Goal {
    fn bound(&self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {limit}"),
            Self::Within(times, other) => format!("<= {times} x {other}"),
            Self::Beyond(times, other) => format!(">= {times} x {other}"),
            Self::Beside(_) => String::new(),
        }
    }

    fn other(&self) -> Option<&str> {
        match self {
            Self::AtMost(_) => None,
            Self::Within(_, other) | Self::Beyond(_, other) | Self::Beside(other) => Some(other),
        }
    }
}

/// One measure in one case.
#[derive(Debug)]
pub struct Row {
    case: String,
    measure: String,
    unit: &'static str,
    values: Vec<f64>,
    extra: Vec<(&'static str, Vec<f64>)>,
    goal: Option<Goal>,
}

impl Row {
    /// What else was taken with the value, such as CPU time: a column of its own, shown as its median.
    pub fn with(&mut self, column: &'static str, value: f64) -> &mut Self {
        match self.extra.iter_mut().find(|(name, _)| *name == column) {
            Some((_, values)) => values.push(value),
            None => self.extra.push((column, vec![value])),
        }
        self
    }

    /// What the measure should be.
    pub fn goal(&mut self, goal: Goal) -> &mut Self {
        self.goal = Some(goal);
        self
    }

    fn column(&self, name: &str) -> Option<f64> {
        let (_, values) = self.extra.iter().find(|(column, _)| *column == name)?;
        Some(median(values))
    }
}

/// The middle value; of two, their mean. Nothing has no median.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

fn ends(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, most)
}

/// All rows, in the order in which they were first measured.
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    quick: bool,
    machine: String,
    notes: Vec<String>,
    by_case: bool,
    rows: Vec<Row>,
}

impl Report {
    /// Nothing measured yet.
    pub fn new(name: &'static str, quick: bool) -> Self {
        Self {
            name,
            quick,
            machine: machine(),
            notes: Vec::new(),
            by_case: false,
            rows: Vec::new(),
        }
    }

    /// Also shows the medians in one column for each case: how they grow.
    pub fn by_case(&mut self) {
        self.by_case = true;
    }

    /// What a reader has to know beside the figures.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Adds a value to a row.
    pub fn add(
        &mut self,
        case: impl fmt::Display,
        measure: impl fmt::Display,
        unit: &'static str,
        value: f64,
    ) -> &mut Row {
        let (case, measure) = (case.to_string(), measure.to_string());
        let at = match self.find(&case, &measure) {
            Some(at) => at,
            None => {
                self.rows.push(Row {
                    case,
                    measure,
                    unit,
                    values: Vec::new(),
                    extra: Vec::new(),
                    goal: None,
                });
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[at];
        row.values.push(value);
        row
    }

    fn find(&self, case: &str, measure: &str) -> Option<usize> {
        let same = |row: &Row| row.case == case && row.measure == measure;
        self.rows.iter().position(same)
    }

    fn ratio(&self, row: &Row) -> Option<f64> {
        let other = &self.rows[self.find(&row.case, row.goal.as_ref()?.other()?)?];
        Some(median(&row.values) / median(&other.values))
    }

    fn met(&self, row: &Row) -> Option<bool> {
        match row.goal.as_ref()? {
            Goal::AtMost(limit) => Some(median(&row.values) <= *limit),
            Goal::Within(times, _) => Some(self.ratio(row)? <= *times),
            Goal::Beyond(times, _) => Some(self.ratio(row)? >= *times),
            Goal::Beside(_) => None,
        }
    }

    /// Writes `target/bench/NAME.json` and `NAME.md` and prints the table. What was measured in quick mode
    /// gets names of its own.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn finish(&self) {
        let folder = folder();
        let stem = match self.quick {
            true => format!("{}-quick", self.name),
            false => self.name.to_owned(),
        };
        let json = serde_json::to_string_pretty(&self.json()).expect("JSON of numbers") + "\n";
        fs::write(folder.join(format!("{stem}.json")), json).expect("the JSON file");
        fs::write(folder.join(format!("{stem}.md")), self.to_string()).expect("the table file");
        println!("{self}");
        if self.quick {
            println!("Quick mode: these figures say nothing.");
        }
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let (least, most) = ends(&row.values);
                let extra: serde_json::Map<String, Value> = row
                    .extra
                    .iter()
                    .map(|(name, values)| ((*name).to_owned(), json!(values)))
                    .collect();
                json!({
                    "case": row.case,
                    "measure": row.measure,
                    "unit": row.unit,
                    "values": row.values,
                    "min": least,
                    "median": median(&row.values),
                    "max": most,
                    "extra": extra,
                    "ratio": self.ratio(row),
                    "ratio_to": row.goal.as_ref().and_then(Goal::other),
                    "goal": row.goal.as_ref().map(Goal::bound).filter(|b| !b.is_empty()),
                    "met": self.met(row),
                })
            })
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        json!({
            "benchmark": self.name,
            "quick": self.quick,
            "profile": if cfg!(debug_assertions) { "dev" } else { "optimised" },
            "unix_time": now.map_or(0, |t| t.as_secs()),
            "machine": self.machine,
            "notes": self.notes,
            "rows": rows,
        })
    }
}

/// `target/bench`, which is made.
///
/// # Panics
/// When it cannot be made.
pub fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    let folder = target.join("bench");
    fs::create_dir_all(&folder).expect("target/bench");
    folder
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn goals_are_judged_by_medians_of_the_same_case() {
        let mut report = Report::new("test", true);
        for value in [10.0, 12.0, 11.0] {
            report.add(100, "floor", "ms", value);
            let goal = Goal::Within(1.3, "floor".into());
            report.add(100, "ours", "ms", value * 1.2).goal(goal);
        }
        report.add(300, "floor", "ms", 1.0);
        let slow = report.add(300, "ours", "ms", 2.0).with("CPU s", 0.5);
        slow.goal(Goal::Within(1.3, "floor".into()));
        let of = |report: &Report, at: usize| report.met(&report.rows[at]);
        assert_eq!(of(&report, 0), None);
        assert_eq!(of(&report, 1), Some(true));
        assert_eq!(of(&report, 3), Some(false));
        let text = report.to_string();
        assert!(
            text.contains(
                "| 100 | ours | 3 | 13.2 ms | 12.0 - 14.4 | 1.20 | <= 1.3 x floor | yes |"
            ),
            "{text}"
        );
        let json = report.json();
        assert_eq!(json["rows"][3]["extra"]["CPU s"][0], 0.5);
        assert_eq!(json["rows"][3]["met"], false);
    }
}
