//! The client: what its requests share, and its settings.

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

/// A client for HTTP and HTTPS that keeps its connections open for further requests. Cloning it is
/// cheap and gives a handle to the same client.
///
/// All handles share connections, credentials and rate limits, so use one client for all threads.
///
/// ```
/// use fulmar::client::http::{Basic, HttpClient, RateLimit, RetryPolicy, Timeouts};
/// use std::time::Duration;
///
/// let client = HttpClient::builder()
///     .user_agent("weather/1.0")
///     .timeouts(Timeouts { first_byte: Some(Duration::from_secs(20)), ..Timeouts::default() })
///     .retry(RetryPolicy::attempts(5))
///     .rate_limit(RateLimit::per_second(10.0).max_concurrent(8))
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
    /// A builder; every setting has a default.
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

    /// The next seed for a random delay.
    pub(super) fn seed(&self) -> u64 {
        // Relaxed: it only has to differ from the last one.
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
    /// The value of the `User-Agent` header. Defaults to `fulmar/` and the version.
    pub fn user_agent(mut self, name: &str) -> HttpClientBuilder {
        self.user_agent = name.to_owned();
        self
    }

    /// The time limits. Defaults to those of [`Timeouts`].
    pub fn timeouts(mut self, timeouts: Timeouts) -> HttpClientBuilder {
        self.timeouts = timeouts;
        self
    }

    /// The most bytes of one reply that are read into memory, counted after decompression. Defaults
    /// to 64 MiB. Downloads have a limit of their own.
    pub fn max_body(mut self, bytes: u64) -> HttpClientBuilder {
        self.max_body = bytes;
        self
    }

    /// How often a request is sent again, and after which delay. Defaults to 4 attempts, with a
    /// delay of 500 ms that doubles up to 30 s and is shortened at random by up to a half.
    ///
    /// An idempotent request is sent again if its connection failed or broke, if the time limit of
    /// a phase passed, or after one of the statuses 408, 429, 502, 503, 504 and those of
    /// [`retry_on`](super::RequestBuilder::retry_on). Any other request is sent again only if the
    /// server certainly hasn't processed it: there was no connection, or the server said 429.
    ///
    /// If the server sends `Retry-After` (seconds or a date), the client waits that long instead,
    /// up to [`max_retry_after`](HttpClientBuilder::max_retry_after).
    pub fn retry(mut self, policy: RetryPolicy) -> HttpClientBuilder {
        self.retries.policy = policy;
        self
    }

    /// The longest `Retry-After` that the client waits for. If a server asks for more, the request
    /// fails at once, and [`HttpError::retry_after`](super::HttpError::retry_after) says how long
    /// it asked for. Defaults to 2 minutes.
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

    /// Whether the client keeps cookies while it lives and sends each back to the origin that set
    /// it, and only there: for services that log in with cookies. Defaults to no.
    pub fn cookies(mut self, kept: bool) -> HttpClientBuilder {
        self.cookies = kept;
        self
    }

    /// How many requests per second and at once the client sends to each host. Defaults to no
    /// limit.
    pub fn rate_limit(mut self, limit: RateLimit) -> HttpClientBuilder {
        self.rate_limit = limit;
        self
    }

    /// Trusts the certificates in this PEM text, too: those of authorities, or a server's
    /// self-signed one.
    ///
    /// By default the client trusts the system's certificates, or those that `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` name, or Mozilla's if the system has none. It reads them when the first
    /// connection needs them.
    pub fn root_certificate(mut self, pem: impl AsRef<[u8]>) -> HttpClientBuilder {
        match certificates(pem.as_ref()) {
            Ok(found) => self.tls.roots.extend(found),
            Err(error) => self.fault = Some(error),
        }
        self
    }

    /// Whether the client trusts the system's certificates. Defaults to yes. If not, it trusts only
    /// those of [`root_certificate`](HttpClientBuilder::root_certificate).
    pub fn system_roots(mut self, trusted: bool) -> HttpClientBuilder {
        self.tls.system_roots = trusted;
        self
    }

    /// A client certificate for servers that ask for one: a PEM text of the certificate, followed
    /// by the intermediate ones, and a PEM text of its key. Defaults to none.
    pub fn client_certificate(mut self, chain_pem: impl AsRef<[u8]>, key_pem: impl AsRef<[u8]>) -> HttpClientBuilder {
        match Identity::of_pem(chain_pem.as_ref(), key_pem.as_ref()) {
            Ok(identity) => self.tls.identity = Some(identity),
            Err(error) => self.fault = Some(error),
        }
        self
    }

    /// Whether to accept any certificate, even if it has expired, is for another host, or has an
    /// untrusted authority. Then every machine on the way can read and change everything, passwords
    /// included. Only for tests, and for networks of your own. Defaults to no.
    pub fn danger_accept_invalid_certificates(mut self, accepted: bool) -> HttpClientBuilder {
        self.tls.verify = !accepted;
        self
    }

    /// Sends all requests through this proxy instead of the environment's:
    /// `http://user:password@host:port`, or the same with `https`, `socks5` or `socks5h`. With
    /// `socks5` this machine looks names up, with `socks5h` the proxy does. User and password are
    /// percent-encoded. By default the client uses the proxies that the environment names.
    pub fn proxy(mut self, url: &str) -> HttpClientBuilder {
        self.proxy = Some(url.to_owned());
        self
    }

    /// Hosts to which the client connects without a proxy, instead of those that `NO_PROXY` lists.
    /// The list has commas or blanks between its entries. An entry is a domain, which includes its
    /// subdomains, an address, or a network such as `10.0.0.0/8`, each perhaps with a port. `*`
    /// means every host.
    pub fn no_proxy(mut self, hosts: &str) -> HttpClientBuilder {
        self.no_proxy = Some(hosts.to_owned());
        self
    }

    /// Whether the client uses the proxies that the environment names. Defaults to yes.
    ///
    /// The rules are those of curl and Python's requests: `HTTP_PROXY` is for `http`, `HTTPS_PROXY`
    /// for `https`, `ALL_PROXY` for both if the other isn't set, and `NO_PROXY` lists the hosts to
    /// connect to directly. A name in lower case wins over one in upper case, and an empty value
    /// counts as not set. An invalid value makes requests fail with
    /// [`HttpErrorKind::Proxy`](super::HttpErrorKind::Proxy). [`build`](HttpClientBuilder::build)
    /// reads the environment.
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
    /// [`Error::Invalid`] if a rate limit is 0, if a certificate, key or proxy can't be read, or if
    /// the user agent can't be a header's value.
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
