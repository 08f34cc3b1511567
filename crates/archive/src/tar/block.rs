//! The 512-byte ustar block: fields, checksum, nothing else.

use super::{BLOCK, EntryKind};
use crate::error::ArchiveError;

pub(crate) const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
pub(crate) const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const MAJOR: std::ops::Range<usize> = 329..337;
const MINOR: std::ops::Range<usize> = 337..345;
const PREFIX: std::ops::Range<usize> = 345..500;

/// Largest values of the short (7 digits) and long (11 digits) octal fields.
pub(crate) const MAX_SHORT: u64 = 0o7_777_777;
pub(crate) const MAX_LONG: u64 = 0o77_777_777_777;

/// A header block's fields, as numbers and raw bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) name: Vec<u8>,
    pub(crate) mode: u64,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    pub(crate) mtime: u64,
    pub(crate) typeflag: u8,
    pub(crate) link: Vec<u8>,
    pub(crate) major: u64,
    pub(crate) minor: u64,
}

impl Block {
    /// Encodes; values too large for their field are written as 0 (a PAX record carries them).
    pub(crate) fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0_u8; BLOCK];
        put_text(&mut block[NAME], &self.name);
        put_octal(&mut block[MODE], self.mode);
        put_octal(&mut block[UID], self.uid);
        put_octal(&mut block[GID], self.gid);
        put_octal(&mut block[SIZE], self.size);
        put_octal(&mut block[MTIME], self.mtime);
        block[TYPE] = self.typeflag;
        put_text(&mut block[LINK], &self.link);
        block[MAGIC].copy_from_slice(b"ustar\x0000");
        put_octal(&mut block[MAJOR], self.major);
        put_octal(&mut block[MINOR], self.minor);
        let sum = checksum(&block);
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    pub(crate) fn decode(block: &[u8; BLOCK]) -> Result<Self, ArchiveError> {
        if block[MAGIC] != *b"ustar\x0000" {
            return Err(ArchiveError::corrupted("tar: not a POSIX header block"));
        }
        if octal(&block[CHECKSUM])? != u64::from(checksum(block)) {
            return Err(ArchiveError::corrupted("tar: header checksum is wrong"));
        }
        if block[PREFIX].iter().any(|b| *b != 0) {
            return Err(ArchiveError::corrupted("tar: the prefix field is not used"));
        }
        Ok(Self {
            name: text(&block[NAME]),
            mode: octal(&block[MODE])?,
            uid: octal(&block[UID])?,
            gid: octal(&block[GID])?,
            size: octal(&block[SIZE])?,
            mtime: octal(&block[MTIME])?,
            typeflag: block[TYPE],
            link: text(&block[LINK]),
            major: octal(&block[MAJOR])?,
            minor: octal(&block[MINOR])?,
        })
    }
}

pub(crate) fn typeflag(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    }
}

pub(crate) fn kind(typeflag: u8) -> Option<EntryKind> {
    Some(match typeflag {
        b'0' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        _ => return None,
    })
}

/// The sum of all bytes, with spaces in place of the field itself.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    // Without a condition in it, so that the compiler makes vector instructions of the loop.
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let field = &block[CHECKSUM];
    sum(block) - sum(field) + u32::from(b' ') * field.len() as u32
}

fn put_text(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let fits = value < 1 << (3 * digits);
    let mut rest = if fits { value } else { 0 };
    for slot in field[..digits].iter_mut().rev() {
        *slot = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
}

fn text(field: &[u8]) -> Vec<u8> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    field[..end].to_vec()
}

fn octal(field: &[u8]) -> Result<u64, ArchiveError> {
    let end = field
        .iter()
        .position(|b| matches!(b, 0 | b' '))
        .unwrap_or(field.len());
    // At most 12 digits, so no overflow.
    field[..end].iter().try_fold(0_u64, |value, digit| {
        if !(b'0'..=b'7').contains(digit) {
            return Err(ArchiveError::corrupted("tar: a number is not octal"));
        }
        Ok(value << 3 | u64::from(digit - b'0'))
    })
}
