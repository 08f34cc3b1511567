//! A caller that knows only what ListChanges told it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use windlass_proto::v1::{self, ArchiveScope, ChangesEnd};

use crate::harness::Client;

const PATIENCE: Duration = Duration::from_secs(30);

/// What it was told, by name and by key.
#[derive(Debug, Default)]
pub struct Follower {
    pub containers: BTreeMap<String, v1::Container>,
    pub volumes: BTreeMap<String, v1::Volume>,
    pub jobs: BTreeMap<String, Vec<v1::Job>>,
    pub archives: BTreeMap<String, v1::ArchiveInfo>,
    pub restores: BTreeMap<String, v1::RestoreInfo>,
    pub removed_archives: Vec<String>,
    pub scope: ArchiveScope,
    pub prove: bool,
    pub end: ChangesEnd,
    /// Answers that were the whole host, and the whole of the archives.
    pub wholes: (u32, u32),
    /// Entries in the last answer.
    pub entries: usize,
}

impl Follower {
    pub fn of(scope: ArchiveScope) -> Self {
        Self {
            scope,
            ..Self::default()
        }
    }

    pub async fn follow(&mut self, mut client: Client) -> &mut Self {
        let request = v1::ListChangesRequest {
            host_position: self.end.host_position.clone(),
            archive_position: self.end.archive_position.clone(),
            archive_scope: self.scope.into(),
            prove: self.prove,
        };
        let mut stream = client.list_changes(request).await.unwrap().into_inner();
        let (mut wholes, mut end) = ((false, false), None);
        self.entries = 0;
        while let Some(message) = stream.message().await.unwrap() {
            assert!(end.is_none(), "nothing comes after the end");
            if let Some(host) = message.host {
                if host.whole && !wholes.0 {
                    wholes.0 = true;
                    self.wholes.0 += 1;
                    self.containers.clear();
                    self.volumes.clear();
                    self.jobs.clear();
                }
                assert_eq!(host.whole, wholes.0);
                self.host(host);
            }
            if let Some(archives) = message.archives {
                if archives.whole && !wholes.1 {
                    wholes.1 = true;
                    self.wholes.1 += 1;
                    self.archives.clear();
                    self.restores.clear();
                    self.removed_archives.clear();
                }
                assert_eq!(archives.whole, wholes.1);
                self.stored(archives);
            }
            end = message.end;
        }
        self.end = end.expect("an end");
        self
    }

    fn host(&mut self, host: v1::HostChanges) {
        self.entries += host.containers.len() + host.volumes.len() + host.jobs.len();
        self.entries += host.removed_containers.len() + host.removed_volumes.len();
        let named = host.containers.into_iter().map(|c| (c.name.clone(), c));
        self.containers.extend(named);
        let named = host.volumes.into_iter().map(|v| (v.name.clone(), v));
        self.volumes.extend(named);
        for job in &host.jobs {
            self.jobs.remove(&job.workspace_id);
        }
        for job in host.jobs {
            let id = job.workspace_id.clone();
            self.jobs.entry(id).or_default().push(job);
        }
        self.containers
            .retain(|name, _| !host.removed_containers.contains(name));
        self.volumes
            .retain(|name, _| !host.removed_volumes.contains(name));
        self.jobs.retain(|id, _| !host.removed_jobs.contains(id));
    }

    fn stored(&mut self, changes: v1::ArchiveChanges) {
        self.entries += changes.archives.len() + changes.restores.len();
        let keyed = changes.archives.into_iter().map(|a| (a.key.clone(), a));
        self.archives.extend(keyed);
        let keyed = changes.restores.into_iter().map(|r| (r.key.clone(), r));
        self.restores.extend(keyed);
        self.archives
            .retain(|key, _| !changes.removed_archives.contains(key));
        self.restores
            .retain(|key, _| !changes.removed_restores.contains(key));
        self.removed_archives.extend(changes.removed_archives);
    }

    /// Follows until it is so.
    pub async fn until(&mut self, client: Client, what: &str, so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !so(self.follow(client.clone()).await) {
            assert!(begun.elapsed() < PATIENCE, "not told: {what}; {self:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
