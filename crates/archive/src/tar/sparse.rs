//! GNU sparse format 1.0: the data begins with a text map of the ranges that follow.

use std::io::Read;

use super::{BLOCK, MAX_EXTENTS, TarReader, pax};
use crate::error::ArchiveError;

/// A range of data in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The map's text, padded to whole blocks. A file that ends in a hole gets an empty last range there,
/// as GNU tar expects.
pub(crate) fn encode_map(extents: &[Extent], file_size: u64) -> Vec<u8> {
    let trailing_hole = extents
        .last()
        .is_none_or(|last| last.offset + last.length < file_size);
    let count = extents.len() + usize::from(trailing_hole);
    let mut map = format!("{count}\n").into_bytes();
    for extent in extents {
        map.extend_from_slice(format!("{}\n{}\n", extent.offset, extent.length).as_bytes());
    }
    if trailing_hole {
        map.extend_from_slice(format!("{file_size}\n0\n").as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// Reads the map at the beginning of a sparse entry's data and checks it against the entry's sizes.
pub(crate) fn read_map<R: Read>(
    reader: &mut TarReader<R>,
    stored_size: u64,
    file_size: u64,
) -> Result<Vec<Extent>, ArchiveError> {
    let mut text = MapText {
        reader,
        block: [0; BLOCK],
        at: BLOCK,
        read: 0,
    };
    let count = usize::try_from(text.number()?).unwrap_or(usize::MAX);
    if count > MAX_EXTENTS + 1 {
        return Err(broken("too many ranges"));
    }
    let mut extents = Vec::new();
    let (mut end, mut data) = (0_u64, 0_u64);
    for _ in 0..count {
        let (offset, length) = (text.number()?, text.number()?);
        if offset < end {
            return Err(broken("ranges overlap or go backwards"));
        }
        end = offset
            .checked_add(length)
            .filter(|end| *end <= file_size)
            .ok_or_else(|| broken("a range lies beyond the file's end"))?;
        data += length; // ranges are disjoint below file_size: no overflow
        if length > 0 {
            extents.push(Extent { offset, length });
        }
    }
    if text.read.checked_add(data) != Some(stored_size) {
        return Err(broken("ranges and stored size differ"));
    }
    Ok(extents)
}

struct MapText<'a, R> {
    reader: &'a mut TarReader<R>,
    block: [u8; BLOCK],
    at: usize,
    read: u64,
}

impl<R: Read> MapText<'_, R> {
    /// The next line as a decimal number.
    fn number(&mut self) -> Result<u64, ArchiveError> {
        let mut line = [0_u8; 20];
        for length in 0..=line.len() {
            if self.at == BLOCK {
                self.reader.read_data_exact(&mut self.block)?;
                self.read += BLOCK as u64;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match (byte, line.get_mut(length)) {
                (b'\n', _) => {
                    return pax::number(&line[..length]).ok_or_else(|| broken("not a number"));
                }
                (byte, Some(slot)) => *slot = byte,
                (_, None) => break,
            }
        }
        Err(broken("a line is too long"))
    }
}

fn broken(what: &str) -> ArchiveError {
    ArchiveError::corrupted(format!("tar: sparse map: {what}"))
}
