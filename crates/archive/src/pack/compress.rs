//! zstd with as many threads as a bounded memory allows.

use std::io::{self, Write};
use std::num::NonZero;
use std::thread::available_parallelism;

use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder;

/// Levels that may be asked for.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// What the encoder may use for its workers; parts of the upload take another 64 MiB by default.
const BUDGET: usize = 44 << 20;
/// Input bytes of one worker's job; zstd keeps about three times that per worker (input, output, one
/// more job filling).
const JOB: usize = 2 << 20;

/// An encoder into `sink`: multithreaded, with zstd's own checksum at the end of the frame.
///
/// `threads` 0 means all cores, as far as the memory budget goes: 5 at the default level (more than a
/// gigabyte per second, faster than one SHA-256), fewer at levels above 6 whose tables are large.
/// Levels above 12 exceed the budget even with one worker.
pub(crate) fn encoder<W: Write>(
    sink: W,
    level: i32,
    threads: u32,
) -> io::Result<Encoder<'static, W>> {
    let wanted = match threads {
        0 => available_parallelism().map_or(1, NonZero::get),
        n => n as usize,
    };
    let threads = wanted.clamp(1, max_threads(level));
    let mut encoder = Encoder::new(sink, level)?;
    encoder.include_checksum(true)?;
    encoder.set_parameter(CParameter::NbWorkers(threads as u32))?;
    encoder.set_parameter(CParameter::JobSize(JOB as u32))?;
    Ok(encoder)
}

fn max_threads(level: i32) -> usize {
    let tables = match level {
        ..=6 => 3 << 20,
        7..=8 => 7 << 20,
        9..=10 => 26 << 20,
        _ => 64 << 20,
    };
    (BUDGET / (tables + 3 * JOB)).max(1)
}
