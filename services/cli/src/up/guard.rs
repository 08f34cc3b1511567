//! Knowing whether a process that is not our child still lives.

use std::fs;

/// A process, told from a later one of the same id by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pid: i32,
    started: u64,
}

impl Identity {
    /// The process of that id, if it lives.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything.
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let started = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// Whether it still lives.
    pub fn lives(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_ends() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let identity = Identity::of(child.id() as i32).unwrap();
        assert!(identity.lives());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!identity.lives());
        assert!(Identity::of(std::process::id() as i32).unwrap().lives());
    }
}
