//! What one host's agent knows of its containers, volumes and jobs, by workspace.
//!
//! Invariant: it is what the agent knew at `position`. Answers are applied whole or not at all, in the order
//! in which they were asked for; applying one twice changes nothing.

use std::collections::{HashMap, HashSet};

use windlass_domain::{WorkspaceId, observation::HostSeen};

use crate::{
    evidence::JobNews,
    look::{HostNews, List},
    whole,
};

/// The mirror of one host.
#[derive(Debug, Default)]
pub struct Mirror {
    position: String,
    list: Option<u64>,
    seen: HashMap<WorkspaceId, HostSeen>,
    containers: usize,
    volumes: usize,
}

/// What an answer brought.
#[derive(Debug, Default)]
pub struct Applied {
    /// Workspaces of which something was told.
    pub touched: HashSet<WorkspaceId>,
    /// A full list that was not told of before, if any.
    pub list: Option<List>,
    /// The answer was itself a full list.
    pub is_list: bool,
}

impl Mirror {
    /// Where it stands; empty: nowhere.
    pub fn position(&self) -> &str {
        &self.position
    }

    /// Containers and volumes in it.
    pub fn counts(&self) -> (usize, usize) {
        (self.containers, self.volumes)
    }

    /// What is there of a workspace.
    pub fn seen(&self, id: WorkspaceId) -> HostSeen {
        self.seen.get(&id).cloned().unwrap_or_default()
    }

    /// Applies an answer.
    pub fn apply(&mut self, news: HostNews) -> Applied {
        let list = news
            .list
            .filter(|list| news.whole || self.list != Some(list.number));
        let is_list = news.list.is_none();
        self.list = news.list.map(|list| list.number);
        self.position.clone_from(&news.position);
        let touched = match news.whole {
            true => self.replace(news),
            false => self.change(news),
        };
        Applied {
            touched,
            list,
            is_list,
        }
    }

    fn replace(&mut self, news: HostNews) -> HashSet<WorkspaceId> {
        let known = std::mem::take(&mut self.seen);
        (self.containers, self.volumes) = (0, 0);
        self.change(news);
        whole::differing(known, &mut self.seen)
    }

    fn change(&mut self, news: HostNews) -> HashSet<WorkspaceId> {
        let mut touched = HashSet::new();
        // What is gone first: a name that is told as gone and as there is there.
        for id in news.gone_containers {
            touched.insert(id);
            self.edit(id, |seen| seen.container = None);
        }
        for id in news.gone_volumes {
            touched.insert(id);
            self.edit(id, |seen| seen.volume = None);
        }
        for id in news.gone_jobs {
            touched.insert(id);
            self.edit(id, |seen| (seen.job, seen.failed_job) = (None, None));
        }
        for (id, container) in news.containers {
            touched.insert(id);
            self.edit(id, |seen| seen.container = Some(container));
        }
        for (id, volume) in news.volumes {
            touched.insert(id);
            self.edit(id, |seen| seen.volume = Some(volume));
        }
        // Jobs that ended before those at work: a new attempt of the same operation may be told with the
        // one before it, in any order.
        let (at_work, ended): (Vec<_>, Vec<_>) = news
            .jobs
            .into_iter()
            .partition(|(_, job)| matches!(job, JobNews::AtWork(_)));
        for (id, job) in ended.into_iter().chain(at_work) {
            touched.insert(id);
            self.edit(id, |seen| job_told(seen, job));
        }
        touched
    }

    fn edit(&mut self, id: WorkspaceId, change: impl FnOnce(&mut HostSeen)) {
        let seen = self.seen.entry(id).or_default();
        let before = (seen.container.is_some(), seen.volume.is_some());
        change(seen);
        let after = (seen.container.is_some(), seen.volume.is_some());
        if *seen == HostSeen::default() {
            self.seen.remove(&id);
        }
        self.containers = self.containers + usize::from(after.0) - usize::from(before.0);
        self.volumes = self.volumes + usize::from(after.1) - usize::from(before.1);
    }
}

/// A workspace has one job at a time, so what ended is not what is at work.
fn job_told(seen: &mut HostSeen, job: JobNews) {
    let op = match job {
        JobNews::AtWork(job) => {
            seen.job = Some(Box::new(job));
            return;
        }
        JobNews::Failed(failed) => {
            let op = failed.op_id;
            seen.failed_job = Some(Box::new(failed));
            op
        }
        JobNews::Succeeded(op) => {
            seen.failed_job = None;
            op
        }
    };
    seen.job = seen.job.take().filter(|job| job.op_id != op);
}

#[cfg(test)]
mod tests;
