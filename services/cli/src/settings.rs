//! Where the servers are and which token they get: flags and variables first, then `.windlass/env` of the
//! folder one is in, then the defaults.
//!
//! The file's token goes to the file's address only: naming another address means naming a token too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::args::Connection;
use crate::envfile;
use crate::error::CliError;

/// Everything needed to call the servers.
#[derive(Clone)]
pub struct Settings {
    /// The api, as a URL.
    pub api: String,
    /// The observer.
    pub observer: String,
    /// The workspace controller.
    pub wc: String,
    /// The TTL runner.
    pub ttl: String,
    /// The garbage collector.
    pub gc: String,
    /// The agent of this machine.
    pub agent: String,
    /// A user's token; absent if none is known.
    pub token: Option<String>,
    /// The token of the services among themselves.
    pub service_token: Option<String>,
    /// The file that was read for what was not given.
    pub env_file: Option<PathBuf>,
}

impl Settings {
    /// From the command line, the environment and the folder we are in.
    pub fn load(given: &Connection) -> Result<Self, CliError> {
        let token = secret(
            &given.token,
            given.token_file.as_deref(),
            "WINDLASS_TOKEN_FILE",
        )?;
        let service_token = secret(
            &given.service_token,
            given.service_token_file.as_deref(),
            "WINDLASS_SERVICE_TOKEN_FILE",
        )?;
        let found = match token {
            Some(_) => None,
            None => std::env::current_dir()
                .ok()
                .and_then(|dir| envfile::find(&dir)),
        };
        let file = match &found {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?;
                envfile::parse(&text)
            }
            None => BTreeMap::new(),
        };
        Ok(Self {
            env_file: found,
            ..Self::combine(given, token, service_token, &file)
        })
    }

    fn combine(
        given: &Connection,
        token: Option<String>,
        service_token: Option<String>,
        file: &BTreeMap<String, String>,
    ) -> Self {
        let address = |given: &Option<String>, variable: &str, port: u16| {
            url(given
                .clone()
                .filter(|a| !a.is_empty())
                .or_else(|| file.get(variable).cloned())
                .unwrap_or_else(|| format!("127.0.0.1:{port}")))
        };
        let api = address(&given.addr, "WINDLASS_ADDR", 7400);
        let own = file
            .get("WINDLASS_ADDR")
            .is_some_and(|a| url(a.clone()) == api);
        let of_file = |variable: &str| file.get(variable).filter(|_| own).cloned();
        let token = token.or_else(|| of_file("WINDLASS_TOKEN"));
        Self {
            observer: address(&given.observer_addr, "WINDLASS_OBSERVER_ADDR", 7402),
            wc: address(&given.wc_addr, "WINDLASS_WC_ADDR", 7403),
            ttl: address(&given.ttl_addr, "WINDLASS_TTL_ADDR", 7404),
            gc: address(&given.gc_addr, "WINDLASS_GC_ADDR", 7405),
            agent: address(&given.agent_addr, "WINDLASS_AGENT_ADDR", 7401),
            service_token: service_token
                .or_else(|| of_file("WINDLASS_SERVICE_TOKEN"))
                .or_else(|| token.clone()),
            token,
            api,
            env_file: None,
        }
    }
}

fn url(address: String) -> String {
    if address.contains("://") {
        address
    } else {
        format!("http://{address}")
    }
}

fn secret(
    value: &Option<String>,
    file: Option<&std::path::Path>,
    variable: &str,
) -> Result<Option<String>, CliError> {
    if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
        return Ok(Some(value.clone()));
    }
    let Some(file) = file.filter(|f| !f.as_os_str().is_empty()) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(file)
        .map_err(|e| CliError::Usage(format!("{variable}: {}: {e}", file.display())))?;
    let text = text.trim();
    if text.is_empty() {
        let message = format!("{variable}: {} is empty", file.display());
        return Err(CliError::Usage(message));
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> BTreeMap<String, String> {
        envfile::parse(
            "export WINDLASS_ADDR='http://127.0.0.1:17400'\nexport WINDLASS_TOKEN='t'\n\
             export WINDLASS_WC_ADDR='http://127.0.0.1:17403'\nexport WINDLASS_SERVICE_TOKEN='s'\n",
        )
    }

    #[test]
    fn the_file_fills_what_is_not_given() {
        let settings = Settings::combine(&Connection::default(), None, None, &file());
        assert_eq!(settings.api, "http://127.0.0.1:17400");
        assert_eq!(settings.wc, "http://127.0.0.1:17403");
        assert_eq!(settings.gc, "http://127.0.0.1:7405");
        assert_eq!(settings.token.as_deref(), Some("t"));
        assert_eq!(settings.service_token.as_deref(), Some("s"));
    }

    #[test]
    fn its_token_goes_to_no_other_address() {
        let elsewhere = Connection {
            addr: Some("elsewhere:7400".to_owned()),
            ..Connection::default()
        };
        let settings = Settings::combine(&elsewhere, None, None, &file());
        assert_eq!(settings.api, "http://elsewhere:7400");
        assert_eq!(settings.token, None);
        assert_eq!(settings.service_token, None);
    }

    #[test]
    fn the_service_token_falls_back_to_the_token() {
        let none = BTreeMap::new();
        let settings = Settings::combine(&Connection::default(), Some("t".into()), None, &none);
        assert_eq!(settings.service_token.as_deref(), Some("t"));
        assert_eq!(settings.api, "http://127.0.0.1:7400");
    }
}
