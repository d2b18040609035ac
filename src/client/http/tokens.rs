//! Tokens that expire: one thread renews a token for all.
//!
//! ```text
//! Idle(epoch) -> Renewing -> Idle(epoch + 1), with a token or with the failure
//! ```
//!
//! The epoch counts the renewals that have ended, successfully or not. A request remembers the
//! epoch in which it took its token. If the server refuses that token and a renewal has ended
//! since, the request uses the outcome of that renewal: either it tries the new token, or it fails
//! with the renewal's error. So of all requests that used the same token, exactly one renews it,
//! and its failure fails all of them. A request that starts later renews again.
//!
//! Some failures don't fail other requests. If a renewal was part of a call that must not wait and
//! try again (`once`), ran out of time or was cancelled with its operation, another request may be
//! able to wait longer. And if an early renewal fails, the token is still good.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::auth::{Authenticate, Credentials, Renewal, origins};
use super::origin::Origin;
use super::redact::HIDDEN;
use crate::error::{BoxError, Result};
use crate::panics;
use crate::sync::thread::{self, Thread};
use crate::sync::{Condvar, Mutex, MutexGuard, interrupt};
use crate::time::Deadline;

/// A token and how long it is good for.
pub struct Token {
    secret: String,
    life: Option<Duration>,
}

impl Token {
    /// A token with an unknown lifetime: it is used until the server refuses it.
    pub fn new(secret: impl Into<String>) -> Token {
        Token { secret: secret.into(), life: None }
    }

    /// Sets the token's lifetime, from now. The token is renewed before its end: see
    /// [`Tokens::renew_before`].
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

/// Tokens that expire. If several threads find a token expired, one of them renews it, and the
/// others wait for that.
///
/// The function that fetches a token mostly uses another client to ask another host. If it uses
/// this client, its request must be [`without_auth`](super::RequestBuilder::without_auth);
/// otherwise it would wait for itself, and the client refuses it. The function gets a [`Renewal`],
/// whose [`is_once`](Renewal::is_once) it should pass on to its requests.
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
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    /// How many renewals have ended.
    epoch: u64,
    /// The thread that is renewing now, if there is one.
    renewing: Option<Thread>,
    token: Option<Held>,
    /// Why the last renewal failed, if it did.
    failure: Option<Failure>,
}

struct Failure {
    error: Arc<BoxError>,
    /// Whether the renewal may have failed only because it had too little time, or was cancelled.
    hasty: bool,
}

struct Held {
    secret: Arc<str>,
    /// When to renew it, if its lifetime is known.
    stale_at: Option<Instant>,
    /// When it ends, if that is known.
    ends_at: Option<Instant>,
}

impl Shared {
    /// Waits until the thread that renews, if one does, has done so.
    fn wait(self: &Arc<Shared>, deadline: Deadline) -> Result<(), BoxError> {
        let waits = self.clone();
        // Taken back after the lock is free again, for the hook needs it.
        let _interrupt = interrupt::on_cancel(move || {
            // Under the lock: a thread that is about to wait has seen the cancel, or sleeps by now.
            let _state = waits.state.lock();
            waits.ended.notify_all();
        });
        let mut state = self.state.lock();
        while state.renewing.is_some() {
            if interrupt::is_cancelled() {
                return Err("it was cancelled while another thread was renewing the token".into());
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
        Ok(())
    }
}

impl<F> Tokens<F>
where
    F: Fn(&Renewal) -> Result<Token, BoxError> + Send + Sync,
{
    /// Tokens for the origin of `url`. `fetch` is called when the first request needs a token, and
    /// each time that one has expired.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `url` isn't an `http` or `https` URL.
    pub fn new(url: &str, fetch: F) -> Result<Tokens<F>> {
        Ok(Tokens {
            origins: origins(&[url])?,
            fetch,
            expired: Box::new(|status, _| status == 401),
            headers: Box::new(|token| vec![("Authorization".to_owned(), format!("Bearer {token}"))]),
            before: None,
            shared: Arc::new(Shared {
                state: Mutex::new(State { epoch: 0, renewing: None, token: None, failure: None }),
                ended: Condvar::new(),
            }),
        })
    }

    /// Adds another origin that the tokens are for.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `url` isn't an `http` or `https` URL.
    pub fn also_for(mut self, url: &str) -> Result<Tokens<F>> {
        self.origins.extend(origins(&[url])?);
        Ok(self)
    }

    /// Decides from status and body of a reply whether the token has expired. By default every 401
    /// means that.
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

    /// How long before its end a token is renewed, if its lifetime is known. Defaults to a tenth of
    /// the lifetime, but at most 1 minute. A value as long as the lifetime or longer counts as half
    /// of it. If an early renewal fails, the old token is used to its end, and the next attempt
    /// comes a few seconds later.
    #[must_use]
    pub fn renew_before(mut self, time: Duration) -> Tokens<F> {
        self.before = Some(time);
        self
    }

    /// Waits until no thread renews, and returns the locked state; an error if `deadline` passes
    /// first.
    fn idle(&self, deadline: Deadline) -> Result<MutexGuard<'_, State>, BoxError> {
        loop {
            let state = self.shared.state.lock();
            match &state.renewing {
                None => return Ok(state),
                Some(renewer) if renewer.id() == thread::current().id() => {
                    return Err(
                        "the function that gets a token asked for one: use `without_auth` or a client of its own"
                            .into(),
                    );
                }
                Some(_) => {}
            }
            drop(state);
            self.shared.wait(deadline)?;
        }
    }

    /// Renews the token. This thread is the only one that does; it releases the lock meanwhile. If
    /// the renewal fails and the server hasn't `refused` the old token, that is kept to its end.
    fn renew_now<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        renewal: &Renewal,
        refused: bool,
    ) -> MutexGuard<'a, State> {
        state.renewing = Some(thread::current());
        drop(state);
        // Catch a panic of the user's function: otherwise all other threads would wait for ever.
        let outcome = panics::catch(|| (self.fetch)(renewal));
        let now = Instant::now();
        let outcome = outcome.unwrap_or_else(|panic| Err(format!("getting a token panicked: {panic}").into()));
        let mut state = self.shared.state.lock();
        state.renewing = None;
        self.shared.ended.notify_all();
        if outcome.is_err() && !refused {
            if let Some(held) = state.token.as_mut().filter(|held| held.is_good(now)) {
                // Don't count an epoch: if the server refuses the old token now, a request has to
                // renew it, and not to take this failure for the outcome.
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
                let hasty = renewal.once || renewal.deadline.is_past() || interrupt::is_cancelled();
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

    /// Puts the token into a request. If there is none, or if it expires soon, this thread renews
    /// it first, or waits for the thread that is at it.
    fn apply(&self, credentials: &mut Credentials) -> Result<(), BoxError> {
        let seen = self.shared.state.lock().epoch;
        let mut state = self.idle(credentials.deadline)?;
        if !state.token.as_ref().is_some_and(Held::is_fresh) {
            let renewal = Renewal { generation: state.epoch, deadline: credentials.deadline, once: credentials.once };
            // This thread waited for a renewal of another thread. If that failed, its failure is
            // this thread's outcome, too, unless it was of a kind that holds for that thread alone.
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

    /// Sets the next early renewal to after a tenth of the remaining lifetime: at least 1 s, at
    /// most 10 s, and not after its end.
    fn renew_later(&mut self, now: Instant) {
        if let Some(ends_at) = self.ends_at {
            let left = ends_at.saturating_duration_since(now);
            let pause = (left / 10).clamp(Duration::from_secs(1), Duration::from_secs(10));
            self.stale_at = Some(now + pause.min(left));
        }
    }
}

impl Failure {
    /// Whether this failure is also the outcome of `renewal`, which has waited for it.
    fn holds_for(&self, renewal: &Renewal) -> bool {
        !self.hasty || renewal.once || renewal.deadline.is_past()
    }

    fn share(&self) -> BoxError {
        SharedError(self.error.clone()).into()
    }
}

impl<F> fmt::Debug for Tokens<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("origins", &self.origins).finish_non_exhaustive()
    }
}

/// One failure, for all requests that waited for it.
#[derive(Debug)]
struct SharedError(Arc<BoxError>);

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SharedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The error of the function that fetches tokens, if the request failed because of it.
#[cfg(feature = "pairs")]
pub(crate) fn failure_of<T: std::error::Error + 'static>(error: &super::error::HttpError) -> Option<&T> {
    std::error::Error::source(error)?.downcast_ref::<SharedError>()?.0.downcast_ref()
}

/// The HTTP error with which a renewal failed, if it was one.
pub(super) fn http_error(error: &BoxError) -> Option<&super::error::HttpError> {
    error.downcast_ref::<SharedError>()?.0.downcast_ref()
}
