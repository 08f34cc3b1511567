//! What is done with hostile bytes, the same when fuzzing and in `tests/corpus.rs`: nothing may panic,
//! leave the volume, or say yes to what it should not.
#![allow(dead_code)]

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use windlass_archive::layout::{self, ParsedKey};
use windlass_archive::marker::MAX_MARKER_BYTES;
use windlass_archive::tar::{TarReader, TarWriter};
use windlass_archive::unpack::unpack_stream;
use windlass_archive::{ArchiveMarker, CancellationToken, Progress, RestoreMarker};

/// An uncompressed tar stream, read to its end. What was read can be written, and is read back the same.
pub fn tar(bytes: &[u8]) {
    let mut reader = TarReader::new(bytes);
    while let Ok(Some(header)) = reader.next_entry() {
        let mut data = vec![0; 4096];
        let mut left = header.size;
        let mut short = false;
        while left > 0 {
            match reader.read_data(&mut data) {
                Ok(read) if read > 0 => left -= read as u64,
                _ => {
                    short = true;
                    break;
                }
            }
        }
        if short {
            return;
        }
        if header.size > 0 || header.sparse_size.is_some() {
            continue;
        }
        let mut writer = TarWriter::new(Vec::new());
        writer.entry(&header).expect("what was read can be written");
        let (again, _) = writer.finish().expect("no data is owed");
        let copy = TarReader::new(&again[..]).next_entry();
        assert_eq!(copy.expect("what was written can be read"), Some(header));
    }
}

/// An archive, as it is and as what a compressed one holds, extracted beside things it must not touch.
pub fn unpack(bytes: &[u8]) {
    extract(bytes);
    extract(&zstd::encode_all(bytes, 1).expect("in memory"));
}

fn extract(archive: &[u8]) {
    let outer = TempDir::new().expect("a folder");
    let at = |name: &str| outer.path().join(name);
    fs::create_dir(at("dir")).expect("a folder");
    fs::create_dir(at("root")).expect("a folder");
    fs::write(at("secret"), "secret").expect("a file");
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let entries = unpack_stream(archive, &at("root"), &progress, &cancel);
    assert_eq!(fs::read(at("secret")).expect("still there"), b"secret");
    assert_eq!(names(&at("dir")), [""; 0]);
    assert_eq!(names(outer.path()), ["dir", "root", "secret"]);
    if let Ok((summary, _)) = entries {
        assert!(summary.entries > 0);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// A commit marker or a restore marker: what is accepted is written and read back the same.
pub fn marker(bytes: &[u8]) {
    if let Ok(marker) = ArchiveMarker::parse(bytes) {
        assert!(bytes.len() <= MAX_MARKER_BYTES && marker.size > 0);
        if let Ok(again) = marker.to_bytes() {
            assert_eq!(
                ArchiveMarker::parse(&again).expect("our own marker"),
                marker
            );
        }
    }
    if let Ok(marker) = RestoreMarker::parse(bytes)
        && let Ok(again) = marker.to_bytes()
    {
        assert_eq!(
            RestoreMarker::parse(&again).expect("our own marker"),
            marker
        );
    }
}

/// A key, after a prefix that ends at the first NUL: only what we would build ourselves is ours.
pub fn layout(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (prefix, key) = text.split_once('\0').unwrap_or(("", &text));
    let whole = format!("{prefix}{key}");
    let built = match layout::parse_key(prefix, &whole) {
        Some(ParsedKey::Data {
            workspace_id,
            op_id,
        }) => layout::data_key(prefix, workspace_id, op_id),
        Some(ParsedKey::Marker {
            workspace_id,
            op_id,
        }) => layout::marker_key(&layout::data_key(prefix, workspace_id, op_id)),
        Some(ParsedKey::RestoreMarker {
            workspace_id,
            op_id,
        }) => layout::restore_marker_key(prefix, workspace_id, op_id),
        Some(ParsedKey::Other { .. }) => whole.clone(),
        None => panic!("the key begins with the prefix"),
    };
    assert_eq!(built, whole);
    if let Some(rest) = key.strip_prefix(prefix) {
        // Another prefix never makes more of a key than it is.
        assert!(layout::parse_key(prefix, key).is_some() || rest.is_empty());
    }
}
