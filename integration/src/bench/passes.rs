//! Passes of observer and wc, on request or by a hint, and how long they took.

use std::time::{Duration, Instant};

use windlass_proto::v1::{
    GetStatusRequest, ObserveRequest, ObserveResponse, ReconcileRequest, ReconcileResponse,
    ServiceStatus,
};

use super::{Plane, ms, timed};
use crate::{Name, wait};

/// What a pass took.
#[derive(Debug, Clone, Copy)]
pub struct Took<R> {
    /// Milliseconds for who asked for it.
    pub wall: f64,
    /// Milliseconds by the service's own clock.
    pub own: f64,
    /// What it told.
    pub answer: R,
}

impl Plane {
    /// Has the observer make a pass now.
    ///
    /// # Panics
    /// When it does not.
    pub async fn observe(&self) -> Took<ObserveResponse> {
        let mut observer = self.observer();
        // Connected before the clock starts.
        let connected = observer.get_status(GetStatusRequest {}).await;
        connected.expect("a status");
        let (wall, answer) = timed(observer.observe(ObserveRequest {})).await;
        let answer = answer.expect("a pass").into_inner();
        let own = answer.duration.expect("a duration");
        let own = Duration::try_from(own).expect("forwards");
        Took {
            wall,
            own: ms(own),
            answer,
        }
    }

    /// Has wc make a pass now.
    ///
    /// # Panics
    /// When it does not.
    pub async fn reconcile(&self) -> Took<ReconcileResponse> {
        let mut wc = self.wc();
        wc.get_status(GetStatusRequest {}).await.expect("a status");
        let (wall, answer) = timed(wc.reconcile(ReconcileRequest::default())).await;
        let answer = answer.expect("a pass").into_inner();
        let status = self.status(Name::Wc).await;
        let own = status.last_tick_duration.unwrap_or_default();
        Took {
            wall,
            own: ms(Duration::try_from(own).expect("forwards")),
            answer,
        }
    }

    /// How observer or wc is doing.
    ///
    /// # Panics
    /// For another service, and when it does not answer.
    pub async fn status(&self, name: Name) -> ServiceStatus {
        let request = GetStatusRequest {};
        let answer = match name {
            Name::Observer => self.observer().get_status(request).await,
            Name::Wc => self.wc().get_status(request).await,
            Name::Api | Name::Agent | Name::Ttl | Name::Gc => panic!("{name:?}"),
        };
        let answer = answer.expect("a status").into_inner();
        answer.status.unwrap_or_default()
    }

    /// Waits until a service leads and has made a pass.
    pub async fn leads(&self, name: Name) {
        wait::until(
            &format!("{} to lead", name.as_str()),
            async || self.status(name).await,
            |status| status.leader && status.ticks > 0,
        )
        .await;
    }

    /// Has wc make the pass that a hint makes, and waits for its end: milliseconds by wc's own clock.
    ///
    /// # Panics
    /// When it makes none.
    pub async fn hinted_pass(&self) -> f64 {
        let mut wc = self.wc();
        let before = self.status(Name::Wc).await.ticks;
        self.hint(windlass_db::Channel::Wc).await;
        let began = Instant::now();
        loop {
            let answer = wc.get_status(GetStatusRequest {}).await.expect("a status");
            let status = answer.into_inner().status.unwrap_or_default();
            if status.ticks > before {
                assert_eq!(status.last_error, "", "wc's pass failed");
                let own = status.last_tick_duration.unwrap_or_default();
                return ms(Duration::try_from(own).expect("forwards"));
            }
            assert!(began.elapsed() < wait::PATIENCE, "wc took no hint");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
