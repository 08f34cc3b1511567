//! `windlass host`.

use chrono::Utc;
use windlass_proto::v1;

use crate::args::{HostCommand, Output};
use crate::client::{Client, request};
use crate::error::CliError;
use crate::output::{self, json, table};
use crate::resolve;

/// Runs one of them.
pub async fn run(client: &Client, command: HostCommand, output: Output) -> Result<(), CliError> {
    let mut service = client.hosts()?;
    let changed = match command {
        HostCommand::List => {
            let hosts = all(client).await?;
            print(&hosts, output);
            return Ok(());
        }
        HostCommand::Register { name, address } => {
            let message = v1::RegisterHostRequest { name, address };
            service.register_host(request(message)).await
        }
        HostCommand::Cordon { id } => {
            let id = resolve::host(&all(client).await?, &id)?;
            service
                .cordon_host(request(v1::CordonHostRequest { id }))
                .await
        }
        HostCommand::Uncordon { id } => {
            let id = resolve::host(&all(client).await?, &id)?;
            service
                .uncordon_host(request(v1::UncordonHostRequest { id }))
                .await
        }
    };
    let host = changed.map_err(client.api_error())?.into_inner();
    match output {
        Output::Json => output::print_json(&json::host(&host)),
        Output::Id | Output::Table => print(&[host], output),
    }
    Ok(())
}

/// Every host.
pub async fn all(client: &Client) -> Result<Vec<v1::Host>, CliError> {
    let answer = client
        .hosts()?
        .list_hosts(request(v1::ListHostsRequest {}))
        .await;
    Ok(answer.map_err(client.api_error())?.into_inner().hosts)
}

fn print(hosts: &[v1::Host], output: Output) {
    let table = |hosts: &[_]| table::hosts(hosts, Utc::now());
    output::list(hosts, output, json::host, |h| &h.id, table);
}
