//! One bucket in memory: the sorted index of its objects, its uploads, and the locks that order changes.
//!
//! The disk is the truth and the index follows it: under the lock of a key, first the rename (synced), then
//! the index. Deleting the bucket excludes all changes to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use s3s::{S3Result, s3_error};

use crate::digest::Sums;
use crate::record::Meta;
use crate::upload::Upload;

/// What listings show of an object.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) modified_ms: u64,
    pub(crate) sums: Sums,
    pub(crate) upload_id: Option<String>,
}

impl From<&Meta> for Entry {
    fn from(meta: &Meta) -> Self {
        Self {
            size: meta.size,
            etag: meta.etag.clone(),
            modified_ms: meta.modified_ms,
            sums: meta.sums.clone(),
            upload_id: meta.upload_id.clone(),
        }
    }
}

/// Uploads are listed by key, then by id.
pub(crate) type Uploads = BTreeMap<(String, String), Arc<Upload>>;

#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    /// Milliseconds since 1970.
    pub(crate) created_ms: u64,
    objects: RwLock<BTreeMap<String, Arc<Entry>>>,
    uploads: Mutex<Uploads>,
    /// Whether the bucket is deleted; read-held during any change on disk.
    deleted: RwLock<bool>,
    stripes: Vec<Mutex<()>>,
}

const STRIPES: usize = 64;

impl Bucket {
    pub(crate) fn new(
        name: String,
        created_ms: u64,
        objects: BTreeMap<String, Arc<Entry>>,
        uploads: Uploads,
    ) -> Self {
        Self {
            name,
            created_ms,
            objects: RwLock::new(objects),
            uploads: Mutex::new(uploads),
            deleted: RwLock::new(false),
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
        }
    }

    /// To be held while anything in the bucket's folder changes.
    pub(crate) fn changing(&self) -> S3Result<RwLockReadGuard<'_, bool>> {
        let guard = read(&self.deleted);
        if *guard {
            return Err(s3_error!(NoSuchBucket));
        }
        Ok(guard)
    }

    /// Excludes every change; the value says whether the bucket is deleted.
    pub(crate) fn deleting(&self) -> RwLockWriteGuard<'_, bool> {
        write(&self.deleted)
    }

    /// Orders changes of one key (`name` is its file name).
    pub(crate) fn key_lock(&self, name: &str) -> Option<MutexGuard<'_, ()>> {
        let sum = name.bytes().take(8).fold(0usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(byte.into())
        });
        self.stripes.get(sum % STRIPES).map(lock)
    }

    pub(crate) fn objects(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<Entry>>> {
        read(&self.objects)
    }

    pub(crate) fn objects_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Arc<Entry>>> {
        write(&self.objects)
    }

    pub(crate) fn uploads(&self) -> MutexGuard<'_, Uploads> {
        lock(&self.uploads)
    }
}

// A panic while a lock is held cannot leave these maps half-changed (single inserts and removals), so that a
// poisoned lock is used on.

pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
