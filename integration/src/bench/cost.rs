//! What the services of a plane used: PostgreSQL, the S3 store, CPU and memory.

use std::time::{Duration, Instant};

use super::{Goal, Plane, Report, plane::CONTROL, process};
use crate::Name;

/// What a role asked of PostgreSQL so far, its lease aside.
#[derive(Debug, Clone, Copy, Default)]
pub struct Statements {
    /// Statements.
    pub calls: i64,
    /// Rows they returned or wrote.
    pub rows: i64,
}

impl Plane {
    /// Requests that the agent sent to the S3 store so far.
    pub fn s3_requests(&self) -> usize {
        self.s3_proxy.requests().len()
    }

    /// What a service asked of PostgreSQL so far; what concerns leadership is left out.
    ///
    /// # Panics
    /// When PostgreSQL cannot be asked.
    pub async fn statements(&self, name: Name) -> Statements {
        let query = "SELECT coalesce(sum(calls), 0)::bigint, coalesce(sum(s.rows), 0)::bigint
                     FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
                     WHERE r.rolname = $1 AND query NOT ILIKE '%leader%'";
        let role = format!("windlass_{}", name.as_str());
        let row = self.sql.query_one(query, &[&role]).await.expect("counts");
        Statements {
            calls: row.get(0),
            rows: row.get(1),
        }
    }

    /// What the services cost while nothing happens, for `seconds`.
    pub async fn idle(&self, report: &mut Report, case: &str, names: &[Name], seconds: u64) {
        let begun: Vec<_> = names.iter().map(|&n| process::usage(self.pid(n))).collect();
        let database = process::family(self.postgres.process().pid());
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let percent = |cpu: f64| 100.0 * cpu / began.elapsed().as_secs_f64();
        let (mut cpu, mut rss) = (0.0, 0.0);
        for (&name, &begun) in names.iter().zip(&begun) {
            let used = process::usage(self.pid(name)) - begun;
            let share = percent(used.cpu);
            if CONTROL.contains(&name) {
                cpu += share;
                rss += used.rss;
            }
            let measure = format!("idle: {}", name.as_str());
            report
                .add(case, measure, "% of a core", share)
                .with("RSS MiB", used.rss)
                .with("peak MiB", used.peak);
        }
        let database = process::family(self.postgres.process().pid()) - database;
        report
            .add(
                case,
                "idle: PostgreSQL",
                "% of a core",
                percent(database.cpu),
            )
            .with("RSS MiB", database.rss);
        report
            .add(case, "idle: control plane, CPU", "% of a core", cpu)
            .goal(Goal::AtMost(2.0));
        report
            .add(case, "idle: control plane, memory", "MiB", rss)
            .goal(Goal::AtMost(150.0));
    }
}
