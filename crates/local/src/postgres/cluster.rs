//! Making a cluster: whose binaries, whose user, and how it comes into being in one step.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{Config, SUPERUSER};
use crate::process::User;
use crate::{Error, find};

/// Inside the cluster's folder, so that one rename brings both.
const PASSWORD_FILE: &str = "windlass.password";
const UNFINISHED: &str = "data.new-";

/// The programs of one PostgreSQL version.
#[derive(Debug)]
pub(super) struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Those of the cluster's version; the newest for a cluster that is yet to be made.
    pub(super) fn for_cluster(data: &Path) -> Result<Self, Error> {
        let found = installed();
        match fs::read_to_string(data.join("PG_VERSION")) {
            Err(_) => {
                let dir = found.into_iter().next_back().map(|(_, dir)| dir);
                dir.or_else(on_path)
                    .map(|dir| Self { dir })
                    .ok_or(Error::PostgresMissing)
            }
            Ok(version) => {
                let version = version.trim().to_owned();
                let matching = found.into_iter().find(|(v, _)| v.to_string() == version);
                matching
                    .map(|(_, dir)| dir)
                    .or_else(on_path)
                    .map(|dir| Self { dir })
                    .ok_or_else(|| Error::PostgresVersion {
                        dir: data.to_owned(),
                        version,
                    })
            }
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn complete(dir: &Path) -> bool {
    ["postgres", "initdb"]
        .iter()
        .all(|name| find::is_executable(&dir.join(name)))
}

/// Debian's, by major version.
fn installed() -> Vec<(u32, PathBuf)> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, dir)| complete(dir))
        .collect();
    found.sort();
    found
}

fn on_path() -> Option<PathBuf> {
    let initdb = find::program("initdb", "postgresql").ok()?;
    let dir = fs::canonicalize(initdb).ok()?.parent()?.to_owned();
    complete(&dir).then_some(dir)
}

/// Whom PostgreSQL runs as: ourselves, or the user `postgres` when we are root.
pub(super) fn server_user() -> Result<Option<User>, Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io("/etc/passwd"))?;
    let user = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            ["postgres", _, uid, gid, ..] => Some(User {
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
            }),
            _ => None,
        }
    });
    user.map(Some).ok_or(Error::PostgresUser)
}

/// Makes the folder and checks that PostgreSQL's user can pass through all of its path.
pub(super) fn prepare_dir(dir: &Path, user: Option<User>) -> Result<(), Error> {
    if !dir.exists() {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        fs::set_permissions(dir, Permissions::from_mode(0o711)).map_err(Error::io(dir))?;
    }
    let Some(user) = user else {
        return Ok(());
    };
    let path = fs::canonicalize(dir).map_err(Error::io(dir))?;
    for ancestor in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
        let meta = ancestor.metadata().map_err(Error::io(ancestor))?;
        let needed = if meta.uid() == user.uid {
            0o100
        } else if meta.gid() == user.gid {
            0o010
        } else {
            0o001
        };
        if meta.mode() & needed == 0 {
            return Err(Error::NotTraversable(ancestor.to_owned()));
        }
    }
    Ok(())
}

/// Removes what a killed run left unfinished.
pub(super) fn clean_unfinished(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path()).map_err(Error::io(entry.path()))?;
        }
    }
    Ok(())
}

pub(super) fn read_password(data: &Path) -> Result<String, Error> {
    let path = data.join(PASSWORD_FILE);
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    Ok(text.trim().to_owned())
}

/// Makes a cluster at `data`: beside it first, then renamed.
pub(super) async fn create(
    binaries: &Binaries,
    data: &Path,
    user: Option<User>,
    config: &Config,
) -> Result<(), Error> {
    let new = data.with_file_name(format!("{UNFINISHED}{}", random_hex()));
    match &config.template_cache {
        None => initdb(binaries, &new, user, config.durable).await?,
        Some(cache) => {
            let template = template(binaries, cache, user).await?;
            let mut copy = Command::new(find::program("cp", "coreutils")?);
            copy.args(["-a", "--reflink=auto", "--"])
                .args([&template, &new]);
            find::run(&mut copy, "cp -a").await?;
            if config.durable {
                let mut sync = server_program(binaries, "initdb", &new, user);
                sync.arg("--sync-only").arg("-D").arg(&new);
                find::run(&mut sync, "initdb --sync-only").await?;
            }
        }
    }
    fs::rename(&new, data).map_err(Error::io(data))?;
    let parent = data.parent().unwrap_or(data);
    let synced = File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(Error::io(parent))
}

/// The template of this version and user in the cache; made by the first who needs it, while others wait.
async fn template(binaries: &Binaries, cache: &Path, user: Option<User>) -> Result<PathBuf, Error> {
    prepare_dir(cache, user)?;
    let cache = fs::canonicalize(cache).map_err(Error::io(cache))?;
    let version = find::run(
        Command::new(binaries.path("postgres")).arg("--version"),
        "postgres --version",
    )
    .await?;
    let version: String = version
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let uid = user.map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
    let template = cache.join(format!("{}-{uid}", version.trim_matches('-')));
    let lock = template.with_extension("lock");
    let lock = tokio::task::spawn_blocking(move || {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.map_err(Error::io(lock))
    })
    .await
    .map_err(|e| Error::Internal(e.to_string()))??;
    if !template.exists() {
        clean_unfinished(&cache)?;
        let new = cache.join(format!("{UNFINISHED}{}", random_hex()));
        initdb(binaries, &new, user, false).await?;
        fs::rename(&new, &template).map_err(Error::io(&template))?;
    }
    drop(lock);
    Ok(template)
}

async fn initdb(
    binaries: &Binaries,
    new: &Path,
    user: Option<User>,
    durable: bool,
) -> Result<(), Error> {
    let password = random_hex();
    fs::create_dir(new).map_err(Error::io(new))?;
    fs::set_permissions(new, Permissions::from_mode(0o700)).map_err(Error::io(new))?;
    // initdb wants an empty folder, and to read the password as its user: the file lies beside it, in a
    // folder that is renamed away or cleaned with it.
    let data = new.join("data");
    let password_file = new.join(PASSWORD_FILE);
    fs::create_dir(&data).map_err(Error::io(&data))?;
    let mut file = File::options()
        .create_new(true)
        .write(true)
        .open(&password_file)
        .map_err(Error::io(&password_file))?;
    file.set_permissions(Permissions::from_mode(0o600))
        .and_then(|()| writeln!(file, "{password}"))
        .and_then(|()| file.sync_all())
        .map_err(Error::io(&password_file))?;
    if let Some(user) = user {
        for path in [new, &data, &password_file] {
            chown(path, Some(user.uid), Some(user.gid)).map_err(Error::io(path))?;
        }
    }
    let mut initdb = server_program(binaries, "initdb", new, user);
    initdb
        .args(["-E", "UTF8", "--locale=C", "-A", "scram-sha-256"])
        .args(["-U", SUPERUSER])
        .arg("-D")
        .arg(&data)
        .arg("--pwfile")
        .arg(&password_file);
    if !durable {
        initdb.arg("--no-sync");
    }
    find::run(&mut initdb, "initdb").await?;
    fs::rename(&password_file, data.join(PASSWORD_FILE)).map_err(Error::io(&password_file))?;
    // new/data becomes new itself.
    let finished = new.with_file_name(format!("{UNFINISHED}{}", random_hex()));
    fs::rename(&data, &finished).map_err(Error::io(&finished))?;
    fs::remove_dir(new).map_err(Error::io(new))?;
    fs::rename(&finished, new).map_err(Error::io(new))
}

/// One of PostgreSQL's programs, run as its user with an environment that does not disturb it.
fn server_program(binaries: &Binaries, name: &str, dir: &Path, user: Option<User>) -> Command {
    let mut command = Command::new(binaries.path(name));
    for (variable, _) in std::env::vars_os() {
        if variable.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(variable);
        }
    }
    command.env("LC_ALL", OsStr::new("C")).current_dir(dir);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

fn random_hex() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// What an error of tokio-postgres is about: its own text often is only "db error".
pub(super) fn explain(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
