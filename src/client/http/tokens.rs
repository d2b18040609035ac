//! Tokens that expire, renewed by one thread for all.
//!
//! ```text
//! Idle(epoch) -> Renewing -> Idle(epoch + 1), with a token or with the failure
//! ```
//!
//! Every renewal that ended, well or not, has a number, the epoch. A request remembers the epoch
//! that it took its token in. When the server refuses the token, and a renewal has ended since, the
//! outcome of that one is the answer: a token to try with, or its failure. So of all requests that
//! were under way with one token, exactly one renews it, and a failure reaches all of them; a
//! request that starts later tries anew.
//!
//! Two failures don't reach the others: that of a renewal that may not wait (`once`) or had run out
//! of time, since other requests may wait and have time; and that of an early renewal, while the
//! token still is good.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::auth::{Authenticate, Credentials, Renewal, origins};
use super::origin::Origin;
use super::redact::HIDDEN;
use crate::error::{BoxError, Result};
use crate::panics;
use crate::sync::thread::{self, Thread};
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

/// Tokens that expire. However many threads meet the expired one, one of them renews it, and the
/// others wait for that.
///
/// The function that gets a token mostly asks another host, by a client of its own. With this one
/// it must say [`without_auth`](super::RequestBuilder::without_auth), or it is refused: it would
/// wait for itself. It is handed a [`Renewal`], whose [`is_once`](Renewal::is_once) it should pass
/// on.
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
    /// The thread that renews, if one does.
    renewing: Option<Thread>,
    token: Option<Held>,
    /// Why the last renewal failed, if it did.
    failure: Option<Failure>,
}

struct Failure {
    error: Arc<BoxError>,
    /// It may be for want of time only.
    hasty: bool,
}

struct Held {
    secret: Arc<str>,
    /// When to renew it, if its life is known.
    stale_at: Option<Instant>,
    /// When it ends, if that is known.
    ends_at: Option<Instant>,
}

impl<F> Tokens<F>
where
    F: Fn(&Renewal) -> Result<Token, BoxError> + Send + Sync,
{
    /// Tokens for the origin of `url`, got by `fetch` when the first request needs one, and after
    /// that when one expires.
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
            state: Mutex::new(State { epoch: 0, renewing: None, token: None, failure: None }),
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

    /// How long before its end a token is renewed, if its life is known. Defaults to a tenth of its
    /// life, at most 1 minute; a time as long as its life or longer counts as half of it. If that
    /// fails, the old one is used to its end, and the next try is a few seconds later.
    #[must_use]
    pub fn renew_before(mut self, time: Duration) -> Tokens<F> {
        self.before = Some(time);
        self
    }

    /// Waits until no thread renews, or says that time is up.
    fn idle(&self, deadline: Deadline) -> Result<MutexGuard<'_, State>, BoxError> {
        let mut state = self.state.lock();
        while let Some(renewer) = &state.renewing {
            if renewer.id() == thread::current().id() {
                return Err(
                    "the function that gets a token asked for one: use `without_auth` or a client of its own".into()
                );
            }
            match deadline.at() {
                None => self.ended.wait(&mut state),
                Some(at) => {
                    if self.ended.wait_until(&mut state, at).timed_out() && state.renewing.is_some() {
                        return Err("the time limit passed while another thread was renewing the token".into());
                    }
                }
            }
        }
        Ok(state)
    }

    /// Renews, alone. The lock is free meanwhile. Unless the token was `refused`, it is kept if it
    /// can't be renewed yet.
    fn renew_now<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        renewal: &Renewal,
        refused: bool,
    ) -> MutexGuard<'a, State> {
        state.renewing = Some(thread::current());
        drop(state);
        // A panic of the user's function must not leave all others waiting.
        let outcome = panics::catch(|| (self.fetch)(renewal));
        let now = Instant::now();
        let outcome = outcome.unwrap_or_else(|panic| Err(format!("getting a token panicked: {panic}").into()));
        let mut state = self.state.lock();
        state.renewing = None;
        self.ended.notify_all();
        if outcome.is_err() && !refused {
            if let Some(held) = state.token.as_mut().filter(|held| held.is_good(now)) {
                // No new epoch: if the server refuses it now, that is no answer to it.
                held.renew_later(now);
                return state;
            }
        }
        state.epoch += 1;
        match outcome {
            Ok(token) => {
                let stale_at = token.life.and_then(|life| now.checked_add(life - self.margin(life)));
                let ends_at = token.life.and_then(|life| now.checked_add(life));
                state.token = Some(Held { secret: token.secret.into(), stale_at, ends_at });
                state.failure = None;
            }
            Err(error) => {
                let hasty = renewal.once || renewal.deadline.is_past();
                state.token = None;
                state.failure = Some(Failure { error: Arc::new(error), hasty });
            }
        }
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
            let renewal = Renewal { generation: state.epoch, deadline: credentials.deadline, once: credentials.once };
            // A thread that waited here for a renewal that failed has its outcome, and doesn't try
            // once more.
            if state.epoch > seen {
                if let Some(failure) = state.failure.as_ref().filter(|failure| failure.holds_for(&renewal)) {
                    return Err(failure.share());
                }
            }
            state = self.renew_now(state, &renewal, false);
        }
        let secret = match (&state.token, &state.failure) {
            (Some(token), _) => token.secret.clone(),
            (None, Some(failure)) => return Err(failure.share()),
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
        let is_answered = state.failure.as_ref().is_none_or(|failure| failure.holds_for(renewal));
        if state.epoch <= renewal.generation || !is_answered {
            state = self.renew_now(state, renewal, true);
        }
        match (&state.token, &state.failure) {
            (None, Some(failure)) => Err(failure.share()),
            _ => Ok(()),
        }
    }
}

impl Held {
    fn is_fresh(&self) -> bool {
        self.stale_at.is_none_or(|at| Instant::now() < at)
    }

    fn is_good(&self, now: Instant) -> bool {
        self.ends_at.is_none_or(|at| now < at)
    }

    /// A tenth of what is left of its life, from 1 to 10 s, and never beyond its end.
    fn renew_later(&mut self, now: Instant) {
        if let Some(ends_at) = self.ends_at {
            let left = ends_at.saturating_duration_since(now);
            let pause = (left / 10).clamp(Duration::from_secs(1), Duration::from_secs(10));
            self.stale_at = Some(now + pause.min(left));
        }
    }
}

impl Failure {
    /// Whether it is also the answer for this renewal, which has waited for it.
    fn holds_for(&self, renewal: &Renewal) -> bool {
        !self.hasty || renewal.once || renewal.deadline.is_past()
    }

    fn share(&self) -> BoxError {
        Shared(self.error.clone()).into()
    }
}

impl<F> fmt::Debug for Tokens<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("origins", &self.origins).finish_non_exhaustive()
    }
}

/// One failure, for all requests that waited for it.
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

/// What the function that gets tokens said, where a request failed for lack of one.
#[cfg(feature = "pairs")]
pub(crate) fn failure_of<T: std::error::Error + 'static>(error: &super::error::HttpError) -> Option<&T> {
    std::error::Error::source(error)?.downcast_ref::<Shared>()?.0.downcast_ref()
}

/// The HTTP error that a renewal failed with, if it is one.
pub(super) fn http_error(error: &BoxError) -> Option<&super::error::HttpError> {
    error.downcast_ref::<Shared>()?.0.downcast_ref()
}
