//! The host, its engine and the store, as this agent sees them; and whether it can work.
//!
//! The store being away does not make the agent unready: containers go on without it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use windlass_archive::Store;
use windlass_proto::{convert, v1};
use windlass_service::Readiness;

use crate::docker::Engine;
use crate::epochs::Epochs;
use crate::index::Index;
use crate::jobs::Jobs;

const ENGINE_CHECK: &str = "engine";
const STORE_CHECK: &str = "archive-store";
/// How often the engine is asked whether it is there.
const ENGINE_PERIOD: Duration = Duration::from_secs(5);
/// Every so many of these the store is asked, too: seldom while it is there, since each agent's question is
/// a request that costs, and nothing but the readiness report depends on it.
const STORE_EVERY: u32 = 12;
/// The same while it is away.
const STORE_AWAY_EVERY: u32 = 3;

/// What the host's description is made of; cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    /// The engine.
    pub engine: Engine,
    /// The store.
    pub store: Store,
    /// What it holds.
    pub index: Index,
    /// The jobs.
    pub jobs: Jobs,
    /// Epochs seen.
    pub epochs: Arc<Epochs>,
    /// Why the store could not be reached when last asked.
    pub store_error: Arc<Mutex<Option<String>>>,
}

impl Host {
    /// GetHost.
    pub async fn describe(&self) -> v1::GetHostResponse {
        let (info, engine_error) = match self.engine.info().await {
            Ok(info) => (Some(info), String::new()),
            Err(error) => (None, error.to_string()),
        };
        let root = info.as_ref().and_then(|info| info.root.clone());
        let free = root.and_then(|root| free_bytes(&Path::new(&root).join("volumes")));
        let store_error = self.last_store_error().or_else(|| self.index.error());
        let (wc_epoch, gc_epoch) = self.epochs.highest();
        v1::GetHostResponse {
            engine_version: info.as_ref().map(|i| i.version.clone()).unwrap_or_default(),
            engine_error,
            cpus: info.as_ref().map_or(0, |i| i.cpus),
            memory_bytes: info.as_ref().map_or(0, |i| i.memory_bytes),
            volumes_free_bytes: free.unwrap_or(0),
            store_error: store_error.unwrap_or_default(),
            store_list_time: self.index.list_time().map(convert::timestamp),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            wc_epoch,
            gc_epoch,
            active_jobs: u32::try_from(self.jobs.active()).unwrap_or(u32::MAX),
        }
    }

    /// Tells `readiness` how engine and store are, until shutdown.
    pub async fn keep_checking(self, readiness: Readiness, shutdown: CancellationToken) {
        let mut until_store = 0_u32;
        loop {
            let check = async {
                match self.engine.ping().await {
                    Ok(()) => readiness.set(ENGINE_CHECK, true, "reachable"),
                    Err(error) => readiness.set(ENGINE_CHECK, false, error.to_string()),
                }
                if until_store == 0 {
                    self.check_store(&readiness).await;
                    let away = self.last_store_error().is_some();
                    until_store = if away { STORE_AWAY_EVERY } else { STORE_EVERY };
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = check => {}
            }
            until_store = until_store.saturating_sub(1);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(ENGINE_PERIOD) => {}
            }
        }
    }

    async fn check_store(&self, readiness: &Readiness) {
        let error = self.store.probe().await.err().map(|e| e.to_string());
        let reason = match &error {
            None => "reachable".to_owned(),
            Some(why) => format!("away, so that archives and restores wait: {why}"),
        };
        readiness.set(STORE_CHECK, true, reason);
        metrics::gauge!("windlass_agent_store_reachable").set(if error.is_none() {
            1.0
        } else {
            0.0
        });
        *self
            .store_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn last_store_error(&self) -> Option<String> {
        self.store_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}
