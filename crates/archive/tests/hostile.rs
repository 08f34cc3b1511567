//! Hostile archives: nothing outside the root is ever touched, whatever the entries say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs as stdfs;
use std::io::Read;

use common::{Tree, compress, list, unpack};
use proptest::prelude::*;
use tempfile::TempDir;
use windlass_archive::ArchiveErrorKind;
use windlass_archive::tar::{EntryKind, Header, TarReader, TarWriter};

fn entry(path: &[u8], kind: EntryKind, link: &[u8]) -> Header {
    let mut header = Header::new(path.to_vec(), kind);
    header.mode = 0o777;
    header.link = link.to_vec();
    header
}

fn tar(entries: &[(Header, &[u8])]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    tar.entry(&entry(b"", EntryKind::Directory, b"")).unwrap();
    for (header, data) in entries {
        let mut header = header.clone();
        header.size = data.len() as u64;
        tar.entry(&header).unwrap();
        tar.data(data).unwrap();
    }
    tar.finish().unwrap().0
}

/// Unpacks into `outer/root`, beside `outer/secret` and `outer/dir`, and checks that `outer` is as it was.
fn attack(tar: &[u8]) -> Result<Tree, ArchiveErrorKind> {
    let outer = TempDir::new().unwrap();
    stdfs::write(outer.path().join("secret"), b"secret").unwrap();
    stdfs::create_dir(outer.path().join("dir")).unwrap();
    let root = outer.path().join("root");
    stdfs::create_dir(&root).unwrap();
    let outside = |tree: Tree| -> Tree {
        let inside = |path: &[u8]| path == b"root" || path.starts_with(b"root/");
        tree.into_iter().filter(|(path, _)| !inside(path)).collect()
    };
    let before = outside(list(outer.path()).tree);
    let result = unpack(&compress(tar), &root);
    assert_eq!(
        before,
        outside(list(outer.path()).tree),
        "something outside was touched"
    );
    match result {
        Ok(_) => Ok(list(&root).tree),
        Err(error) => Err(error.kind()),
    }
}

fn refused(entries: &[(Header, &[u8])]) {
    assert_eq!(
        attack(&tar(entries)),
        Err(ArchiveErrorKind::Corrupted),
        "{entries:?}"
    );
}

use EntryKind::{Directory, File, HardLink, Symlink};

#[test]
fn paths_that_leave_the_root_are_refused() {
    for path in [
        &b"../secret"[..],
        b"/tmp/windlass-hostile",
        b"a/../../secret",
        b"..",
        b"./x",
        b"a//b",
        b".",
        b"x/..",
        b"../dir/new",
        b"x/",
        b"a/./b",
    ] {
        refused(&[(entry(path, File, b""), b"evil")]);
    }
    for path in [&b"../dir"[..], b"..", b"/x", b"a/../.."] {
        refused(&[(entry(path, Directory, b""), b"")]);
    }
    let long = [&b"../"[..], &[b'x'; 300]].concat();
    refused(&[(entry(&long, File, b""), b"evil")]);
    refused(&[(entry(&[b'x'; 256], File, b""), b"evil")]);
    refused(&[(
        entry(&[&[b'n'; 120][..], b"\0/../x"].concat(), File, b""),
        b"evil",
    )]);
}

#[test]
fn symlinks_are_never_followed() {
    for target in [&b"../dir"[..], b"../../..", b"/", b"."] {
        refused(&[
            (entry(b"out", Symlink, target), b""),
            (entry(b"out/new", File, b""), b"evil"),
        ]);
        // The parent given as a directory afterwards: the name is taken.
        refused(&[
            (entry(b"out", Symlink, target), b""),
            (entry(b"out", Directory, b""), b""),
            (entry(b"out/new", File, b""), b"evil"),
        ]);
    }
    refused(&[
        (entry(b"file", Symlink, b"../secret"), b""),
        (entry(b"file", File, b""), b"evil"),
    ]);
    // A symlink under the name of a directory that was entered.
    refused(&[
        (entry(b"d", Directory, b""), b""),
        (entry(b"d", Symlink, b"../dir"), b""),
        (entry(b"d/new", File, b""), b"evil"),
    ]);
    // An escaping symlink alone is a legitimate part of a home.
    let tree = attack(&tar(&[(entry(b"out", Symlink, b"../../../etc"), b"")])).unwrap();
    assert_eq!(tree[&b"out"[..]].target, b"../../../etc");
}

#[test]
fn hard_links_stay_inside() {
    for target in [
        &b"../secret"[..],
        b"/etc/passwd",
        b"out/secret",
        b"deep/out/secret",
        b"nowhere",
        b"deep",
        b"",
    ] {
        refused(&[
            (entry(b"deep", Directory, b""), b""),
            (entry(b"deep/out", Symlink, b"../.."), b""),
            (entry(b"out", Symlink, b".."), b""),
            (entry(b"x", HardLink, target), b""),
        ]);
    }
}

#[test]
fn entries_out_of_order_or_twice_are_refused() {
    refused(&[(entry(b"a/b", File, b""), b"x")]);
    refused(&[
        (entry(b"a", File, b""), b"x"),
        (entry(b"a", File, b""), b"y"),
    ]);
    refused(&[
        (entry(b"a", File, b""), b"x"),
        (entry(b"a/b", File, b""), b"y"),
    ]);
    refused(&[(entry(b"", Directory, b""), b"")]);
    refused(&[
        (entry(b"a", Directory, b""), b""),
        (entry(b"b", File, b""), b""),
        (entry(b"a/x", File, b""), b"re-entered"),
    ]);
}

#[test]
fn impossible_values_are_refused() {
    let with = |change: fn(&mut Header)| {
        let mut header = entry(b"x", File, b"");
        change(&mut header);
        header
    };
    refused(&[(with(|h| h.uid = u32::MAX), b"")]);
    refused(&[(
        with(|h| h.xattrs.push((b"user.a\0b".to_vec(), b"".to_vec()))),
        b"",
    )]);
    refused(&[(entry(b"x", Symlink, b""), b"")]);
    refused(&[(entry(b"x", Directory, b""), b"data")]);
    // Attributes of no known namespace are the file system's to refuse.
    let odd = with(|h| h.xattrs.push((b"nonsense".to_vec(), b"".to_vec())));
    assert_eq!(attack(&tar(&[(odd, b"")])), Err(ArchiveErrorKind::Io));
}

#[test]
fn no_time_is_too_far_away() {
    // Some file systems keep any: what was packed from there must be restored anywhere.
    for mtime in [(i64::MIN, 0), (i64::MIN, 1), (i64::MAX, 999_999_999)] {
        let mut header = entry(b"x", File, b"");
        header.mtime = mtime;
        let bytes = tar(&[(header.clone(), b"")]);
        let mut reader = TarReader::new(&bytes[..]);
        reader.next_entry().unwrap();
        assert_eq!(reader.next_entry().unwrap(), Some(header));
        attack(&bytes).unwrap();
    }
}

#[test]
fn sparse_maps_are_checked() {
    for (map, size) in [
        (&b"1\n0\n512\n"[..], 100_u64),   // beyond the end
        (b"2\n512\n512\n0\n512\n", 4096), // backwards
        (b"1\n0\n1024\n", 4096),          // more than stored
        (b"99999999999\n", 4096),
        (b"18446744073709551616\n", 4096),
        (b"1\n18446744073709551615\n1\n", 4096),
        (b"x\n", 4096),
        (b"", 4096),
        (b"1\n\n\n", 4096),
    ] {
        let mut data = map.to_vec();
        data.resize(512, 0);
        data.extend_from_slice(&[1; 512]);
        let mut header = entry(b"sparse", File, b"");
        header.sparse_size = Some(size);
        refused(&[(header, &data)]);
    }
    let mut data = b"1\n1048576\n512\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(&[1; 512]);
    let mut header = entry(b"sparse", File, b"");
    header.sparse_size = Some(1 << 40);
    let tree = attack(&tar(&[(header, &data)])).unwrap();
    assert_eq!(tree[&b"sparse"[..]].size, 1 << 40);
}

#[test]
fn an_endless_header_is_cut_short() {
    // A PAX header that claims 8 GiB, followed by as many zeros as anyone cares to send.
    let mut tar = tar(&[]);
    tar.truncate(512);
    let mut header = entry(b"x", File, b"");
    header.xattrs.push((b"user.x".to_vec(), vec![0; 1000]));
    let mut writer = TarWriter::new(Vec::new());
    writer.entry(&header).unwrap();
    let mut block = writer.finish().unwrap().0[..512].to_vec();
    block[124..136].copy_from_slice(b"77777777777\0");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&block);
    let mut reader = TarReader::new((&tar[..]).chain(std::io::repeat(0)));
    assert!(reader.next_entry().unwrap().is_some());
    assert!(reader.next_entry().is_err());
    // A decompression bomb's window is refused as well.
    assert_eq!(attack(&tar), Err(ArchiveErrorKind::Corrupted));
}

fn header_strategy() -> impl Strategy<Value = Header> {
    let name = prop::collection::vec(any::<u8>(), 0..300);
    let path = prop_oneof![
        name.clone(),
        "[ab./]{0,6}".prop_map(String::into_bytes),
        prop::sample::select(vec![
            b"a".to_vec(),
            b"a/b".to_vec(),
            b"a/b/c".to_vec(),
            b"b".to_vec()
        ]),
    ];
    let kind = prop::sample::select(vec![File, Directory, Symlink, HardLink, EntryKind::Fifo]);
    let xattr = (
        prop::collection::vec(1..=255_u8, 1..20),
        prop::collection::vec(any::<u8>(), 0..50),
    );
    (
        (path, kind, any::<u32>(), 0..u32::MAX, 0..u32::MAX),
        (any::<i64>(), 0..1_000_000_000_u32),
        prop::collection::vec(any::<u8>(), 1..150),
        prop::collection::vec(xattr, 0..3),
    )
        .prop_map(
            |((path, kind, mode, uid, gid), mtime, link, xattrs)| Header {
                mode: mode & 0o7777,
                uid,
                gid,
                mtime,
                link: if matches!(kind, Symlink | HardLink) {
                    link
                } else {
                    Vec::new()
                },
                xattrs,
                ..Header::new(path, kind)
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let mut reader = TarReader::new(&bytes[..]);
        while let Ok(Some(_)) = reader.next_entry() {}
        prop_assert!(windlass_archive::ArchiveMarker::parse(&bytes).is_err());
        prop_assert!(attack(&bytes).is_err());
    }

    #[test]
    fn altered_archives_never_panic_nor_escape(
        headers in prop::collection::vec(header_strategy(), 0..6),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        fix in any::<bool>(),
    ) {
        let entries: Vec<_> = headers.into_iter().map(|h| (h, &b""[..])).collect();
        let mut bytes = tar(&entries);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
            if fix {
                // Make the checksum right again, so that the alteration gets past it.
                let block = &mut bytes[at / 512 * 512..][..512];
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let _ = attack(&bytes);
    }

    #[test]
    fn headers_round_trip(mut header in header_strategy()) {
        let bad = |path: &[u8]| {
            path.contains(&0)
                || path.split(|b| *b == b'/').any(|c| c.len() > 255 || matches!(c, b"" | b"." | b".."))
        };
        if bad(&header.path) {
            header.path = b"some/path".to_vec();
        }
        if header.kind == HardLink && bad(&header.link) {
            header.link = b"a/b".to_vec();
        }
        header.link.retain(|b| *b != 0);
        let bytes = tar(&[(header.clone(), b"")]);
        let mut reader = TarReader::new(&bytes[..]);
        prop_assert_eq!(reader.next_entry().unwrap().unwrap().kind, Directory);
        prop_assert_eq!(reader.next_entry().unwrap().unwrap(), header);
        prop_assert!(reader.next_entry().unwrap().is_none());
    }
}
