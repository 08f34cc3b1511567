//! Volume -> tar -> zstd -> any sink, in one pass.
//!
//! Knows nothing of S3, so that it can be tested against a buffer. The caller's sink hashes and counts
//! what comes out; this side takes the inventory fingerprint of what goes in.

use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Advice, fadvise, fstat};
use rustix::io::{Errno, pread};
use tokio_util::sync::CancellationToken;
use zstd::stream::write::Encoder;

use super::compress;
use super::header::header;
use crate::error::ArchiveError;
use crate::fs::extents::data_extents;
use crate::fs::open::open_root;
use crate::fs::walk::{Entry, Visitor, WalkOptions, mtime, walk};
use crate::inventory::InventoryHasher;
use crate::progress::Progress;
use crate::tar::sparse::{Extent, encode_map};
use crate::tar::{EntryKind, Header, TarWriter};

const READ_BUFFER: usize = 256 * 1024;
const WRITE_BUFFER: usize = 128 * 1024;
/// Files from this size on are announced to the kernel as read in order.
const SEQUENTIAL: u64 = 1 << 20;
/// In a volume that is in use, files up to this size are read whole before anything of them is written, so
/// that one that changed meanwhile can be read again. Larger ones are taken as they are read.
const REREAD: u64 = 1 << 20;
/// How often such a file is read at most.
const READS: u32 = 4;

/// How to pack.
#[derive(Debug, Clone, Copy)]
pub struct PackOptions {
    /// zstd level, 1 to 19.
    pub compression_level: i32,
    /// Worker threads of zstd, 0 for all cores.
    pub threads: u32,
    /// The volume is in use: files that change meanwhile do not fail the job. Small ones are read again a few
    /// times; what still changes is kept as it was read (padded with zeros where it shrank, cut where it
    /// grew), and what vanished is left out; both are counted.
    pub crash_consistent: bool,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            compression_level: 3,
            threads: 0,
            crash_consistent: false,
        }
    }
}

/// What was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackSummary {
    /// Bytes of the tar stream.
    pub tar_size: u64,
    /// Bytes that the restored home takes on disk.
    pub disk_size: u64,
    /// Entries, the root included.
    pub entry_count: u64,
    /// Sockets left out.
    pub skipped_sockets: u64,
    /// Files that changed while read (crash-consistent only).
    pub changed_files: u64,
    /// Inventory fingerprint of the volume as packed.
    pub fingerprint: String,
}

/// Packs everything below `root` into `sink`, which is returned. Blocking.
pub fn pack_stream<W: Write>(
    root: &Path,
    options: &PackOptions,
    sink: W,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(PackSummary, W), ArchiveError> {
    let root = open_root(root)?;
    let mut packer = Packer {
        tar: begin(sink, options)?,
        options: *options,
        progress,
        cancel,
        inventory: match options.crash_consistent {
            true => InventoryHasher::live(),
            false => InventoryHasher::default(),
        },
        buffer: vec![0; READ_BUFFER],
        disk_size: 0,
        changed_files: 0,
    };
    let walk_options = WalkOptions {
        live: options.crash_consistent,
    };
    let report = walk(root.as_fd(), walk_options, &mut packer)?;
    let (sink, tar_size) = end(packer.tar)?;
    let inventory = packer.inventory.finish();
    let summary = PackSummary {
        tar_size,
        disk_size: packer.disk_size,
        entry_count: inventory.entries,
        skipped_sockets: report.sockets,
        changed_files: packer.changed_files + report.vanished,
        fingerprint: inventory.fingerprint,
    };
    Ok((summary, sink))
}

type Stream<W> = TarWriter<BufWriter<Encoder<'static, W>>>;

/// The layers of an archive stream, also used for one made without a volume.
pub(super) fn begin<W: Write>(sink: W, options: &PackOptions) -> Result<Stream<W>, ArchiveError> {
    let encoder = compress::encoder(sink, options.compression_level, options.threads)
        .map_err(|e| ArchiveError::from_stream("start compression", e))?;
    Ok(TarWriter::new(BufWriter::with_capacity(
        WRITE_BUFFER,
        encoder,
    )))
}

/// Ends all layers; returns the sink and the tar stream's length.
pub(super) fn end<W: Write>(tar: Stream<W>) -> Result<(W, u64), ArchiveError> {
    let stream = |e| ArchiveError::from_stream("write archive", e);
    let (buffered, tar_size) = tar.finish().map_err(stream)?;
    let encoder = buffered.into_inner().map_err(|e| stream(e.into_error()))?;
    Ok((encoder.finish().map_err(stream)?, tar_size))
}

struct Packer<'a, W: Write> {
    tar: Stream<W>,
    options: PackOptions,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
    inventory: InventoryHasher,
    buffer: Vec<u8>,
    disk_size: u64,
    changed_files: u64,
}

impl<W: Write> Visitor for Packer<'_, W> {
    fn visit(&mut self, entry: &Entry<'_>) -> Result<(), ArchiveError> {
        if self.cancel.is_cancelled() {
            return Err(ArchiveError::Cancelled);
        }
        self.inventory.add(entry);
        let mut header = header(entry)?;
        let allocated = u64::try_from(entry.stat.st_blocks).unwrap_or(0) * 512;
        match (entry.file, header.kind) {
            (Some(file), EntryKind::File) => {
                let size = entry.file_size();
                let extents = match allocated < size {
                    true => data_extents(file, size)
                        .map_err(|e| ArchiveError::io("find data of", entry.path, e))?,
                    false => None,
                };
                let stored = extents.as_ref().map_or(size, |extents| sum(extents));
                // The larger of both: the target may compress less than the source does.
                self.disk_size += allocated.max(stored.next_multiple_of(4096));
                self.file(entry, file, header, extents)?;
            }
            _ => {
                if header.kind != EntryKind::HardLink {
                    self.disk_size += allocated;
                }
                header.size = 0;
                self.begin_entry(&header)?;
            }
        }
        self.progress.add_entry();
        Ok(())
    }
}

impl<W: Write> Packer<'_, W> {
    fn file(
        &mut self,
        entry: &Entry<'_>,
        file: BorrowedFd<'_>,
        mut header: Header,
        extents: Option<Vec<Extent>>,
    ) -> Result<(), ArchiveError> {
        let size = entry.file_size();
        let mut changed = false;
        if self.options.crash_consistent && extents.is_none() && size <= REREAD {
            return self.small_live_file(entry, file, header);
        }
        if size >= SEQUENTIAL {
            // Advice: failing to give it changes nothing.
            fadvise(file, 0, None, Advice::Sequential).ok();
        }
        match extents {
            None => {
                header.size = size;
                self.begin_entry(&header)?;
                let all = Extent {
                    offset: 0,
                    length: size,
                };
                self.range(entry, file, all, &mut changed)?;
            }
            Some(extents) => {
                let map = encode_map(&extents, size);
                header.size = map.len() as u64 + sum(&extents);
                header.sparse_size = Some(size);
                self.begin_entry(&header)?;
                self.put(&map)?;
                for extent in extents {
                    self.range(entry, file, extent, &mut changed)?;
                }
            }
        }
        let now = fstat(file).map_err(|e| ArchiveError::io("stat", entry.path, e))?;
        if now.st_size != entry.stat.st_size || mtime(&now) != entry.mtime() {
            if !self.options.crash_consistent {
                let what = format!(
                    "written while it was read ({size} bytes before, {} after)",
                    now.st_size
                );
                return Err(ArchiveError::changed(entry.path, what));
            }
            changed = true;
        }
        self.changed_files += u64::from(changed);
        Ok(())
    }

    /// A file that may be written to meanwhile, as it was at one moment if it keeps still for long enough.
    fn small_live_file(
        &mut self,
        entry: &Entry<'_>,
        file: BorrowedFd<'_>,
        mut header: Header,
    ) -> Result<(), ArchiveError> {
        let stat = || fstat(file).map_err(|e| ArchiveError::io("stat", entry.path, e));
        let mut content = Vec::new();
        let mut before = entry.stat;
        let still = until_still(|| {
            if self.cancel.is_cancelled() {
                return Err(ArchiveError::Cancelled);
            }
            // One that grows out of what is kept in memory is taken as far as that goes.
            let size = u64::try_from(before.st_size).unwrap_or(0).min(REREAD);
            let read = self.whole(entry, file, size, &mut content)?;
            header.mtime = mtime(&before);
            let after = stat()?;
            let still = read
                && size == u64::try_from(after.st_size).unwrap_or(0)
                && mtime(&after) == mtime(&before);
            before = after;
            Ok(still)
        })?;
        header.size = content.len() as u64;
        self.begin_entry(&header)?;
        let length = content.len() as u64;
        self.put(&content)?;
        self.progress.add_bytes(length);
        self.changed_files += u64::from(!still);
        Ok(())
    }

    /// The first `size` bytes of a file; whether there were so many. The rest is zeros.
    fn whole(
        &self,
        entry: &Entry<'_>,
        file: BorrowedFd<'_>,
        size: u64,
        content: &mut Vec<u8>,
    ) -> Result<bool, ArchiveError> {
        content.clear();
        // Bounded by REREAD.
        content.resize(usize::try_from(size).unwrap_or(0), 0);
        let mut at = 0;
        while at < content.len() {
            match pread(file, &mut content[at..], at as u64) {
                Ok(0) => return Ok(false),
                Ok(read) => at += read,
                Err(Errno::INTR) => {}
                Err(e) => return Err(ArchiveError::io("read", entry.path, e)),
            }
        }
        Ok(true)
    }

    /// Copies one range of a file.
    fn range(
        &mut self,
        entry: &Entry<'_>,
        file: BorrowedFd<'_>,
        extent: Extent,
        changed: &mut bool,
    ) -> Result<(), ArchiveError> {
        let (mut at, end) = (extent.offset, extent.offset + extent.length);
        while at < end {
            if self.cancel.is_cancelled() {
                return Err(ArchiveError::Cancelled);
            }
            let want = usize::try_from(end - at)
                .unwrap_or(READ_BUFFER)
                .min(READ_BUFFER);
            let read = match pread(file, &mut self.buffer[..want], at) {
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(ArchiveError::io("read", entry.path, e)),
            };
            let filled = if read > 0 {
                read
            } else if self.options.crash_consistent {
                *changed = true;
                self.buffer[..want].fill(0);
                want
            } else {
                let what = format!("shrank below {at} bytes while it was read");
                return Err(ArchiveError::changed(entry.path, what));
            };
            self.tar
                .data(&self.buffer[..filled])
                .map_err(|e| ArchiveError::from_stream("write archive", e))?;
            at += filled as u64;
            self.progress.add_bytes(filled as u64);
        }
        Ok(())
    }

    fn begin_entry(&mut self, header: &Header) -> Result<(), ArchiveError> {
        self.tar
            .entry(header)
            .map_err(|e| ArchiveError::from_stream("write archive", e))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.tar
            .data(bytes)
            .map_err(|e| ArchiveError::from_stream("write archive", e))
    }
}

/// Reads until a reading was undisturbed, but not for ever. Whether one was.
fn until_still(mut read: impl FnMut() -> Result<bool, ArchiveError>) -> Result<bool, ArchiveError> {
    for _ in 0..READS {
        if read()? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sum(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.length).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_disturbed_is_read_again_but_not_for_ever() {
        let reads_until = |undisturbed: u32| {
            let mut reads = 0;
            let still = until_still(|| {
                reads += 1;
                Ok(reads == undisturbed)
            });
            (still.unwrap(), reads)
        };
        assert_eq!(reads_until(1), (true, 1));
        assert_eq!(reads_until(3), (true, 3));
        assert_eq!(reads_until(100), (false, READS));
        let failed = until_still(|| Err(ArchiveError::Cancelled));
        assert!(failed.is_err());
    }
}
