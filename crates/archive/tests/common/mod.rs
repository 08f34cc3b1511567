//! What the tests share: the independent walker (`tree`), a home that has everything (`everything`),
//! and packing and unpacking without a store.
#![allow(dead_code, unused_imports)]

pub mod everything;
pub mod tree;

use std::path::Path;

pub use tree::*;
use windlass_archive::pack::{PackOptions, PackSummary, pack_stream};
use windlass_archive::unpack::{UnpackSummary, unpack_stream};
use windlass_archive::{ArchiveError, CancellationToken, Progress};

pub fn pack(root: &Path) -> Result<(Vec<u8>, PackSummary), ArchiveError> {
    pack_with(root, PackOptions::default())
}

pub fn pack_with(
    root: &Path,
    options: PackOptions,
) -> Result<(Vec<u8>, PackSummary), ArchiveError> {
    let cancel = CancellationToken::new();
    let (summary, bytes) = pack_stream(root, &options, Vec::new(), &Progress::default(), &cancel)?;
    Ok((bytes, summary))
}

pub fn unpack(bytes: &[u8], root: &Path) -> Result<UnpackSummary, ArchiveError> {
    let cancel = CancellationToken::new();
    unpack_stream(bytes, root, &Progress::default(), &cancel).map(|(summary, _)| summary)
}

/// Peak memory of this process in bytes since it was last reset.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Resets it; returns what it is now.
pub fn reset_peak() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak()
}

pub fn compress(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 1).unwrap()
}
