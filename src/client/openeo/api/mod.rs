//! The low room: which back-end, as which user, and one request to it, with all that can go wrong.
//!
//! It knows nothing of jobs. What is built on it makes requests by
//! [`Connection::request`](connection::Connection::request) and
//! [`request_link`](connection::Connection::request_link), patient ones or, by way of the view
//! [`once`](connection::Connection::once), such as are tried once and wait for nothing but the
//! network.

pub(super) mod connection;
pub(super) mod error;
pub(super) mod keys;
pub(super) mod links;
pub(super) mod pages;
pub(super) mod pause;
mod raw;
pub(super) mod step;
