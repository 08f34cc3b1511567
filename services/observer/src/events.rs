//! Engine events as hints: one stream per agent that rings the observer's bell. What a lost stream misses
//! is found by the next pass.
//!
//! The first hint rings at once. Those that come within [`PAUSE`] of it ring once more, together: a burst
//! costs one extra pass, and a host where things happen all the time a bounded number of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use windlass_coordinator::Agents;
use windlass_db::read::ObservedHost;
use windlass_domain::HostId;
use windlass_proto::v1::WatchRequest;
use windlass_service::Backoff;

/// How long hints are gathered after one has rung.
const PAUSE: Duration = Duration::from_millis(20);

/// The streams of all agents.
#[derive(Debug)]
pub struct Events {
    agents: Arc<Agents>,
    bell: Arc<Notify>,
    streams: HashMap<HostId, (String, AbortOnDropHandle<()>)>,
}

impl Events {
    /// No streams yet; events will ring `bell`.
    pub fn new(agents: Arc<Agents>, bell: Arc<Notify>) -> Self {
        Self {
            agents,
            bell,
            streams: HashMap::new(),
        }
    }

    /// Follows exactly these hosts.
    pub fn follow(&mut self, hosts: &[ObservedHost]) {
        self.streams
            .retain(|id, (address, _)| hosts.iter().any(|h| h.id == *id && h.address == *address));
        for host in hosts {
            if !self.streams.contains_key(&host.id) {
                let task = follow(
                    Arc::clone(&self.agents),
                    host.address.clone(),
                    Arc::clone(&self.bell),
                );
                let handle = AbortOnDropHandle::new(tokio::spawn(task));
                self.streams.insert(host.id, (host.address.clone(), handle));
            }
        }
    }
}

async fn follow(agents: Arc<Agents>, address: String, bell: Arc<Notify>) {
    let mut pauses = Backoff::RECONNECT.pauses();
    loop {
        if let Ok(mut client) = agents.client(&address)
            && let Ok(stream) = client.watch(WatchRequest {}).await
        {
            pauses = Backoff::RECONNECT.pauses();
            bell.notify_one();
            let mut stream = stream.into_inner();
            while let Ok(Some(_)) = stream.message().await {
                // The rest of a burst; an end of the stream is found by the next turn.
                while let Some(Ok(Some(_))) = stream.message().now_or_never() {}
                bell.notify_one();
                tokio::time::sleep(PAUSE).await;
            }
        }
        let pause = pauses.next().unwrap_or(Backoff::RECONNECT.max);
        tokio::time::sleep(pause).await;
    }
}
