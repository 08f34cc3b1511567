//! Where things lie on disk, and the two primitives of durability: sync a folder, move into place.
//!
//! ```text
//! root/format                          what wrote this folder
//! root/lock                            held while a store runs
//! root/tmp/                            everything unfinished; emptied at start
//! root/buckets/<bucket>/objects/<hh>/<sha256 of the key>
//! root/buckets/<bucket>/uploads/<upload id>/upload.json, 00001, 00002, ...
//! ```
//!
//! A key never reaches a path: a file is named by the key's SHA-256 and carries the key inside.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

pub(crate) const FORMAT: &str = "windlass-embedded-s3 1";
pub(crate) const UPLOAD_FILE: &str = "upload.json";

#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
}

impl Layout {
    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn buckets(&self) -> PathBuf {
        self.root.join("buckets")
    }

    pub(crate) fn bucket(&self, bucket: &str) -> PathBuf {
        self.buckets().join(bucket)
    }

    pub(crate) fn objects(&self, bucket: &str) -> PathBuf {
        self.bucket(bucket).join("objects")
    }

    pub(crate) fn object(&self, bucket: &str, name: &str) -> PathBuf {
        self.objects(bucket)
            .join(name.get(..2).unwrap_or("00"))
            .join(name)
    }

    pub(crate) fn uploads(&self, bucket: &str) -> PathBuf {
        self.bucket(bucket).join("uploads")
    }

    pub(crate) fn upload(&self, bucket: &str, id: &str) -> PathBuf {
        self.uploads(bucket).join(id)
    }

    pub(crate) fn part(&self, bucket: &str, id: &str, number: u16) -> PathBuf {
        self.upload(bucket, id).join(format!("{number:05}"))
    }

    /// A file under `tmp/`, gone again unless it is moved into place.
    pub(crate) fn temp_file(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.tmp())
    }

    /// Takes a folder out of sight in one step; what is left to delete then lies under `tmp/`.
    pub(crate) fn discard_dir(&self, path: &Path) -> io::Result<()> {
        let grave = self
            .tmp()
            .join(format!("gone-{}", uuid::Uuid::new_v4().simple()));
        fs::rename(path, &grave)?;
        if let Some(parent) = path.parent() {
            sync_dir(parent)?;
        }
        fs::remove_dir_all(&grave)
    }
}

/// The file name of a key.
pub(crate) fn file_name(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

/// Makes renames and removals in `path` survive a power cut.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Creates `path` if absent and makes that durable.
pub(crate) fn ensure_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => match path.parent() {
            Some(parent) => sync_dir(parent),
            None => Ok(()),
        },
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Moves an already synced file to `target`, replacing what is there, and syncs the folder.
pub(crate) fn move_into_place(file: NamedTempFile, target: &Path) -> io::Result<()> {
    let parent = target
        .parent()
        .ok_or_else(|| io::Error::other("a target without a folder"))?;
    match file.persist(target) {
        Ok(_) => {}
        Err(e) if e.error.kind() == io::ErrorKind::NotFound => {
            ensure_dir(parent)?;
            e.file.persist(target).map_err(|e| e.error)?;
        }
        Err(e) => return Err(e.error),
    }
    sync_dir(parent)
}
