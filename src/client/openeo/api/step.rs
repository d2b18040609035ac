//! What the batch does after a step failed with an error of this client: try again, wait, or end
//! the job.

use std::time::Duration;

use super::error::OpenEoError;
use crate::batch::JobError;
use crate::client::http::{HttpError, HttpErrorKind};

/// How long to wait if a back-end takes no more requests just now and doesn't say for how long.
pub(crate) const LATER: Duration = Duration::from_secs(5);

/// How long a step waits if a more urgent one should go first.
pub(crate) const GIVE_WAY: Duration = Duration::from_millis(10);

/// Turns an error of this client into one that says what the batch does next.
pub(crate) fn job_error(error: OpenEoError) -> JobError {
    let after = error.http().and_then(HttpError::retry_after);
    if error.is_not_our_turn() {
        return JobError::wait(error, after.unwrap_or(LATER));
    }
    // The client's own rate limit, or a cancel, sent nothing, so this doesn't count as an attempt.
    if is_rate_limited(&error) || is_unsent(&error) {
        return JobError::wait(error, after.unwrap_or(GIVE_WAY));
    }
    // `JobNotFinished`: the job list already says that the job is finished, but the results don't
    // yet.
    if !error.is_retryable() && error.code() != Some("JobNotFinished") {
        return JobError::fatal(error);
    }
    match after {
        Some(after) => JobError::retry(error).after(after),
        None => JobError::retry(error),
    }
}

/// The same for an error of a download. If a file came completely but isn't the expected one, it is
/// downloaded only once more, because it may be large.
pub(crate) fn download_error(error: OpenEoError, attempt: u32) -> JobError {
    let is_content = error.http().is_some_and(|http| http.kind() == HttpErrorKind::Content && !http.is_retryable());
    if is_content && attempt > 1 { JobError::fatal(error) } else { job_error(error) }
}

/// Whether to wait before the next request to this back-end, whatever it is.
pub(crate) fn is_later(error: &OpenEoError) -> bool {
    error.is_not_our_turn() || is_rate_limited(error)
}

/// Whether an error is soft: the back-end can't be reached or is broken for a while. Asking about a
/// running job may fail like this several times, because the job goes on and is paid for.
pub(crate) fn is_soft(error: &OpenEoError) -> bool {
    let is_broken = error.status().is_some_and(|status| status >= 500) && error.code() != Some("FeatureUnsupported");
    is_broken || error.is_retryable() || error.is_unreachable()
}

/// Whether the back-end refuses the account, whatever the request is: it has no credits or no room
/// left, or our login isn't good for this.
pub(crate) fn is_of_the_account(error: &OpenEoError) -> bool {
    let is_login = error.http().is_some_and(|http| http.kind() == HttpErrorKind::Unauthorized)
        || matches!(error, OpenEoError::Authentication { .. });
    is_login
        || matches!(error.status(), Some(401..=403))
        || matches!(error.code(), Some("PaymentRequired" | "StorageQuotaExceeded"))
}

/// Whether the client's own rate limit refused the request.
pub(crate) fn is_rate_limited(error: &OpenEoError) -> bool {
    error.http().is_some_and(|http| http.kind() == HttpErrorKind::RateLimited)
}

/// Whether a cancel came before the request was sent.
fn is_unsent(error: &OpenEoError) -> bool {
    error.http().is_some_and(|http| http.kind() == HttpErrorKind::Cancelled && !http.may_have_arrived())
}

/// For a user's own steps that call this client.
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
