//! What the tests share: the independent walker (`tree`), a home that has everything (`everything`),
//! and packing and unpacking without a store.
#![allow(dead_code)]

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

pub fn compress(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 1).unwrap()
}
