//! After which failures a request is sent again, and when. Pure: the caller passes the error, and
//! the time of now.

use std::time::{Duration, SystemTime};

use super::error::HttpError;
use super::kind::HttpErrorKind;
use crate::backoff::{Backoff, RetryPolicy};

/// How often a request is sent again, and after which delay.
#[derive(Clone, Debug)]
pub(super) struct Retries {
    pub(super) policy: RetryPolicy,
    /// The longest `Retry-After` that the client waits for.
    pub(super) max_retry_after: Duration,
}

impl Retries {
    /// How long to wait before the next attempt, after `failures` failures in a row, of which
    /// `error` is the last. `None`: give up.
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

/// Whether the caller decides about another attempt: a failure to get credentials isn't repeated
/// here, because the requests that fetch them were already.
fn is_callers(kind: HttpErrorKind) -> bool {
    matches!(kind, HttpErrorKind::Busy | HttpErrorKind::Unauthorized)
}

/// Whether the server certainly hasn't processed the request. Of the statuses only 429 says so: a
/// gateway may answer 503 although the server behind it got the request.
fn is_unprocessed(error: &HttpError) -> bool {
    !error.may_have_arrived() && error.status().is_none_or(|status| status == 429)
}

/// The delay that a `Retry-After` asks for, from its seconds or its date. `None` if it is neither;
/// zero for a date in the past.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that doesn't fit is still a very long time.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}
