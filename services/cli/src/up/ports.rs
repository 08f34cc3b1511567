//! Where each service listens: the variables the services themselves know, else a port base.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::error::CliError;

/// The services by their offset from the port base.
const SERVICES: [&str; 6] = ["api", "agent", "observer", "wc", "ttl", "gc"];
/// Between a service's gRPC port and its HTTP port.
const HTTP_OFFSET: u16 = 100;

/// One service's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Short name, such as `api`.
    pub name: &'static str,
    /// gRPC.
    pub grpc: SocketAddr,
    /// Metrics and health.
    pub http: SocketAddr,
}

impl Listen {
    /// The variable of the gRPC address.
    pub fn grpc_variable(&self) -> String {
        format!("WINDLASS_{}_LISTEN", self.name.to_uppercase())
    }

    /// The variable of the HTTP address.
    pub fn http_variable(&self) -> String {
        format!("WINDLASS_{}_HTTP_LISTEN", self.name.to_uppercase())
    }

    /// Where clients on this machine reach it.
    pub fn url(&self) -> String {
        format!("http://{}", reachable(self.grpc))
    }

    /// Where its metrics and health are reached.
    pub fn http_url(&self) -> String {
        format!("http://{}", reachable(self.http))
    }

    /// The HTTP address to connect to.
    pub fn http_address(&self) -> SocketAddr {
        reachable(self.http)
    }
}

/// What listens everywhere is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

/// Every service's addresses.
#[derive(Debug, Clone)]
pub struct Plan(Vec<Listen>);

impl Plan {
    /// From our environment.
    pub fn from_environment(base: u16) -> Result<Self, CliError> {
        Self::new(base, |name| std::env::var(name).ok())
    }

    /// From an environment.
    pub fn new(base: u16, variable: impl Fn(&str) -> Option<String>) -> Result<Self, CliError> {
        let address = |name: &str, default: SocketAddr| match variable(name) {
            Some(text) if !text.is_empty() => text.parse().map_err(|_| {
                CliError::Usage(format!(
                    "{name}: {text:?} is no address; use 127.0.0.1:PORT"
                ))
            }),
            _ => Ok(default),
        };
        let on = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut listens = Vec::new();
        for (offset, name) in (0..).zip(SERVICES) {
            let mut listen = Listen {
                name,
                grpc: on(base + offset),
                http: on(base + offset + HTTP_OFFSET),
            };
            listen.grpc = address(&listen.grpc_variable(), listen.grpc)?;
            listen
                .http
                .set_port(listen.grpc.port().saturating_add(HTTP_OFFSET));
            listen.http = address(&listen.http_variable(), listen.http)?;
            listens.push(listen);
        }
        Ok(Self(listens))
    }

    /// All of them, the api first.
    pub fn services(&self) -> &[Listen] {
        &self.0
    }

    /// One of them.
    pub fn service(&self, name: &str) -> &Listen {
        // Only names of SERVICES are asked for; the first stands in for any other.
        self.0.iter().find(|s| s.name == name).unwrap_or(&self.0[0])
    }

    /// Whether every address can be listened on.
    pub fn check_free(&self) -> Result<(), CliError> {
        for service in &self.0 {
            for (address, variable) in [
                (service.grpc, service.grpc_variable()),
                (service.http, service.http_variable()),
            ] {
                windlass_local::ports::check_free(address).map_err(|e| {
                    CliError::Failed(format!(
                        "{e}: stop it, or set {variable} (or --port-base for all services)"
                    ))
                })?;
            }
        }
        Ok(())
    }
}

/// A `..._FILE` in our environment would contradict what the services are given.
pub fn refuse_secret_files() -> Result<(), CliError> {
    for name in [
        "WINDLASS_DATABASE_URL_FILE",
        "WINDLASS_REDIS_URL_FILE",
        "WINDLASS_SERVICE_TOKEN_FILE",
        "WINDLASS_ADMIN_TOKEN_FILE",
        "WINDLASS_ROLE_PASSWORD_FILE",
        "WINDLASS_S3_ACCESS_KEY_ID_FILE",
        "WINDLASS_S3_SECRET_ACCESS_KEY_FILE",
    ] {
        if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
            return Err(CliError::Usage(format!(
                "{name} is set, but `windlass up` makes its own: unset it"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_services() {
        let plan = Plan::new(7400, |_| None).unwrap();
        assert_eq!(plan.service("api").url(), "http://127.0.0.1:7400");
        assert_eq!(plan.service("agent").url(), "http://127.0.0.1:7401");
        assert_eq!(plan.service("gc").url(), "http://127.0.0.1:7405");
        assert_eq!(plan.service("gc").http_url(), "http://127.0.0.1:7505");
    }

    #[test]
    fn variables_win_over_the_base() {
        let plan = Plan::new(17400, |name| {
            (name == "WINDLASS_WC_LISTEN").then(|| "0.0.0.0:9000".to_owned())
        })
        .unwrap();
        assert_eq!(plan.service("wc").grpc.to_string(), "0.0.0.0:9000");
        assert_eq!(plan.service("wc").url(), "http://127.0.0.1:9000");
        assert_eq!(plan.service("wc").http.to_string(), "127.0.0.1:9100");
        assert_eq!(plan.service("api").url(), "http://127.0.0.1:17400");
        let bad = Plan::new(7400, |_| Some("nonsense".to_owned())).unwrap_err();
        assert!(bad.to_string().starts_with("WINDLASS_API_LISTEN"), "{bad}");
    }

    #[test]
    fn a_taken_port_names_the_variable() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let plan = Plan::new(7400, |name| {
            (name == "WINDLASS_API_LISTEN").then(|| address.clone())
        });
        let error = plan.unwrap().check_free().unwrap_err().to_string();
        assert!(
            error.contains("is taken") && error.contains("WINDLASS_API_LISTEN"),
            "{error}"
        );
    }
}
