//! Reads entries one by one, with every length bounded and every oddity an error.

use std::io::{BufRead, Read};

use super::block::{self, Block};
use super::writer::padding;
use super::{BLOCK, EntryKind, Header, MAX_PATH, MAX_PAX, pax};
use crate::error::ArchiveError;

/// Most bytes of attribute names, each with a NUL, that the kernel lists for a file.
const MAX_XATTR_NAMES: usize = 64 * 1024;

/// A tar stream being read from `R`.
#[derive(Debug)]
pub struct TarReader<R> {
    inner: R,
    /// Data of the current entry not yet read.
    left: u64,
    padding: usize,
    ended: bool,
}

/// What PAX records override.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    mtime: Option<(i64, u32)>,
    sparse_major: Option<u64>,
    sparse_minor: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> TarReader<R> {
    /// Begins to read.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            left: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry, skipping what is left of the current one; `None` at the proper end of the
    /// archive, after which nothing but zeros may follow.
    pub fn next_entry(&mut self) -> Result<Option<Header>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        self.skip_data()?;
        let mut block = self.block()?;
        let mut extended = None;
        if block == [0; BLOCK] {
            if self.block()? != [0; BLOCK] {
                return Err(ArchiveError::corrupted("tar: lone zero block"));
            }
            self.ended = true;
            self.expect_end()?;
            return Ok(None);
        }
        let mut header = Block::decode(&block)?;
        if header.typeflag == b'x' {
            extended = Some(self.extended(header.size)?);
            block = self.block()?;
            header = Block::decode(&block)?;
        }
        let entry = assemble(header, extended.unwrap_or_default())?;
        self.left = entry.size;
        self.padding = padding(entry.size);
        Ok(Some(entry))
    }

    /// Reads up to `buffer.len()` bytes of the current entry's data; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let read = read_some(&mut self.inner, &mut buffer[..want])?;
        if read == 0 {
            return Err(truncated());
        }
        self.left -= read as u64;
        Ok(read)
    }

    /// Fills `buffer` from the current entry's data.
    pub fn read_data_exact(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_data(&mut buffer[filled..])? {
                0 => return Err(ArchiveError::corrupted("tar: an entry's data is too short")),
                read => filled += read,
            }
        }
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), ArchiveError> {
        let mut buffer = [0_u8; BLOCK];
        while self.read_data(&mut buffer)? > 0 {}
        let padding = std::mem::take(&mut self.padding);
        read_exact(&mut self.inner, &mut buffer[..padding])
    }

    fn expect_end(&mut self) -> Result<(), ArchiveError> {
        let mut buffer = [0_u8; 8192];
        loop {
            let read = read_some(&mut self.inner, &mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            if buffer[..read].iter().any(|b| *b != 0) {
                return Err(ArchiveError::corrupted("tar: data after the end"));
            }
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK], ArchiveError> {
        let mut block = [0; BLOCK];
        read_exact(&mut self.inner, &mut block)?;
        Ok(block)
    }

    fn extended(&mut self, size: u64) -> Result<Extended, ArchiveError> {
        if size > MAX_PAX {
            return Err(ArchiveError::corrupted("tar: PAX records are too large"));
        }
        // Grows with what really arrives, not with what the header claims.
        let mut body = Vec::new();
        let read = (&mut self.inner)
            .take(size)
            .read_to_end(&mut body)
            .map_err(|e| ArchiveError::from_stream("read archive", e))?;
        if read as u64 != size {
            return Err(truncated());
        }
        let mut rest = [0_u8; BLOCK];
        read_exact(&mut self.inner, &mut rest[..padding(size)])?;
        parse_extended(&body)
    }
}

impl<R: BufRead> TarReader<R> {
    /// What has arrived of the current entry's data and was not yet [consumed](Self::consume); empty at
    /// its end. Nothing is copied.
    pub(crate) fn arrived(&mut self) -> Result<&[u8], ArchiveError> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(&[]);
        }
        let data = self
            .inner
            .fill_buf()
            .map_err(|e| ArchiveError::from_stream("read archive", e))?;
        if data.is_empty() {
            return Err(truncated());
        }
        Ok(&data[..data.len().min(left)])
    }

    /// Takes so many bytes of what has [arrived](Self::arrived).
    pub(crate) fn consume(&mut self, length: usize) {
        self.inner.consume(length);
        self.left -= length as u64;
    }
}

fn parse_extended(body: &[u8]) -> Result<Extended, ArchiveError> {
    let mut extended = Extended::default();
    let mut names = 0;
    for record in pax::records(body) {
        let (keyword, value) = record?;
        let number = || {
            pax::number(value)
                .ok_or_else(|| ArchiveError::corrupted("tar: PAX number is malformed"))
        };
        match keyword {
            b"path" => extended.path = Some(value.to_vec()),
            b"linkpath" => extended.link = Some(value.to_vec()),
            b"uid" => extended.uid = Some(number()?),
            b"gid" => extended.gid = Some(number()?),
            b"size" => extended.size = Some(number()?),
            b"mtime" => {
                let time = pax::parse_time(value)
                    .ok_or_else(|| ArchiveError::corrupted("tar: PAX mtime is malformed"))?;
                extended.mtime = Some(time);
            }
            b"GNU.sparse.major" => extended.sparse_major = Some(number()?),
            b"GNU.sparse.minor" => extended.sparse_minor = Some(number()?),
            b"GNU.sparse.name" => extended.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" => extended.sparse_size = Some(number()?),
            other => {
                if let Some(name) = other.strip_prefix(pax::XATTR) {
                    let name = pax::decode_xattr_name(name);
                    if name.is_empty() || name.contains(&0) {
                        return Err(ArchiveError::corrupted("tar: attribute name is malformed"));
                    }
                    names += name.len() + 1;
                    if names > MAX_XATTR_NAMES {
                        return Err(ArchiveError::corrupted("tar: too many attributes"));
                    }
                    extended.xattrs.push((name, value.to_vec()));
                }
                // Other keywords are for readers that know them.
            }
        }
    }
    Ok(extended)
}

fn assemble(block: Block, extended: Extended) -> Result<Header, ArchiveError> {
    let kind = block::kind(block.typeflag).ok_or_else(|| {
        ArchiveError::corrupted(format!(
            "tar: entry type {:#04x} is not supported",
            block.typeflag
        ))
    })?;
    let sparse_size = match (extended.sparse_major, extended.sparse_minor) {
        (None, None) => None,
        (Some(1), Some(0)) if kind == EntryKind::File => extended.sparse_size,
        _ => return Err(ArchiveError::corrupted("tar: unknown sparse format")),
    };
    let name = match (sparse_size, extended.sparse_name, extended.path) {
        (Some(_), Some(name), _) => name,
        (Some(_), None, _) => return Err(ArchiveError::corrupted("tar: sparse file has no name")),
        (None, _, Some(path)) => path,
        (None, _, None) => block.name,
    };
    let size = extended.size.unwrap_or(block.size);
    if kind != EntryKind::File && size != 0 {
        return Err(ArchiveError::corrupted("tar: only files may have data"));
    }
    if size > i64::MAX as u64 || sparse_size.is_some_and(|s| s > i64::MAX as u64) {
        return Err(ArchiveError::corrupted("tar: impossible file size"));
    }
    let seconds = i64::try_from(block.mtime).unwrap_or(0);
    Ok(Header {
        path: relative_path(&name, kind)?,
        kind,
        mode: u32::try_from(block.mode & 0o7777).unwrap_or(0),
        uid: id(extended.uid.unwrap_or(block.uid))?,
        gid: id(extended.gid.unwrap_or(block.gid))?,
        mtime: extended.mtime.unwrap_or((seconds, 0)),
        size,
        sparse_size,
        link: match kind {
            EntryKind::HardLink => {
                relative_path(&extended.link.unwrap_or(block.link), EntryKind::File)?
            }
            EntryKind::Symlink => extended.link.unwrap_or(block.link),
            _ => Vec::new(),
        },
        device: (number32(block.major)?, number32(block.minor)?),
        xattrs: extended.xattrs,
    })
}

/// Checks a path so that it can only name something below the root: relative, no empty, "." or ".."
/// component, no NUL. Only a directory may be the root itself, spelt "./".
fn relative_path(name: &[u8], kind: EntryKind) -> Result<Vec<u8>, ArchiveError> {
    let bad = |why: &str| {
        let shown = crate::error::display_path(name);
        ArchiveError::corrupted(format!("tar: path {shown}: {why}"))
    };
    let path = match kind {
        EntryKind::Directory if name == b"./" => return Ok(Vec::new()),
        EntryKind::Directory => name.strip_suffix(b"/").unwrap_or(name),
        _ => name,
    };
    if path.len() > MAX_PATH {
        return Err(bad("too long"));
    }
    if path.contains(&0) {
        return Err(bad("contains NUL"));
    }
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" => return Err(bad("absolute, or has an empty component")),
            b"." | b".." => return Err(bad("has a relative component")),
            name if name.len() > 255 => return Err(bad("a name is longer than 255 bytes")),
            _ => {}
        }
    }
    Ok(path.to_vec())
}

/// User and group ids: any but the one that means "leave as it is" to chown.
fn id(value: u64) -> Result<u32, ArchiveError> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| ArchiveError::corrupted("tar: impossible user or group id"))
}

fn number32(value: u64) -> Result<u32, ArchiveError> {
    u32::try_from(value).map_err(|_| ArchiveError::corrupted("tar: impossible device number"))
}

fn read_some(inner: &mut impl Read, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
    loop {
        match inner.read(buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other.map_err(|e| ArchiveError::from_stream("read archive", e)),
        }
    }
}

fn read_exact(inner: &mut impl Read, buffer: &mut [u8]) -> Result<(), ArchiveError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_some(inner, &mut buffer[filled..])? {
            0 => return Err(truncated()),
            read => filled += read,
        }
    }
    Ok(())
}

fn truncated() -> ArchiveError {
    ArchiveError::corrupted("tar: the stream ends too early")
}
