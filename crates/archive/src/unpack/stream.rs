//! Any compressed stream -> zstd -> tar -> volume, decompressing and extracting on a thread each.

use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use tokio_util::sync::CancellationToken;
use zstd::stream::read::Decoder;

use super::extract::Extractor;
use crate::error::ArchiveError;
use crate::fs::open::open_root;
use crate::progress::Progress;

/// Largest window that the decoder accepts, as a power of two: 16 MiB, twice what level 19 uses.
const MAX_WINDOW_LOG: u32 = 24;
const CHUNK: usize = 512 * 1024;
const CHUNKS: usize = 8;

/// What was extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackSummary {
    /// Entries, the root included.
    pub entries: u64,
}

/// What an archive holds at most; more than that is another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of the tar stream.
    pub(super) tar_size: u64,
    /// Entries, the root included.
    pub(super) entries: u64,
}

/// Extracts `stream` into the empty directory `root`; the stream, read to its end, is returned.
/// Blocking. On failure part of the archive stays in `root`.
pub fn unpack_stream<R: Read + Send>(
    stream: R,
    root: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(UnpackSummary, R), ArchiveError> {
    let limits = Limits {
        tar_size: u64::MAX,
        entries: u64::MAX,
    };
    unpack_into(stream, open_root(root)?.as_fd(), limits, progress, cancel)
}

/// The same into a directory that is open already, and no more than `limits`: what is not the archive that
/// was asked for ends before it has filled the disk, not when its digest is compared.
pub(super) fn unpack_into<R: Read + Send>(
    stream: R,
    root: BorrowedFd<'_>,
    limits: Limits,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(UnpackSummary, R), ArchiveError> {
    let (sender, chunks) = sync_channel(CHUNKS);
    let (used, to_fill) = channel();
    std::thread::scope(|scope| {
        let decoding = scope.spawn(move || decode(stream, limits.tar_size, &to_fill, &sender));
        let reader = ChunkReader {
            chunks,
            used,
            current: Vec::new(),
            at: 0,
        };
        let entries = Extractor::new(reader, root, progress, cancel)
            .and_then(|extractor| extractor.run(limits.entries));
        // The extractor and with it the receiver are gone: the decoder cannot hang on a full channel.
        let stream = decoding
            .join()
            .map_err(|_| ArchiveError::Internal("the decompressing thread died".into()))?;
        let entries = entries?;
        let stream = stream?;
        Ok((UnpackSummary { entries }, stream))
    })
}

type Chunk = Result<Vec<u8>, ArchiveError>;

/// Decompresses to the end, at most `limit` bytes. Failures go to the extractor; what is returned then is
/// never looked at.
fn decode<R: Read>(
    stream: R,
    limit: u64,
    to_fill: &Receiver<Vec<u8>>,
    sender: &SyncSender<Chunk>,
) -> Result<R, ArchiveError> {
    let broken = |e: io::Error| match ArchiveError::from_stream("read archive", e) {
        ArchiveError::Stream { source, .. } => ArchiveError::corrupted(format!("zstd: {source}")),
        other => other,
    };
    let start = || -> io::Result<Decoder<'static, io::BufReader<R>>> {
        let mut decoder = Decoder::new(stream)?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Ok(decoder)
    };
    let mut decoder = start().map_err(broken)?;
    let mut left = limit;
    loop {
        // What was read is filled again: the pages of a new one cost a fault each.
        let mut chunk = to_fill.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        let end = loop {
            if filled == CHUNK {
                break Ok(false);
            }
            match decoder.read(&mut chunk[filled..]) {
                Ok(0) => break Ok(true),
                Ok(read) if read as u64 > left => break Err(too_much("bytes", limit)),
                Ok(read) => {
                    filled += read;
                    left -= read as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(broken(e)),
            }
        };
        chunk.truncate(filled);
        let gone = sender.send(Ok(chunk)).is_err();
        match end {
            Ok(false) if !gone => {}
            Ok(_) => return Ok(decoder.finish().into_inner()),
            Err(error) => {
                sender.send(Err(error)).ok();
                return Ok(decoder.finish().into_inner());
            }
        }
    }
}

pub(super) fn too_much(what: &str, limit: u64) -> ArchiveError {
    ArchiveError::corrupted(format!(
        "tar: more than the {limit} {what} that its marker says"
    ))
}

/// The extractor's end of the channel.
struct ChunkReader {
    chunks: Receiver<Chunk>,
    /// Takes what was read, to be filled again.
    used: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.current.len() {
            match self.chunks.recv() {
                Ok(Ok(chunk)) => {
                    let used = std::mem::replace(&mut self.current, chunk);
                    self.at = 0;
                    // A decoder that has ended needs none.
                    self.used.send(used).ok();
                }
                Ok(Err(error)) => return Err(error.into_stream()),
                Err(_) => break, // the decoder has ended
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let data = self.fill_buf()?;
        let length = buffer.len().min(data.len());
        buffer[..length].copy_from_slice(&data[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ArchiveErrorKind;
    use crate::tar::{EntryKind, Header, TarWriter};

    #[test]
    fn more_than_the_marker_says_ends_early() {
        let mut tar = TarWriter::new(Vec::new());
        tar.entry(&Header::new(Vec::new(), EntryKind::Directory))
            .unwrap();
        for name in [b"a", b"b", b"c"] {
            let mut header = Header::new(name.to_vec(), EntryKind::File);
            header.size = 1 << 20;
            tar.entry(&header).unwrap();
            tar.data(&vec![1; 1 << 20]).unwrap();
        }
        let (tar, tar_size) = tar.finish().unwrap();
        let archive = zstd::encode_all(&tar[..], 1).unwrap();
        let unpacked = |tar_size, entries| {
            let target = tempfile::tempdir().unwrap();
            let root = open_root(target.path()).unwrap();
            let limits = Limits { tar_size, entries };
            let (progress, cancel) = (Progress::default(), CancellationToken::new());
            let result = unpack_into(&archive[..], root.as_fd(), limits, &progress, &cancel);
            let files = std::fs::read_dir(target.path()).unwrap().count();
            (
                result
                    .map(|(summary, _)| summary.entries)
                    .map_err(|e| e.kind()),
                files,
            )
        };
        let corrupted = Err(ArchiveErrorKind::Corrupted);
        assert_eq!(unpacked(tar_size, 4), (Ok(4), 3));
        assert_eq!(unpacked(tar_size, 2), (corrupted, 1));
        let (result, files) = unpacked(tar_size / 2, 4);
        assert_eq!(result, corrupted);
        assert!(files < 3);
        assert_eq!(unpacked(tar_size - 1, 4).0, corrupted);
    }
}
