//! Requests for a new token, which are as patient as the request that wants it.

use crate::client::http::{Renewal, RequestBuilder};
use crate::client::openeo::api::error::OpenEoError;
use crate::error::BoxError;

/// As patient as the request that wants the new token.
pub(super) fn paced(request: RequestBuilder, renewal: Option<&Renewal>) -> RequestBuilder {
    let Some(renewal) = renewal else { return request };
    let request = match renewal.remaining() {
        Some(left) => request.timeout(left),
        None => request,
    };
    if renewal.is_once() { request.once() } else { request }
}

/// An error of a renewal, such that the request that wanted it knows whether it passes.
pub(super) fn renewal_error(error: OpenEoError) -> BoxError {
    match error {
        OpenEoError::Http(error) => error.into(),
        OpenEoError::Authentication { source: Some(error), .. } if error.is_retryable() => error.into(),
        error => error.into(),
    }
}
