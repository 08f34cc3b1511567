//! Clients of the hosts' agents, one channel per address. Connections are made as they are needed and
//! mend themselves.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use windlass_proto::v1::agent_service_client::AgentServiceClient;
use windlass_service::{AuthChannel, Secret, client::ClientError, connect};

/// A client of one agent.
pub type AgentClient = AgentServiceClient<AuthChannel>;

/// Clients by address.
#[derive(Debug)]
pub struct Agents {
    token: Secret,
    clients: Mutex<HashMap<String, AgentClient>>,
}

impl Agents {
    /// Clients that show `token`.
    pub fn new(token: &Secret) -> Self {
        Self {
            token: token.clone(),
            clients: Mutex::default(),
        }
    }

    /// The client of the agent at `address`.
    ///
    /// # Errors
    /// When the address is not a URL.
    pub fn client(&self, address: &str) -> Result<AgentClient, ClientError> {
        // A panic cannot leave a map of clients inconsistent.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(address) {
            return Ok(client.clone());
        }
        let client = AgentServiceClient::new(connect(address, &self.token)?);
        clients.insert(address.to_owned(), client.clone());
        Ok(client)
    }
}
