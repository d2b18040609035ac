//! The base of this client: a connection, its credentials, single requests to the API, and their
//! errors.
//!
//! It knows nothing of jobs. The modules above it make requests by
//! [`Connection::request`](connection::Connection::request) and
//! [`request_link`](connection::Connection::request_link). These wait and are repeated as the HTTP
//! client does. Through a handle of [`once`](connection::Connection::once) they are tried once and
//! wait only for the network.

pub(super) mod connection;
pub(super) mod error;
pub(super) mod keys;
pub(super) mod links;
pub(super) mod pages;
pub(super) mod pause;
mod raw;
pub(super) mod step;
