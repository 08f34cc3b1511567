//! Where a sparse file has data.

use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::tar::MAX_EXTENTS;
use crate::tar::sparse::Extent;

/// The data ranges of a file of `size` bytes, or `None` where it has no holes (or the file system
/// cannot tell). Beyond [`MAX_EXTENTS`] ranges the rest counts as one range of data.
pub(crate) fn data_extents(file: BorrowedFd<'_>, size: u64) -> Result<Option<Vec<Extent>>, Errno> {
    let mut extents = Vec::new();
    let mut data = 0;
    let mut at = 0;
    while at < size {
        let offset = match seek(file, SeekFrom::Data(at)) {
            Ok(offset) => offset.min(size),
            Err(Errno::NXIO) => break, // only a hole is left
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        if offset >= size {
            break;
        }
        let end = match extents.len() + 1 {
            MAX_EXTENTS => size,
            _ => match seek(file, SeekFrom::Hole(offset)) {
                Ok(end) => end.min(size),
                // The file was cut meanwhile; reading it will tell.
                Err(Errno::NXIO) => size,
                Err(errno) => return Err(errno),
            },
        };
        let length = end - offset;
        extents.push(Extent { offset, length });
        data += length;
        at = end;
    }
    Ok((data < size).then_some(extents))
}
