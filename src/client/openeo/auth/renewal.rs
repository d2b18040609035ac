//! Requests for a new token, which wait no longer than the request that needs it.

use crate::client::http::{Renewal, RequestBuilder};
use crate::client::openeo::api::error::OpenEoError;
use crate::error::BoxError;

/// Limits `request` to the time and the attempts of the request that needs the new token.
pub(super) fn paced(request: RequestBuilder, renewal: Option<&Renewal>) -> RequestBuilder {
    let Some(renewal) = renewal else { return request };
    let request = match renewal.remaining() {
        Some(left) => request.timeout(left),
        None => request,
    };
    if renewal.is_once() { request.once() } else { request }
}

/// Turns the error of a renewal into one from which the waiting request knows whether to try again.
pub(super) fn renewal_error(error: OpenEoError) -> BoxError {
    match error {
        OpenEoError::Http(error) => error.into(),
        OpenEoError::Authentication { source: Some(error), .. } if error.is_retryable() => error.into(),
        error => error.into(),
    }
}
