//! A multipart upload in progress, and how its parts become one object.
//!
//! Invariant: the parts stay until the completed object is in place and synced. A kill between the two
//! leaves an upload whose id the object carries; the next start removes it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use s3s::{S3Result, s3_error};
use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, lock, read, write};
use crate::digest::{Algorithm, Expected, Hasher, Sums, composite};
use crate::ingest::Staged;
use crate::layout::{UPLOAD_FILE, move_into_place, sync_dir};
use crate::record::{self, Attributes, Meta};
use crate::store::{Condition, Store, internal, now_ms};

/// Parts but the last are at least this long, as S3 demands.
const MIN_PART: u64 = 5 * 1024 * 1024;
const COPY_BUFFER: usize = 1 << 20;

/// What an upload was created with; `upload.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) initiated_ms: u64,
    #[serde(default)]
    pub(crate) attributes: Attributes,
    /// The checksum the finished object shall have.
    #[serde(default)]
    pub(crate) algorithm: Option<Algorithm>,
    /// Over the whole object instead of over its parts' checksums.
    #[serde(default)]
    pub(crate) full_object: bool,
}

#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) intent: Intent,
    parts: Mutex<BTreeMap<u16, Meta>>,
    /// Completed or aborted; read-held while a part is put into place.
    finished: RwLock<bool>,
}

/// A part as the completing client names it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) number: u16,
    pub(crate) etag: Option<String>,
    pub(crate) sums: Sums,
}

impl Upload {
    fn new(intent: Intent, parts: BTreeMap<u16, Meta>) -> Self {
        Self {
            intent,
            parts: Mutex::new(parts),
            finished: RwLock::new(false),
        }
    }

    /// Reads an upload's folder back.
    pub(crate) fn load(dir: &Path) -> io::Result<Self> {
        let intent: Intent = serde_json::from_slice(&fs::read(dir.join(UPLOAD_FILE))?)?;
        if dir.file_name().and_then(|n| n.to_str()) != Some(&intent.id) {
            return Err(io::Error::other("folder and upload id differ"));
        }
        let mut parts = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let (_, meta) = record::open(&entry.path())?;
            parts.insert(number, meta);
        }
        Ok(Self::new(intent, parts))
    }

    /// The parts uploaded so far, by number.
    pub(crate) fn parts(&self) -> BTreeMap<u16, Meta> {
        lock(&self.parts).clone()
    }

    /// The parts asked for, in order, if they are what was uploaded.
    fn select(&self, wanted: &[Wanted]) -> S3Result<Vec<(u16, Meta)>> {
        if wanted.is_empty() {
            return Err(s3_error!(
                InvalidRequest,
                "at least one part must be specified"
            ));
        }
        if !wanted.is_sorted_by(|a, b| a.number < b.number) {
            return Err(s3_error!(InvalidPartOrder));
        }
        let parts = lock(&self.parts);
        let mut selected = Vec::with_capacity(wanted.len());
        for want in wanted {
            let Some(meta) = parts.get(&want.number) else {
                return Err(s3_error!(InvalidPart, "part {} is missing", want.number));
            };
            if want.etag.as_ref().is_some_and(|etag| *etag != meta.etag) {
                return Err(s3_error!(
                    InvalidPart,
                    "part {} has another ETag",
                    want.number
                ));
            }
            meta.sums.must_match(&want.sums)?;
            selected.push((want.number, meta.clone()));
        }
        if let Some((_, but_last)) = selected.split_last()
            && but_last.iter().any(|(_, meta)| meta.size < MIN_PART)
        {
            return Err(s3_error!(EntityTooSmall));
        }
        Ok(selected)
    }
}

impl Store {
    /// Begins an upload; blocking.
    pub(crate) fn create_upload(&self, bucket: &Bucket, intent: Intent) -> S3Result<Arc<Upload>> {
        let _changing = bucket.changing()?;
        let dir = tempfile::TempDir::new_in(self.layout.tmp()).map_err(internal)?;
        let json = serde_json::to_vec(&intent).map_err(internal)?;
        let file = dir.path().join(UPLOAD_FILE);
        fs::write(&file, json).map_err(internal)?;
        fs::File::open(&file)
            .and_then(|f| f.sync_all())
            .map_err(internal)?;
        sync_dir(dir.path()).map_err(internal)?;
        let target = self.layout.upload(&bucket.name, &intent.id);
        fs::rename(dir.path(), target).map_err(internal)?;
        let _moved = dir.keep();
        sync_dir(&self.layout.uploads(&bucket.name)).map_err(internal)?;
        let upload = Arc::new(Upload::new(intent, BTreeMap::new()));
        let id = (upload.intent.key.clone(), upload.intent.id.clone());
        bucket.uploads().insert(id, upload.clone());
        Ok(upload)
    }

    pub(crate) fn upload(&self, bucket: &Bucket, key: &str, id: &str) -> S3Result<Arc<Upload>> {
        bucket
            .uploads()
            .get(&(key.to_owned(), id.to_owned()))
            .cloned()
            .ok_or_else(|| s3_error!(NoSuchUpload))
    }

    /// Puts a verified part into place; blocking.
    pub(crate) fn put_part(
        &self,
        bucket: &Bucket,
        upload: &Upload,
        number: u16,
        mut staged: Staged,
    ) -> S3Result<Meta> {
        let meta = Meta {
            key: upload.intent.key.clone(),
            size: staged.size,
            etag: hex::encode(staged.found.md5),
            modified_ms: now_ms(),
            sums: staged.found.sums,
            ..Meta::default()
        };
        record::seal(staged.file.as_file_mut(), &meta).map_err(internal)?;
        let _changing = bucket.changing()?;
        let finished = read(&upload.finished);
        if *finished {
            return Err(s3_error!(NoSuchUpload));
        }
        let mut parts = lock(&upload.parts);
        let target = self.layout.part(&bucket.name, &upload.intent.id, number);
        move_into_place(staged.file, &target).map_err(internal)?;
        parts.insert(number, meta.clone());
        Ok(meta)
    }

    /// Drops an upload and its parts; blocking.
    pub(crate) fn abort_upload(&self, bucket: &Bucket, upload: &Upload) -> S3Result<()> {
        let _changing = bucket.changing()?;
        let mut finished = write(&upload.finished);
        if *finished {
            return Err(s3_error!(NoSuchUpload));
        }
        self.drop_upload(bucket, upload).map_err(internal)?;
        *finished = true;
        Ok(())
    }

    fn drop_upload(&self, bucket: &Bucket, upload: &Upload) -> io::Result<()> {
        let dir = self.layout.upload(&bucket.name, &upload.intent.id);
        self.layout.discard_dir(&dir)?;
        let id = (upload.intent.key.clone(), upload.intent.id.clone());
        bucket.uploads().remove(&id);
        Ok(())
    }

    /// Makes the object of the parts asked for, then drops the upload; blocking, as long as copying takes.
    pub(crate) fn complete_upload(
        &self,
        bucket: &Bucket,
        upload: &Upload,
        wanted: &[Wanted],
        expected: Expected,
        condition: &Condition,
    ) -> S3Result<Meta> {
        // In the order of every other change. Taken after `finished`, a deletion of the bucket that waits
        // between the two holds both up for ever.
        let _changing = bucket.changing()?;
        let mut finished = write(&upload.finished);
        if *finished {
            return Err(s3_error!(NoSuchUpload));
        }
        let parts = upload.select(wanted)?;
        condition.check(bucket, &upload.intent.key)?;
        let mut file = self.layout.temp_file().map_err(internal)?;
        let copied = self
            .concatenate(bucket, upload, &parts, file.as_file_mut())
            .map_err(internal)?;
        let size = parts.iter().map(|(_, meta)| meta.size).sum();
        if copied.size != size {
            return Err(s3_error!(InternalError, "a part has changed its length"));
        }
        let sums = object_sums(&upload.intent, &parts, copied.sums);
        sums.must_match(&expected.sums)?;
        if expected.size.is_some_and(|wanted| wanted != size) {
            return Err(s3_error!(
                InvalidRequest,
                "the object does not have the size given in x-amz-mp-object-size"
            ));
        }
        let mut md5 = Hasher::new([]);
        for (_, meta) in &parts {
            md5.update(&hex::decode(&meta.etag).map_err(internal)?);
        }
        let meta = Meta {
            key: upload.intent.key.clone(),
            size,
            etag: format!("{}-{}", hex::encode(md5.finish().md5), parts.len()),
            modified_ms: now_ms(),
            attributes: upload.intent.attributes.clone(),
            sums,
            upload_id: Some(upload.intent.id.clone()),
        };
        record::seal(file.as_file_mut(), &meta).map_err(internal)?;
        self.place(bucket, file, &meta, condition)?;
        *finished = true;
        if let Err(error) = self.drop_upload(bucket, upload) {
            // The object stands; the next start removes what is left.
            tracing::warn!(%error, "parts of a completed upload could not be removed");
        }
        Ok(meta)
    }

    fn concatenate(
        &self,
        bucket: &Bucket,
        upload: &Upload,
        parts: &[(u16, Meta)],
        target: &mut fs::File,
    ) -> io::Result<Copied> {
        let mut hasher = upload
            .intent
            .algorithm
            .filter(|_| upload.intent.full_object)
            .map(|algorithm| Hasher::new([algorithm]));
        let mut size = 0;
        for (number, meta) in parts {
            let path = self.layout.part(&bucket.name, &upload.intent.id, *number);
            let (part, found) = record::open(&path)?;
            if found.etag != meta.etag {
                return Err(io::Error::other("a part has changed on disk"));
            }
            let mut part = part.take(found.size);
            match &mut hasher {
                // In the kernel, without the bytes passing through here.
                None => size += io::copy(&mut part, target)?,
                Some(hasher) => {
                    let mut buffer = vec![0; COPY_BUFFER];
                    loop {
                        let read = part.read(&mut buffer)?;
                        let Some(data) = buffer.get(..read).filter(|d| !d.is_empty()) else {
                            break;
                        };
                        hasher.update(data);
                        target.write_all(data)?;
                        size += read as u64;
                    }
                }
            }
        }
        Ok(Copied {
            size,
            sums: hasher.map(|h| h.finish().sums),
        })
    }
}

struct Copied {
    size: u64,
    sums: Option<Sums>,
}

/// The checksums of a completed object: over all of it, or over those of its parts.
fn object_sums(intent: &Intent, parts: &[(u16, Meta)], full: Option<Sums>) -> Sums {
    if let Some(full) = full {
        return full;
    }
    let mut sums = Sums::default();
    let of_parts: Vec<&Sums> = parts.iter().map(|(_, meta)| &meta.sums).collect();
    for algorithm in Algorithm::ALL {
        if intent.algorithm.is_none_or(|wanted| wanted == algorithm)
            && let Some(value) = composite(algorithm, &of_parts)
        {
            sums.set(algorithm, value);
            sums.composite = true;
        }
    }
    sums
}
