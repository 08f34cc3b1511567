//! Objects of the store, by exact key, for gc.
//!
//! Invariant: an archive's marker goes before its data, so that no moment shows a complete archive that
//! is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use windlass_archive::layout::{self, ParsedKey};

use super::Tools;
use crate::error::Failure;
use crate::failpoints::failpoint;
use crate::jobs::Jobs;

/// What is to be deleted.
#[derive(Debug)]
pub struct DeleteArchives {
    /// What it works with.
    pub tools: Arc<Tools>,
    /// To leave alone what is being worked on.
    pub jobs: Jobs,
    /// Exact keys, all under the prefix.
    pub keys: Vec<String>,
    /// Uploads that began longer ago than this are aborted.
    pub abort_uploads_older_than: Option<Duration>,
}

/// What was deleted.
#[derive(Debug, Default)]
pub struct Deleted {
    /// Keys that are gone.
    pub deleted: Vec<String>,
    /// Keys that are not, and why.
    pub failed: BTreeMap<String, String>,
    /// Uploads that were aborted.
    pub aborted_uploads: u32,
}

impl DeleteArchives {
    /// Does it.
    ///
    /// # Errors
    /// When stale uploads cannot be listed.
    pub async fn run(self) -> Result<Deleted, Failure> {
        let mut result = Deleted::default();
        let (mut markers, mut others) = (Vec::new(), Vec::new());
        for key in &self.keys {
            if self.is_busy(key) {
                let why = "a job of this workspace is running".to_owned();
                result.failed.insert(key.clone(), why);
                continue;
            }
            match self.parse(key) {
                Some(ParsedKey::Marker { .. }) => markers.push(key.clone()),
                Some(ParsedKey::Data { .. }) => {
                    markers.push(layout::marker_key(key));
                    others.push(key.clone());
                }
                _ => others.push(key.clone()),
            }
        }
        markers.sort_unstable();
        markers.dedup();
        failpoint!("agent::archives-before-markers");
        self.delete(&markers, &mut result).await;
        failpoint!("agent::archives-after-markers");
        others.retain(|key| match result.failed.get(&layout::marker_key(key)) {
            None => true,
            Some(why) => {
                let why = format!("its marker could not be deleted: {why}");
                result.failed.insert(key.clone(), why);
                false
            }
        });
        self.delete(&others, &mut result).await;
        failpoint!("agent::archives-after-data");
        // Markers that were not asked for by name are nobody's business.
        let asked: std::collections::HashSet<&String> = self.keys.iter().collect();
        result.deleted.retain(|key| asked.contains(key));
        result.failed.retain(|key, _| asked.contains(key));
        if let Some(age) = self.abort_uploads_older_than {
            result.aborted_uploads = self.abort_uploads(age).await?;
        }
        Ok(result)
    }

    async fn delete(&self, keys: &[String], result: &mut Deleted) {
        if keys.is_empty() {
            return;
        }
        for (key, deleted) in self.tools.store.delete(keys).await {
            match deleted {
                Ok(()) => {
                    self.tools.index.deleted(&key);
                    result.deleted.push(key);
                }
                Err(error) => {
                    result.failed.insert(key, error.to_string());
                }
            }
        }
    }

    async fn abort_uploads(&self, age: Duration) -> Result<u32, Failure> {
        let store = &self.tools.store;
        let mut aborted = 0;
        for upload in store.list_stale_uploads(store.prefix(), age).await? {
            if self.is_busy(&upload.key) {
                continue;
            }
            match store.abort_upload(&upload.key, &upload.upload_id).await {
                Ok(()) => aborted += 1,
                Err(error) => tracing::warn!(key = upload.key, "upload not aborted: {error}"),
            }
        }
        Ok(aborted)
    }

    fn parse(&self, key: &str) -> Option<ParsedKey> {
        layout::parse_key(self.tools.store.prefix(), key)
    }

    fn is_busy(&self, key: &str) -> bool {
        match self.parse(key) {
            Some(
                ParsedKey::Data { workspace_id, .. }
                | ParsedKey::Marker { workspace_id, .. }
                | ParsedKey::RestoreMarker { workspace_id, .. },
            ) => self.jobs.is_busy(workspace_id),
            Some(ParsedKey::Other { .. }) | None => false,
        }
    }
}
