//! The folder `.windlass`: its lock, and the secrets and ports that have to be the same at every start.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ports::Plan;
use crate::envfile::write_private;
use crate::error::CliError;

/// Made once, kept in `secrets.json` for its owner only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// The admin user's token, and the services' own.
    pub admin_token: String,
    /// Password of every service's database role.
    pub role_password: String,
    /// Access key of the S3 store.
    pub s3_access_key: String,
    /// Its secret.
    pub s3_secret_key: String,
    /// The port PostgreSQL had last.
    #[serde(default)]
    pub postgres_port: Option<u16>,
    /// The port Redis had last.
    #[serde(default)]
    pub redis_port: Option<u16>,
    /// The port the S3 store had last.
    #[serde(default)]
    pub s3_port: Option<u16>,
}

impl Secrets {
    fn generate() -> Self {
        let random = || hex::encode(rand::random::<[u8; 24]>());
        Self {
            admin_token: format!("wl_{}", random()),
            role_password: random(),
            s3_access_key: format!("windlass{}", &random()[..12]),
            s3_secret_key: random(),
            postgres_port: None,
            redis_port: None,
            s3_port: None,
        }
    }
}

/// The folder, locked as long as this lives.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    lock: File,
    secrets: Secrets,
}

impl State {
    /// Makes the folder if absent, locks it and reads the secrets.
    pub fn open(dir: &Path) -> Result<Self, CliError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()))
        };
        fs::create_dir_all(dir).map_err(failed(dir))?;
        let dir = fs::canonicalize(dir).map_err(failed(dir))?;
        let lock_path = dir.join("up.lock");
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut who = String::new();
                let _ = lock.read_to_string(&mut who);
                let who = if who.trim().is_empty() {
                    "it is still starting"
                } else {
                    who.trim()
                };
                return Err(CliError::Failed(format!(
                    "already running in {}: {who}",
                    dir.display()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(failed(&lock_path)(e)),
        }
        lock.set_len(0).map_err(failed(&lock_path))?;
        for sub in ["run", "log"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(failed(&path))?;
            fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(failed(&path))?;
        }
        let path = dir.join("secrets.json");
        let secrets = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| {
                CliError::Failed(format!(
                    "{}: {e}; it holds the tokens and passwords of this folder's database",
                    path.display()
                ))
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Secrets::generate(),
            Err(e) => return Err(failed(&path)(e)),
        };
        let state = Self { dir, lock, secrets };
        state.save()?;
        Ok(state)
    }

    /// Writes into the lock who runs, for the one who comes second.
    pub fn announce_running(&mut self, plan: &Plan) -> Result<(), CliError> {
        let api = plan.service("api").url();
        let env = self.path("env");
        let text = format!(
            "process {}, api at {api}, see {}\n",
            std::process::id(),
            env.display()
        );
        let written = self
            .lock
            .set_len(0)
            .and_then(|()| self.lock.rewind())
            .and_then(|()| self.lock.write_all(text.as_bytes()));
        written.map_err(|e| CliError::Failed(format!("{}: {e}", self.path("up.lock").display())))
    }

    /// The folder, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Something in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The secrets.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Changes what is remembered, if it changes.
    pub fn remember(&mut self, change: impl FnOnce(&mut Secrets)) -> Result<(), CliError> {
        let before = self.secrets.clone();
        change(&mut self.secrets);
        if before == self.secrets {
            return Ok(());
        }
        self.save()
    }

    fn save(&self) -> Result<(), CliError> {
        let path = self.path("secrets.json");
        let text = serde_json::to_string_pretty(&self.secrets)
            .map_err(|e| CliError::Failed(e.to_string()))?;
        write_private(&path, &text)
            .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))
    }
}

/// Sixteen hexadecimal digits that stand for a path, the same in every version.
pub fn digest(path: &Path) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(path.as_os_str().as_encoded_bytes());
    hex::encode(&digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_and_the_second_is_told_who_runs() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        let mut first = State::open(&dir).unwrap();
        let plan = Plan::new(7400, |_| None).unwrap();
        first.announce_running(&plan).unwrap();
        first.remember(|s| s.postgres_port = Some(5555)).unwrap();
        let second = State::open(&dir).unwrap_err().to_string();
        let me = format!(
            "process {}, api at http://127.0.0.1:7400",
            std::process::id()
        );
        assert!(
            second.contains("already running") && second.contains(&me),
            "{second}"
        );
        let mode = dir
            .join("secrets.json")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        let secrets = first.secrets().clone();
        drop(first);
        let again = State::open(&dir).unwrap();
        assert_eq!(again.secrets(), &secrets);
        assert_eq!(again.secrets().postgres_port, Some(5555));
    }

    #[test]
    fn broken_secrets_are_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("secrets.json"), "{").unwrap();
        assert!(State::open(root.path()).is_err());
        assert_eq!(
            fs::read_to_string(root.path().join("secrets.json")).unwrap(),
            "{"
        );
    }
}
