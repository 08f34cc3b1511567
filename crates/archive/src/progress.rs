//! What a running job tells the outside: a few atomics, read at any time without locks.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a job is doing at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stage {
    /// Not begun.
    Waiting = 0,
    /// Reading the volume and uploading.
    Packing = 1,
    /// Reading the object back to compare its digest.
    Verifying = 2,
    /// Emptying the volume before a restore.
    Cleaning = 3,
    /// Downloading and extracting.
    Unpacking = 4,
    /// Waiting for the file system to store everything.
    Syncing = 5,
    /// Finished with success.
    Done = 6,
}

/// Progress of one job. While packing, bytes are file contents read from the volume; while verifying
/// and unpacking, bytes of the (compressed) object. The counters start at 0 in each stage; `total_bytes`
/// is 0 while unknown, and while packing an estimate that grows until the scan is through.
#[derive(Debug, Default)]
pub struct Progress {
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    entries: AtomicU64,
    stage: AtomicU8,
}

impl Progress {
    /// Bytes done in this stage.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that this stage has to do; 0 while unknown.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// Entries (files, directories, ...) packed or unpacked.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// The current stage.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            1 => Stage::Packing,
            2 => Stage::Verifying,
            3 => Stage::Cleaning,
            4 => Stage::Unpacking,
            5 => Stage::Syncing,
            6 => Stage::Done,
            _ => Stage::Waiting,
        }
    }

    pub(crate) fn begin(&self, stage: Stage, total_bytes: u64) {
        if stage != Stage::Done {
            self.done_bytes.store(0, Ordering::Relaxed);
            self.total_bytes.store(total_bytes, Ordering::Relaxed);
        }
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_total(&self, bytes: u64) {
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back what was added; another stage may have begun since.
    pub(crate) fn take_total(&self, bytes: u64) {
        let less = |total: u64| Some(total.saturating_sub(bytes));
        // It always answers with a value.
        let _ = self
            .total_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    pub(crate) fn add_entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reset_entries(&self) {
        self.entries.store(0, Ordering::Relaxed);
    }
}
