//! The client: what all its requests share, and how it is set up.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::auth::Authenticate;
use super::limit::{Limiter, RateLimit};
use super::method::Method;
use super::origin::Origin;
use super::request::RequestBuilder;
use super::retry::RetryPolicy;
use crate::error::{Error, Result};
use crate::sync::{AtomicU64, Ordering};

/// How many unused connections to one host are kept.
const KEPT_PER_HOST: usize = 32;

/// How long an unused connection is kept: shorter than what servers allow, or a request meets one that was just closed.
const KEPT_FOR: Duration = Duration::from_secs(15);

/// The time limits of a request, each counted on its own; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Finding the host, and again connecting to it, encryption included. Defaults to 10 s.
    pub connect: Option<Duration>,
    /// Sending the headers, and again sending the body. Defaults to 60 s.
    pub send: Option<Duration>,
    /// From the end of sending until the reply's headers are there. Defaults to 60 s.
    pub first_byte: Option<Duration>,
    /// The longest silence within the reply's body. Defaults to 60 s, and is never less than `first_byte`: it is the same
    /// limit on one read of the connection.
    pub body: Option<Duration>,
    /// The whole, with all attempts, redirects and waits. Defaults to 5 minutes. Downloads, which may be of any size, have
    /// none but what [`RequestBuilder::timeout`] says.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Some(Duration::from_secs(10)),
            send: Some(Duration::from_secs(60)),
            first_byte: Some(Duration::from_secs(60)),
            body: Some(Duration::from_secs(60)),
            total: Some(Duration::from_secs(300)),
        }
    }
}

/// A client for HTTP and HTTPS that keeps its connections. Cloning it is cheap and gives a handle to the same.
///
/// All handles share connections, credentials and rate limits; use one for all threads.
///
/// ```
/// use fulmar::client::http::{Basic, HttpClient, RateLimit, RetryPolicy, Timeouts};
/// use std::time::Duration;
///
/// let client = HttpClient::builder()
///     .user_agent("weather/1.0")
///     .timeouts(Timeouts { first_byte: Some(Duration::from_secs(20)), ..Timeouts::default() })
///     .retry(RetryPolicy::attempts(5))
///     .rate_limit(RateLimit::per_second(10.0).at_once(8))
///     .auth(Basic::new("https://pairs.example/v2", "me", "a password"))
///     .build()?;
/// # Ok::<(), fulmar::Error>(())
/// ```
#[derive(Clone)]
pub struct HttpClient {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) agent: ureq::Agent,
    pub(super) timeouts: Timeouts,
    pub(super) max_body: u64,
    pub(super) retry: RetryPolicy,
    pub(super) limiter: Limiter,
    pub(super) auth: Vec<Arc<dyn Authenticate>>,
    seed: AtomicU64,
}

impl HttpClient {
    /// A client in the making; every setting has a default.
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder {
            user_agent: concat!("fulmar/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeouts: Timeouts::default(),
            max_body: 64 << 20,
            retry: RetryPolicy::default(),
            rate_limit: RateLimit::none(),
            auth: Vec::new(),
            roots: Vec::new(),
            environment_proxy: true,
        }
    }

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

    /// The credentials for an origin.
    pub(super) fn auth_for(&self, origin: &Origin) -> Option<&Arc<dyn Authenticate>> {
        self.shared.auth.iter().find(|auth| auth.belongs_to(origin))
    }

    /// The next seed for a jitter.
    pub(super) fn seed(&self) -> u64 {
        // Relaxed: all it has to be is another one.
        self.shared.seed.fetch_add(1, Ordering::Relaxed)
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("timeouts", &self.shared.timeouts)
            .field("max_body", &self.shared.max_body)
            .field("retry", &self.shared.retry)
            .finish_non_exhaustive()
    }
}

/// Sets up an [`HttpClient`].
#[must_use = "a client is made by `build`"]
pub struct HttpClientBuilder {
    user_agent: String,
    timeouts: Timeouts,
    max_body: u64,
    retry: RetryPolicy,
    rate_limit: RateLimit,
    auth: Vec<Arc<dyn Authenticate>>,
    roots: Vec<Vec<u8>>,
    environment_proxy: bool,
}

impl HttpClientBuilder {
    /// What the client calls itself. Defaults to `fulmar/` and the version.
    pub fn user_agent(mut self, name: &str) -> HttpClientBuilder {
        self.user_agent = name.to_owned();
        self
    }

    /// The time limits. Defaults to those of [`Timeouts`].
    pub fn timeouts(mut self, timeouts: Timeouts) -> HttpClientBuilder {
        self.timeouts = timeouts;
        self
    }

    /// The most that is read into memory of one reply, in bytes after decompression. Defaults to 64 MiB. Downloads have a
    /// limit of their own.
    pub fn max_body(mut self, bytes: u64) -> HttpClientBuilder {
        self.max_body = bytes;
        self
    }

    /// Which failures are tried again, and when. Defaults to those of [`RetryPolicy`].
    pub fn retry(mut self, policy: RetryPolicy) -> HttpClientBuilder {
        self.retry = policy;
        self
    }

    /// Adds credentials. Each says which origins it is for; of several for one origin, the first wins. Defaults to none.
    pub fn auth(mut self, auth: impl Authenticate + 'static) -> HttpClientBuilder {
        self.auth.push(Arc::new(auth));
        self
    }

    /// How fast and how often at once each host may be asked. Defaults to no limit.
    pub fn rate_limit(mut self, limit: RateLimit) -> HttpClientBuilder {
        self.rate_limit = limit;
        self
    }

    /// Trusts the certificates in this PEM text, and then no others but those of further calls. Defaults to Mozilla's.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> HttpClientBuilder {
        self.roots.push(pem.into());
        self
    }

    /// Whether the proxy that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name is used. Defaults to yes.
    pub fn environment_proxy(mut self, used: bool) -> HttpClientBuilder {
        self.environment_proxy = used;
        self
    }

    /// Makes the client. It connects to nobody yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a rate limit that lets nothing through, a certificate that is none, or a user agent that is no
    /// header.
    pub fn build(self) -> Result<HttpClient> {
        ureq::http::HeaderValue::from_str(&self.user_agent)
            .map_err(|_| Error::Invalid("the user agent has characters that a header can't have".into()))?;
        let limiter = Limiter::new(&self.rate_limit)?;
        let timeouts = self.timeouts;
        let mut config = ureq::Agent::config_builder()
            .user_agent(self.user_agent)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .redirect_auth_headers(ureq::config::RedirectAuthHeaders::Never)
            .max_idle_connections(KEPT_PER_HOST * 4)
            .max_idle_connections_per_host(KEPT_PER_HOST)
            .max_idle_age(KEPT_FOR)
            .timeout_resolve(timeouts.connect)
            .timeout_connect(timeouts.connect)
            .timeout_send_request(timeouts.send)
            .timeout_send_body(timeouts.send)
            .timeout_recv_response(timeouts.first_byte)
            // Waiting for the first byte is a read, too, which this must not cut short.
            .timeout_per_read(timeouts.body.zip(timeouts.first_byte).map(|(body, first)| body.max(first)));
        if !self.environment_proxy {
            config = config.proxy(None);
        }
        if !self.roots.is_empty() {
            let roots = certificates(&self.roots)?;
            let tls = ureq::tls::TlsConfig::builder().root_certs(roots.into_iter().into()).build();
            config = config.tls_config(tls);
        }
        let shared = Shared {
            agent: config.build().new_agent(),
            timeouts,
            max_body: self.max_body,
            retry: self.retry,
            limiter,
            auth: self.auth,
            seed: AtomicU64::new(RandomState::new().build_hasher().finish()),
        };
        Ok(HttpClient { shared: Arc::new(shared) })
    }
}

impl fmt::Debug for HttpClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClientBuilder")
            .field("user_agent", &self.user_agent)
            .field("timeouts", &self.timeouts)
            .field("max_body", &self.max_body)
            .field("retry", &self.retry)
            .field("rate_limit", &self.rate_limit)
            .finish_non_exhaustive()
    }
}

fn certificates(pems: &[Vec<u8>]) -> Result<Vec<ureq::tls::Certificate<'static>>> {
    let unreadable = || Error::Invalid("a root certificate is no PEM text with a certificate in it".into());
    let mut found = Vec::new();
    for pem in pems {
        let before = found.len();
        for item in ureq::tls::parse_pem(pem) {
            if let ureq::tls::PemItem::Certificate(certificate) = item.map_err(|_| unreadable())? {
                found.push(certificate);
            }
        }
        if found.len() == before {
            return Err(unreadable());
        }
    }
    Ok(found)
}
