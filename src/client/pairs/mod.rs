//! A client of IBM PAIRS, also known as Environmental Intelligence Geospatial: queries for layers
//! of geospatial data.
//!
//! A [`Query`] for an area becomes a job on the server, which the client polls until it is done,
//! and then downloads. A query for a few points is answered at once. [`Client`] has a method for
//! each call; [`batch_query`] runs many queries in a sliding window.
//!
//! Promises:
//!
//! - A failed query doesn't affect the others, and the report has its error.
//! - No job is created twice on a guess: if the answer to a submission was lost, the client repeats
//!   it only if the complete list of jobs has none like it, and the report says so. Otherwise the
//!   query fails, and the report says that the job may exist.
//! - A result gets its final name only when it is complete and is data. Archives are unpacked
//!   safely, and an HTML page isn't a result.
//! - If an entry of a list or a value can't be read, the others still are, and the result names it.
//!   If the end of a result may be missing, the result says so.
//! - Texts from a server are checked before they become a path or a URL, and cause no panic.
//! - Secrets appear in no error, no `Debug` and no log, and aren't sent unencrypted to a server
//!   that wants `https`.
//!
//! Not included: uploads of data, the catalogue, areas of interest and dashboards.
//! [`Client::request`] can call those.
//!
//! ```
//! # let server = pairs_server::Server::start(pairs_server::Config {
//! #     run: std::time::Duration::from_millis(10), ..Default::default()
//! # })?;
//! # let host = server.url();
//! # let folder = std::env::temp_dir().join(format!("fulmar-pairs-doc-{}", std::process::id()));
//! use fulmar::client::pairs::{BatchOptions, Client, Query, batch_query};
//! use std::time::Duration;
//!
//! let client = Client::builder(&host).basic("me", "a password").build()?; // Say, https://pairs.res.ibm.com
//! let day = Query::builder().layer(92).square(30.0, -100.0, 30.5, -99.6).snapshot("2018-11-01").build()?;
//! let queries = [day.replace_dates("2018-11-02", "2018-11-02")?, day];
//! let options = BatchOptions::new()
//!     .status_interval_floor(Duration::from_millis(10)) // A server that many share deserves the default, 15 s.
//!     .status_interval(Duration::from_millis(50))
//!     .folder(&folder);
//! let report = batch_query(&client, queries, options)?;
//! assert!(report.is_success(), "{report}");
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Source of the protocol: the Python client `ibmpairs` 3.1.17 and the replies captured in its test
//! data.

mod auth;
mod batch;
#[cfg(feature = "sqlite")]
pub mod campaign;
mod cleartext;
mod client;
mod content;
mod download;
mod error;
mod host;
mod id;
mod job;
mod password;
mod points;
mod query;
mod reply;
mod schema;
mod status;
mod store;
mod submit;
#[cfg(test)]
mod tests;

pub use batch::{BatchOptions, batch_query, start_batch_query};
pub use client::{Client, ClientBuilder};
pub use download::Files;
pub use error::PairsError;
pub use job::QueryResult;
pub use points::{PointData, PointValue};
pub use query::{Layer, Query, QueryBuilder};
pub use reply::{Estimate, MergedLayer, QueryHistory, QueryJob, QueryJobs, Submission};
pub use status::{Phase, StatusCode};
