//! Which failures are worth another attempt, and when. Pure: handed the error, and `now` where a
//! date is read.

use std::time::{Duration, SystemTime};

use super::error::HttpError;
use super::kind::HttpErrorKind;
use crate::backoff::{Backoff, RetryPolicy};

/// How often a request is sent again, and how long it waits for that.
#[derive(Clone, Debug)]
pub(super) struct Retries {
    pub(super) policy: RetryPolicy,
    /// The longest `Retry-After` that is waited for.
    pub(super) max_retry_after: Duration,
}

impl Retries {
    /// How long to wait before the next attempt, after `failures` in a row of which `error` is the
    /// last; `None`: give up.
    pub(super) fn delay(
        &self,
        failures: u32,
        error: &HttpError,
        idempotent: bool,
        retry_on: &[u16],
        seed: u64,
    ) -> Option<Duration> {
        let by_protocol = error.status().is_some_and(|status| retry_on.contains(&status));
        let worth_it = error.is_retryable() || by_protocol;
        let harmless = idempotent || is_unprocessed(error);
        if !worth_it || !harmless || is_callers(error.kind()) {
            return None;
        }
        let delay = self.policy.delay(failures.saturating_sub(1), seed)?;
        match error.retry_after() {
            Some(asked) => (asked <= self.max_retry_after).then_some(asked),
            None => Some(delay),
        }
    }
}

impl Default for Retries {
    fn default() -> Retries {
        let backoff = Backoff::new(Duration::from_millis(500)).cap(Duration::from_secs(30)).jitter(0.5);
        Retries { policy: RetryPolicy::attempts(4).backoff(backoff), max_retry_after: Duration::from_secs(120) }
    }
}

/// Repeating it is the caller's decision: the token's own requests have been repeated already.
fn is_callers(kind: HttpErrorKind) -> bool {
    matches!(kind, HttpErrorKind::Busy | HttpErrorKind::Unauthorized)
}

/// Surely not processed. Of the statuses only 429 counts: a gateway may say 503 for a server that
/// did get the request.
fn is_unprocessed(error: &HttpError) -> bool {
    !error.may_have_arrived() && error.status().is_none_or(|status| status == 429)
}

/// `Retry-After` as seconds or as a date, from `now`; what is neither is `None`, a date in the past
/// zero.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds is still a very long time.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}
