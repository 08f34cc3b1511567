//! The demo image, made on the spot from a static busybox: no registry is asked for anything.
//!
//! It serves its home folder over HTTP on 8080 as uid 1000, and ends at once on SIGTERM (busybox's httpd as
//! process 1 would ignore it: a shell with a trap stands before it).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::docker::Engine;
use crate::{Error, find};

/// Names the content of an image, so that an unchanged one is not made again.
const LABEL: &str = "windlass.content";

const START: &str = r#"#!/bin/sh
# Serves the home folder until told to stop.
trap 'kill "$server" 2>/dev/null; exit 0' TERM INT
httpd -f -p 8080 -h /home/coder &
server=$!
wait "$server"
"#;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ncoder:x:1000:1000:coder:/home/coder:/bin/sh\n";
const GROUP: &str = "root:x:0:\ncoder:x:1000:\n";
const INDEX: &str = "<!doctype html><title>Windlass</title><p>This is the home of a Windlass \
workspace: /home/coder, served by busybox.</p>\n";

/// How containers of the image run, as `docker import --change`.
const CHANGES: [&str; 5] = [
    r#"CMD ["/bin/sh", "/etc/windlass-demo.sh"]"#,
    "EXPOSE 8080",
    "WORKDIR /home/coder",
    "USER 1000:1000",
    "ENV HOME=/home/coder PATH=/bin",
];

/// Makes the demo image under `name` (e.g. `windlass/demo:latest`) unless the engine has it as it would be
/// made now. Returns whether it was made.
///
/// # Errors
/// When there is no static busybox (package busybox-static) or the engine refuses.
pub async fn ensure_demo_image(engine: &Engine, name: &str) -> Result<bool, Error> {
    let tar = demo_tar().await?;
    let mut content = Sha256::new();
    content.update(&tar);
    for change in CHANGES {
        content.update(change);
    }
    let content = hex::encode(content.finalize());
    let format = format!("{{{{ index .Config.Labels \"{LABEL}\" }}}}");
    let present = engine.cli(["image", "inspect", "--format", &format, name]);
    if present.await.is_ok_and(|label| label == content) {
        return Ok(false);
    }
    import(engine, name, &tar, &content).await?;
    Ok(true)
}

async fn import(engine: &Engine, name: &str, tar: &[u8], content: &str) -> Result<(), Error> {
    let failed = |message: String| Error::Command {
        command: format!("docker import - {name}"),
        message,
    };
    let mut command = engine.command()?;
    command.arg("import");
    for change in CHANGES {
        command.args(["--change", change]);
    }
    let label = format!("LABEL {LABEL}={content}");
    let mut child = command
        .args(["--change", &label, "-", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    let mut stdin = child.stdin.take();
    let write = async {
        if let Some(stdin) = &mut stdin {
            // If docker ends early, what it says is the better error.
            let _ = stdin.write_all(tar).await;
        }
        drop(stdin);
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output.map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let status = output.status.to_string();
    Err(failed(find::one_line(&output.stderr, &status)))
}

/// The root file system, the same bytes for the same busybox.
async fn demo_tar() -> Result<Vec<u8>, Error> {
    let busybox = find::program("busybox", "busybox-static")?;
    let program = fs::read(&busybox).map_err(Error::io(&busybox))?;
    if !is_static(&program) {
        return Err(Error::BusyboxDynamic(busybox));
    }
    let mut list = tokio::process::Command::new(&busybox);
    let applets = find::run(list.arg("--list"), "busybox --list").await?;
    write_tar(&program, applets.lines()).map_err(Error::io(busybox))
}

fn write_tar<'a>(busybox: &[u8], applets: impl Iterator<Item = &'a str>) -> io::Result<Vec<u8>> {
    let mut tar = Rootfs(tar::Builder::new(Vec::new()));
    for dir in ["bin", "dev", "etc", "home", "proc", "sys", "usr", "var"] {
        tar.dir(dir, 0o755, 0)?;
    }
    tar.dir("root", 0o700, 0)?;
    tar.dir("tmp", 0o1777, 0)?;
    tar.dir("var/tmp", 0o1777, 0)?;
    tar.dir("home/coder", 0o755, 1000)?;
    tar.file("bin/busybox", busybox, 0o755, 0)?;
    for applet in applets.filter(|name| *name != "busybox" && !name.contains('/')) {
        tar.link(&Path::new("bin").join(applet), "busybox")?;
    }
    tar.link(Path::new("sbin"), "bin")?;
    tar.link(Path::new("usr/bin"), "../bin")?;
    tar.link(Path::new("usr/sbin"), "../bin")?;
    tar.file("etc/passwd", PASSWD.as_bytes(), 0o644, 0)?;
    tar.file("etc/group", GROUP.as_bytes(), 0o644, 0)?;
    tar.file("etc/windlass-demo.sh", START.as_bytes(), 0o755, 0)?;
    tar.file("home/coder/index.html", INDEX.as_bytes(), 0o644, 1000)?;
    tar.0.into_inner()
}

struct Rootfs<W: Write>(tar::Builder<W>);

impl<W: Write> Rootfs<W> {
    fn header(kind: tar::EntryType, mode: u32, owner: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(0);
        header.set_size(0);
        header
    }

    fn dir(&mut self, path: &str, mode: u32, owner: u64) -> io::Result<()> {
        let mut header = Self::header(tar::EntryType::Directory, mode, owner);
        self.0
            .append_data(&mut header, format!("{path}/"), io::empty())
    }

    fn file(&mut self, path: &str, data: &[u8], mode: u32, owner: u64) -> io::Result<()> {
        let mut header = Self::header(tar::EntryType::Regular, mode, owner);
        header.set_size(data.len() as u64);
        self.0.append_data(&mut header, path, data)
    }

    fn link(&mut self, path: &Path, target: &str) -> io::Result<()> {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, PathBuf::from(target))
    }
}

/// Whether an ELF program asks for no interpreter, i.e. runs without any library in the image.
fn is_static(program: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let parse = || {
        let number = |at: usize, len: usize| -> Option<u64> {
            let bytes = program.get(at..at + len)?;
            Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
        };
        // 64-bit, little-endian: what Docker runs on here.
        if program.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let table = usize::try_from(number(32, 8)?).ok()?;
        let (size, count) = (number(54, 2)? as usize, number(56, 2)? as usize);
        for index in 0..count {
            if number(table + index * size, 4)? == u64::from(PT_INTERP) {
                return Some(false);
            }
        }
        Some(true)
    };
    parse().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_or_not() {
        let read = |path: &str| fs::read(path).unwrap();
        assert!(!is_static(b"#!/bin/sh"));
        assert!(!is_static(&read("/bin/sh")));
        assert!(is_static(&read("/bin/busybox")));
    }

    #[test]
    fn the_tar_is_reproducible() {
        let make = || write_tar(b"program", ["sh", "httpd"].into_iter()).unwrap();
        assert_eq!(make(), make());
        let tar = make();
        let mut archive = tar::Archive::new(tar.as_slice());
        let entries: Vec<(String, u64)> = archive
            .entries()
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                let path = e.path().unwrap().to_string_lossy().into_owned();
                (path, e.header().uid().unwrap())
            })
            .collect();
        assert!(entries.contains(&("home/coder/".to_owned(), 1000)));
        assert!(entries.contains(&("bin/httpd".to_owned(), 0)));
    }
}
