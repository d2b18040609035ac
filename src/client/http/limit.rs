//! How fast and how often at once a host is asked, by all threads together.
//!
//! Requests to one host are spaced evenly: each takes the next free point in time, so that any
//! window of a second has at most as many as agreed. The points are handed out under a lock and
//! waited for outside of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::origin::Origin;
use super::wait::{Cancelled, next_look, pause};
use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex};
use crate::time::Deadline;

/// What a caller in the mode `once` is told to wait if all places are taken: when one will be free
/// isn't known.
const GUESS: Duration = Duration::from_millis(100);

/// The longest distance between two requests: a century. The clock has no room for many that are
/// much longer.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// When so many hosts have been asked, those that are at rest are forgotten.
const MANY_HOSTS: usize = 1_000;

/// The requests that a client sends to each host (scheme, host and port), all its threads and
/// clones together.
///
/// ```
/// use fulmar::client::http::{HttpClient, RateLimit};
///
/// let client = HttpClient::builder().rate_limit(RateLimit::per_second(10.0).at_once(4)).build()?;
/// # Ok::<(), fulmar::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    per_second: Option<f64>,
    at_once: Option<usize>,
}

impl RateLimit {
    /// No limit, which is the default.
    pub fn none() -> RateLimit {
        RateLimit { per_second: None, at_once: None }
    }

    /// So many requests a second, evenly spaced: 0.5 is one every 2 s. It must be more than 0.
    pub fn per_second(requests: f64) -> RateLimit {
        RateLimit { per_second: Some(requests), at_once: None }
    }

    /// So many requests at once, from the moment one may be sent until its reply is read or
    /// dropped. It must be more than 0.
    #[must_use]
    pub fn at_once(mut self, requests: usize) -> RateLimit {
        self.at_once = Some(requests);
        self
    }

    /// The distance between two requests, checked.
    fn interval(&self) -> Result<Duration> {
        if self.at_once == Some(0) {
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
    at_once: Option<usize>,
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
    /// Up to when callers that were turned away have been told to come back, so that they don't all
    /// come at once.
    promised: Instant,
}

/// Leave to ask a host; given back when dropped.
pub(super) struct Permit(Option<Arc<Host>>);

/// Why there is no leave.
pub(super) enum Refused {
    /// The time limit would pass first, or the caller doesn't wait: come back after so long.
    Full(Duration),
    Cancelled,
}

impl Limiter {
    pub(super) fn new(limit: &RateLimit) -> Result<Limiter> {
        Ok(Limiter { interval: limit.interval()?, at_once: limit.at_once, hosts: Mutex::new(HashMap::new()) })
    }

    /// Waits for leave to send a request to `origin`; with `once` it doesn't wait.
    pub(super) fn acquire(
        &self,
        origin: &Origin,
        deadline: Deadline,
        once: bool,
        cancelled: Cancelled<'_>,
    ) -> Result<Permit, Refused> {
        if self.at_once.is_none() && self.interval.is_zero() {
            return Ok(Permit(None));
        }
        let host = self.host(origin);
        let mut state = host.state.lock();
        let is_full = |state: &HostState| self.at_once.is_some_and(|most| state.running >= most);
        while is_full(&state) {
            if once || deadline.is_past() {
                return Err(Refused::Full(GUESS.max(self.interval)));
            }
            if let Some(asked) = cancelled {
                // Not under the lock: it is the caller's code.
                drop(state);
                let stop = asked();
                state = host.state.lock();
                if stop {
                    host.freed.notify_one();
                    return Err(Refused::Cancelled);
                }
                if !is_full(&state) {
                    break;
                }
            }
            match [deadline.at(), next_look(cancelled)].into_iter().flatten().min() {
                None => host.freed.wait(&mut state),
                Some(at) => drop(host.freed.wait_until(&mut state, at)),
            }
        }
        let now = Instant::now();
        let turn = state.next.max(now);
        if once && turn > now {
            // Each is told another point in time, or all would come back for the same one.
            let told = state.promised.max(turn);
            state.promised = told.checked_add(self.interval).unwrap_or(told);
            host.freed.notify_one();
            return Err(Refused::Full(told - now));
        }
        if deadline.at().is_some_and(|at| turn > at) {
            // A thread that was woken and takes no place wakes the next.
            host.freed.notify_one();
            return Err(Refused::Full(turn - now));
        }
        state.next = turn.checked_add(self.interval).unwrap_or(turn);
        state.running += 1;
        let permit = Permit(Some(host.clone()));
        drop(state);
        // The turn belongs to this thread alone: all that is left is to let time pass.
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
