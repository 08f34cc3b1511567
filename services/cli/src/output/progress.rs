//! How a wait looks: one living line on a terminal, a line per change elsewhere. On standard error, so
//! that results stay clean.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use windlass_proto::v1;

use super::{operation, phase};
use crate::values::{bytes, duration};

/// How often a line tells of bytes where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Weight of the newest measurement in the rate.
const SMOOTHING: f64 = 0.4;

/// Bytes per second of a growing count, smoothed.
#[derive(Debug, Default)]
pub struct Rate {
    last: Option<(u64, Instant)>,
    per_second: Option<f64>,
}

impl Rate {
    /// Takes a measurement. A count that shrinks belongs to a new piece of work.
    pub fn measure(&mut self, done: u64, at: Instant) {
        match self.last {
            Some((before, then)) if done >= before => {
                let seconds = at.saturating_duration_since(then).as_secs_f64();
                if seconds < 0.1 {
                    return;
                }
                let now = (done - before) as f64 / seconds;
                let mixed = self
                    .per_second
                    .map_or(now, |old| old + SMOOTHING * (now - old));
                self.per_second = Some(mixed);
            }
            _ => self.per_second = None,
        }
        self.last = Some((done, at));
    }

    /// Bytes per second; none before the second measurement.
    pub fn per_second(&self) -> Option<u64> {
        self.per_second.map(|rate| rate as u64)
    }
}

/// Shows one workspace on its way.
pub struct Display {
    bar: Option<ProgressBar>,
    rate: Rate,
    last_state: String,
    last_line: Instant,
    begun: Instant,
}

impl Display {
    /// A living line if standard error is a terminal.
    pub fn new() -> Self {
        Self {
            bar: living_line(),
            rate: Rate::default(),
            last_state: String::new(),
            last_line: Instant::now(),
            begun: Instant::now(),
        }
    }

    /// Shows where the workspace is now.
    pub fn show(&mut self, w: &v1::Workspace) {
        let state = state(w);
        let transfer = match &w.progress {
            Some(progress) => {
                self.rate.measure(progress.done_bytes, Instant::now());
                transfer(progress, self.rate.per_second())
            }
            None => {
                self.rate = Rate::default();
                String::new()
            }
        };
        let full = [state.as_str(), transfer.as_str()].join(" ");
        let text = format!("{}: {}", w.name, full.trim_end());
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{text} [{}]", duration(self.begun.elapsed())));
            return;
        }
        let bytes_due = !transfer.is_empty() && self.last_line.elapsed() >= LINE_EVERY;
        if state != self.last_state || bytes_due {
            eprintln!("{text}");
            self.last_line = Instant::now();
            self.last_state = state;
        }
    }

    /// Takes the living line away.
    pub fn finish(self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.begun.elapsed()
    }
}

/// Shows bytes that come in.
pub struct Transfer {
    bar: Option<ProgressBar>,
    rate: Rate,
    stage: &'static str,
    last_line: Instant,
}

impl Transfer {
    /// A living line if standard error is a terminal.
    pub fn new(stage: &'static str) -> Self {
        Self {
            bar: living_line(),
            rate: Rate::default(),
            stage,
            last_line: Instant::now(),
        }
    }

    /// Shows how far it has come; a `total` of 0 is not known.
    pub fn show(&mut self, done: u64, total: u64) {
        self.rate.measure(done, Instant::now());
        let progress = v1::Progress {
            stage: self.stage.to_owned(),
            done_bytes: done,
            total_bytes: total,
            update_time: None,
        };
        let text = transfer(&progress, self.rate.per_second());
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                eprintln!("{text}");
                self.last_line = Instant::now();
            }
            None => {}
        }
    }

    /// Takes the living line away.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn living_line() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    })
}

/// Phase, operation, and what went wrong last.
fn state(w: &v1::Workspace) -> String {
    let mut text = phase(w).to_owned();
    if w.operation() != v1::Operation::None {
        text = format!("{text}, {}", operation(w));
    }
    if !w.error_reason.is_empty() {
        let again = if w.phase() == v1::Phase::Error {
            ""
        } else {
            ", tried again"
        };
        text = format!("{text} ({}: {}{again})", w.error_reason, w.error_message);
    }
    text
}

/// `packing 12.0 MiB of 40.0 MiB, 8.0 MiB/s`.
fn transfer(p: &v1::Progress, rate: Option<u64>) -> String {
    let mut text = p.stage.clone();
    if p.done_bytes > 0 || p.total_bytes > 0 {
        text = format!("{text} {}", bytes(p.done_bytes));
        if p.total_bytes > 0 {
            text = format!("{text} of {}", bytes(p.total_bytes));
        }
    }
    match rate {
        Some(rate) if rate > 0 => format!("{text}, {}/s", bytes(rate)),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_bytes_per_second() {
        let start = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), None);
        rate.measure(0, start);
        assert_eq!(rate.per_second(), None);
        rate.measure(2048, start + Duration::from_secs(2));
        assert_eq!(rate.per_second(), Some(1024));
        rate.measure(2048, start + Duration::from_secs(3));
        assert!(rate.per_second() < Some(1024));
        // A new piece of work begins at zero.
        rate.measure(10, start + Duration::from_secs(4));
        assert_eq!(rate.per_second(), None);
    }

    #[test]
    fn a_line_tells_state_bytes_and_retries() {
        let w = v1::Workspace {
            phase: v1::Phase::Standby.into(),
            operation: v1::Operation::Archiving.into(),
            error_reason: "VolumeChanged".to_owned(),
            error_message: "it changed".to_owned(),
            ..v1::Workspace::default()
        };
        assert_eq!(
            state(&w),
            "STANDBY, ARCHIVING (VolumeChanged: it changed, tried again)"
        );
        let p = v1::Progress {
            stage: "packing".to_owned(),
            done_bytes: 1 << 20,
            total_bytes: 4 << 20,
            update_time: None,
        };
        assert_eq!(
            transfer(&p, Some(2 << 20)),
            "packing 1.0 MiB of 4.0 MiB, 2.0 MiB/s"
        );
        let p = v1::Progress {
            stage: "pulling".to_owned(),
            ..v1::Progress::default()
        };
        assert_eq!(transfer(&p, None), "pulling");
    }
}
