//! Volumes that change or fail while read, streams that are cut or altered: an error each, never a
//! home with something missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self as stdfs, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use common::{list, pack, unpack};
use tempfile::TempDir;
use windlass_archive::pack::{PackOptions, PackSummary, pack_stream};
use windlass_archive::{ArchiveError, ArchiveErrorKind, CancellationToken, Progress};

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u8
        })
        .collect()
}

/// A sink that does something once, after so many bytes.
struct Trigger<F> {
    after: usize,
    written: usize,
    action: Option<F>,
    out: Vec<u8>,
}

impl<F: FnOnce() -> io::Result<()>> Write for Trigger<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written += bytes.len();
        self.out.extend_from_slice(bytes);
        if self.written >= self.after
            && let Some(action) = self.action.take()
        {
            action()?;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pack_while(
    root: &Path,
    crash_consistent: bool,
    action: impl FnOnce() -> io::Result<()>,
) -> Result<(PackSummary, Vec<u8>), ArchiveError> {
    let sink = Trigger {
        after: 4 << 20,
        written: 0,
        action: Some(action),
        out: Vec::new(),
    };
    let options = PackOptions {
        crash_consistent,
        ..PackOptions::default()
    };
    let cancel = CancellationToken::new();
    let (summary, sink) = pack_stream(root, &options, sink, &Progress::default(), &cancel)?;
    assert!(sink.action.is_none(), "the action never ran");
    Ok((summary, sink.out))
}

fn large_home() -> TempDir {
    let dir = TempDir::new().unwrap();
    stdfs::write(dir.path().join("first"), noise(32 << 20)).unwrap();
    stdfs::write(dir.path().join("second"), noise(32 << 20)).unwrap();
    dir
}

fn cut(path: &Path, length: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_len(length)
}

#[test]
fn a_file_that_shrinks_fails_the_job_and_is_named() {
    let home = large_home();
    let first = home.path().join("first");
    let error = pack_while(home.path(), false, || cut(&first, 100)).unwrap_err();
    assert_eq!(error.kind(), ArchiveErrorKind::Changed);
    assert!(error.to_string().contains("first"), "{error}");
}

#[test]
fn a_file_that_grows_or_is_rewritten_fails_the_job() {
    for append in [true, false] {
        let home = large_home();
        let first = home.path().join("first");
        let error = pack_while(home.path(), false, || {
            let mut options = OpenOptions::new();
            let file = options.write(true).append(append).open(&first);
            file?.write_all(b"more")
        })
        .unwrap_err();
        assert_eq!(error.kind(), ArchiveErrorKind::Changed, "{error}");
    }
}

#[test]
fn entries_that_come_or_go_fail_the_job() {
    let home = large_home();
    let error = pack_while(home.path(), false, || {
        stdfs::remove_file(home.path().join("second"))
    })
    .unwrap_err();
    assert_eq!(error.kind(), ArchiveErrorKind::Changed, "{error}");
    let home = large_home();
    let error = pack_while(home.path(), false, || {
        stdfs::write(home.path().join("aaa"), b"")
    })
    .unwrap_err();
    assert_eq!(error.kind(), ArchiveErrorKind::Changed, "{error}");
}

#[test]
fn a_crash_consistent_archive_counts_what_changed_and_stays_readable() {
    let home = large_home();
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    let (summary, bytes) = pack_while(home.path(), true, || {
        cut(&first, 100)?;
        stdfs::remove_file(&second)
    })
    .unwrap();
    assert_eq!(summary.changed_files, 2);
    assert_eq!(summary.entry_count, 2);
    let target = TempDir::new().unwrap();
    unpack(&bytes, target.path()).unwrap();
    assert_eq!(list(target.path()).tree[&b"first"[..]].size, 32 << 20);
}

#[test]
fn a_sink_that_fails_is_the_reason() {
    let home = large_home();
    let error = pack_while(home.path(), false, || {
        Err(io::Error::new(io::ErrorKind::StorageFull, "full"))
    })
    .unwrap_err();
    assert_eq!(error.kind(), ArchiveErrorKind::NoSpace);
    assert!(error.to_string().contains("full"), "{error}");
}

#[test]
fn cancelling_stops_packing_and_unpacking() {
    let home = large_home();
    let (bytes, _) = pack(home.path()).unwrap();
    let cancel = CancellationToken::new();
    let sink = Trigger {
        after: 1,
        written: 0,
        action: Some(|| {
            cancel.cancel();
            Ok(())
        }),
        out: Vec::new(),
    };
    let (options, progress) = (PackOptions::default(), Progress::default());
    let error = pack_stream(home.path(), &options, sink, &progress, &cancel)
        .err()
        .unwrap();
    assert_eq!(error.kind(), ArchiveErrorKind::Cancelled);
    let target = TempDir::new().unwrap();
    let error =
        windlass_archive::unpack::unpack_stream(&bytes[..], target.path(), &progress, &cancel)
            .err()
            .unwrap();
    assert_eq!(error.kind(), ArchiveErrorKind::Cancelled);
}

#[test]
fn a_missing_volume_is_an_error_not_an_empty_home() {
    let home = TempDir::new().unwrap();
    let error = pack(&home.path().join("gone")).unwrap_err();
    assert_eq!(error.kind(), ArchiveErrorKind::Io);
    stdfs::write(home.path().join("file"), b"").unwrap();
    assert_eq!(
        pack(&home.path().join("file")).unwrap_err().kind(),
        ArchiveErrorKind::Io
    );
}

#[test]
fn a_stream_cut_anywhere_is_corrupted() {
    let home = TempDir::new().unwrap();
    for i in 0..20 {
        stdfs::write(home.path().join(format!("{i}")), noise(i * 1000)).unwrap();
    }
    let (bytes, _) = pack(home.path()).unwrap();
    let tar = zstd::decode_all(&bytes[..]).unwrap();
    for length in (0..bytes.len()).step_by(bytes.len() / 50) {
        let target = TempDir::new().unwrap();
        let error = unpack(&bytes[..length], target.path()).unwrap_err();
        assert_eq!(
            error.kind(),
            ArchiveErrorKind::Corrupted,
            "{length}: {error}"
        );
    }
    // Cut inside a well-formed compressed stream: the tar's own end is missing.
    for length in (0..tar.len()).step_by(tar.len() / 50) {
        let target = TempDir::new().unwrap();
        let error = unpack(&common::compress(&tar[..length]), target.path()).unwrap_err();
        assert_eq!(
            error.kind(),
            ArchiveErrorKind::Corrupted,
            "{length}: {error}"
        );
    }
}

#[test]
fn a_flipped_byte_is_corrupted() {
    let home = TempDir::new().unwrap();
    stdfs::write(home.path().join("file"), noise(100_000)).unwrap();
    let (bytes, _) = pack(home.path()).unwrap();
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        let target = TempDir::new().unwrap();
        if let Err(error) = unpack(&bytes, target.path()) {
            assert_eq!(error.kind(), ArchiveErrorKind::Corrupted, "{at}: {error}");
        } else {
            // Bits of the frame header that change nothing: the object's digest catches those.
            assert!(at < 16, "{at} went unnoticed");
        }
    }
}
