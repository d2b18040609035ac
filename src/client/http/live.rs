//! A reply whose body hasn't been read: the attempt that got it hands it to the code that reads it.

use url::Url;

use super::limit::Permit;
use super::method::Method;
use super::redact::Secrets;
use super::wire::Reply;

/// A reply below 400 whose body is still to come.
pub(super) struct Live {
    pub(super) reply: Reply,
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) secrets: Secrets,
    /// Held until the body is read.
    pub(super) permit: Permit,
}
