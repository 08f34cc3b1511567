//! `.windlass/env`: what `windlass up` tells clients, as lines a shell can source.
//!
//! The values hold secrets: the file is written in one step and for its owner only.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Where it stands below a project's folder.
pub const RELATIVE: &str = ".windlass/env";

/// One `export NAME='value'` line per variable.
pub fn render<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::from("# Written by `windlass up`. Usage: . .windlass/env\n");
    for (name, value) in variables {
        text.push_str(&format!("export {name}={}\n", quote(value)));
    }
    text
}

fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// The variables of such a file. Lines of another form are passed over.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(valid) {
        return None;
    }
    let value = match value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')) {
        Some(quoted) => quoted.replace(r"'\''", "'"),
        None => value.trim_matches('"').to_owned(),
    };
    Some((name.to_owned(), value))
}

/// The nearest `.windlass/env` in `from` or a folder above it.
pub fn find(from: &Path) -> Option<PathBuf> {
    from.ancestors()
        .map(|dir| dir.join(RELATIVE))
        .find(|path| path.is_file())
}

/// Writes a file in one step, readable by its owner only.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_rendered_is_parsed_again() {
        let text = render([
            ("WINDLASS_ADDR", "http://127.0.0.1:7400"),
            ("ODD", "a'b \"c\" $d"),
        ]);
        assert!(
            text.contains("export WINDLASS_ADDR='http://127.0.0.1:7400'\n"),
            "{text}"
        );
        let parsed = parse(&text);
        assert_eq!(parsed["WINDLASS_ADDR"], "http://127.0.0.1:7400");
        assert_eq!(parsed["ODD"], "a'b \"c\" $d");
        assert_eq!(parsed.len(), 2);
    }

    #[test]
    fn a_shell_reads_the_same() {
        let value = "it's `odd` $HOME \\ \"x\"";
        let script = format!("{}printf %s \"$ODD\"", render([("ODD", value)]));
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
    }

    #[test]
    fn other_lines_are_passed_over() {
        let parsed = parse("# note\nPLAIN=1\nexport Q=\"2\"\nrm -rf x\n=3\n");
        assert_eq!(
            parsed.into_iter().collect::<Vec<_>>(),
            [
                ("PLAIN".to_owned(), "1".to_owned()),
                ("Q".to_owned(), "2".to_owned())
            ]
        );
    }

    #[test]
    fn it_is_private_and_found_from_below() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        fs::create_dir(root.path().join(".windlass")).unwrap();
        let path = root.path().join(RELATIVE);
        write_private(&path, "one").unwrap();
        write_private(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(find(&below).unwrap(), path);
        assert_eq!(
            fs::read_dir(root.path().join(".windlass")).unwrap().count(),
            1
        );
    }
}
