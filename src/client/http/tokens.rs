//! Tokens that expire, renewed by one thread for all.
//!
//! ```text
//! Idle(epoch) -> Renewing -> Idle(epoch + 1), with a token or with the failure
//! ```
//!
//! Every renewal that ended, well or not, has a number, the epoch. A request remembers the epoch that it took its token in.
//! When the server refuses the token, and a renewal has ended since, the outcome of that one is the answer: a token to try
//! with, or its failure. So of all requests that were under way with one token, exactly one renews it, and a failure
//! reaches all of them; a request that starts later tries anew.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::auth::{Authenticate, Credentials, Renewal, origins};
use super::origin::Origin;
use super::redact::HIDDEN;
use crate::error::{BoxError, Result};
use crate::panics;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::time::Deadline;

/// A token and how long it is good for.
pub struct Token {
    secret: String,
    life: Option<Duration>,
}

impl Token {
    /// A token of unknown life: it is used until the server refuses it.
    pub fn new(secret: impl Into<String>) -> Token {
        Token { secret: secret.into(), life: None }
    }

    /// How long it is good for, from now. It is renewed before that: see [`Tokens::renew_before`].
    #[must_use]
    pub fn expires_in(mut self, life: Duration) -> Token {
        self.life = Some(life);
        self
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("secret", &HIDDEN).field("life", &self.life).finish()
    }
}

type Expired = Box<dyn Fn(u16, &str) -> bool + Send + Sync>;
type Headers = Box<dyn Fn(&str) -> Vec<(String, String)> + Send + Sync>;

/// Tokens that expire. However many threads meet the expired one, one of them renews it, and the others wait for that.
///
/// The function that gets a token mostly asks another host, by a client of its own: with this one it would wait for itself.
/// It is handed a [`Renewal`], whose [`is_once`](Renewal::is_once) it should pass on.
///
/// ```
/// # use std::io::{Read, Write};
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let host = format!("http://{}", listener.local_addr()?);
/// # std::thread::spawn(move || for stream in listener.incoming() {
/// #     let mut stream = stream.unwrap();
/// #     let mut text = [0; 4096];
/// #     let length = stream.read(&mut text).unwrap();
/// #     let good = String::from_utf8_lossy(&text[..length]).contains("Bearer token 2");
/// #     let reply = if good { "200 OK" } else { "401 Unauthorized" };
/// #     write!(stream, "HTTP/1.1 {reply}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
/// # });
/// use fulmar::client::http::{HttpClient, Token, Tokens};
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use std::time::Duration;
///
/// let count = AtomicU32::new(0);
/// let tokens = Tokens::new(&host, move |_renewal| {
///     let number = count.fetch_add(1, Ordering::Relaxed) + 1; // Here, a request to the token's host.
///     Ok(Token::new(format!("token {number}")).expires_in(Duration::from_secs(3600)))
/// })?;
/// let client = HttpClient::builder().auth(tokens).build()?;
/// assert_eq!(client.get(&host).send()?.status(), 200); // `token 1` is refused, and renewed.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tokens<F> {
    origins: Vec<Origin>,
    fetch: F,
    expired: Expired,
    headers: Headers,
    before: Option<Duration>,
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    /// How many renewals have ended.
    epoch: u64,
    renewing: bool,
    token: Option<Held>,
    /// Why the last renewal failed, if it did.
    failure: Option<Arc<BoxError>>,
}

struct Held {
    secret: Arc<str>,
    /// When to renew it, if its life is known.
    stale_at: Option<Instant>,
}

impl<F> Tokens<F>
where
    F: Fn(&Renewal) -> Result<Token, BoxError> + Send + Sync,
{
    /// Tokens for the origin of `url`, got by `fetch` when the first request needs one, and after that when one expires.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid), if `url` is no `http` or `https` URL.
    pub fn new(url: &str, fetch: F) -> Result<Tokens<F>> {
        Ok(Tokens {
            origins: origins(&[url])?,
            fetch,
            expired: Box::new(|status, _| status == 401),
            headers: Box::new(|token| vec![("Authorization".to_owned(), format!("Bearer {token}"))]),
            before: None,
            state: Mutex::new(State { epoch: 0, renewing: false, token: None, failure: None }),
            ended: Condvar::new(),
        })
    }

    /// Another origin that the tokens are for.
    ///
    /// # Errors
    /// As for [`new`](Tokens::new).
    pub fn also_for(mut self, url: &str) -> Result<Tokens<F>> {
        self.origins.extend(origins(&[url])?);
        Ok(self)
    }

    /// Which replies mean that the token has expired, from status and body. Defaults to 401.
    #[must_use]
    pub fn expired_when(mut self, expired: impl Fn(u16, &str) -> bool + Send + Sync + 'static) -> Tokens<F> {
        self.expired = Box::new(expired);
        self
    }

    /// The headers that carry the token. Defaults to `Authorization: Bearer TOKEN`.
    #[must_use]
    pub fn headers(mut self, headers: impl Fn(&str) -> Vec<(String, String)> + Send + Sync + 'static) -> Tokens<F> {
        self.headers = Box::new(headers);
        self
    }

    /// How long before its end a token is renewed, if its life is known. Defaults to a tenth of its life, at most 1 minute;
    /// a time as long as its life or longer counts as half of it.
    #[must_use]
    pub fn renew_before(mut self, time: Duration) -> Tokens<F> {
        self.before = Some(time);
        self
    }

    /// Waits until nobody renews, or says that time is up.
    fn idle(&self, deadline: Deadline) -> Result<MutexGuard<'_, State>, BoxError> {
        let mut state = self.state.lock();
        while state.renewing {
            match deadline.at() {
                None => self.ended.wait(&mut state),
                Some(at) => {
                    if self.ended.wait_until(&mut state, at).timed_out() && state.renewing {
                        return Err("the time limit passed while another thread was renewing the token".into());
                    }
                }
            }
        }
        Ok(state)
    }

    /// Renews, alone. The lock is free meanwhile.
    fn renew_now<'a>(&'a self, mut state: MutexGuard<'a, State>, renewal: &Renewal) -> MutexGuard<'a, State> {
        state.renewing = true;
        drop(state);
        // A panic of the user's function must not leave all others waiting.
        let outcome = panics::catch(|| (self.fetch)(renewal));
        let now = Instant::now();
        let outcome = outcome.unwrap_or_else(|panic| Err(format!("getting a token panicked: {panic}").into()));
        let mut state = self.state.lock();
        state.renewing = false;
        state.epoch += 1;
        match outcome {
            Ok(token) => {
                let stale_at = token.life.and_then(|life| now.checked_add(life - self.margin(life)));
                state.token = Some(Held { secret: token.secret.into(), stale_at });
                state.failure = None;
            }
            Err(error) => {
                state.token = None;
                state.failure = Some(Arc::new(error));
            }
        }
        self.ended.notify_all();
        state
    }

    fn margin(&self, life: Duration) -> Duration {
        match self.before {
            None => (life / 10).min(Duration::from_secs(60)),
            Some(before) if before >= life => life / 2,
            Some(before) => before,
        }
    }
}

impl<F> Authenticate for Tokens<F>
where
    F: Fn(&Renewal) -> Result<Token, BoxError> + Send + Sync,
{
    fn belongs_to(&self, origin: &Origin) -> bool {
        self.origins.contains(origin)
    }

    fn apply(&self, credentials: &mut Credentials) -> Result<(), BoxError> {
        let seen = self.state.lock().epoch;
        let mut state = self.idle(credentials.deadline)?;
        if !state.token.as_ref().is_some_and(Held::is_fresh) {
            // Whoever waited here for a renewal that failed has its outcome, and doesn't try once more.
            if state.epoch > seen {
                if let Some(failure) = &state.failure {
                    return Err(Shared(failure.clone()).into());
                }
            }
            let renewal = Renewal { generation: state.epoch, deadline: credentials.deadline, once: credentials.once };
            state = self.renew_now(state, &renewal);
        }
        let secret = match (&state.token, &state.failure) {
            (Some(token), _) => token.secret.clone(),
            (None, Some(failure)) => return Err(Shared(failure.clone()).into()),
            (None, None) => return Err("there is no token".into()),
        };
        credentials.set_generation(state.epoch);
        drop(state);
        credentials.hide(&secret);
        for (name, value) in (self.headers)(&secret) {
            credentials.header(&name, &value);
        }
        Ok(())
    }

    fn is_expired(&self, status: u16, body: &str) -> bool {
        (self.expired)(status, body)
    }

    fn renew(&self, renewal: &Renewal) -> Result<(), BoxError> {
        let mut state = self.idle(renewal.deadline)?;
        if state.epoch <= renewal.generation {
            state = self.renew_now(state, renewal);
        }
        match (&state.token, &state.failure) {
            (None, Some(failure)) => Err(Shared(failure.clone()).into()),
            _ => Ok(()),
        }
    }
}

impl Held {
    fn is_fresh(&self) -> bool {
        self.stale_at.is_none_or(|at| Instant::now() < at)
    }
}

impl<F> fmt::Debug for Tokens<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("origins", &self.origins).finish_non_exhaustive()
    }
}

/// One failure, for all who waited for it.
#[derive(Debug)]
struct Shared(Arc<BoxError>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The HTTP error that a renewal failed with, if it is one.
pub(super) fn http_error(error: &BoxError) -> Option<&super::error::HttpError> {
    error.downcast_ref::<Shared>()?.0.downcast_ref()
}
