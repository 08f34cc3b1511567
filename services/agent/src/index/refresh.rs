//! Listing the store, and the loop that does it while somebody wants all of it told.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::Utc;
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;
use windlass_archive::StoreError;
use windlass_archive::layout::{self, ParsedKey};
use windlass_archive::store::ObjectEntry;
use windlass_service::Backoff;

use super::contents::{Contents, Found, restore_info};
use super::markers::Marker;
use super::{ArchiveEntry, FIRST_LIST, Full, Index, Interest, Listing, archive_info};
use crate::error::Failure;

/// Markers read at once.
const PARALLEL: usize = 32;

impl Index {
    /// Lists the store until shutdown, while somebody wants all of it told: at once, every resync, and
    /// with backoff while the store is away.
    pub async fn keep_fresh(self, shutdown: CancellationToken) {
        let mut failures = 0;
        loop {
            let pause = if !self.is_wanted() {
                failures = 0;
                metrics::gauge!("windlass_agent_store_listed_timestamp_seconds").set(f64::NAN);
                self.inner.resync
            } else if failures > 0 {
                Backoff::WORK.after(failures).min(self.inner.resync)
            } else {
                self.until_due()
            };
            if !pause.is_zero() {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.inner.wanted.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
                let due = failures > 0 || self.until_due().is_zero();
                if !(due && self.is_wanted()) {
                    continue;
                }
            }
            let listed = tokio::select! {
                () = shutdown.cancelled() => return,
                listed = self.list_now() => listed,
            };
            match listed {
                Ok(()) => failures = 0,
                Err(failure) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!("the archive store cannot be listed: {failure}");
                    }
                }
            }
        }
    }

    /// Lists the store now. Calls that come while a list is waiting for its turn share it.
    ///
    /// # Errors
    /// When any part of it failed: the index is as before then.
    pub async fn refresh(&self) -> Result<Listing, Failure> {
        self.list_now().await?;
        self.with_full(|full| full.listing(""))
    }

    /// Lists the objects whose full key begins with `prefix`.
    ///
    /// # Errors
    /// When any part of it failed.
    pub async fn list_under(&self, prefix: &str) -> Result<Listing, Failure> {
        let began = Instant::now();
        metrics::counter!("windlass_agent_store_lists_total", "scope" => "prefix").increment(1);
        let (mut found, _) = self.list(prefix).await?;
        // What this agent did meanwhile the list may not have seen.
        for (key, entry) in self.lock().own.after(began) {
            match **entry {
                ArchiveEntry::Gone => found.entries.remove(key),
                ArchiveEntry::Archive(_) | ArchiveEntry::Restore(_) => {
                    found.entries.insert(key.clone(), entry.clone())
                }
            };
        }
        Ok(found.into_listing(Utc::now()))
    }

    /// Somebody wants all of it; waits for the first list.
    pub(super) async fn want_all(&self, wait: Duration) {
        let mut ended = self.inner.ended.subscribe();
        let now = Instant::now();
        let wait = {
            let mut state = self.lock();
            let since = match state.interest.filter(|i| self.is_alive(*i)) {
                Some(interest) => interest.since,
                None => {
                    state.error = None;
                    self.inner.wanted.notify_one();
                    now
                }
            };
            state.interest = Some(Interest { since, last: now });
            let full = state.full.as_ref();
            if state.error.is_some() || full.is_some_and(|f| f.at.elapsed() <= self.too_old()) {
                return;
            }
            // A store that hangs makes the first questions wait, not all of them.
            wait.min((since + FIRST_LIST).saturating_duration_since(now))
        };
        // What it came to is told by the state.
        let _ = tokio::time::timeout(wait, ended.changed()).await;
    }

    /// Whether somebody still wants all of it; forgets what nobody asks for.
    fn is_wanted(&self) -> bool {
        let mut state = self.lock();
        if state
            .full
            .as_ref()
            .is_some_and(|full| full.at.elapsed() > self.too_old())
            && state.interest.is_none()
        {
            state.full = None;
        }
        match state.interest {
            Some(interest) if self.is_alive(interest) => true,
            Some(_) => {
                state.interest = None;
                state.error = None;
                false
            }
            None => false,
        }
    }

    fn until_due(&self) -> Duration {
        let state = self.lock();
        let age = state.full.as_ref().map(|full| full.at.elapsed());
        age.map_or(Duration::ZERO, |age| self.inner.resync.saturating_sub(age))
    }

    /// In a task of its own: a caller that hangs up leaves no list half-done.
    async fn list_now(&self) -> Result<(), Failure> {
        let index = self.clone();
        match tokio::spawn(async move { index.list_in_turn().await }).await {
            Ok(listed) => listed,
            Err(_) => Err(Failure::action("internal error: the list was given up")),
        }
    }

    async fn list_in_turn(&self) -> Result<(), Failure> {
        let inner = &self.inner;
        let seen = inner.begun.load(Ordering::SeqCst);
        let _turn = inner.listing.lock().await;
        // A list that began after this call is as good as our own; one that failed is not.
        if inner.begun.load(Ordering::SeqCst) > seen {
            let state = self.lock();
            if state.full.is_some() && state.error.is_none() {
                return Ok(());
            }
        }
        inner.begun.fetch_add(1, Ordering::SeqCst);
        metrics::counter!("windlass_agent_store_lists_total", "scope" => "all").increment(1);
        self.lock().changes = Some(Vec::new());
        let began = Instant::now();
        let listed = self.list(inner.store.prefix()).await;
        let result = {
            let mut state = self.lock();
            let changes = state.changes.take().unwrap_or_default();
            match listed {
                Ok((found, keys)) => {
                    let listed: HashSet<&str> = keys.iter().map(String::as_str).collect();
                    inner.markers.forget_all_but(&listed);
                    let before = state.full.take();
                    let mut contents = before.map_or_else(Contents::new, |full| full.contents);
                    contents.listed(found, changes);
                    metrics::gauge!("windlass_agent_archives").set(contents.archives() as f64);
                    let listed_at = Utc::now();
                    metrics::gauge!("windlass_agent_store_listed_timestamp_seconds")
                        .set(listed_at.timestamp_millis() as f64 / 1000.0);
                    metrics::histogram!("windlass_agent_store_list_seconds")
                        .record(began.elapsed().as_secs_f64());
                    state.error = None;
                    state.full = Some(Full {
                        contents,
                        list_time: listed_at,
                        at: Instant::now(),
                    });
                    Ok(())
                }
                Err(error) => {
                    state.error = Some(error.to_string());
                    Err(Failure::from(error))
                }
            }
        };
        inner.ended.send_modify(|ended| *ended += 1);
        result
    }

    /// What is under a prefix, and the keys of all its objects.
    async fn list(&self, prefix: &str) -> Result<(Found, Vec<String>), StoreError> {
        let store = &self.inner.store;
        let entries = store.list(prefix).await?;
        let mut objects: HashMap<String, ObjectEntry> = HashMap::with_capacity(entries.len());
        let mut markers = Vec::new();
        for entry in entries {
            match layout::parse_key(store.prefix(), &entry.key) {
                Some(ParsedKey::Marker { .. } | ParsedKey::RestoreMarker { .. }) => {
                    markers.push((entry.key.clone(), entry.etag.clone()));
                }
                Some(ParsedKey::Data { .. } | ParsedKey::Other { .. }) => {}
                None => continue,
            }
            objects.insert(entry.key.clone(), entry);
        }
        let keys = objects.keys().cloned().collect();
        let bodies: Vec<(String, Option<Marker>)> = stream::iter(markers)
            .map(|(key, etag)| async move {
                let marker = self.inner.markers.read(store, &key, &etag).await?;
                Ok::<_, StoreError>((key, marker))
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;

        let mut found = Found::default();
        for (key, marker) in bodies {
            let Some(marker) = marker else {
                // Deleted since it was listed.
                objects.remove(&key);
                continue;
            };
            match marker {
                Marker::Archive(marker) => {
                    let data = key.strip_suffix(layout::MARKER_SUFFIX).unwrap_or(&key);
                    let complete = objects.get(data).is_some_and(|o| o.size == marker.size);
                    if complete {
                        objects.remove(data);
                        objects.remove(&key);
                        let info = archive_info(data.to_owned(), &marker);
                        found.add(ArchiveEntry::Archive(info));
                    }
                }
                Marker::Restore(marker) => {
                    if let Some(ParsedKey::RestoreMarker { workspace_id, .. }) =
                        layout::parse_key(store.prefix(), &key)
                    {
                        objects.remove(&key);
                        let info = restore_info(key, workspace_id, &marker);
                        found.add(ArchiveEntry::Restore(info));
                    }
                }
                Marker::Unreadable => {}
            }
        }
        found.loose = objects.into_iter().collect();
        Ok((found, keys))
    }
}
