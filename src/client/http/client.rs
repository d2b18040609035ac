//! The client: what all its requests share, and how it is set up.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::auth::Authenticate;
use super::cookies::Jar;
use super::limit::{Limiter, RateLimit};
use super::origin::Origin;
use super::retry::Retries;
use super::timeouts::Timeouts;
use super::wire::{Identity, Proxies, Proxy, TlsSettings, Wire, certificates};
use crate::backoff::RetryPolicy;
use crate::error::{Error, Result};
use crate::sync::{AtomicU64, Ordering};

/// A client for HTTP and HTTPS that keeps its connections. Cloning it is cheap and gives a handle
/// to the same.
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
    pub(super) wire: Wire,
    pub(super) timeouts: Timeouts,
    pub(super) max_body: u64,
    pub(super) retries: Retries,
    pub(super) limiter: Limiter,
    pub(super) auth: Vec<Arc<dyn Authenticate>>,
    pub(super) cookies: Option<Jar>,
    seed: AtomicU64,
}

impl HttpClient {
    /// A client in the making; every setting has a default.
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder {
            user_agent: concat!("fulmar/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeouts: Timeouts::default(),
            max_body: 64 << 20,
            retries: Retries::default(),
            rate_limit: RateLimit::none(),
            auth: Vec::new(),
            cookies: false,
            tls: TlsSettings::default(),
            fault: None,
            proxy: None,
            no_proxy: None,
            environment_proxy: true,
        }
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
            .field("retry", &self.shared.retries.policy)
            .finish_non_exhaustive()
    }
}

/// Sets up an [`HttpClient`].
#[must_use = "a client is made by `build`"]
pub struct HttpClientBuilder {
    user_agent: String,
    timeouts: Timeouts,
    max_body: u64,
    retries: Retries,
    rate_limit: RateLimit,
    auth: Vec<Arc<dyn Authenticate>>,
    cookies: bool,
    tls: TlsSettings,
    fault: Option<Error>,
    proxy: Option<String>,
    no_proxy: Option<String>,
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

    /// The most that is read into memory of one reply, in bytes after decompression. Defaults to 64
    /// MiB. Downloads have a limit of their own.
    pub fn max_body(mut self, bytes: u64) -> HttpClientBuilder {
        self.max_body = bytes;
        self
    }

    /// How often a request is sent again, and after what delay. Defaults to 4 attempts, 500 ms
    /// doubling up to 30 s, each shorter by a chance of up to a half.
    ///
    /// Sent again are idempotent requests, after connections that failed or broke, time limits of a
    /// phase, and the statuses 408, 429, 502, 503, 504 and those of
    /// [`retry_on`](super::RequestBuilder::retry_on). Other requests are sent again only if they
    /// surely were not processed: no connection came about, or the server said 429.
    ///
    /// `Retry-After` (seconds or a date) wins over the delay, up to
    /// [`max_retry_after`](HttpClientBuilder::max_retry_after).
    pub fn retry(mut self, policy: RetryPolicy) -> HttpClientBuilder {
        self.retries.policy = policy;
        self
    }

    /// The longest `Retry-After` that is waited for. If a server asks for more, the error comes
    /// back at once with what it asked for. Defaults to 2 minutes.
    pub fn max_retry_after(mut self, limit: Duration) -> HttpClientBuilder {
        self.retries.max_retry_after = limit;
        self
    }

    /// Adds credentials. Each says which origins it is for; of several for one origin, the first
    /// wins. Defaults to none.
    pub fn auth(mut self, auth: impl Authenticate + 'static) -> HttpClientBuilder {
        self.auth.push(Arc::new(auth));
        self
    }

    /// Whether cookies are kept for the life of the client and sent back to the origin that set
    /// them, and to no other: for services that log in with them. Defaults to no.
    pub fn cookies(mut self, kept: bool) -> HttpClientBuilder {
        self.cookies = kept;
        self
    }

    /// How fast and how often at once each host may be asked. Defaults to no limit.
    pub fn rate_limit(mut self, limit: RateLimit) -> HttpClientBuilder {
        self.rate_limit = limit;
        self
    }

    /// Trusts the certificates in this PEM text, too: those of authorities, and that of a server
    /// that signed its own.
    ///
    /// Defaults to the system's certificates, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// name, and to Mozilla's where the system has none. They are read when the first connection
    /// needs them.
    pub fn root_certificate(mut self, pem: impl AsRef<[u8]>) -> HttpClientBuilder {
        match certificates(pem.as_ref()) {
            Ok(found) => self.tls.roots.extend(found),
            Err(error) => self.fault = Some(error),
        }
        self
    }

    /// Whether the system's certificates are trusted. Defaults to yes; if not, only those of
    /// [`root_certificate`](HttpClientBuilder::root_certificate) are.
    pub fn system_roots(mut self, trusted: bool) -> HttpClientBuilder {
        self.tls.system_roots = trusted;
        self
    }

    /// Shows this certificate to servers that want one: PEM texts of the certificate, with those
    /// between it and its authority behind it, and of its key. Defaults to none.
    pub fn client_certificate(mut self, chain_pem: impl AsRef<[u8]>, key_pem: impl AsRef<[u8]>) -> HttpClientBuilder {
        match Identity::of_pem(chain_pem.as_ref(), key_pem.as_ref()) {
            Ok(identity) => self.tls.identity = Some(identity),
            Err(error) => self.fault = Some(error),
        }
        self
    }

    /// Takes any certificate of any server: one that has expired, one for another host, or one
    /// whose authority isn't trusted. Every machine on the way can then read and change everything,
    /// passwords included: for tests, and for networks of your own. Defaults to no.
    pub fn danger_accept_invalid_certificates(mut self, accepted: bool) -> HttpClientBuilder {
        self.tls.verify = !accepted;
        self
    }

    /// Sends all requests through this proxy, whatever the environment names:
    /// `http://user:password@host:port`, or with `https`, `socks5` or `socks5h`; of the last two,
    /// the first looks names up on this machine and the other at the proxy. User and password are
    /// percent-encoded. Defaults to what the environment names.
    pub fn proxy(mut self, url: &str) -> HttpClientBuilder {
        self.proxy = Some(url.to_owned());
        self
    }

    /// Hosts that are asked directly, in place of what `NO_PROXY` lists: names, which cover what is
    /// below them, addresses, nets such as `10.0.0.0/8`, each with a port if it is for that alone,
    /// between commas or blanks; or `*`.
    pub fn no_proxy(mut self, hosts: &str) -> HttpClientBuilder {
        self.no_proxy = Some(hosts.to_owned());
        self
    }

    /// Whether the proxies that the environment names are used. Defaults to yes.
    ///
    /// As curl and Python's requests do: `HTTP_PROXY` is for `http`, `HTTPS_PROXY` for `https`,
    /// `ALL_PROXY` for both if the other isn't set, and `NO_PROXY` lists the hosts that are asked
    /// directly. In lower case they win over those in upper case; an empty one counts as not set. A
    /// value that makes no sense makes requests fail with
    /// [`HttpErrorKind::Proxy`](super::HttpErrorKind::Proxy). They are read by
    /// [`build`](HttpClientBuilder::build).
    pub fn environment_proxy(mut self, used: bool) -> HttpClientBuilder {
        self.environment_proxy = used;
        self
    }

    fn proxies(&self) -> Result<Proxies> {
        let environment = match self.environment_proxy {
            true => Proxies::of_environment(|name| std::env::var(name).ok()),
            false => Proxies::default(),
        };
        let proxies = match &self.proxy {
            None => environment,
            Some(url) => {
                let proxy = Proxy::parse(url, "the setting `proxy`").map_err(Error::Invalid)?;
                Proxies::of(proxy).except_as(environment)
            }
        };
        Ok(proxies.except(self.no_proxy.as_deref()))
    }

    /// Makes the client. It opens no connection yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a rate limit that lets nothing through, a certificate, key or proxy
    /// that is none, or a user agent that is no header.
    pub fn build(mut self) -> Result<HttpClient> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        ::http::HeaderValue::from_str(&self.user_agent)
            .map_err(|_| Error::Invalid("the user agent has characters that a header can't have".into()))?;
        let limiter = Limiter::new(&self.rate_limit)?;
        let proxies = self.proxies()?;
        let shared = Shared {
            wire: Wire::new(self.tls, proxies, self.timeouts, self.user_agent),
            timeouts: self.timeouts,
            max_body: self.max_body,
            retries: self.retries,
            limiter,
            auth: self.auth,
            cookies: self.cookies.then(Jar::default),
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
            .field("retry", &self.retries.policy)
            .field("rate_limit", &self.rate_limit)
            .finish_non_exhaustive()
    }
}
