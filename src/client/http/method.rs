//! What a request asks for.

use std::fmt;

/// The method of a request. (RFC 9110, section 9)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// Reads.
    Get,
    /// Reads all but the content.
    Head,
    /// Does what the resource does with it; often creates.
    Post,
    /// Creates or replaces under this very URL.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
    /// Asks what can be asked.
    Options,
}

impl Method {
    /// Whether doing it twice is as good as once, by definition: all but `POST` and `PATCH`.
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Method::Post | Method::Patch)
    }

    /// Whether it only asks.
    pub(super) fn is_safe(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options)
    }

    /// As it stands in a request: `GET`.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
