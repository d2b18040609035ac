//! A checked request: what all of its attempts have in common.

use std::time::Duration;

use url::Url;

use super::method::Method;
use super::origin::Origin;
use super::payload::Payload;
use super::redact::Secrets;
use crate::time::Deadline;

/// If a name contains one of these, its value counts as a secret.
const SECRET_NAMES: &[&str] = &[
    "auth",
    "cookie",
    "credential",
    "session",
    "token",
    "secret",
    "password",
    "passwd",
    "apikey",
    "api-key",
    "api_key",
    "signature",
    "assertion",
];

#[derive(Clone)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) value: String,
    /// Whether it is sent only to the origin of the first URL, and shown in no error.
    pub(super) secret: bool,
}

/// A checked request, with all that its attempts have in common.
pub(super) struct Plan {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) origin: Origin,
    pub(super) headers: Vec<Header>,
    pub(super) body: Option<Payload>,
    pub(super) idempotent: bool,
    pub(super) retry_on: Vec<u16>,
    pub(super) deadline: Deadline,
    /// The request's own limit, in place of the client's.
    pub(super) first_byte: Option<Option<Duration>>,
    pub(super) max_body: u64,
    pub(super) once: bool,
    pub(super) authenticated: bool,
    pub(super) auth_below: Option<Url>,
    pub(super) secrets: Secrets,
}

impl Plan {
    /// Whether the client's credentials may go to this URL.
    pub(super) fn takes_credentials_to(&self, url: &Url) -> bool {
        self.authenticated && self.auth_below.as_ref().is_none_or(|root| is_below(url, root))
    }
}

/// Whether `url` is `root` or below it.
fn is_below(url: &Url, root: &Url) -> bool {
    let rest = url.path().strip_prefix(root.path().trim_end_matches('/'));
    Origin::of_url(url) == Origin::of_url(root) && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Adds the secrets of a URL's query to `secrets`.
pub(super) fn hide_query(url: &Url, secrets: &mut Secrets) {
    for (_, value) in url.query_pairs().filter(|(name, _)| is_secret_name(name)) {
        secrets.add(&value);
    }
}

pub(super) fn is_secret_name(name: &str) -> bool {
    // A `key` may be a secret, or just the name of an object: hide it, to be safe.
    is_credential_name(name) || name.to_ascii_lowercase().ends_with("key")
}

/// Whether a value with this name is certainly a secret.
pub(super) fn is_credential_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "sig" || SECRET_NAMES.iter().any(|part| name.contains(part))
}
