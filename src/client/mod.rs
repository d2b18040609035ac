//! Clients of remote services.

#[cfg(feature = "pairs")]
pub mod pairs;
