//! An observer that is late, and now and then sees the half only.

use std::sync::Arc;

use chrono::TimeDelta;
use windlass_domain::{
    conditions::VolumeEvidence,
    observation::{ArchivesSeen, HostSeen, conditions},
};

use super::{Snapshot, World};

impl World {
    pub(super) fn observer(&mut self, seeing: u8) {
        let now = self.now;
        if let Some(seen) = self.snapshot.take_if(|s| s.due <= now) {
            if seen.host.is_some() {
                self.fresh.host = Some(seen.at);
            }
            if seen.archives.is_some() {
                self.fresh.archives = Some(seen.at);
            }
            let key = self.ws.control.archive_key.as_deref();
            let previous = &self.ws.conditions;
            let wished = self.ws.open_restore().map(|wish| wish.key.as_str());
            let next = conditions(previous, seen.host, seen.archives, key, wished, seen.at);
            if next != *previous || self.ws.observed_at.is_none() {
                self.ws.conditions = next;
                self.ws.observed_at = Some(seen.at);
            }
        }
        if self.snapshot.is_none() && seeing < 220 {
            let host = HostSeen {
                container: self.container.clone().map(Arc::new),
                volume: self.volume.as_ref().map(|v| {
                    Arc::new(VolumeEvidence {
                        name: "v".into(),
                        volume_id: Some(v.id),
                        owned: true,
                    })
                }),
                job: None,
                failed_job: self.failed_job.clone().map(Box::new),
            };
            let archives = ArchivesSeen {
                archives: self
                    .archives
                    .iter()
                    .map(|a| a.evidence.clone().into())
                    .collect(),
                restores: self.markers.clone(),
            };
            self.snapshot = Some(Snapshot {
                due: now + TimeDelta::seconds(i64::from(seeing) / 20),
                at: now,
                host: (seeing % 8 != 7).then_some(host),
                archives: (seeing % 4 != 3).then_some(archives),
            });
            if seeing == 0 {
                self.observer(255); // at once
            }
        }
    }
}
