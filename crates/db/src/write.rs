//! Writes: one module per service, holding exactly what its role is granted.

pub mod api;
pub mod gc;
pub mod observer;
pub mod ttl;
pub mod wc;
