//! The fuzzer's corpus, and generated archives worse than it finds in minutes: no panic, no way out of
//! the volume, and memory that does not grow with what an archive claims.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../fuzz/attack.rs"]
mod attack;
mod common;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{list, peak, reset_peak};
use tempfile::TempDir;
use windlass_archive::tar::{EntryKind, Header, TarReader, TarWriter};
use windlass_archive::unpack::unpack_stream;
use windlass_archive::{ArchiveError, ArchiveErrorKind, CancellationToken, Progress};

/// The bound of the whole crate.
const MEMORY: u64 = 128 << 20;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "no corpus in {}", folder.display());
    files
}

fn run(target: &str, attack: fn(&[u8])) {
    for file in corpus(target) {
        eprintln!("{}", file.display());
        attack(&fs::read(file).unwrap());
    }
}

#[test]
fn the_tar_corpus_is_harmless() {
    run("tar", attack::tar);
}

#[test]
fn the_unpack_corpus_is_harmless() {
    run("unpack", attack::unpack);
    // Whatever is a tar stream is one more archive.
    run("tar", attack::unpack);
}

#[test]
fn the_marker_corpus_is_harmless() {
    run("marker", attack::marker);
}

#[test]
fn the_layout_corpus_is_harmless() {
    run("layout", attack::layout);
}

/// Without a fuzzer's feedback, but in every test run: bytes changed, cut out, doubled, spliced from
/// another file, and header checksums made right again so that the change gets past them.
fn mutate(target: &str, attack: fn(&[u8]), rounds: u64) {
    let files: Vec<Vec<u8>> = corpus(target)
        .iter()
        .map(|f| fs::read(f).unwrap())
        .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit.max(1) as u64) as usize
    };
    for file in &files {
        for _ in 0..rounds {
            let mut bytes = file.clone();
            for _ in 0..=random(4) {
                let (at, length) = (random(bytes.len() + 1), random(64) + 1);
                let end = (at + length).min(bytes.len());
                match random(5) {
                    0 if at < bytes.len() => bytes[at] = random(256) as u8,
                    1 if at < bytes.len() => bytes[at] ^= 1 << random(8),
                    2 => drop(bytes.drain(at..end)),
                    3 => {
                        let again = bytes[at..end].to_vec();
                        bytes.splice(at..at, again);
                    }
                    _ => {
                        let other = &files[random(files.len())];
                        let from = random(other.len() / 512 + 1) * 512;
                        let block = other.get(from..from + 512).unwrap_or(other);
                        let at = (at / 512 * 512).min(bytes.len());
                        bytes.splice(at..at, block.iter().copied());
                    }
                }
            }
            for block in bytes.chunks_exact_mut(512) {
                if block[257..262] == *b"ustar" && random(8) > 0 {
                    block[148..156].fill(b' ');
                    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
                    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                }
            }
            attack(&bytes);
        }
    }
}

#[test]
fn a_changed_corpus_is_harmless() {
    mutate("tar", attack::tar, 3000);
    mutate("tar", attack::unpack, 40);
    mutate("unpack", attack::unpack, 20);
    mutate("marker", attack::marker, 2000);
    mutate("layout", attack::layout, 5000);
}

fn entry(path: &[u8], kind: EntryKind) -> Header {
    let mut header = Header::new(path.to_vec(), kind);
    header.mode = 0o755;
    header
}

/// Extracts what `write` writes, streaming (the archive itself is never in memory), beside things that
/// must not change; says how it ended, having checked the memory it took.
fn extract(
    write: impl FnOnce(TarWriter<&mut dyn Write>) -> io::Result<()> + Send,
) -> (Result<u64, ArchiveError>, TempDir) {
    let outer = TempDir::new().unwrap();
    fs::write(outer.path().join("secret"), "secret").unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    let (reader, mut pipe) = io::pipe().unwrap();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut encoder = zstd::Encoder::new(&mut pipe, 1).unwrap();
            // A reader that has seen enough closes the pipe.
            let written = write(TarWriter::new(&mut encoder as &mut dyn Write));
            written.and_then(|()| encoder.finish().map(drop)).ok();
        });
        let before = reset_peak();
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        let result = unpack_stream(reader, &root, &progress, &cancel);
        let grown = peak() - before;
        assert!(grown < MEMORY, "{grown} bytes");
        result.map(|(summary, _)| summary.entries)
    });
    assert_eq!(fs::read(outer.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2);
    (result, outer)
}

fn corrupted(result: Result<u64, ArchiveError>) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ArchiveErrorKind::Corrupted, "{error}");
}

#[test]
fn deep_nesting_costs_no_memory() {
    // 12,000 levels: kept with every open directory, their paths alone would be 144 MB.
    let levels = 12_000;
    let (result, outer) = extract(|mut tar| {
        tar.entry(&entry(b"", EntryKind::Directory))?;
        let mut path = Vec::new();
        for _ in 0..levels {
            path.extend_from_slice(b"d");
            tar.entry(&entry(&path, EntryKind::Directory))?;
            path.push(b'/');
        }
        tar.finish().map(drop)
    });
    assert_eq!(result.unwrap(), levels + 1);
    let inventory = windlass_archive::inventory::fingerprint(&outer.path().join("root")).unwrap();
    assert_eq!(inventory.entries, levels + 1);
    // Deeper than what the folder's own removal can open at a time.
    let removed = Command::new("rm").arg("-rf").arg(outer.path()).status();
    assert!(removed.unwrap().success());
}

#[test]
fn attributes_of_nested_directories_cost_no_memory() {
    let (result, _outer) = extract(|mut tar| {
        tar.entry(&entry(b"", EntryKind::Directory))?;
        let mut path = Vec::new();
        for _ in 0..40 {
            path.extend_from_slice(b"d");
            let mut header = entry(&path, EntryKind::Directory);
            header.xattrs = vec![(b"system.posix_acl_default".to_vec(), vec![0; 15 << 20])];
            tar.entry(&header)?;
            path.push(b'/');
        }
        tar.finish().map(drop)
    });
    corrupted(result);
}

#[test]
fn huge_extended_headers_cost_no_memory() {
    // As many attributes as fit, each as small as can be.
    let (result, _outer) = extract(|mut tar| {
        tar.entry(&entry(b"", EntryKind::Directory))?;
        let mut header = entry(b"x", EntryKind::File);
        header.xattrs = (0..500_000)
            .map(|i| (format!("{i:x}").into_bytes(), Vec::new()))
            .collect();
        tar.entry(&header)?;
        tar.finish().map(drop)
    });
    corrupted(result);
    // A path, a link and an attribute as long as a header may hold, over and over.
    for change in [
        (|h: &mut Header| h.path = vec![b'x'; 15 << 20]) as fn(&mut Header),
        |h| (h.kind, h.link) = (EntryKind::Symlink, vec![b'x'; 15 << 20]),
        |h| h.xattrs = vec![(b"user.x".to_vec(), vec![b'x'; 15 << 20])],
    ] {
        let (result, _outer) = extract(|mut tar| {
            tar.entry(&entry(b"", EntryKind::Directory))?;
            for i in 0..5 {
                let mut header = entry(format!("{i}").as_bytes(), EntryKind::File);
                change(&mut header);
                tar.entry(&header)?;
            }
            tar.finish().map(drop)
        });
        result.unwrap_err();
    }
}

#[test]
fn bombs_of_holes_take_neither_space_nor_time() {
    // A hundred files of a terabyte each, and none has a byte.
    let (result, outer) = extract(|mut tar| {
        tar.entry(&entry(b"", EntryKind::Directory))?;
        for i in 0..100 {
            let mut header = entry(format!("{i}").as_bytes(), EntryKind::File);
            header.size = 512;
            header.sparse_size = Some(1 << 40);
            tar.entry(&header)?;
            let mut map = b"1\n1099511627776\n0\n".to_vec();
            map.resize(512, 0);
            tar.data(&map)?;
        }
        tar.finish().map(drop)
    });
    assert_eq!(result.unwrap(), 101);
    let listing = list(&outer.path().join("root"));
    assert_eq!(listing.tree[&b"7"[..]].size, 1 << 40);
    assert!(listing.allocated < 1 << 20);

    // One larger than any file system takes, and a map of more ranges than are accepted.
    for (size, map) in [
        (1 << 62, "0\n".to_owned()),
        (1 << 40, "262146\n".to_owned()),
    ] {
        let (result, _outer) = extract(move |mut tar| {
            tar.entry(&entry(b"", EntryKind::Directory))?;
            let mut header = entry(b"x", EntryKind::File);
            header.size = 512;
            header.sparse_size = Some(size);
            tar.entry(&header)?;
            let mut map = map.into_bytes();
            map.resize(512, 0);
            tar.data(&map)?;
            tar.finish().map(drop)
        });
        corrupted(result);
    }
}

#[test]
fn a_stream_of_zeros_ends() {
    // Compressed to almost nothing: 4 GiB of what may follow an archive's end, and then something.
    struct Zeros(u64);
    impl Read for Zeros {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer
                .len()
                .min(usize::try_from(self.0).unwrap_or(usize::MAX));
            buffer[..length].fill(0);
            self.0 -= length as u64;
            Ok(length)
        }
    }
    let mut reader = TarReader::new(Zeros(4 << 30).chain(&b"x"[..]));
    let error = reader.next_entry().unwrap_err();
    assert_eq!(error.kind(), ArchiveErrorKind::Corrupted, "{error}");
}

#[test]
fn tricks_with_links_stay_inside() {
    type Entry = (&'static [u8], EntryKind, &'static [u8]);
    const D: EntryKind = EntryKind::Directory;
    const F: EntryKind = EntryKind::File;
    const H: EntryKind = EntryKind::HardLink;
    const S: EntryKind = EntryKind::Symlink;
    let tricks: [&[Entry]; 7] = [
        // Through a link to the outside, at any depth, by any kind of entry.
        &[
            (b"a", D, b""),
            (b"a/l", S, b"../.."),
            (b"a/l/secret", F, b""),
        ],
        &[(b"l", S, b".."), (b"l/new", D, b"")],
        &[(b"l", S, b".."), (b"l/new", S, b"x")],
        &[(b"l", S, b".."), (b"x", H, b"l/secret")],
        // A chain of links, each harmless alone.
        &[(b"a", S, b"b"), (b"b", S, b".."), (b"x", H, b"a/secret")],
        // A hard link to a symlink, then through it.
        &[(b"l", S, b"../secret"), (b"m", H, b"l"), (b"m/x", F, b"")],
        // By way of the kernel.
        &[(b"l", S, b"/proc/self/cwd"), (b"l/x", F, b"")],
    ];
    for trick in tricks {
        let (result, _outer) = extract(|mut tar| {
            tar.entry(&entry(b"", D))?;
            for (path, kind, link) in trick {
                let mut header = entry(path, *kind);
                header.link = link.to_vec();
                tar.entry(&header)?;
            }
            tar.finish().map(drop)
        });
        corrupted(result);
    }
}
