//! The crate from outside: the contract's names, the thirteen promises, and what happens at the
//! edges.

mod batch;
mod batch_faults;
mod batch_interrupts;
mod belonging;
mod bounded;
#[cfg(all(feature = "sqlite", feature = "openeo"))]
mod campaign_own;
mod cancelled_waits;
mod contract;
mod ends;
mod front_door;
mod groups;
mod handles;
#[cfg(feature = "http")]
mod http;
mod idle;
mod interrupts;
mod lending;
mod libraries;
mod limit;
mod map;
mod memory;
mod methods;
mod nested_groups;
mod nesting;
#[cfg(feature = "openeo")]
mod openeo;
mod order;
#[cfg(feature = "pairs")]
mod pairs;
mod panics;
mod pipeline;
mod pool;
mod priority;
mod processors;
mod progress;
mod promises;
mod queue;
mod results;
mod scope;
mod select;
mod shutdown;
mod sleep;
mod stopping;
mod support;
mod time_limits;
mod timer;
mod together;
mod waits;
mod waits_inside;
