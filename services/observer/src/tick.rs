//! One pass: load rows and look at all hosts, decide which conditions changed, store them and wake wc.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures::future::join_all;
use tokio::time::Instant;
use windlass_coordinator::{Agents, Channel, Hints, Lease, Pass, PassError, Verdict};
use windlass_db::{
    Pool, WorkspaceRecord,
    write::observer::{Observation, StoreFreshness},
};
use windlass_domain::{Conditions, Operation, WorkspaceId, observation};
use windlass_proto::{
    convert,
    v1::{HostObservation, ObserveResponse},
};

use crate::{
    account,
    events::Events,
    gather::Gathered,
    look::{HostView, look},
};

/// The observer's pass.
#[derive(Debug)]
pub struct Observe {
    pool: Pool,
    agents: Arc<Agents>,
    hints: Hints,
    events: Option<Events>,
    timeout: Duration,
    /// The newest full listing of the store that was seen.
    listed_at: Option<DateTime<Utc>>,
}

impl Observe {
    /// A pass over all hosts, each of which may take `timeout`.
    pub fn new(
        pool: Pool,
        agents: Arc<Agents>,
        hints: Hints,
        events: Option<Events>,
        timeout: Duration,
    ) -> Self {
        Self {
            pool,
            agents,
            hints,
            events,
            timeout,
            listed_at: None,
        }
    }
}

impl Pass for Observe {
    type Request = ();
    type Report = ObserveResponse;

    async fn pass(
        &mut self,
        lease: &Lease,
        (): Self::Request,
    ) -> Result<Verdict<ObserveResponse>, PassError> {
        let began = Instant::now();

        // Load.
        let began_at = self.pool.now().await?;
        let mut hosts = self.pool.hosts().await?;
        hosts.retain(|h| lease.shard.owns(h.id.0));
        if let Some(events) = &mut self.events {
            events.follow(&hosts);
        }
        let looks = join_all(hosts.iter().map(|h| look(&self.agents, h, self.timeout)));
        let (mut views, records) =
            futures::join!(looks, self.pool.living_workspaces_on(lease.shard));
        let records = records?;

        // Decide.
        let mut report = report(&views, records.len());
        let store = self.store_freshness(&views);
        let host_results = views
            .iter()
            .map(|v| (v.host_id, v.resources.as_ref().err().cloned()))
            .collect();
        let changed = changed(&records, Gathered::from_views(&mut views), began_at);

        // Act.
        let spans = account::spans(&records, &changed, began_at);
        let observation = Observation {
            began_at,
            hosts: host_results,
            store,
            changed,
        };
        let written = self.pool.store_observation(lease, observation).await?;
        drop(spans);
        account::seen(&hosts, &views, began_at);
        if written > 0 {
            self.hints.publish(Channel::Wc).await;
            self.hints.publish(Channel::Watch).await;
        }
        report.changed = written as u32;
        report.duration = chrono::TimeDelta::from_std(began.elapsed())
            .ok()
            .map(convert::duration);
        Ok(Verdict {
            report,
            active: records.iter().any(in_progress),
        })
    }
}

impl Observe {
    /// Only a listing that is newer than all seen before makes the store fresher. The first one after a
    /// start is only remembered: it may be the one that was stored already.
    fn store_freshness(&mut self, views: &[HostView]) -> StoreFreshness {
        let seen = views.iter().filter_map(|v| v.archives.as_ref().ok());
        let newest = seen.filter_map(|a| a.listed_at).max();
        match (newest, views.iter().find_map(|v| v.archives.as_ref().err())) {
            (Some(listed), _) => {
                let earlier = self.listed_at.replace(listed);
                match earlier {
                    Some(earlier) if earlier < listed => StoreFreshness::Listed,
                    Some(_) | None => StoreFreshness::Unchanged,
                }
            }
            (None, Some(error)) => StoreFreshness::Failed(error.clone()),
            (None, None) => StoreFreshness::Unchanged,
        }
    }
}

fn in_progress(record: &WorkspaceRecord) -> bool {
    let ws = &record.workspace;
    ws.control.operation != Operation::None
}

fn changed(
    records: &[WorkspaceRecord],
    mut gathered: Gathered,
    now: DateTime<Utc>,
) -> Vec<(WorkspaceId, Conditions)> {
    records
        .iter()
        .filter_map(|record| {
            let ws = &record.workspace;
            let next = observation::conditions(
                &ws.conditions,
                gathered.host_seen(ws.host_id, ws.id),
                gathered.archives_seen(ws.id),
                ws.control.archive_key.as_deref(),
                ws.open_restore().map(|wish| wish.key.as_str()),
                now,
            );
            (next != ws.conditions).then_some((ws.id, next))
        })
        .collect()
}

fn report(views: &[HostView], workspaces: usize) -> ObserveResponse {
    let hosts = views
        .iter()
        .map(|view| {
            let (resources, archives) = (view.resources.as_ref(), view.archives.as_ref());
            HostObservation {
                host_id: view.host_id.to_string(),
                containers: resources.map_or(0, |r| r.containers.len() as u32),
                volumes: resources.map_or(0, |r| r.volumes.len() as u32),
                archives: archives.map_or(0, |a| a.archives.len() as u32),
                host_error: resources.err().cloned().unwrap_or_default(),
                archive_error: archives.err().cloned().unwrap_or_default(),
            }
        })
        .collect();
    ObserveResponse {
        hosts,
        workspaces: workspaces as u32,
        changed: 0,
        duration: None,
    }
}
