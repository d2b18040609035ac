//! Limits how many requests per second, and how many at once, all threads together send to a host.
//!
//! Requests to one host are spaced evenly: each takes the next free point in time, so that any
//! window of a second has at most the allowed number. A thread takes its point under a lock, and
//! waits for it without the lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::origin::Origin;
use super::wait::{Cancelled, is_cancelled, next_look, pause};
use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex, interrupt};
use crate::time::Deadline;

/// How long a request with `once` is told to wait if the host already has as many requests as
/// allowed: a guess, because it isn't known when one of them ends.
const GUESS: Duration = Duration::from_millis(100);

/// The longest distance between two requests, a century, so that adding several to a point in time
/// doesn't overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// When the limiter knows this many hosts, it forgets those without requests.
const MANY_HOSTS: usize = 1_000;

/// Limits the requests that a client sends to each host (scheme, host and port), with all of its
/// threads and clones together.
///
/// ```
/// use fulmar::client::http::{HttpClient, RateLimit};
///
/// let limit = RateLimit::per_second(10.0).max_concurrent(4);
/// let client = HttpClient::builder().rate_limit(limit).build()?;
/// # Ok::<(), fulmar::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    per_second: Option<f64>,
    max_concurrent: Option<usize>,
}

impl RateLimit {
    /// No limit, which is the default.
    pub fn none() -> RateLimit {
        RateLimit { per_second: None, max_concurrent: None }
    }

    /// At most `requests` requests a second, evenly spaced: 0.5 is one every 2 s. It must be more
    /// than 0.
    pub fn per_second(requests: f64) -> RateLimit {
        RateLimit { per_second: Some(requests), max_concurrent: None }
    }

    /// At most so many requests at once. Each counts from the moment in which it may be sent until
    /// its reply is read or dropped. It must be more than 0.
    #[must_use]
    pub fn max_concurrent(mut self, requests: usize) -> RateLimit {
        self.max_concurrent = Some(requests);
        self
    }

    /// The distance between two requests, checked.
    fn interval(&self) -> Result<Duration> {
        if self.max_concurrent == Some(0) {
            return Err(Error::Invalid(
                "a rate limit of 0 requests at once lets nothing through: use 1 or more".into(),
            ));
        }
        match self.per_second {
            None => Ok(Duration::ZERO),
            Some(rate) if rate > 0.0 => {
                let interval = Duration::try_from_secs_f64(1.0 / rate).ok().filter(|interval| *interval <= LONGEST);
                interval.ok_or_else(|| {
                    Error::Invalid("a rate limit so low lets nothing through: use more requests a second".into())
                })
            }
            Some(rate) => Err(Error::Invalid(format!("a rate limit of {rate} requests a second: use more than 0"))),
        }
    }
}

/// The limits of one client.
pub(super) struct Limiter {
    interval: Duration,
    max_concurrent: Option<usize>,
    hosts: Mutex<HashMap<Origin, Arc<Host>>>,
}

struct Host {
    state: Mutex<HostState>,
    freed: Condvar,
}

struct HostState {
    running: usize,
    /// The next free point in time.
    next: Instant,
    /// The latest time at which a refused caller was told to come back: the next one is told a
    /// later time, so that they don't all come at once.
    promised: Instant,
}

/// Permission to send a request to a host. Dropping it allows the next request.
pub(super) struct Permit(Option<Arc<Host>>);

/// Why there is no permit.
pub(super) enum Refused {
    /// The time limit would pass first, or the caller doesn't wait. Come back after this time.
    Full(Duration),
    Cancelled,
}

impl Limiter {
    pub(super) fn new(limit: &RateLimit) -> Result<Limiter> {
        Ok(Limiter {
            interval: limit.interval()?,
            max_concurrent: limit.max_concurrent,
            hosts: Mutex::new(HashMap::new()),
        })
    }

    /// Waits for a permit to send a request to `origin`; with `once` it doesn't wait.
    pub(super) fn acquire(
        &self,
        origin: &Origin,
        deadline: Deadline,
        once: bool,
        cancelled: Cancelled<'_>,
    ) -> Result<Permit, Refused> {
        if self.max_concurrent.is_none() && self.interval.is_zero() {
            return Ok(Permit(None));
        }
        let host = self.host(origin);
        let waits = host.clone();
        let _interrupt = interrupt::on_cancel(move || {
            // Under the lock: a thread that is about to wait has seen the cancel, or sleeps by now.
            let _state = waits.state.lock();
            waits.freed.notify_all();
        });
        let mut state = host.state.lock();
        let is_full = |state: &HostState| self.max_concurrent.is_some_and(|most| state.running >= most);
        while is_full(&state) {
            if once || deadline.is_past() {
                return Err(Refused::Full(GUESS.max(self.interval)));
            }
            // Without the lock, because `cancelled` is the caller's code.
            drop(state);
            let stop = is_cancelled(cancelled);
            state = host.state.lock();
            // Under the lock, so that a cancel of this thread's operation either is seen here or
            // wakes it.
            if stop || interrupt::is_cancelled() {
                host.freed.notify_one();
                return Err(Refused::Cancelled);
            }
            if !is_full(&state) {
                break;
            }
            match [deadline.at(), next_look(cancelled)].into_iter().flatten().min() {
                None => host.freed.wait(&mut state),
                Some(at) => drop(host.freed.wait_until(&mut state, at)),
            }
        }
        let now = Instant::now();
        let turn = state.next.max(now);
        if once && turn > now {
            // Tell each caller another point in time; otherwise all would come back at the same
            // one.
            let told = state.promised.max(turn);
            state.promised = told.checked_add(self.interval).unwrap_or(told);
            host.freed.notify_one();
            return Err(Refused::Full(told - now));
        }
        if deadline.at().is_some_and(|at| turn > at) {
            // This thread may have been woken for a place that it doesn't take: wake another one.
            host.freed.notify_one();
            return Err(Refused::Full(turn - now));
        }
        state.next = turn.checked_add(self.interval).unwrap_or(turn);
        state.running += 1;
        let permit = Permit(Some(host.clone()));
        drop(state);
        // The point in time belongs to this thread alone, so it only has to wait for it.
        if !pause(turn.saturating_duration_since(now), Deadline::start(None), cancelled) {
            return Err(Refused::Cancelled);
        }
        Ok(permit)
    }

    fn host(&self, origin: &Origin) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.get(origin) {
            return host.clone();
        }
        let now = Instant::now();
        if hosts.len() >= MANY_HOSTS {
            hosts.retain(|_, host| Arc::strong_count(host) > 1 || host.state.lock().next > now);
        }
        let state = HostState { running: 0, next: now, promised: now };
        let host = Arc::new(Host { state: Mutex::new(state), freed: Condvar::new() });
        hosts.insert(origin.clone(), host.clone());
        host
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(host) = &self.0 {
            host.state.lock().running -= 1;
            host.freed.notify_one();
        }
    }
}
