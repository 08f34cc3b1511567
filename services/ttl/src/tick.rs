//! One pass: fold what was recorded into last_access_at, then apply both rules. The rules are one
//! statement each, in `windlass_db`.

use chrono::TimeDelta;
use windlass_coordinator::{Channel, Hints, Lease, Pass, PassError, Verdict};
use windlass_db::Pool;
use windlass_proto::v1::TtlServiceRunOnceResponse;

use crate::activity::{BATCH, Buffer};

/// ttl's pass.
#[derive(Debug)]
pub struct Expire {
    pub pool: Pool,
    pub hints: Hints,
    pub buffer: Buffer,
    pub standby_ttl: TimeDelta,
    pub archive_ttl: TimeDelta,
}

impl Pass for Expire {
    type Request = ();
    type Report = TtlServiceRunOnceResponse;

    async fn pass(
        &mut self,
        lease: &Lease,
        (): Self::Request,
    ) -> Result<Verdict<TtlServiceRunOnceResponse>, PassError> {
        // Without the latest activity a workspace in use might look idle: no rule runs before it is stored.
        let accesses = self.store_activity(lease).await?;
        let expired = self
            .pool
            .expire(lease, self.standby_ttl, self.archive_ttl)
            .await?;
        for (to, moved) in [
            ("STANDBY", expired.to_standby),
            ("ARCHIVED", expired.to_archived),
        ] {
            metrics::counter!("windlass_ttl_expired_total", "to" => to).increment(moved as u64);
        }
        metrics::counter!("windlass_ttl_activities_total").increment(accesses as u64);
        if expired.to_standby + expired.to_archived > 0 {
            self.hints.publish(Channel::Wc);
            self.hints.publish(Channel::Watch);
        }
        Ok(Verdict {
            report: TtlServiceRunOnceResponse {
                accesses: accesses as u32,
                to_standby: expired.to_standby as u32,
                to_archived: expired.to_archived as u32,
            },
            active: false,
        })
    }
}

impl Expire {
    async fn store_activity(&self, lease: &Lease) -> Result<usize, PassError> {
        let unavailable = |e: crate::activity::BufferError| PassError::Unavailable(e.to_string());
        let mut moved = 0;
        loop {
            let activities = self.buffer.peek().await.map_err(unavailable)?;
            let complete = activities.len() < BATCH;
            moved += self.pool.store_activity(lease, activities.clone()).await?;
            self.buffer.remove(&activities).await.map_err(unavailable)?;
            if complete {
                return Ok(moved);
            }
        }
    }
}
