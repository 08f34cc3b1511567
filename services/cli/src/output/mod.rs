//! What commands print: tables for people, JSON for scripts, ids for pipes. Results go to standard
//! output; progress and remarks go to standard error.

pub mod json;
pub mod progress;
pub mod table;

use std::fmt;
use std::io::{self, Write as _};

use serde_json::Value;
use windlass_proto::v1;

use crate::args::Output;

/// Prints a line of the result.
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}
pub(crate) use outln;

/// Prints a line; whoever reads may stop (`| head`), and then nothing is left to do.
pub fn line(text: fmt::Arguments<'_>) {
    write(format!("{text}\n").as_bytes());
}

/// As [`line`], any bytes.
pub fn write(text: &[u8]) {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text).and_then(|()| stdout.flush());
    match written {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => {
            let _ = writeln!(io::stderr(), "windlass: cannot write the result: {e}");
            std::process::exit(1)
        }
        Ok(()) => {}
    }
}

/// `RUNNING` of `PHASE_RUNNING`.
pub fn phase(workspace: &v1::Workspace) -> &'static str {
    short(workspace.phase().as_str_name(), "PHASE_")
}

/// `ARCHIVED` of `DESIRED_STATE_ARCHIVED`.
pub fn desired(workspace: &v1::Workspace) -> &'static str {
    short(workspace.desired_state().as_str_name(), "DESIRED_STATE_")
}

/// `STARTING` of `OPERATION_STARTING`.
pub fn operation(workspace: &v1::Workspace) -> &'static str {
    short(workspace.operation().as_str_name(), "OPERATION_")
}

/// An enum's word without its prefix.
pub fn short(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// Prints JSON, one document.
pub fn print_json(value: &Value) {
    // The alternate form of a Value never fails to print.
    outln!("{value:#}");
}

/// Prints one workspace after it was changed or shown.
pub fn workspace(workspace: &v1::Workspace, output: Output) {
    match output {
        Output::Json => print_json(&json::workspace(workspace)),
        Output::Id => outln!("{}", workspace.id),
        Output::Table => outln!("{}", table::detail(workspace)),
    }
}

/// Prints the outcome of a change in a few words.
pub fn outcome(workspace: &v1::Workspace, output: Output) {
    match output {
        Output::Table => outln!(
            "{} is {} ({})",
            workspace.name,
            phase(workspace),
            workspace.id
        ),
        Output::Json | Output::Id => self::workspace(workspace, output),
    }
}

/// Prints a list of things.
pub fn list<T>(
    items: &[T],
    output: Output,
    json: impl Fn(&T) -> Value,
    id: impl Fn(&T) -> &str,
    table: impl FnOnce(&[T]) -> String,
) {
    match output {
        Output::Json => print_json(&Value::Array(items.iter().map(json).collect())),
        Output::Id => items.iter().for_each(|item| outln!("{}", id(item))),
        Output::Table => outln!("{}", table(items)),
    }
}
