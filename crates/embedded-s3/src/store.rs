//! The store: buckets in memory, objects on disk, and the commit that makes an object visible.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Error, S3Result, s3_error};
use tempfile::NamedTempFile;

use crate::Error;
use crate::bucket::{Bucket, Entry, Uploads, read, write};
use crate::layout::{FORMAT, Layout, ensure_dir, file_name, move_into_place, sync_dir};
use crate::record::{self, Meta};
use crate::upload::Upload;

/// How long a start waits for a store that is just closing (its last writes may still run).
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) layout: Layout,
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
    /// Locked as long as the store lives.
    _lock: File,
}

/// If-Match and If-None-Match of a write; checked under the lock of the key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
}

impl Condition {
    pub(crate) fn check(&self, bucket: &Bucket, key: &str) -> S3Result<()> {
        let etag = bucket.objects().get(key).map(|entry| entry.etag.clone());
        let matches = |condition: &ETagCondition| match (condition.as_etag(), &etag) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(wanted), Some(etag)) => wanted.value() == etag,
        };
        if self.if_match.as_ref().is_some_and(|c| !matches(c))
            || self.if_none_match.as_ref().is_some_and(matches)
        {
            return Err(s3_error!(PreconditionFailed));
        }
        Ok(())
    }
}

impl Store {
    /// Opens or makes the folder, clears what a killed run left and loads the index; blocking.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(Error::io(root))?;
        let layout = Layout {
            root: root.to_owned(),
        };
        let lock = take_lock(root)?;
        check_format(root)?;
        match fs::remove_dir_all(layout.tmp()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(layout.tmp())(e));
            }
            _ => {}
        }
        for dir in [layout.tmp(), layout.buckets()] {
            ensure_dir(&dir).map_err(Error::io(dir))?;
        }
        let mut buckets = BTreeMap::new();
        for entry in fs::read_dir(layout.buckets()).map_err(Error::io(layout.buckets()))? {
            let entry = entry.map_err(Error::io(layout.buckets()))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let bucket = load_bucket(&layout, &name).map_err(Error::io(entry.path()))?;
            buckets.insert(name, Arc::new(bucket));
        }
        Ok(Self {
            layout,
            buckets: RwLock::new(buckets),
            _lock: lock,
        })
    }

    pub(crate) fn bucket(&self, name: &str) -> S3Result<Arc<Bucket>> {
        read(&self.buckets)
            .get(name)
            .cloned()
            .ok_or_else(|| s3_error!(NoSuchBucket, "the bucket {name} does not exist"))
    }

    /// All buckets by name.
    pub(crate) fn buckets(&self) -> Vec<Arc<Bucket>> {
        read(&self.buckets).values().cloned().collect()
    }

    /// Makes a bucket; says whether it was new. Blocking.
    pub(crate) fn create_bucket(&self, name: &str) -> io::Result<bool> {
        let mut buckets = write(&self.buckets);
        if buckets.contains_key(name) {
            return Ok(false);
        }
        let dir = tempfile::TempDir::new_in(self.layout.tmp())?;
        fs::create_dir(dir.path().join("objects"))?;
        fs::create_dir(dir.path().join("uploads"))?;
        sync_dir(dir.path())?;
        fs::rename(dir.path(), self.layout.bucket(name))?;
        let _moved = dir.keep();
        sync_dir(&self.layout.buckets())?;
        let bucket = Bucket::new(name.to_owned(), now_ms(), BTreeMap::new(), Uploads::new());
        buckets.insert(name.to_owned(), Arc::new(bucket));
        Ok(true)
    }

    /// Removes an empty bucket (its unfinished uploads go with it); blocking.
    pub(crate) fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let mut buckets = write(&self.buckets);
        let Some(bucket) = buckets.get(name) else {
            return Err(s3_error!(NoSuchBucket));
        };
        let mut deleted = bucket.deleting();
        if !bucket.objects().is_empty() {
            return Err(s3_error!(BucketNotEmpty));
        }
        self.layout
            .discard_dir(&self.layout.bucket(name))
            .map_err(internal)?;
        *deleted = true;
        drop(deleted);
        buckets.remove(name);
        Ok(())
    }

    /// Makes a written file the object `meta` describes: synced, then one rename; blocking.
    pub(crate) fn commit(
        &self,
        bucket: &Bucket,
        mut file: NamedTempFile,
        meta: &Meta,
        condition: &Condition,
    ) -> S3Result<()> {
        record::seal(file.as_file_mut(), meta).map_err(internal)?;
        let _changing = bucket.changing()?;
        self.place(bucket, file, meta, condition)
    }

    /// The rename of a sealed file; the caller holds `changing`.
    pub(crate) fn place(
        &self,
        bucket: &Bucket,
        file: NamedTempFile,
        meta: &Meta,
        condition: &Condition,
    ) -> S3Result<()> {
        let name = file_name(&meta.key);
        let _key = bucket.key_lock(&name);
        condition.check(bucket, &meta.key)?;
        move_into_place(file, &self.layout.object(&bucket.name, &name)).map_err(internal)?;
        bucket
            .objects_mut()
            .insert(meta.key.clone(), Arc::new(Entry::from(meta)));
        Ok(())
    }

    /// Opens an object; its data is bytes `0..size` of the file. Blocking.
    pub(crate) fn open_object(&self, bucket: &Bucket, key: &str) -> S3Result<(File, Meta)> {
        let path = self.layout.object(&bucket.name, &file_name(key));
        match record::open(&path) {
            Ok((_, meta)) if meta.key != key => Err(s3_error!(
                InternalError,
                "the file of this key holds another"
            )),
            Ok(found) => Ok(found),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(s3_error!(NoSuchKey, "the specified key does not exist"))
            }
            Err(e) => Err(internal(e)),
        }
    }

    /// Removes an object if it is there; blocking.
    pub(crate) fn delete_object(&self, bucket: &Bucket, key: &str) -> S3Result<()> {
        let name = file_name(key);
        let path = self.layout.object(&bucket.name, &name);
        let _changing = bucket.changing()?;
        let _key = bucket.key_lock(&name);
        match fs::remove_file(&path) {
            Ok(()) => {
                if let Some(shard) = path.parent() {
                    sync_dir(shard).map_err(internal)?;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(internal(e)),
        }
        bucket.objects_mut().remove(key);
        Ok(())
    }
}

fn take_lock(root: &Path) -> Result<File, Error> {
    let path = root.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::io(&path))?;
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(fs::TryLockError::WouldBlock) => return Err(Error::InUse(root.to_owned())),
            Err(fs::TryLockError::Error(e)) => return Err(Error::io(&path)(e)),
        }
    }
}

/// Refuses folders of other programs, so that start-up cleaning can never delete foreign files.
fn check_format(root: &Path) -> Result<(), Error> {
    let path = root.join("format");
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == FORMAT => Ok(()),
        Ok(found) => Err(Error::Format {
            path: root.to_owned(),
            found,
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut entries = fs::read_dir(root).map_err(Error::io(root))?;
            if entries.any(|e| e.is_ok_and(|e| e.file_name() != "lock")) {
                return Err(Error::Format {
                    path: root.to_owned(),
                    found: String::new(),
                });
            }
            let mut file = NamedTempFile::new_in(root).map_err(Error::io(root))?;
            io::Write::write_all(&mut file, FORMAT.as_bytes()).map_err(Error::io(&path))?;
            file.as_file().sync_all().map_err(Error::io(&path))?;
            move_into_place(file, &path).map_err(Error::io(&path))
        }
        Err(e) => Err(Error::io(&path)(e)),
    }
}

fn load_bucket(layout: &Layout, name: &str) -> io::Result<Bucket> {
    let created = fs::metadata(layout.bucket(name))?;
    let created = created.created().or_else(|_| created.modified())?;
    for dir in [layout.objects(name), layout.uploads(name)] {
        ensure_dir(&dir)?;
    }
    let mut objects = BTreeMap::new();
    for shard in fs::read_dir(layout.objects(name))? {
        for entry in fs::read_dir(shard?.path())? {
            let path = entry?.path();
            match record::open(&path) {
                Ok((_, meta)) if path == layout.object(name, &file_name(&meta.key)) => {
                    objects.insert(meta.key.clone(), Arc::new(Entry::from(&meta)));
                }
                Ok(_) => {
                    tracing::warn!(path = %path.display(), "not where its key belongs: left out")
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "left out"),
            }
        }
    }
    let uploads = load_uploads(layout, name, &objects)?;
    Ok(Bucket::new(
        name.to_owned(),
        millis(created),
        objects,
        uploads,
    ))
}

fn load_uploads(
    layout: &Layout,
    bucket: &str,
    objects: &BTreeMap<String, Arc<Entry>>,
) -> io::Result<Uploads> {
    let mut uploads = Uploads::new();
    for entry in fs::read_dir(layout.uploads(bucket))? {
        let path = entry?.path();
        match Upload::load(&path) {
            Ok(upload) => {
                let (key, id) = (upload.intent.key.clone(), upload.intent.id.clone());
                let made = objects.get(&key).and_then(|o| o.upload_id.as_ref());
                if made == Some(&id) {
                    layout.discard_dir(&path)?;
                } else {
                    uploads.insert((key, id), Arc::new(upload));
                }
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "an unusable upload is removed");
                if path.is_dir() {
                    layout.discard_dir(&path)?;
                } else {
                    fs::remove_file(&path)?;
                }
            }
        }
    }
    Ok(uploads)
}

/// An error that is ours, not the client's.
pub(crate) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> S3Error {
    let text = error.to_string();
    s3_error!(error, InternalError, "{text}")
}

pub(crate) fn now_ms() -> u64 {
    millis(SystemTime::now())
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn timestamp(ms: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(ms))
}
