//! Listing objects and unfinished uploads, all pages of them.

use std::time::Duration;

use aws_sdk_s3::primitives::DateTime as SdkTime;
use chrono::{DateTime, Utc};

use super::error::failed;
use super::{Store, StoreError, StoreErrorKind};

/// One listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Full key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Entity tag as the store gives it.
    pub etag: String,
    /// When it was written; the epoch where the store does not say.
    pub last_modified: DateTime<Utc>,
}

/// An unfinished multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleUpload {
    /// The key it was for.
    pub key: String,
    /// What [`Store::abort_upload`] takes.
    pub upload_id: String,
    /// When it began.
    pub initiated: DateTime<Utc>,
}

impl Store {
    /// Every object whose full key begins with `prefix`, in the store's order. All pages or an error:
    /// part of a list is never returned.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        let action = || format!("list {prefix}");
        let mut entries = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.config.bucket)
                .prefix(prefix)
                .set_continuation_token(token.take())
                .send()
                .await
                .map_err(|e| failed(action(), e))?;
            entries.extend(page.contents().iter().filter_map(|object| {
                Some(ObjectEntry {
                    key: object.key()?.to_owned(),
                    size: object.size().and_then(|n| n.try_into().ok()).unwrap_or(0),
                    etag: object.e_tag().unwrap_or_default().to_owned(),
                    last_modified: time(object.last_modified()),
                })
            }));
            if !page.is_truncated().unwrap_or(false) {
                return Ok(entries);
            }
            token = page.next_continuation_token().map(str::to_owned);
            if token.is_none() {
                return Err(endless(action()));
            }
        }
    }

    /// Multipart uploads under `prefix` that began more than `older_than` ago and were neither
    /// completed nor aborted.
    pub async fn list_stale_uploads(
        &self,
        prefix: &str,
        older_than: Duration,
    ) -> Result<Vec<StaleUpload>, StoreError> {
        let action = || format!("list uploads of {prefix}");
        let limit = Utc::now() - chrono::Duration::from_std(older_than).unwrap_or_default();
        let mut uploads = Vec::new();
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(&self.config.bucket)
                .prefix(prefix)
                .set_key_marker(key_marker.take())
                .set_upload_id_marker(id_marker.take())
                .send()
                .await
                .map_err(|e| failed(action(), e))?;
            let found = page.uploads().iter().filter_map(|upload| {
                Some(StaleUpload {
                    key: upload.key()?.to_owned(),
                    upload_id: upload.upload_id()?.to_owned(),
                    initiated: time(upload.initiated()),
                })
            });
            // Not every server honours the prefix here.
            uploads.extend(found.filter(|u| u.key.starts_with(prefix) && u.initiated <= limit));
            if !page.is_truncated().unwrap_or(false) {
                return Ok(uploads);
            }
            key_marker = page.next_key_marker().map(str::to_owned);
            id_marker = page.next_upload_id_marker().map(str::to_owned);
            if key_marker.is_none() {
                return Err(endless(action()));
            }
        }
    }

    /// Aborts an upload and frees its parts. One that no longer exists counts as aborted.
    pub async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<(), StoreError> {
        let result = self
            .client
            .abort_multipart_upload()
            .bucket(&self.config.bucket)
            .key(key)
            .upload_id(upload_id)
            .send()
            .await;
        match result {
            Ok(_) => Ok(()),
            Err(e) => {
                let error = failed(format!("abort upload of {key}"), e);
                match error.code() {
                    Some("NoSuchUpload") => Ok(()),
                    _ => Err(error),
                }
            }
        }
    }
}

fn time(time: Option<&SdkTime>) -> DateTime<Utc> {
    time.and_then(|t| DateTime::from_timestamp(t.secs(), t.subsec_nanos()))
        .unwrap_or_default()
}

fn endless(action: String) -> StoreError {
    StoreError::new(
        StoreErrorKind::Other,
        action,
        "the store says there is more but not where",
    )
}
