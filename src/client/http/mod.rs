//! HTTP for blocking clients of remote services: requests with limits, retries and clear errors,
//! and downloads that arrive whole.
//!
//! [`HttpClient`] is a cheap handle. Its clones share kept connections, credentials and rate
//! limits, from any number of threads.
//!
//! Promises:
//!
//! - Every wait has a limit: each phase of a request, and the whole with all its attempts
//!   ([`Timeouts`]).
//! - A body that is read into memory has a limit, too, counted after decompression.
//! - The client repeats a request only if that does no harm ([`RetryPolicy`]). It never repeats a
//!   `POST` that may have reached the server, unless the caller says that the request is
//!   [`idempotent`](RequestBuilder::idempotent).
//! - Credentials and secret headers go only to the origin (scheme, host and port) that they belong
//!   to, also after redirects. The client never follows a redirect from `https` to `http`.
//! - If several threads find a token expired, one of them renews it ([`Tokens`]).
//! - If a body is cut short or its connection is reset, that is an error. If the server gave no
//!   length, a cut can't always be seen, and the result says so ([`Response::length_known`],
//!   [`Downloaded::length_known`]).
//! - A call inside an operation of an executor ends with its [cancel](crate::AsyncRequest::cancel),
//!   wherever it is blocked: the socket is shut down, the error is [`HttpErrorKind::Cancelled`],
//!   and the connection is never used again. Of a name that is being looked up only the wait ends,
//!   and where the system isn't Linux a cancel is seen when the connection stands or
//!   [`Timeouts::connect`] has passed. After the cancel no call of that operation begins, unless it
//!   is [shielded](crate::shield).
//! - A file stands under its final name only when it is whole, checked and on the disk
//!   ([`Download`]).
//! - A failure before the request is sent has a kind of its own: [`HttpErrorKind::Connect`],
//!   [`Tls`](HttpErrorKind::Tls), which says what is wrong with the certificate, or
//!   [`Proxy`](HttpErrorKind::Proxy). Then [`HttpError::may_have_arrived`] is false.
//! - The client trusts the system's certificates and uses the environment's proxies, as curl and
//!   Python's requests do; [`HttpClientBuilder`] has settings for both.
//! - An error names method, URL, attempts, status and the server's message, and shows no secret.
//!
//! Left to the caller: what a reply means.
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
mod gzip;
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
