//! Following the engine's events. They only mark what may have changed: nothing is concluded from one.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use windlass_service::Backoff;

use super::{Dirty, Why};
use crate::docker::{DockerError, Engine};

/// Events from so long before the start are asked for: the engine's clock may be behind this agent's.
const OVERLAP: TimeDelta = TimeDelta::seconds(5);

/// Follows until shutdown, coming back after every break.
///
/// The engine is asked for the events since the last one seen, and a full list is wanted each time. What
/// happens between the list and the moment the engine understood is then among the events; what was more
/// than the engine remembers is in the list.
pub async fn follow(engine: Engine, dirty: Dirty, shutdown: CancellationToken) {
    let mut pauses = Backoff::RECONNECT.pauses();
    let mut since: DateTime<Utc> = Utc::now() - OVERLAP;
    let mut why = Why::Start;
    loop {
        dirty.list(why);
        why = Why::Gap;
        let began = Instant::now();
        let following = async {
            let mut events = std::pin::pin!(engine.events(since)?);
            while let Some(event) = events.next().await {
                let event = event?;
                metrics::counter!("windlass_agent_engine_events_total").increment(1);
                since = event.at;
                dirty.event(&event);
            }
            Ok::<_, DockerError>(())
        };
        let ended = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = following => ended,
        };
        if let Err(error) = ended {
            tracing::debug!("events: {error}");
        }
        if began.elapsed() > Backoff::RECONNECT.max {
            pauses = Backoff::RECONNECT.pauses();
        }
        let pause = pauses.next().unwrap_or(Backoff::RECONNECT.max);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
