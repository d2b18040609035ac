//! The builder of a request.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use url::Url;

use super::client::HttpClient;
use super::download::{self, Download, Downloaded};
use super::error::HttpError;
use super::kind::HttpErrorKind;
use super::method::Method;
use super::origin::Origin;
use super::payload::Payload;
use super::plan::{Header, Plan, hide_query, is_secret_name};
use super::redact::{self, Secrets};
use super::response::Response;
use super::stream::ResponseStream;
use super::wait::{Cancelled, lasting};
use crate::time::Deadline;

/// Sets up a request; then call [`send`](RequestBuilder::send), [`stream`](RequestBuilder::stream)
/// or [`download`](RequestBuilder::download).
#[must_use = "a request is sent by `send` or `download`"]
pub struct RequestBuilder {
    client: HttpClient,
    method: Method,
    url: String,
    query: Vec<(String, String)>,
    headers: Vec<Header>,
    body: Option<Payload>,
    idempotent: Option<bool>,
    retry_on: Vec<u16>,
    timeout: Option<Duration>,
    first_byte: Option<Option<Duration>>,
    max_body: Option<u64>,
    once: bool,
    authenticated: bool,
    auth_below: Option<Url>,
    secrets: Secrets,
    fault: Option<String>,
}

impl HttpClient {
    /// A `GET` of `url`, which is parsed when the request is sent.
    pub fn get(&self, url: &str) -> RequestBuilder {
        self.request(Method::Get, url)
    }

    /// A `POST` to `url`.
    pub fn post(&self, url: &str) -> RequestBuilder {
        self.request(Method::Post, url)
    }

    /// A `PUT` to `url`.
    pub fn put(&self, url: &str) -> RequestBuilder {
        self.request(Method::Put, url)
    }

    /// A `DELETE` of `url`.
    pub fn delete(&self, url: &str) -> RequestBuilder {
        self.request(Method::Delete, url)
    }

    /// A request of any method.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        RequestBuilder::new(self.clone(), method, url)
    }
}

impl RequestBuilder {
    /// A request with the client's settings and credentials, and without headers or a body. `plan`
    /// parses and checks the URL.
    pub(super) fn new(client: HttpClient, method: Method, url: &str) -> RequestBuilder {
        RequestBuilder {
            client,
            method,
            url: url.to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            idempotent: None,
            retry_on: Vec::new(),
            timeout: None,
            first_byte: None,
            max_body: None,
            once: false,
            authenticated: true,
            auth_below: None,
            secrets: Secrets::default(),
            fault: None,
        }
    }

    /// Adds `name=value` to the URL's query, escaped. No error shows the query's values.
    pub fn query(mut self, name: &str, value: &str) -> RequestBuilder {
        if is_secret_name(name) {
            self.secrets.add(value);
        }
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a header; the last one of a name wins. It is also sent after a redirect, unless its
    /// name is that of a secret (`Authorization`, `Cookie`, a name with `token`, `api-key` and the
    /// like): then it is a [`secret_header`](RequestBuilder::secret_header).
    pub fn header(mut self, name: &str, value: &str) -> RequestBuilder {
        if is_secret_name(name) {
            return self.secret_header(name, value);
        }
        self.headers.push(Header { name: name.to_owned(), value: value.to_owned(), secret: false });
        self
    }

    /// Sets a header that is sent only to the origin of this request's URL, also after redirects.
    /// No error shows its value.
    pub fn secret_header(mut self, name: &str, value: &str) -> RequestBuilder {
        self.secrets.add(value);
        self.headers.push(Header { name: name.to_owned(), value: value.to_owned(), secret: true });
        self
    }

    /// The type that the reply should have: `application/json`. Defaults to any type.
    pub fn accept(self, media_type: &str) -> RequestBuilder {
        self.header("Accept", media_type)
    }

    /// Sends `value` as JSON. If it can't be written as JSON, the request fails when it is sent.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> RequestBuilder {
        match serde_json::to_vec(value) {
            Ok(body) => self.body = Some(Payload::Bytes(body)),
            Err(error) => self.fault = Some(format!("the body can't be written as JSON: {error}")),
        }
        self.header("Content-Type", "application/json")
    }

    /// Sends fields as a form in the body. No error shows a value whose name is that of a secret
    /// (`apikey`, `password`, `refresh_token`).
    pub fn form(mut self, fields: &[(&str, &str)]) -> RequestBuilder {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in fields {
            if is_secret_name(name) {
                self.secrets.add(value);
            }
            form.append_pair(name, value);
        }
        self.body = Some(Payload::Bytes(form.finish().into_bytes()));
        self.header("Content-Type", "application/x-www-form-urlencoded")
    }

    /// Sends bytes of any type.
    pub fn body(mut self, media_type: &str, bytes: impl Into<Vec<u8>>) -> RequestBuilder {
        self.body = Some(Payload::Bytes(bytes.into()));
        self.header("Content-Type", media_type)
    }

    /// Sends a file of any type. The client reads it while it sends it, so that a large file needs
    /// no more memory; it must not change meanwhile. If it can't be read, the request fails with
    /// [`HttpErrorKind::File`] when it is sent.
    pub fn body_file(mut self, media_type: &str, path: impl Into<PathBuf>) -> RequestBuilder {
        self.body = Some(Payload::File(path.into()));
        self.header("Content-Type", media_type)
    }

    /// A text that no error may show even if the server repeats it, such as a secret in a body.
    pub fn hide(mut self, secret: &str) -> RequestBuilder {
        self.secrets.add(secret);
        self
    }

    /// Whether sending the request twice has the same effect as once, so that the client may repeat
    /// it. The default depends on the method: no for `POST` and `PATCH`, yes for the others.
    pub fn idempotent(mut self, idempotent: bool) -> RequestBuilder {
        self.idempotent = Some(idempotent);
        self
    }

    /// Further statuses after which the client sends the request again, such as 500, if it is
    /// idempotent.
    pub fn retry_on(mut self, statuses: &[u16]) -> RequestBuilder {
        self.retry_on.extend_from_slice(statuses);
        self
    }

    /// The time limit of the whole request, with all attempts, redirects and waits. Defaults to
    /// [`Timeouts::total`](super::Timeouts::total); a download has none by default.
    pub fn timeout(mut self, total: Duration) -> RequestBuilder {
        self.timeout = Some(total);
        self
    }

    /// How long the server may take until it sends the reply's headers, for requests for which it
    /// computes long. `None`: only the limit of the whole request applies. Defaults to
    /// [`Timeouts::first_byte`](super::Timeouts::first_byte).
    pub fn first_byte(mut self, limit: impl Into<Option<Duration>>) -> RequestBuilder {
        self.first_byte = Some(limit.into());
        self
    }

    /// The most bytes of the reply that are read into memory, counted after decompression. Defaults
    /// to the client's limit.
    pub fn max_body(mut self, bytes: u64) -> RequestBuilder {
        self.max_body = Some(bytes);
        self
    }

    /// Makes one attempt, and waits only for the network: not for a backoff, nor for the rate
    /// limit. The error says whether to try again ([`HttpError::is_retryable`]) and when
    /// ([`HttpError::retry_after`]). For callers that have a timer.
    ///
    /// The client still renews an expired token, and follows redirects. If the server closes a kept
    /// connection without a reply, the client sends a request that only reads, such as a `GET`,
    /// once more on a new connection, unless it isn't [`idempotent`](RequestBuilder::idempotent).
    pub fn once(mut self) -> RequestBuilder {
        self.once = true;
        self
    }

    /// Sends none of the client's credentials: for the requests that fetch them.
    pub fn without_auth(mut self) -> RequestBuilder {
        self.authenticated = false;
        self
    }

    /// Sends the client's credentials only to this URL and those below it, also after redirects:
    /// for services that share their host with others. Defaults to the whole host.
    pub fn auth_below(mut self, root: &str) -> RequestBuilder {
        match Url::parse(root) {
            Ok(root) => self.auth_below = Some(root),
            Err(_) => self.fault = Some("`auth_below` takes a URL".to_owned()),
        }
        self
    }

    /// Sends the request, as often as the client's [`RetryPolicy`](super::RetryPolicy) allows, and
    /// reads the reply.
    ///
    /// # Timing
    /// Returns within [`timeout`](RequestBuilder::timeout), on the monotonic clock, counted from
    /// this call.
    /// # Errors
    /// [`HttpError`] if there was no reply, if it could not be read, or if its status is 400 or
    /// more.
    pub fn send(self) -> Result<Response, HttpError> {
        self.send_with(None)
    }

    /// As [`send`](RequestBuilder::send), but stops when `cancelled` returns true. It calls
    /// `cancelled` ten times a second while it waits for the reply, for more of its body or for the
    /// next attempt. The server may process the request all the same.
    ///
    /// # Errors
    /// [`HttpErrorKind::Cancelled`] if `cancelled` returned true; otherwise as for `send`.
    pub fn send_unless(self, cancelled: impl Fn() -> bool) -> Result<Response, HttpError> {
        self.send_with(Some(&lasting(cancelled)))
    }

    /// Sends the request, as often as the client's [`RetryPolicy`](super::RetryPolicy) allows, and
    /// returns when the reply's headers are there. The caller reads the body, piece by piece.
    ///
    /// # Timing
    /// If [`timeout`](RequestBuilder::timeout) was set, it includes the reading of the body. A
    /// silence within the body always has the client's limit.
    /// # Errors
    /// [`HttpError`] if there was no reply, or if its status is 400 or more.
    pub fn stream(self) -> Result<ResponseStream, HttpError> {
        let total = self.timeout;
        let client = self.client.clone();
        client.send_for(&self.plan(total)?, None, ResponseStream::new)
    }

    fn send_with(self, cancelled: Cancelled<'_>) -> Result<Response, HttpError> {
        let total = self.timeout.or(self.client.shared.timeouts.total);
        let client = self.client.clone();
        client.send(&self.plan(total)?, cancelled)
    }

    /// Sends the request, and writes the reply into a file. The file gets its name only when it is
    /// complete, checked and on the disk.
    ///
    /// # Timing
    /// At most [`timeout`](RequestBuilder::timeout), if one was set. Set one for servers that you
    /// don't trust: otherwise a server that sends a byte a minute, or trailers without end, keeps
    /// the call from returning.
    /// # Errors
    /// [`HttpError`] if the file could not be downloaded, checked or written. [`Download`] says
    /// what is left on the disk then.
    pub fn download(self, download: &Download<'_>) -> Result<Downloaded, HttpError> {
        let total = self.timeout;
        let client = self.client.clone();
        download::run(&client, &self.plan(total)?, download)
    }

    /// Checks the request and fixes what all of its attempts have in common. The time limit `total`
    /// counts from now; `None` is no limit.
    ///
    /// Fails with `HttpErrorKind::Invalid` if the URL can't be read, isn't one of HTTP or holds a
    /// user or a password, or if a setting got a value that it can't use.
    pub(super) fn plan(self, total: Option<Duration>) -> Result<Plan, HttpError> {
        let method = self.method;
        let invalid = |url: String, text: String| HttpError::shown(HttpErrorKind::Invalid, method, url, text);
        let mut url = Url::parse(&self.url).map_err(|error| {
            invalid(redact::unparsed(&self.url), "the URL can't be read: write it as `https://host/path`".into())
                .with_source(error)
        })?;
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        let shown = redact::url(&url);
        let Some(origin) = Origin::of_url(&url) else {
            return Err(invalid(shown, "the URL must begin with http:// or https:// and a host".into()));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(shown, "the URL holds a user or a password: give them to the client as `auth`".into()));
        }
        if let Some(fault) = self.fault {
            return Err(invalid(shown, fault));
        }
        let mut secrets = self.secrets;
        hide_query(&url, &mut secrets);
        Ok(Plan {
            method,
            url,
            origin,
            headers: self.headers,
            body: self.body,
            idempotent: self.idempotent.unwrap_or(method.is_idempotent()),
            retry_on: self.retry_on,
            deadline: Deadline::start(total),
            first_byte: self.first_byte,
            max_body: self.max_body.unwrap_or(self.client.shared.max_body),
            once: self.once,
            authenticated: self.authenticated,
            auth_below: self.auth_below,
            secrets,
        })
    }
}

impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(&self.url).map_or_else(|_| redact::unparsed(&self.url), |url| redact::url(&url));
        f.debug_struct("RequestBuilder").field("method", &self.method).field("url", &url).finish_non_exhaustive()
    }
}
