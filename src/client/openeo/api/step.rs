//! What an error of the client means for the step of a batch that met it: later, again, or never.

use std::time::Duration;

use super::error::OpenEoError;
use crate::batch::JobError;
use crate::client::http::{HttpError, HttpErrorKind};

/// How long to leave a back-end alone that takes no more requests just now, if it doesn't say.
const LATER: Duration = Duration::from_secs(5);

/// How long something waits that gives way.
pub(crate) const GIVE_WAY: Duration = Duration::from_millis(10);

/// What a client's error means for the step that met it.
pub(crate) fn job_error(error: OpenEoError) -> JobError {
    let after = error.http().and_then(HttpError::retry_after);
    if error.is_not_our_turn() {
        return JobError::wait(error, after.unwrap_or(LATER));
    }
    // Nothing was sent: that is no attempt.
    if is_rate_limited(&error) {
        return JobError::wait(error, after.unwrap_or(GIVE_WAY));
    }
    // The list said that it is finished, and the results don't know yet.
    if !error.is_retryable() && error.code() != Some("JobNotFinished") {
        return JobError::fatal(error);
    }
    match after {
        Some(after) => JobError::retry(error).after(after),
        None => JobError::retry(error),
    }
}

/// What a download's error means. What came whole and was something else is asked for once more,
/// and no more: it may be large.
pub(crate) fn download_error(error: OpenEoError, attempt: u32) -> JobError {
    let is_content = error.http().is_some_and(|http| http.kind() == HttpErrorKind::Content && !http.is_retryable());
    if is_content && attempt > 1 { JobError::fatal(error) } else { job_error(error) }
}

/// Whether it is better asked for later, and everything else of this back-end, too.
pub(crate) fn is_later(error: &OpenEoError) -> bool {
    error.is_not_our_turn() || is_rate_limited(error)
}

/// Whether looking at a job may fail like this for a while, as a side question, while a job runs
/// that is paid for: the back-end can't be reached, or is broken.
pub(crate) fn is_soft(error: &OpenEoError) -> bool {
    let is_broken = error.status().is_some_and(|status| status >= 500) && error.code() != Some("FeatureUnsupported");
    is_broken || error.is_retryable() || error.is_unreachable()
}

/// Whether the client's own rate limit had no room.
pub(crate) fn is_rate_limited(error: &OpenEoError) -> bool {
    error.http().is_some_and(|http| http.kind() == HttpErrorKind::RateLimited)
}

/// Errors of the crate's own, for the steps of others.
impl From<OpenEoError> for JobError {
    fn from(error: OpenEoError) -> JobError {
        job_error(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn what_passes_is_tried_again_and_nonsense_is_not() {
        assert!(!job_error(OpenEoError::Fulmar(Error::QueueFull)).is_fatal());
        assert!(job_error(OpenEoError::Reply("x".into())).is_fatal());
    }
}
