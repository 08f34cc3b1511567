//! A report as a table of Markdown.

use std::{collections::BTreeSet, fmt};

use super::{Goal, Report, ends, median};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: BTreeSet<&str> = self
            .rows
            .iter()
            .flat_map(|row| row.extra.iter().map(|(name, _)| *name))
            .collect();
        writeln!(f, "{}", self.machine)?;
        if cfg!(debug_assertions) {
            writeln!(f, "\nNot optimised: these figures say nothing.")?;
        }
        write!(
            f,
            "\n| case | measure | n | median | min - max | ratio | goal | met |"
        )?;
        columns.iter().try_for_each(|name| write!(f, " {name} |"))?;
        write!(f, "\n|---|---|---|---|---|---|---|---|")?;
        columns.iter().try_for_each(|_| write!(f, "---|"))?;
        writeln!(f)?;
        for row in &self.rows {
            let (least, most) = ends(&row.values);
            let ratio = self.ratio(row).map_or(String::new(), number);
            let goal = match &row.goal {
                Some(Goal::Beside(other)) => format!("of {other}"),
                Some(goal) => goal.bound(),
                None => String::new(),
            };
            let met = match self.met(row) {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            write!(
                f,
                "| {} | {} | {} | {} {} | {} - {} | {ratio} | {goal} | {met} |",
                row.case,
                row.measure,
                row.values.len(),
                number(median(&row.values)),
                row.unit,
                number(least),
                number(most),
            )?;
            for name in &columns {
                let value = row.column(name).map_or(String::new(), number);
                write!(f, " {value} |")?;
            }
            writeln!(f)?;
        }
        if self.by_case {
            self.cases(f)?;
        }
        self.notes
            .iter()
            .try_for_each(|note| write!(f, "\n- {note}"))?;
        writeln!(f)
    }
}

impl Report {
    fn cases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn once<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
            let mut seen = Vec::new();
            for name in all {
                if !seen.contains(&name) {
                    seen.push(name);
                }
            }
            seen
        }
        let cases = once(self.rows.iter().map(|r| r.case.as_str()));
        write!(f, "\n| median of |")?;
        cases.iter().try_for_each(|case| write!(f, " {case} |"))?;
        write!(f, "\n|---|")?;
        cases.iter().try_for_each(|_| write!(f, "---|"))?;
        writeln!(f)?;
        for measure in once(self.rows.iter().map(|r| r.measure.as_str())) {
            write!(f, "| {measure} |")?;
            for case in &cases {
                let row = self.find(case, measure).map(|at| &self.rows[at]);
                let value = row.map(|r| format!("{} {}", number(median(&r.values)), r.unit));
                write!(f, " {} |", value.unwrap_or_default().trim())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        v if v == 0.0 || v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
