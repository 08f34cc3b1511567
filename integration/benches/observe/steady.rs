//! The observer with nothing to tell: how long a pass takes, and what it asks of others.

use windlass_integration::{
    Name,
    bench::{Goal, Plane, Report, process},
};

/// Runs passes.
pub async fn measure(plane: &Plane, report: &mut Report, size: usize, runs: usize) {
    let ticks = plane.status(Name::Observer).await.ticks;
    let statements = plane.statements(Name::Observer).await;
    let requests = plane.s3_requests();
    for _ in 0..runs {
        let took = plane.observe().await;
        assert_eq!(took.answer.changed, 0, "nothing changes");
        report
            .add(size, "observer: pass, nothing changed", "ms", took.own)
            .goal(Goal::AtMost(5.0));
        report.add(size, "observer: the same, for who asks", "ms", took.wall);
    }
    let after = plane.statements(Name::Observer).await;
    let ticks = (plane.status(Name::Observer).await.ticks - ticks) as f64;
    let each = |what: &str, count: f64| (format!("{what} for each pass"), count / ticks);
    let (what, count) = each(
        "observer: statements",
        (after.calls - statements.calls) as f64,
    );
    report.add(size, what, "", count);
    let (what, count) = each("observer: rows", (after.rows - statements.rows) as f64);
    report.add(size, what, "", count);
    let (what, count) = each(
        "agent: S3 requests",
        (plane.s3_requests() - requests) as f64,
    );
    report.add(size, what, "", count).goal(Goal::AtMost(0.0));
    for name in [Name::Agent, Name::Observer] {
        let used = process::usage(plane.pid(name));
        let what = format!("{}: memory", name.as_str());
        report
            .add(size, what, "MiB", used.rss)
            .with("peak MiB", used.peak);
    }
}
