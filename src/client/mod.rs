//! Clients of remote services, each behind the feature of its name, and the HTTP that they stand
//! on.

#[cfg(any(feature = "openeo", feature = "pairs"))]
mod creation;
#[cfg(any(feature = "openeo", feature = "pairs"))]
mod date;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "openeo")]
pub mod openeo;
#[cfg(feature = "pairs")]
pub mod pairs;
#[cfg(all(test, feature = "http"))]
mod random;
