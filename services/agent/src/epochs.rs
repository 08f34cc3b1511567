//! The highest epoch seen of each leader that may change something here: wc and gc.
//!
//! Invariant: an epoch that was let in is on disk, synced, before the call goes on; so a deposed leader is
//! refused after a restart too. A damaged file stops the agent: forgetting would let the deposed in.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::error::{Failure, Reason};

const FILE: &str = "epochs.json";

/// Whose epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leader {
    /// The workspace controller.
    Wc,
    /// The garbage collector.
    Gc,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    wc: i64,
    gc: i64,
}

/// The epochs.
#[derive(Debug)]
pub struct Epochs {
    folder: PathBuf,
    wc: AtomicI64,
    gc: AtomicI64,
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
            wc: AtomicI64::new(stored.wc),
            gc: AtomicI64::new(stored.gc),
            writing: Mutex::new(()),
        })
    }

    /// The highest epoch seen.
    pub fn current(&self, leader: Leader) -> i64 {
        self.of(leader).load(Ordering::Acquire)
    }

    /// Lets a call with this epoch in.
    ///
    /// # Errors
    /// STALE_EPOCH if a higher one was seen; ActionFailed if a new one cannot be stored.
    pub async fn admit(&self, leader: Leader, epoch: i64) -> Result<(), Failure> {
        self.check(leader, epoch)?;
        if epoch == self.current(leader) {
            return Ok(());
        }
        let _writing = self.writing.lock().await;
        self.check(leader, epoch)?;
        if epoch == self.current(leader) {
            return Ok(());
        }
        let mut stored = Stored {
            wc: self.current(Leader::Wc),
            gc: self.current(Leader::Gc),
        };
        match leader {
            Leader::Wc => stored.wc = epoch,
            Leader::Gc => stored.gc = epoch,
        }
        let folder = self.folder.clone();
        let written = tokio::task::spawn_blocking(move || write(&folder, stored)).await;
        match written {
            Ok(Ok(())) => {
                self.of(leader).store(epoch, Ordering::Release);
                tracing::info!(?leader, epoch, "a new leader");
                Ok(())
            }
            Ok(Err(error)) => Err(Failure::action(format!(
                "the agent cannot store the epoch in {}: {error}",
                self.folder.display()
            ))),
            Err(error) => Err(Failure::action(format!("storing the epoch: {error}"))),
        }
    }

    /// Whether a call of this epoch may still change something.
    ///
    /// # Errors
    /// STALE_EPOCH.
    pub fn check(&self, leader: Leader, epoch: i64) -> Result<(), Failure> {
        let highest = self.current(leader);
        if epoch < highest {
            return Err(Failure::new(
                Reason::StaleEpoch,
                format!("epoch {epoch} is over: epoch {highest} leads"),
            ));
        }
        Ok(())
    }

    fn of(&self, leader: Leader) -> &AtomicI64 {
        match leader {
            Leader::Wc => &self.wc,
            Leader::Gc => &self.gc,
        }
    }
}

fn write(folder: &Path, stored: Stored) -> io::Result<()> {
    let next = folder.join("epochs.json.next");
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec(&stored)?)?;
    file.sync_all()?;
    fs::rename(&next, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_highest_epoch_survives_and_fences() {
        let folder = tempfile::tempdir().unwrap();
        let epochs = Epochs::open(folder.path()).unwrap();
        epochs.admit(Leader::Wc, 3).await.unwrap();
        epochs.admit(Leader::Wc, 3).await.unwrap();
        epochs.admit(Leader::Gc, 1).await.unwrap();
        let stale = epochs.admit(Leader::Wc, 2).await.unwrap_err();
        assert_eq!(stale.reason, Reason::StaleEpoch);

        let again = Epochs::open(folder.path()).unwrap();
        assert_eq!(
            (again.current(Leader::Wc), again.current(Leader::Gc)),
            (3, 1)
        );
        assert!(again.check(Leader::Wc, 2).is_err());
    }

    #[tokio::test]
    async fn what_cannot_be_stored_is_not_let_in() {
        let folder = tempfile::tempdir().unwrap();
        let epochs = Epochs::open(folder.path()).unwrap();
        folder.close().unwrap();
        let failed = epochs.admit(Leader::Wc, 1).await.unwrap_err();
        assert_eq!(failed.reason, Reason::ActionFailed);
        assert_eq!(epochs.current(Leader::Wc), 0);
    }

    #[test]
    fn a_damaged_file_stops_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(Epochs::open(folder.path()).is_err());
    }
}
