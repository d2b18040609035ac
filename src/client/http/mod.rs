//! HTTP for blocking clients of remote services: one request, all that can go wrong with it, and
//! files that arrive whole.
//!
//! [`HttpClient`] is a cheap handle. Its clones share kept connections, credentials and rate
//! limits, from any number of threads.
//!
//! Promises:
//!
//! - Every wait has a limit: each phase of a request, and the whole with all its attempts
//!   ([`Timeouts`]).
//! - What is read into memory has one too, counted after decompression.
//! - Only what can be repeated without harm is repeated ([`RetryPolicy`]). A `POST` that may have
//!   reached the server never is, unless the caller says that it is
//!   [`idempotent`](RequestBuilder::idempotent).
//! - Credentials and secret headers go to the origin (scheme, host and port) that they belong to,
//!   and to no other, redirects included. `https` never turns into `http`.
//! - However many threads meet an expired token, one renews it ([`Tokens`]).
//! - A body ends only where the protocol says so: one that is cut or reset is an error. Where
//!   nothing tells its length, the result says that ([`Response::length_known`],
//!   [`Downloaded::length_known`]).
//! - A file stands under its final name only when it is whole, checked and on the disk
//!   ([`Download`]).
//! - What fails before the request is sent is told as that: [`HttpErrorKind::Connect`],
//!   [`Tls`](HttpErrorKind::Tls) with the certificate's fault in words,
//!   [`Proxy`](HttpErrorKind::Proxy); [`HttpError::may_have_arrived`] is false.
//! - Certificates are those that the system trusts, and proxies those of the environment, as curl
//!   and Python's requests know them; [`HttpClientBuilder`] has settings for both.
//! - An error names method, URL, attempts, status and what the server said, and no secret.
//!
//! Left to others: what a reply means.
//!
//! ```
//! # use std::io::{Read, Write};
//! # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let host = format!("http://{}", listener.local_addr()?);
//! # std::thread::spawn(move || {
//! #     let (mut stream, _) = listener.accept().unwrap();
//! #     let _ = stream.read(&mut [0; 4096]).unwrap();
//! #     stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"status\": \"ok\"}").unwrap();
//! # });
//! use fulmar::client::http::{Bearer, HttpClient};
//!
//! let client = HttpClient::builder().auth(Bearer::new(&host, "a token")).build()?;
//! let reply: serde_json::Value = client.get(&format!("{host}/jobs")).query("page", "1").send()?.json()?;
//! assert_eq!(reply["status"], "ok");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It speaks HTTP/1.1 over TCP and TLS 1.2 or 1.3, no HTTP/2.
//!
//! Sources: RFC 9112 (HTTP/1.1), RFC 9110 (HTTP semantics: redirects 15.4, ranges 14, conditions
//! 13, `Retry-After` 10.2.3), RFC 6266 (`Content-Disposition`), RFC 6750 (bearer tokens), RFC 7617
//! (basic).

pub mod archive;
mod auth;
mod client;
mod cookies;
mod download;
mod error;
mod file_name;
mod headers;
pub(crate) mod json;
mod kind;
mod limit;
mod live;
mod method;
mod origin;
mod payload;
mod plan;
#[cfg(test)]
mod properties;
mod redact;
mod redirect;
mod request;
mod response;
mod retry;
mod send;
mod stream;
mod timeouts;
mod tokens;
mod wait;
mod wire;

pub use crate::backoff::RetryPolicy;
pub use auth::{Authenticate, Basic, Bearer, Credentials, Renewal};
pub use client::{HttpClient, HttpClientBuilder};
pub use download::{Download, Downloaded, Existing};
pub use error::HttpError;
pub use file_name::check_file_name;
#[cfg(any(feature = "openeo", all(feature = "pairs", feature = "sqlite")))]
pub(crate) use file_name::sound_name;
pub use headers::file_name_of;
pub use kind::HttpErrorKind;
pub use limit::RateLimit;
pub use method::Method;
pub use origin::Origin;
pub use request::RequestBuilder;
pub use response::Response;
pub use stream::ResponseStream;
pub use timeouts::Timeouts;
#[cfg(feature = "pairs")]
pub(crate) use tokens::failure_of;
pub use tokens::{Token, Tokens};
#[cfg(feature = "openeo")]
pub(crate) use wait::pause;
