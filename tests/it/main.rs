//! The crate from outside: the contract's names, the ten promises, and what happens at the edges.

mod batch;
mod batch_hostile;
mod contract;
mod edges;
mod handles;
#[cfg(feature = "http")]
mod http;
mod jobs;
#[cfg(feature = "openeo")]
mod openeo;
mod order;
#[cfg(feature = "pairs")]
mod pairs;
mod pool;
mod promises;
mod queue;
mod regressions;
mod support;
mod timer;
