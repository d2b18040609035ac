//! IBM PAIRS, also known as Environmental Intelligence Geospatial: queries for layers of the earth, on many of its servers.
//!
//! A query for an area becomes a job on the server, which is asked for until it is done, and then downloaded; one for a
//! few points is answered at once.
//!
//! Source of the protocol: the Python client `ibmpairs` 3.1.17 and the replies captured in its test data.

mod date;
mod error;
mod id;
mod password;
mod points;
mod query;
mod reply;
mod schema;
mod status;
#[cfg(test)]
mod tests;

pub use error::PairsError;
pub use points::{PointData, PointValue};
pub use query::{Layer, Query, QueryBuilder};
pub use reply::{Estimate, MergedLayer, QueryHistory, QueryJob, QueryJobs, Submission};
pub use status::{Phase, StatusCode};
