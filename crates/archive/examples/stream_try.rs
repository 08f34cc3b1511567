//! Packs a directory into a file while hashing, and unpacks it again, without a store: what the
//! pipeline itself costs. `stream_try SOURCE FILE TARGET`; compare with `tar | zstd -T0 | tee FILE | sha256sum`
//! and `zstd -d | tar x`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use sha2::{Digest, Sha256};
use windlass_archive::pack::{PackOptions, pack_stream};
use windlass_archive::unpack::unpack_stream;
use windlass_archive::{CancellationToken, Progress};

struct Hashing(File, Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.update(bytes);
        self.0.write_all(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, source, file, target] = &args[..] else {
        panic!("usage: stream_try SOURCE FILE TARGET");
    };
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let begun = Instant::now();
    let sink = Hashing(File::create(file).unwrap(), Sha256::new());
    let options = PackOptions::default();
    let (summary, sink) =
        pack_stream(Path::new(source), &options, sink, &progress, &cancel).unwrap();
    let digest = hex::encode(sink.1.finalize());
    println!("pack    {:?}\n{summary:?} {digest}", begun.elapsed());
    let begun = Instant::now();
    let packed = File::open(file).unwrap();
    let (summary, _) = unpack_stream(packed, Path::new(target), &progress, &cancel).unwrap();
    println!("unpack  {:?}  {summary:?}", begun.elapsed());
}
