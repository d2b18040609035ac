//! The crate from outside: the contract's names, the thirteen promises, and what happens at the edges.

mod batch;
mod batch_hostile;
mod contract;
mod edges;
mod ends;
mod full;
mod handles;
#[cfg(feature = "http")]
mod http;
mod interrupts;
mod jobs;
mod kept;
mod lending;
mod methods;
mod nesting;
#[cfg(feature = "openeo")]
mod openeo;
mod order;
#[cfg(feature = "pairs")]
mod pairs;
mod pipeline;
mod pool;
mod progress;
mod promises;
mod queue;
mod regressions;
mod reports;
mod select;
mod sleep;
mod support;
mod timer;
mod together;
mod waits;
