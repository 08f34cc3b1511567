//! The buffer of recorded activity: the sorted set `windlass:activity` in Redis, or, without Redis, a map
//! in this process. Taking from it is in two steps, so that nothing is lost between them: what was read
//! is removed only if it is still what was read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use windlass_coordinator::RedisLink;
use windlass_domain::WorkspaceId;

const KEY: &str = "windlass:activity";
/// How many activities one pass takes at a time.
pub const BATCH: usize = 10_000;

/// Removes members whose score is still the one that was read.
const COMPARE_AND_REMOVE: &str = r"
local removed = 0
for i = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if score and tonumber(score) == tonumber(ARGV[i + 1]) then
    removed = removed + redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return removed";

/// The buffer cannot be reached, or its URL is none.
#[derive(Debug, thiserror::Error)]
#[error("the activity buffer: {0}")]
pub struct BufferError(#[from] redis::RedisError);

/// One activity: a workspace, and when it was used.
pub type Activity = (WorkspaceId, DateTime<Utc>);

/// The buffer.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<Store>);

#[derive(Debug)]
enum Store {
    Redis(Box<RedisLink>),
    Memory(Mutex<HashMap<WorkspaceId, DateTime<Utc>>>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The map is valid after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Buffer {
    /// In Redis if there is a URL, else in this process. Does not connect yet.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn new(redis_url: Option<&str>) -> Result<Self, BufferError> {
        Ok(Self(Arc::new(match redis_url {
            Some(url) => Store::Redis(Box::new(RedisLink::new(url)?)),
            None => Store::Memory(Mutex::default()),
        })))
    }

    /// Whether what is recorded outlives this process.
    pub fn is_shared(&self) -> bool {
        matches!(*self.0, Store::Redis(_))
    }

    /// Records uses; an older one than the recorded changes nothing.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn record(&self, activities: &[Activity]) -> Result<(), BufferError> {
        if activities.is_empty() {
            return Ok(());
        }
        match &*self.0 {
            Store::Memory(map) => {
                let mut map = lock(map);
                for (id, at) in activities {
                    let latest = map.entry(*id).or_insert(*at);
                    *latest = (*latest).max(*at);
                }
            }
            Store::Redis(link) => {
                let mut command = redis::cmd("ZADD");
                command.arg(KEY).arg("GT");
                for (id, at) in activities {
                    command.arg(score(*at)).arg(id.to_string());
                }
                link.send::<()>(&command).await?;
            }
        }
        Ok(())
    }

    /// Up to [`BATCH`] activities, which stay in the buffer.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn peek(&self) -> Result<Vec<Activity>, BufferError> {
        match &*self.0 {
            Store::Memory(map) => Ok(lock(map)
                .iter()
                .take(BATCH)
                .map(|(k, v)| (*k, *v))
                .collect()),
            Store::Redis(link) => {
                let mut command = redis::cmd("ZRANGE");
                command.arg(KEY).arg(0).arg(BATCH - 1).arg("WITHSCORES");
                let members: Vec<(String, i64)> = link.send(&command).await?;
                let (good, strange): (Vec<_>, Vec<_>) = members
                    .into_iter()
                    .map(|(member, ms)| (activity(&member, ms), member))
                    .partition(|(activity, _)| activity.is_some());
                if !strange.is_empty() {
                    // Not ours to understand, and it would come back for ever.
                    let names: Vec<String> = strange.into_iter().map(|(_, m)| m).collect();
                    tracing::warn!(members = ?names, "dropped what is no activity");
                    let mut remove = redis::cmd("ZREM");
                    remove.arg(KEY).arg(names);
                    link.send::<()>(&remove).await?;
                }
                Ok(good
                    .into_iter()
                    .filter_map(|(activity, _)| activity)
                    .collect())
            }
        }
    }

    /// Removes what was stored; what was recorded meanwhile stays.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn remove(&self, stored: &[Activity]) -> Result<(), BufferError> {
        if stored.is_empty() {
            return Ok(());
        }
        match &*self.0 {
            Store::Memory(map) => {
                let mut map = lock(map);
                for (id, at) in stored {
                    if map.get(id) == Some(at) {
                        map.remove(id);
                    }
                }
            }
            Store::Redis(link) => {
                let mut command = redis::cmd("EVAL");
                command.arg(COMPARE_AND_REMOVE).arg(1).arg(KEY);
                for (id, at) in stored {
                    command.arg(id.to_string()).arg(score(*at));
                }
                link.send::<()>(&command).await?;
            }
        }
        Ok(())
    }
}

/// Milliseconds since the epoch: exact in Redis' doubles for the next 285,000 years.
fn score(at: DateTime<Utc>) -> i64 {
    at.timestamp_millis()
}

fn activity(member: &str, ms: i64) -> Option<Activity> {
    let at = DateTime::UNIX_EPOCH.checked_add_signed(TimeDelta::try_milliseconds(ms)?)?;
    Some((member.parse().ok()?, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms)
    }

    #[tokio::test]
    async fn what_arrives_between_read_and_remove_stays() {
        let buffer = Buffer::new(None).unwrap();
        let id = WorkspaceId(uuid::Uuid::from_u128(1));
        buffer.record(&[(id, at(5)), (id, at(3))]).await.unwrap();
        let read = buffer.peek().await.unwrap();
        assert_eq!(read, [(id, at(5))]);
        buffer.record(&[(id, at(9))]).await.unwrap();
        buffer.remove(&read).await.unwrap();
        assert_eq!(buffer.peek().await.unwrap(), [(id, at(9))]);
        buffer.remove(&[(id, at(9))]).await.unwrap();
        assert!(buffer.peek().await.unwrap().is_empty());
    }
}
