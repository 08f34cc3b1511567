//! Writes entries as header, PAX records where a field is too small, data, padding.

use std::io::{self, Write};

use super::block::{self, Block, MAX_LONG, MAX_SHORT};
use super::{BLOCK, EntryKind, Header, MAX_PAX, pax};

const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A tar stream being written to `W`.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    written: u64,
    /// Data still owed for the current entry.
    owed: u64,
    padding: usize,
    scratch: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Begins a stream.
    pub fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            owed: 0,
            padding: 0,
            scratch: Vec::new(),
        }
    }

    /// Begins an entry; exactly `header.size` bytes of [`data`](Self::data) must follow.
    pub fn entry(&mut self, header: &Header) -> io::Result<()> {
        self.end_entry()?;
        let mut name = header.path.clone();
        if header.kind == EntryKind::Directory {
            name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
        }
        self.pax_records(header, &name)?;
        if header.sparse_size.is_some() {
            name = [b"GNUSparseFile.0/", header.path.as_slice()].concat();
        }
        name.truncate(block::NAME.len());
        let (seconds, _) = header.mtime;
        let main = Block {
            name,
            mode: u64::from(header.mode & 0o7777),
            uid: u64::from(header.uid),
            gid: u64::from(header.gid),
            size: header.size,
            mtime: u64::try_from(seconds).unwrap_or(0),
            typeflag: block::typeflag(header.kind),
            link: header.link.clone(),
            major: u64::from(header.device.0),
            minor: u64::from(header.device.1),
        };
        self.put(&main.encode())?;
        self.owed = header.size;
        self.padding = padding(header.size);
        Ok(())
    }

    /// Writes the next bytes of the current entry's data.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        self.owed = self
            .owed
            .checked_sub(length)
            .ok_or_else(|| io::Error::other("tar: more data than the header says"))?;
        self.put(bytes)
    }

    /// Ends the stream; returns the sink and the stream's length in bytes.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.end_entry()?;
        self.put(&ZEROS)?;
        self.put(&ZEROS)?;
        Ok((self.out, self.written))
    }

    fn end_entry(&mut self) -> io::Result<()> {
        if self.owed != 0 {
            return Err(io::Error::other("tar: less data than the header says"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.put(&ZEROS[..padding])
    }

    fn pax_records(&mut self, header: &Header, name: &[u8]) -> io::Result<()> {
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        match header.sparse_size {
            Some(size) => {
                pax::put(&mut body, b"GNU.sparse.major", b"1");
                pax::put(&mut body, b"GNU.sparse.minor", b"0");
                pax::put(&mut body, b"GNU.sparse.name", name);
                pax::put(
                    &mut body,
                    b"GNU.sparse.realsize",
                    size.to_string().as_bytes(),
                );
            }
            None if name.len() > block::NAME.len() => pax::put(&mut body, b"path", name),
            None => {}
        }
        if header.link.len() > block::LINK.len() {
            pax::put(&mut body, b"linkpath", &header.link);
        }
        for (keyword, value, limit) in [
            (&b"uid"[..], u64::from(header.uid), MAX_SHORT),
            (b"gid", u64::from(header.gid), MAX_SHORT),
            (b"size", header.size, MAX_LONG),
        ] {
            if value > limit {
                pax::put(&mut body, keyword, value.to_string().as_bytes());
            }
        }
        let (seconds, nanoseconds) = header.mtime;
        if nanoseconds != 0 || seconds < 0 || seconds.unsigned_abs() > MAX_LONG {
            pax::put(
                &mut body,
                b"mtime",
                pax::format_time(header.mtime).as_bytes(),
            );
        }
        for (name, value) in &header.xattrs {
            pax::put(&mut body, &pax::encode_xattr_name(name), value);
        }
        if !body.is_empty() {
            let size = body.len() as u64;
            if size > MAX_PAX {
                return Err(io::Error::other(format!(
                    "{}: attributes and names of {size} bytes are more than an archive holds",
                    crate::error::display_path(&header.path)
                )));
            }
            let extended = Block {
                name: b"././@PaxHeader".to_vec(),
                mode: 0o644,
                uid: 0,
                gid: 0,
                size,
                mtime: 0,
                typeflag: b'x',
                link: Vec::new(),
                major: 0,
                minor: 0,
            };
            self.put(&extended.encode())?;
            self.put(&body)?;
            self.put(&ZEROS[..padding(size)])?;
        }
        self.scratch = body;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Bytes from `size` to the next whole block.
pub(super) fn padding(size: u64) -> usize {
    // The remainder is below 512.
    (size.wrapping_neg() % BLOCK as u64) as usize
}
