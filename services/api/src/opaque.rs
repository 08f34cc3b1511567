//! Tokens that mean nothing to a client: hexadecimal digits of JSON. A client may forge one; what it
//! holds is checked like any other input, and shows nothing that its owner could not see anyway.

use serde::{Serialize, de::DeserializeOwned};

/// Longer ones are not ours.
const MAX: usize = 4096;

pub fn encode(value: &impl Serialize) -> String {
    // Plain structs of strings and numbers always serialise.
    hex::encode(serde_json::to_vec(value).unwrap_or_default())
}

pub fn decode<T: DeserializeOwned>(token: &str) -> Option<T> {
    if token.len() > MAX {
        return None;
    }
    serde_json::from_slice(&hex::decode(token).ok()?).ok()
}
