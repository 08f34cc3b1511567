//! The form of one stored object (or part): its bytes, then its metadata, in one file.
//!
//! ```text
//! data | metadata as JSON | length of the JSON, u32 LE | CRC-32 of the JSON, BE | magic
//! ```
//!
//! One file means one rename commits data and metadata together; metadata comes last because size and
//! digests are known only after the last byte. A file whose end does not check out is not an object.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use s3s::crypto::{Checksum as _, Crc32};
use serde::{Deserialize, Serialize};

use crate::digest::Sums;

const MAGIC: &[u8; 8] = b"WLS3OBJ1";
const FOOTER: u64 = 16;
/// Metadata beyond this is no metadata (S3 allows 2 KiB of it, and a key of 1 KiB).
const MAX_JSON: u64 = 1 << 20;
/// How much of a file's end is read at once: nearly always all of its metadata.
const TAIL: u64 = 4096;

/// What is known about a stored object or part.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) key: String,
    /// Bytes of data.
    pub(crate) size: u64,
    /// Without quotes.
    pub(crate) etag: String,
    /// Milliseconds since 1970.
    pub(crate) modified_ms: u64,
    #[serde(default)]
    pub(crate) attributes: Attributes,
    #[serde(default)]
    pub(crate) sums: Sums,
    /// The multipart upload that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upload_id: Option<String>,
}

/// The headers stored with an object and given back as they came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_control: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) website_redirect: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) user: BTreeMap<String, String>,
}

/// Writes the metadata behind the data already in `file`, and syncs all of it.
pub(crate) fn seal(file: &mut File, meta: &Meta) -> io::Result<()> {
    let json = serde_json::to_vec(meta)?;
    let len = u32::try_from(json.len()).map_err(io::Error::other)?;
    let mut end = json;
    let sum = Crc32::checksum(&end);
    end.extend_from_slice(&len.to_le_bytes());
    end.extend_from_slice(&sum);
    end.extend_from_slice(MAGIC);
    file.write_all(&end)?;
    file.sync_all()
}

/// Opens a stored file and reads its metadata; the data is bytes `0..meta.size`.
pub(crate) fn open(path: &Path) -> io::Result<(File, Meta)> {
    let file = File::open(path)?;
    let meta = read_meta(&file)?;
    Ok((file, meta))
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged: {why}"))
}

fn read_meta(file: &File) -> io::Result<Meta> {
    let len = file.metadata()?.len();
    if len < FOOTER {
        return Err(damaged("too short"));
    }
    let tail_len = len.min(TAIL);
    let mut tail = read_range(file, len - tail_len, tail_len)?;
    let footer = tail.split_off(tail.len() - FOOTER as usize);
    let (json_len, sum) = match footer.split_at_checked(8) {
        Some(([a, b, c, d, sum @ ..], magic)) if magic == MAGIC => {
            (u64::from(u32::from_le_bytes([*a, *b, *c, *d])), sum)
        }
        _ => return Err(damaged("no footer")),
    };
    if json_len > MAX_JSON || json_len + FOOTER > len {
        return Err(damaged("metadata longer than the file"));
    }
    let data_len = len - FOOTER - json_len;
    let json = if json_len + FOOTER <= tail_len {
        tail.split_off(tail.len() - json_len as usize)
    } else {
        read_range(file, data_len, json_len)?
    };
    if Crc32::checksum(&json) != sum {
        return Err(damaged("metadata checksum"));
    }
    let meta: Meta = serde_json::from_slice(&json)?;
    if meta.size != data_len {
        return Err(damaged("size differs from the metadata"));
    }
    Ok(meta)
}

fn read_range(file: &File, from: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut buffer, from)?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(data: &[u8], meta: &Meta) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(data).unwrap();
        seal(file.as_file_mut(), meta).unwrap();
        file
    }

    #[test]
    fn round_trip_small_and_large_metadata() {
        for user_len in [0, 10_000] {
            let mut meta = Meta {
                key: "k/../é".into(),
                size: 5,
                ..Meta::default()
            };
            meta.attributes
                .user
                .insert("a".into(), "x".repeat(user_len));
            let file = sealed(b"hello", &meta);
            let (_, read) = open(file.path()).unwrap();
            assert_eq!(read.key, meta.key);
            assert_eq!(read.attributes.user, meta.attributes.user);
        }
    }

    #[test]
    fn any_cut_is_noticed() {
        let meta = Meta {
            key: "k".into(),
            size: 5,
            ..Meta::default()
        };
        let file = sealed(b"hello", &meta);
        let whole = std::fs::read(file.path()).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(file.path(), &whole[..cut]).unwrap();
            assert!(open(file.path()).is_err(), "cut at {cut}");
        }
        let mut longer = whole.clone();
        longer.insert(0, b'x');
        std::fs::write(file.path(), &longer).unwrap();
        assert!(open(file.path()).is_err());
    }
}
