//! The highest epoch seen of each leader that may change something here: wc, by shard, and gc.
//!
//! Invariants: an epoch that was let in is on disk, synced, before the call goes on; so a deposed leader is
//! refused after a restart too. A damaged file stops the agent: forgetting would let the deposed in.
//!
//! Epochs of wc grow over all its shards. Within one number of shards each shard has its own highest; a
//! claim under another number is let in only above everything seen so far, and what was seen becomes the
//! floor of the new number. So one number of shards at a time is served, and never an older one again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex as StdMutex, MutexGuard, PoisonError};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use windlass_domain::Shard;

use crate::error::{Failure, Reason};

const FILE: &str = "epochs.json";

/// What a leader says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The workspace controller that leads a shard.
    Wc(Shard, i64),
    /// The garbage collector.
    Gc(i64),
}

impl Claim {
    /// The epoch.
    pub fn epoch(self) -> i64 {
        match self {
            Self::Wc(_, epoch) | Self::Gc(epoch) => epoch,
        }
    }
}

/// What is on disk. `wc` is the highest of all shards: all that an agent knows that has no shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    wc: i64,
    gc: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sharded: Option<Sharded>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sharded {
    /// Under how many shards wc leads.
    count: u32,
    /// The highest epoch seen under other numbers before: theirs, so none of this number.
    floor: i64,
    /// The highest of each shard.
    highest: BTreeMap<u32, i64>,
}

impl Stored {
    /// As if there had always been shards: one.
    fn sharded(&self) -> Sharded {
        self.sharded.clone().unwrap_or_else(|| Sharded {
            count: 1,
            floor: 0,
            highest: BTreeMap::from([(0, self.wc)]),
        })
    }

    /// The lowest epoch of such a claim that is let in.
    fn least(&self, claim: Claim) -> i64 {
        match claim {
            Claim::Gc(_) => self.gc,
            Claim::Wc(shard, _) => {
                let seen = self.sharded();
                if seen.count == shard.count() {
                    let highest = seen.highest.get(&shard.index()).copied();
                    highest.unwrap_or(0).max(seen.floor + 1)
                } else {
                    self.wc + 1
                }
            }
        }
    }

    /// What is stored once such a claim is let in.
    fn with(&self, claim: Claim) -> Self {
        let mut next = self.clone();
        match claim {
            Claim::Gc(epoch) => next.gc = epoch,
            Claim::Wc(shard, epoch) => {
                let mut seen = self.sharded();
                if seen.count != shard.count() {
                    seen = Sharded {
                        count: shard.count(),
                        floor: self.wc,
                        highest: BTreeMap::new(),
                    };
                }
                seen.highest.insert(shard.index(), epoch);
                next.wc = self.wc.max(epoch);
                next.sharded = (seen != next.sharded()).then_some(seen).or(next.sharded);
            }
        }
        next
    }
}

/// The epochs.
#[derive(Debug)]
pub struct Epochs {
    folder: PathBuf,
    stored: StdMutex<Stored>,
    writing: Mutex<()>,
}

impl Epochs {
    /// Reads what is stored in `folder`.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let stored = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stored::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Ok(Self {
            folder: folder.to_owned(),
            stored: StdMutex::new(stored),
            writing: Mutex::new(()),
        })
    }

    /// The highest epochs seen of wc and of gc.
    pub fn highest(&self) -> (i64, i64) {
        let stored = self.lock();
        (stored.wc, stored.gc)
    }

    /// Lets a call of this leader in.
    ///
    /// # Errors
    /// STALE_EPOCH if a later one was seen; ActionFailed if a new one cannot be stored.
    pub async fn admit(&self, claim: Claim) -> Result<(), Failure> {
        self.check(claim)?;
        if self.knows(claim) {
            return Ok(());
        }
        let _writing = self.writing.lock().await;
        self.check(claim)?;
        if self.knows(claim) {
            return Ok(());
        }
        let next = self.lock().with(claim);
        let (folder, written) = (self.folder.clone(), next.clone());
        let written = tokio::task::spawn_blocking(move || write(&folder, &written)).await;
        match written {
            Ok(Ok(())) => {
                *self.lock() = next;
                tracing::info!(?claim, "a new leader");
                Ok(())
            }
            Ok(Err(error)) => Err(Failure::action(format!(
                "the agent cannot store the epoch in {}: {error}",
                self.folder.display()
            ))),
            Err(error) => Err(Failure::action(format!("storing the epoch: {error}"))),
        }
    }

    /// Whether a call of this leader may still change something.
    ///
    /// # Errors
    /// STALE_EPOCH.
    pub fn check(&self, claim: Claim) -> Result<(), Failure> {
        let stored = self.lock();
        let epoch = claim.epoch();
        if epoch >= stored.least(claim) {
            return Ok(());
        }
        let message = match claim {
            Claim::Gc(_) => format!("epoch {epoch} is over: epoch {} leads", stored.gc),
            Claim::Wc(shard, _) => {
                let seen = stored.sharded();
                if seen.count == shard.count() {
                    let highest = seen.highest.get(&shard.index()).copied();
                    let leads = highest.unwrap_or(0).max(seen.floor);
                    format!("epoch {epoch} is over: epoch {leads} leads")
                } else {
                    format!(
                        "epoch {epoch} is over: epoch {} leads, under {} shards, not {}",
                        stored.wc,
                        seen.count,
                        shard.count()
                    )
                }
            }
        };
        Err(Failure::new(
            Reason::StaleEpoch,
            format!(
                "{message}; if the database is an older one, raise its epochs (docs/operations.md)"
            ),
        ))
    }

    /// Whether letting it in changes nothing.
    fn knows(&self, claim: Claim) -> bool {
        let stored = self.lock();
        stored.with(claim) == *stored
    }

    // What is under the lock is replaced as a whole: a panic leaves nothing half-done.
    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(folder: &Path, stored: &Stored) -> io::Result<()> {
    let next = folder.join("epochs.json.next");
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec(stored)?)?;
    file.sync_all()?;
    fs::rename(&next, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wc(epoch: i64) -> Claim {
        Claim::Wc(Shard::WHOLE, epoch)
    }

    fn of(index: u32, count: u32, epoch: i64) -> Claim {
        Claim::Wc(Shard::new(index, count).unwrap(), epoch)
    }

    #[tokio::test]
    async fn the_highest_epoch_survives_and_fences() {
        let folder = tempfile::tempdir().unwrap();
        let epochs = Epochs::open(folder.path()).unwrap();
        epochs.admit(wc(3)).await.unwrap();
        epochs.admit(wc(3)).await.unwrap();
        epochs.admit(Claim::Gc(1)).await.unwrap();
        let stale = epochs.admit(wc(2)).await.unwrap_err();
        assert_eq!(stale.reason, Reason::StaleEpoch);

        let again = Epochs::open(folder.path()).unwrap();
        assert_eq!(again.highest(), (3, 1));
        assert!(again.check(wc(2)).is_err());
    }

    #[tokio::test]
    async fn each_shard_has_its_own_highest() {
        let folder = tempfile::tempdir().unwrap();
        let epochs = Epochs::open(folder.path()).unwrap();
        epochs.admit(of(1, 2, 5)).await.unwrap();
        epochs.admit(of(0, 2, 4)).await.unwrap();
        epochs.admit(of(0, 2, 7)).await.unwrap();
        let again = Epochs::open(folder.path()).unwrap();
        for epochs in [&epochs, &again] {
            assert_eq!(epochs.highest(), (7, 0));
            assert!(epochs.check(of(1, 2, 5)).is_ok());
            assert!(epochs.check(of(1, 2, 4)).is_err());
            assert!(epochs.check(of(0, 2, 6)).is_err());
        }
    }

    #[tokio::test]
    async fn another_number_of_shards_ends_the_one_before_for_good() {
        let folder = tempfile::tempdir().unwrap();
        // As an agent without shards left it.
        fs::write(folder.path().join(FILE), r#"{"wc":7,"gc":2}"#).unwrap();
        let epochs = Epochs::open(folder.path()).unwrap();
        assert!(epochs.check(of(1, 2, 7)).is_err());
        epochs.admit(wc(7)).await.unwrap();
        // Taken in one order, heard of in the other.
        epochs.admit(of(1, 2, 9)).await.unwrap();
        epochs.admit(of(0, 2, 8)).await.unwrap();
        for stale in [wc(7), wc(8), wc(9), of(0, 2, 7), of(0, 4, 9), of(3, 4, 8)] {
            assert!(epochs.check(stale).is_err(), "{stale:?}");
        }
        let why = epochs.check(wc(7)).unwrap_err().to_string();
        assert!(why.contains("under 2 shards, not 1"), "{why}");
        // Back to one: what led one shard, or two, before is over.
        epochs.admit(wc(10)).await.unwrap();
        let again = Epochs::open(folder.path()).unwrap();
        for epochs in [&epochs, &again] {
            for stale in [wc(7), wc(9), of(0, 2, 8), of(1, 2, 9), of(1, 2, 10)] {
                assert!(epochs.check(stale).is_err(), "{stale:?}");
            }
            assert!(epochs.check(wc(10)).is_ok());
        }
    }

    #[tokio::test]
    async fn what_cannot_be_stored_is_not_let_in() {
        let folder = tempfile::tempdir().unwrap();
        let epochs = Epochs::open(folder.path()).unwrap();
        folder.close().unwrap();
        let failed = epochs.admit(wc(1)).await.unwrap_err();
        assert_eq!(failed.reason, Reason::ActionFailed);
        assert_eq!(epochs.highest(), (0, 0));
    }

    #[test]
    fn a_damaged_file_stops_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(Epochs::open(folder.path()).is_err());
    }
}
