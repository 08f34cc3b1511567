//! `windlass doctor`: looks at every part and says what to do about what is wrong.
//!
//! One part that cannot be reached hides nothing of the others. Here they are asked; `judge` says what is wrong.

mod judge;

use std::process::ExitCode;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde_json::json;
use windlass_proto::v1;

use crate::args::Output;
use crate::client::{Client, request_within};
use crate::error::CliError;
use crate::output::{self, outln, table};
use crate::resolve;

use super::host;
use judge::{Finding, Mark, finding, observed, seen_by_agent, service_status, workspaces};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Checks everything; exit code 1 if anything is wrong.
pub async fn run(client: &Client, output: Output) -> Result<ExitCode, CliError> {
    let (api, services) = tokio::join!(api(client), services(client));
    let mut findings = vec![configuration(client)];
    findings.extend(api);
    findings.extend(services);
    match output {
        Output::Json => output::print_json(&serde_json::Value::Array(
            findings
                .iter()
                .map(|f| {
                    json!({
                        "status": f.mark.word().to_lowercase(),
                        "check": f.check,
                        "found": f.found,
                        "advice": f.advice,
                    })
                })
                .collect(),
        )),
        Output::Id | Output::Table => {
            let rows = findings.iter().map(|f| {
                (
                    f.mark.word(),
                    f.check.as_str(),
                    f.found.as_str(),
                    f.advice.as_str(),
                )
            });
            outln!("{}", table::findings(rows));
        }
    }
    let wrong = findings.iter().any(|f| f.mark == Mark::Wrong);
    Ok(ExitCode::from(u8::from(wrong)))
}

fn configuration(client: &Client) -> Finding {
    let settings = client.settings();
    let from = match &settings.env_file {
        Some(path) => format!("{} ({})", settings.api, path.display()),
        None => settings.api.clone(),
    };
    match settings.token {
        Some(_) => finding(Mark::Ok, "configuration", from, ""),
        None => finding(
            Mark::Wrong,
            "configuration",
            format!("{from}: no token"),
            "set WINDLASS_TOKEN, or run this below the folder where `./dev up` runs",
        ),
    }
}

async fn api(client: &Client) -> Vec<Finding> {
    let hosts = match host::all(client).await {
        Ok(hosts) => hosts,
        Err(error) => {
            let advice = match error {
                CliError::Unreachable(_) => "start it: ./dev up; its log is .windlass/log/api.log",
                _ => "check the address and WINDLASS_TOKEN; see .windlass/log/api.log",
            };
            let mut findings = vec![finding(Mark::Wrong, "api", error.to_string(), advice)];
            findings.extend(agent(client, "agent", &client.settings().agent).await);
            return findings;
        }
    };
    let mut findings = vec![finding(Mark::Ok, "api", "reachable, token accepted", "")];
    if hosts.is_empty() {
        findings.push(finding(
            Mark::Wrong,
            "hosts",
            "none is registered",
            "windlass host register NAME http://AGENT:7401",
        ));
        findings.extend(agent(client, "agent", &client.settings().agent).await);
    }
    let now = Utc::now();
    for host in &hosts {
        findings.push(observed(host, now));
        findings.extend(agent(client, &format!("agent {}", host.name), &host.address).await);
    }
    match resolve::list(client, "phase != DELETED", "", true, None).await {
        Ok(all) => findings.extend(workspaces(&all, now)),
        Err(error) => findings.push(finding(Mark::Wrong, "workspaces", error.to_string(), "")),
    }
    findings
}

async fn agent(client: &Client, check: &str, address: &str) -> Vec<Finding> {
    let answer = async {
        let mut agent = client.agent(address)?;
        let message = request_within(v1::GetHostRequest {}, TIMEOUT);
        let answer = agent.get_host(message).await;
        answer.map_err(|s| CliError::from_status(&s, "agent", address))
    };
    match answer.await {
        Err(error) => vec![finding(
            Mark::Wrong,
            check,
            error.to_string(),
            "start it, and check WINDLASS_SERVICE_TOKEN; see .windlass/log/agent.log",
        )],
        Ok(answer) => seen_by_agent(check, &answer.into_inner()),
    }
}

async fn services(client: &Client) -> Vec<Finding> {
    // (name, its status or why there is none, how long it may be silent)
    macro_rules! status_of {
        ($name:ident, $address:ident, $silence:expr) => {
            async {
                let answer = async {
                    let mut service = client.$name()?;
                    let message = request_within(v1::GetStatusRequest {}, TIMEOUT);
                    let answer = service.get_status(message).await;
                    let address = &client.settings().$address;
                    answer.map_err(|s| CliError::from_status(&s, stringify!($name), address))
                };
                match answer.await {
                    Ok(answer) => {
                        let status = answer.into_inner().status.unwrap_or_default();
                        service_status(stringify!($name), &status, $silence, Utc::now())
                    }
                    Err(error) => finding(
                        Mark::Wrong,
                        stringify!($name),
                        error.to_string(),
                        concat!(
                            "start it, and check WINDLASS_SERVICE_TOKEN; see .windlass/log/",
                            stringify!($name),
                            ".log"
                        ),
                    ),
                }
            }
        };
    }
    let (observer, wc, ttl, gc) = tokio::join!(
        status_of!(observer, observer, TimeDelta::minutes(1)),
        status_of!(wc, wc, TimeDelta::minutes(1)),
        status_of!(ttl, ttl, TimeDelta::minutes(5)),
        status_of!(gc, gc, TimeDelta::hours(9)),
    );
    vec![observer, wc, ttl, gc]
}
