//! HTTP for blocking clients of remote services: one request, all that can go wrong with it, and files that arrive whole.
//!
//! [`HttpClient`] is a cheap handle. Its clones share kept connections, credentials and rate limits, from any number of
//! threads.
//!
//! Promises:
//!
//! - Every wait has a limit: each phase of a request, and the whole with all its attempts ([`Timeouts`]).
//! - What is read into memory has one too, counted after decompression.
//! - Only what can be repeated without harm is repeated ([`RetryPolicy`]). A `POST` that may have reached the server never
//!   is, unless the caller says that it is [`idempotent`](RequestBuilder::idempotent).
//! - Credentials and secret headers go to the origin (scheme, host and port) that they belong to, and to no other, redirects
//!   included. `https` never turns into `http`.
//! - However many threads meet an expired token, one renews it ([`Tokens`]).
//! - A file stands under its final name only when it is whole, checked and on the disk ([`Download`]).
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
//! Sources: RFC 9110 (HTTP semantics: redirects 15.4, ranges 14, conditions 13, `Retry-After` 10.2.3), RFC 6266
//! (`Content-Disposition`), RFC 6750 (bearer tokens), RFC 7617 (basic).

pub mod archive;
mod auth;
mod client;
mod cookies;
mod download;
mod error;
mod file_name;
mod headers;
pub(crate) mod json;
mod limit;
mod method;
mod origin;
mod payload;
#[cfg(test)]
mod properties;
mod redact;
mod redirect;
mod request;
mod response;
mod retry;
mod send;
mod stream;
mod tokens;
mod wait;
mod wire;

pub use auth::{Authenticate, Basic, Bearer, Credentials, Renewal};
pub use client::{HttpClient, HttpClientBuilder, Timeouts};
pub use download::{Download, Downloaded, Existing};
pub use error::{HttpError, HttpErrorKind};
pub use file_name::check_file_name;
pub use headers::file_name_of;
pub use limit::RateLimit;
pub use method::Method;
pub use origin::Origin;
pub use request::RequestBuilder;
pub use response::Response;
pub use retry::RetryPolicy;
pub use stream::ResponseStream;
pub use tokens::{Token, Tokens};
#[cfg(feature = "openeo")]
pub(crate) use wait::pause;
