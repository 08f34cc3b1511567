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

/// A home that is written to all the time: every entry is well-formed, and what keeps still is kept exactly.
#[test]
fn a_home_in_constant_use_is_packed_and_what_keeps_still_is_exact() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    let home = TempDir::new().unwrap();
    let at = |name: &str| home.path().join(name);
    stdfs::create_dir(at("still")).unwrap();
    for n in 0..200_usize {
        stdfs::write(at(&format!("still/{n}")), noise(n * 97)).unwrap();
    }
    stdfs::write(at("large"), noise(8 << 20)).unwrap();
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    let archives: Vec<_> = std::thread::scope(|scope| {
        for writer in 0..2_usize {
            let (at, stop, rounds) = (&at, &stop, &rounds);
            scope.spawn(move || {
                let mut n = writer * 7919;
                while !stop.load(Ordering::Relaxed) {
                    n = n.wrapping_mul(31).wrapping_add(17);
                    let file = at(&format!("busy-{writer}-{}", n % 20));
                    // Grown, cut, replaced, taken away, made a folder.
                    match n % 5 {
                        0 => drop(stdfs::write(&file, noise(n % 300_000))),
                        1 => drop(cut(&file, 10)),
                        2 => drop(stdfs::remove_file(&file)),
                        3 => drop(stdfs::create_dir(&file).and_then(|()| stdfs::remove_dir(&file))),
                        _ => {
                            let length = 1 + (n % (8 << 20)) as u64;
                            drop(
                                cut(&at("large"), length).and_then(|()| cut(&at("large"), 8 << 20)),
                            );
                        }
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let pack_once = || {
            let options = PackOptions {
                crash_consistent: true,
                ..PackOptions::default()
            };
            let cancel = CancellationToken::new();
            let progress = Progress::default();
            pack_stream(home.path(), &options, Vec::new(), &progress, &cancel)
        };
        let mut packed = Vec::new();
        while packed.len() < 20 || rounds.load(Ordering::Relaxed) < 500 {
            packed.push(pack_once());
        }
        stop.store(true, Ordering::Relaxed);
        packed
    });
    let mut changed = 0;
    for packed in archives {
        let (summary, bytes) = packed.expect("a home in use never fails the job");
        changed += summary.changed_files;
        let target = TempDir::new().unwrap();
        unpack(&bytes, target.path()).unwrap();
        for n in [0, 1, 100, 199_usize] {
            let kept = stdfs::read(target.path().join(format!("still/{n}"))).unwrap();
            assert_eq!(kept, noise(n * 97), "still/{n}");
        }
    }
    assert!(changed > 0, "nothing changed while it was read");
}

/// What changed before its turn is as it is then: it is whole, and no change is counted.
#[test]
fn a_small_file_that_changed_before_its_turn_is_whole() {
    let home = large_home();
    let small = home.path().join("zzz");
    stdfs::write(&small, b"old").unwrap();
    let (summary, bytes) =
        pack_while(home.path(), true, || stdfs::write(&small, b"newer")).unwrap();
    assert_eq!(summary.changed_files, 0);
    let target = TempDir::new().unwrap();
    unpack(&bytes, target.path()).unwrap();
    assert_eq!(stdfs::read(target.path().join("zzz")).unwrap(), b"newer");
}

/// The same volume, at rest both times: the inventory of a checkpoint still never is the volume's.
#[test]
fn the_fingerprint_of_a_checkpoint_satisfies_nothing() {
    let home = TempDir::new().unwrap();
    stdfs::write(home.path().join("a"), b"a").unwrap();
    let at_rest = windlass_archive::inventory::fingerprint(home.path()).unwrap();
    let packed = |crash_consistent| {
        let options = PackOptions {
            crash_consistent,
            ..PackOptions::default()
        };
        let cancel = CancellationToken::new();
        let progress = Progress::default();
        let packed = pack_stream(home.path(), &options, Vec::new(), &progress, &cancel);
        packed.unwrap().0.fingerprint
    };
    assert_eq!(packed(false), at_rest.fingerprint);
    assert_ne!(packed(true), at_rest.fingerprint);
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
