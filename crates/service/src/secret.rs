//! Secrets in configuration: never printed, and given directly or as the path of a file.
//!
//! A file (`WINDLASS_X_FILE`) is how Kubernetes and systemd hand over secrets; an environment variable
//! is how a developer does. [`secret_arg!`](crate::secret_arg) declares both at once.

use std::fmt;
use std::path::Path;

use clap::ArgMatches;
use clap::error::ErrorKind;
use clap::parser::ValueSource;

/// A string that must not reach a log: `Debug` and `Display` print `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself. Call it where it is used, not earlier.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file; the line end after it is not part of it.
    ///
    /// # Errors
    /// Names the path when it cannot be read or holds nothing.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let value = text.trim_end_matches(['\r', '\n']);
        if value.is_empty() {
            return Err(format!("{} is empty", path.display()));
        }
        Ok(Self::new(value))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

/// The flags and variables of one secret; made by [`secret_arg!`](crate::secret_arg).
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct SecretNames {
    pub flag: &'static str,
    pub file_flag: &'static str,
    pub env: &'static str,
    pub file_env: &'static str,
    pub help: &'static str,
    pub file_help: &'static str,
}

#[doc(hidden)]
impl SecretNames {
    pub fn augment(&self, command: clap::Command) -> clap::Command {
        let value = clap::Arg::new(self.flag)
            .long(self.flag)
            .env(self.env)
            .hide_env_values(true)
            .value_name("SECRET")
            .help(self.help);
        let file = clap::Arg::new(self.file_flag)
            .long(self.file_flag)
            .env(self.file_env)
            .value_name("PATH")
            .value_parser(clap::value_parser!(std::path::PathBuf))
            .help(self.file_help);
        command.arg(value).arg(file).group(
            clap::ArgGroup::new(self.group())
                .multiple(true)
                .args([self.flag, self.file_flag]),
        )
    }

    /// The id of the group that is present when either form is given.
    pub fn group(&self) -> &'static str {
        self.env
    }

    /// A flag wins over a variable; the same kind of source twice is refused rather than guessed.
    pub fn resolve(&self, matches: &ArgMatches) -> Result<Secret, clap::Error> {
        let given = |id| {
            matches
                .value_source(id)
                .filter(|s| *s != ValueSource::DefaultValue)
        };
        match (given(self.flag), given(self.file_flag)) {
            (None, None) => Err(self.error(
                ErrorKind::MissingRequiredArgument,
                &format!("set {} or {}", self.env, self.file_env),
            )),
            (Some(_), None) => self.value(matches),
            (None, Some(_)) => self.file(matches),
            (Some(ValueSource::CommandLine), Some(ValueSource::EnvVariable)) => self.value(matches),
            (Some(ValueSource::EnvVariable), Some(ValueSource::CommandLine)) => self.file(matches),
            (Some(_), Some(_)) => Err(self.error(
                ErrorKind::ArgumentConflict,
                &format!("both {} and {} are set; keep one", self.env, self.file_env),
            )),
        }
    }

    fn value(&self, matches: &ArgMatches) -> Result<Secret, clap::Error> {
        match matches.get_one::<String>(self.flag) {
            Some(value) if !value.is_empty() => Ok(Secret::new(value.as_str())),
            _ => Err(self.error(ErrorKind::InvalidValue, &format!("{} is empty", self.env))),
        }
    }

    fn file(&self, matches: &ArgMatches) -> Result<Secret, clap::Error> {
        let Some(path) = matches.get_one::<std::path::PathBuf>(self.file_flag) else {
            return Err(self.error(
                ErrorKind::InvalidValue,
                &format!("{} is empty", self.file_env),
            ));
        };
        Secret::from_file(path).map_err(|why| {
            self.error(
                ErrorKind::InvalidValue,
                &format!("{}: {why}", self.file_env),
            )
        })
    }

    fn error(&self, kind: ErrorKind, message: &str) -> clap::Error {
        clap::Error::raw(
            kind,
            format!("{message} (--{}, --{})", self.flag, self.file_flag),
        )
    }
}

/// Declares a secret of the configuration: a newtype around [`Secret`] to be flattened into a config.
///
/// ```
/// windlass_service::secret_arg!(
///     /// Where the database is, with its password.
///     pub DatabaseUrl, "database-url", "WINDLASS_DATABASE_URL", "PostgreSQL URL of this service's role"
/// );
///
/// #[derive(clap::Parser)]
/// struct Config {
///     #[command(flatten)]
///     database_url: DatabaseUrl, // or Option<DatabaseUrl>
/// }
///
/// use clap::Parser;
/// let config = Config::try_parse_from(["x", "--database-url", "postgres://u:p@127.0.0.1/db"]).unwrap();
/// assert_eq!(config.database_url.expose(), "postgres://u:p@127.0.0.1/db");
/// ```
///
/// It gives `--database-url`/`WINDLASS_DATABASE_URL` and `--database-url-file`/
/// `WINDLASS_DATABASE_URL_FILE`. The value dereferences to [`Secret`] and converts from strings.
#[macro_export]
macro_rules! secret_arg {
    ($(#[$meta:meta])* $vis:vis $name:ident, $flag:literal, $env:literal, $help:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        $vis struct $name($crate::Secret);

        impl $name {
            const NAMES: $crate::secret::SecretNames = $crate::secret::SecretNames {
                flag: $flag,
                file_flag: concat!($flag, "-file"),
                env: $env,
                file_env: concat!($env, "_FILE"),
                help: $help,
                file_help: concat!("File that holds --", $flag),
            };
        }

        impl<T: Into<$crate::Secret>> From<T> for $name {
            fn from(value: T) -> Self {
                Self(value.into())
            }
        }

        impl std::ops::Deref for $name {
            type Target = $crate::Secret;
            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }

        impl $crate::config::clap::FromArgMatches for $name {
            fn from_arg_matches(
                matches: &$crate::config::clap::ArgMatches,
            ) -> Result<Self, $crate::config::clap::Error> {
                Self::NAMES.resolve(matches).map(Self)
            }
            fn update_from_arg_matches(
                &mut self,
                matches: &$crate::config::clap::ArgMatches,
            ) -> Result<(), $crate::config::clap::Error> {
                *self = Self(Self::NAMES.resolve(matches)?);
                Ok(())
            }
        }

        impl $crate::config::clap::Args for $name {
            fn group_id() -> Option<$crate::config::clap::Id> {
                Some(Self::NAMES.group().into())
            }
            fn augment_args(
                command: $crate::config::clap::Command,
            ) -> $crate::config::clap::Command {
                Self::NAMES.augment(command)
            }
            fn augment_args_for_update(
                command: $crate::config::clap::Command,
            ) -> $crate::config::clap::Command {
                Self::NAMES.augment(command)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    crate::secret_arg!(TestUrl, "test-url", "WINDLASS_SECRET_TEST_URL", "a test");
    crate::secret_arg!(Other, "other", "WINDLASS_SECRET_TEST_OTHER", "another test");

    #[derive(Parser, Debug)]
    struct Config {
        #[command(flatten)]
        url: TestUrl,
        #[command(flatten)]
        other: Option<Other>,
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "[redacted] [redacted]");
        let config = Config::try_parse_from(["x", "--test-url", "hunter2"]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn it_comes_from_a_flag_or_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let path = file.path().to_str().unwrap();
        let config =
            Config::try_parse_from(["x", "--test-url-file", path, "--other", "o"]).unwrap();
        assert_eq!(config.url.expose(), "s3cret");
        assert_eq!(config.other.unwrap().expose(), "o");
    }

    #[test]
    fn what_is_missing_or_double_is_named_by_variable() {
        let missing = Config::try_parse_from(["x"]).unwrap_err().to_string();
        assert!(
            missing.contains("set WINDLASS_SECRET_TEST_URL or WINDLASS_SECRET_TEST_URL_FILE"),
            "{missing}"
        );
        let twice = Config::try_parse_from(["x", "--test-url", "a", "--test-url-file", "b"])
            .unwrap_err()
            .to_string();
        assert!(twice.contains("keep one"), "{twice}");
        let unreadable = Config::try_parse_from(["x", "--test-url-file", "/does/not/exist"])
            .unwrap_err()
            .to_string();
        assert!(
            unreadable.contains("WINDLASS_SECRET_TEST_URL_FILE: cannot read"),
            "{unreadable}"
        );
    }

    #[test]
    fn an_optional_secret_may_be_absent() {
        let config = Config::try_parse_from(["x", "--test-url", "a"]).unwrap();
        assert!(config.other.is_none());
    }
}
