//! A connection to a back-end: its URL, its capabilities, and the credentials of the user.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::error::OpenEoError;
use super::keys::{Fetch, SessionCredentials};
use super::links;
use crate::client::creation::Ledger;

use crate::client::http::{HttpClient, HttpClientBuilder, Method, Origin, RequestBuilder, Response, Token};
use crate::client::openeo::documents::capabilities::Capabilities;
use crate::client::openeo::documents::text::plain;
use crate::client::openeo::documents::versions::{best_version, is_spoken};
use crate::trace::event;

/// The time limit of one call in a step of a batch, so that a back-end that hangs holds a thread no
/// longer than this.
const STEP: Duration = Duration::from_secs(60);

/// A connection to an openEO back-end. Cloning it is cheap; clones share connections and
/// credentials.
///
/// ```
/// # let server = openeo_server::Server::start(openeo_server::Config::default())?;
/// # let url = server.url();
/// use fulmar::client::openeo::Connection;
///
/// let connection = Connection::connect(&url)?;
/// connection.authenticate_basic("u", "u123")?;
/// assert!(connection.capabilities().supports("POST", "/jobs"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    /// Whether each call is tried once, and waits only for the network.
    once: bool,
}

struct Shared {
    http: HttpClient,
    /// The URL of the API, without a slash at its end.
    root: String,
    name: String,
    capabilities: Capabilities,
    keys: Arc<SessionCredentials>,
    ledger: Ledger,
}

impl Connection {
    /// Connects to a back-end by the URL that its users know, and chooses the version of its API.
    /// Without a scheme the URL is `https`. If the back-end's version document can't be read, the
    /// URL itself is taken as the API's.
    ///
    /// If the back-end redirects, all later requests go directly to where it redirected. So no
    /// credentials are sent unencrypted to a host that redirects from http to https.
    ///
    /// # Errors
    /// - [`OpenEoError::Invalid`] if `url` isn't the URL of a host, or if it has `http` and leads
    ///   to another host.
    /// - The back-end's error if it doesn't return its capabilities, or [`OpenEoError::Reply`] if
    ///   it speaks another major version of openEO than 1.
    pub fn connect(url: &str) -> Result<Connection, OpenEoError> {
        Connection::connect_with(url, HttpClient::builder())
    }

    /// As [`connect`](Connection::connect), with time limits, attempts, rate limits, certificates
    /// or a name of your own.
    ///
    /// # Errors
    /// The errors of `connect`, and [`OpenEoError::Fulmar`] if a setting of `http` is invalid.
    pub fn connect_with(url: &str, http: HttpClientBuilder) -> Result<Connection, OpenEoError> {
        let asked = entry_url(url)?;
        let keys = Arc::new(SessionCredentials::none());
        let http = http.auth(Arc::downgrade(&keys)).build()?;
        let root = discover(&http, &asked)?.unwrap_or_else(|| asked.to_string());
        let reply = http.get(&format!("{}/", root.trim_end_matches('/'))).accept("application/json").send()?;
        let document: Value = reply.json()?;
        let root = landed(&root, reply.url())?.unwrap_or(root);
        let root = root.trim_end_matches('/').to_owned();
        let capabilities = Capabilities::new(document);
        if !is_spoken(capabilities.api_version()) {
            let found = capabilities.as_json().get("api_version").map_or("none".to_owned(), Value::to_string);
            return Err(OpenEoError::reply(format!("{root} speaks version {} of openEO, not 1.x", plain(&found, 40))));
        }
        let name = capabilities.title().map(|title| plain(title, 100)).filter(|title| !title.is_empty());
        let name = name.unwrap_or_else(|| root.clone());
        event!(DEBUG, "connected to an openEO back-end", root = root, version = capabilities.api_version());
        let ledger = Ledger::default();
        let shared = Arc::new(Shared { http, root, name, capabilities, keys, ledger });
        Ok(Connection { shared, once: false })
    }

    /// A connection without a request to the server.
    #[cfg(test)]
    pub(crate) fn offline(root: &str) -> Connection {
        let keys = Arc::new(SessionCredentials::none());
        let http = HttpClient::builder().auth(Arc::downgrade(&keys)).build().unwrap_or_else(|error| panic!("{error}"));
        let (root, name) = (root.to_owned(), root.to_owned());
        let (capabilities, ledger) = (Capabilities::new(Value::Null), Ledger::default());
        let shared = Arc::new(Shared { http, root, name, capabilities, keys, ledger });
        Connection { shared, once: false }
    }

    /// The URL of the API, without a slash at its end.
    pub fn root_url(&self) -> &str {
        &self.shared.root
    }

    /// What the back-end can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    /// A handle to the same back-end that tries each call once and waits only for the network: for
    /// steps of a batch, which has a timer for other waits.
    pub(crate) fn once(&self) -> Connection {
        Connection { once: true, ..self.clone() }
    }

    /// Whether this handle was made by [`once`](Connection::once).
    pub(crate) fn is_once(&self) -> bool {
        self.once
    }

    /// The back-end's name in reports: its title, or its URL if it has none.
    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    /// The HTTP client, for requests that aren't to the API.
    pub(crate) fn http(&self) -> &HttpClient {
        &self.shared.http
    }

    /// Sets the credentials of requests to the API: the bearer token `first`, and `fetch`, which
    /// gets the next one when it has expired.
    pub(crate) fn set_keys(&self, prefix: String, first: Token, fetch: Fetch) -> Result<(), OpenEoError> {
        let takes_jwt = self.shared.capabilities.takes_jwt();
        self.shared.keys.set(&self.shared.root, prefix, takes_jwt, first, fetch)
    }

    /// The jobs that this client has made or is making, so that it can tell them from others.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// What the back-end knows about the user that is logged in. (`GET /me`)
    ///
    /// # Errors
    /// The back-end's error: it refuses if no user is logged in.
    pub fn me(&self) -> Result<Value, OpenEoError> {
        self.get_json("/me")
    }

    /// The JSON document at any path of the API: `connection.get_json("/collections")`.
    ///
    /// # Errors
    /// The back-end's error, or one that says that the reply isn't JSON. [`OpenEoError::Invalid`]
    /// if the path doesn't begin with a slash, or leads out of the API.
    pub fn get_json(&self, path: &str) -> Result<Value, OpenEoError> {
        self.json_of(self.api(Method::Get, path)?)
    }

    /// A request to the API: below its root, with credentials.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.shared.root);
        self.paced(self.shared.http.request(method, &url)).accept("application/json")
    }

    /// A request to a URL that the back-end names. It carries credentials only if the URL is below
    /// the API's root.
    pub(crate) fn request_link(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.paced(self.shared.http.request(method, url));
        if self.is_ours(url) { request } else { request.without_auth() }
    }

    /// A request for a file at a URL that the back-end names. Without a time limit for the whole
    /// file, but with one for each silence.
    pub(crate) fn request_file(&self, url: &str) -> RequestBuilder {
        let request = self.shared.http.request(Method::Get, url).auth_below(&self.shared.root);
        let request = if self.once { request.once() } else { request };
        if self.is_ours(url) { request } else { request.without_auth() }
    }

    /// Whether a URL is below the API's root.
    pub(crate) fn is_ours(&self, url: &str) -> bool {
        let (Ok(url), Ok(root)) = (Url::parse(url), Url::parse(&self.shared.root)) else { return false };
        let below = url.path().strip_prefix(root.path().trim_end_matches('/'));
        Origin::of(url.as_str()) == Origin::of(root.as_str())
            && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Resolves a URL in a document of the back-end. It may be relative to `document`, from which
    /// that came.
    pub(crate) fn resolve_from(&self, document: &str, href: &str) -> Option<String> {
        links::resolve(&Url::parse(&self.shared.root).ok()?, document, href)
    }

    pub(crate) fn json_of(&self, request: RequestBuilder) -> Result<Value, OpenEoError> {
        Ok(self.send(request)?.json()?)
    }

    pub(crate) fn send(&self, request: RequestBuilder) -> Result<Response, OpenEoError> {
        Ok(request.send()?)
    }

    fn paced(&self, request: RequestBuilder) -> RequestBuilder {
        let request = if self.once { request.once().timeout(STEP) } else { request };
        request.auth_below(&self.shared.root)
    }
}

/// Parses what a user gives as the URL: `openeo.example`, `localhost:8080`, or a complete one. If
/// there is no scheme, it is `https`. The path of the version document at the end is cut off.
///
/// Fails with `OpenEoError::Invalid` if the scheme isn't `http` or `https`, if there is no host, or
/// if there is a query, a fragment, a user or a password.
fn entry_url(text: &str) -> Result<Url, OpenEoError> {
    // Some users paste the URL of the version document, which ends with `VERSIONS`.
    let text = text.trim();
    let text = text.trim_end_matches('/').strip_suffix(VERSIONS).unwrap_or(text);
    let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let invalid = |text: &str| OpenEoError::Invalid(text.to_owned());
    let url = Url::parse(&text).ok();
    let url = url
        .filter(|url| Origin::of(url.as_str()).is_some() && url.query().is_none() && url.fragment().is_none())
        .ok_or_else(|| invalid("a back-end has an http or https URL with a host, and no query"))?;
    // Refused, because a password in the URL would appear in names, reports and errors.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            "a back-end's URL has no user and no password: leave them out, and call authenticate_basic",
        ));
    }
    Ok(url)
}

/// The URL of the API that the version document names; `None` if the document can't be read.
fn discover(http: &HttpClient, asked: &Url) -> Result<Option<String>, OpenEoError> {
    let url = format!("{}{VERSIONS}", asked.as_str().trim_end_matches('/'));
    let reply = match http.get(&url).accept("application/json").send() {
        Ok(reply) => reply,
        Err(error) => {
            // If the server can't be reached at all, the next request returns that error.
            event!(DEBUG, "no version document", url = error.url(), kind = error.kind());
            return Ok(None);
        }
    };
    let Ok(document) = reply.json() else { return Ok(None) };
    let landed = landed(&url, reply.url())?.and_then(|url| Url::parse(url.strip_suffix(VERSIONS)?).ok());
    let base = landed.as_ref().unwrap_or(asked);
    let Some(best) = best_version(&document, base.scheme(), |href| links::resolve(base, reply.url(), href)) else {
        return Ok(None);
    };
    same_host_if_in_the_clear(base, &best, "names")?;
    Ok(Some(best))
}

/// The path of the version document, below the URL that users know.
const VERSIONS: &str = "/.well-known/openeo";

/// The URL to which a request to `asked` was redirected, if it was.
fn landed(asked: &str, answered: &str) -> Result<Option<String>, OpenEoError> {
    let (Ok(from), Ok(mut to)) = (Url::parse(asked), Url::parse(answered)) else { return Ok(None) };
    to.set_query(None);
    to.set_fragment(None);
    if from.as_str().trim_end_matches('/') == to.as_str().trim_end_matches('/') {
        return Ok(None);
    }
    same_host_if_in_the_clear(&from, to.as_str(), "redirects to")?;
    Ok(Some(to.into()))
}

/// Fails if a URL with `http` leads to another host: any machine on the way could have written
/// that, and would get the credentials.
fn same_host_if_in_the_clear(from: &Url, to: &str, how: &str) -> Result<(), OpenEoError> {
    let to = Url::parse(to).ok();
    let host = to.as_ref().and_then(Url::host_str);
    if from.scheme() != "http" || from.host_str() == host {
        return Ok(());
    }
    Err(OpenEoError::Invalid(format!(
        "{from} {how} another host, {}, over a connection that every machine on the way can change: connect to that one if you trust it",
        host.unwrap_or_default()
    )))
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("root", &self.shared.root)
            .field("api_version", &self.shared.capabilities.api_version())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_alone_is_asked_by_https() {
        for (text, url) in [
            ("openeo.example", "https://openeo.example/"),
            (" localhost:8080/openeo ", "https://localhost:8080/openeo"),
            ("http://127.0.0.1:80/x", "http://127.0.0.1/x"),
            ("https://h.org/.well-known/openeo/", "https://h.org/"),
        ] {
            assert_eq!(entry_url(text).expect(text).as_str(), url);
        }
        for wrong in ["", "ftp://host", "https://", "host?x=1", "host#x", "a b"] {
            assert!(matches!(entry_url(wrong), Err(OpenEoError::Invalid(_))), "{wrong}");
        }
        for known in ["https://me:hush@host/", "me:hush@host", "https://me@host", "https://:hush@host"] {
            let error = entry_url(known).expect_err(known).to_string();
            assert!(error.contains("authenticate_basic") && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn only_what_is_below_the_root_is_ours() {
        let connection = Connection::offline("https://h.org/openeo/1.2");
        for ours in ["https://h.org/openeo/1.2", "https://h.org:443/openeo/1.2/jobs?x=1"] {
            assert!(connection.is_ours(ours), "{ours}");
        }
        for other in [
            "http://h.org/openeo/1.2/jobs",
            "https://h.org/openeo/1.20/jobs",
            "https://h.org/openeo/1.2/../secret",
            "https://h.org.evil.org/openeo/1.2/jobs",
            "https://h.org:8443/openeo/1.2/jobs",
            "https://h.org@evil.org/openeo/1.2/jobs",
            "/openeo/1.2/jobs",
        ] {
            assert!(!connection.is_ours(other), "{other}");
        }
    }
}
