//! The methods of HTTP.

use std::fmt;

/// The method of a request. (RFC 9110, section 9)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// Reads.
    Get,
    /// Reads the headers, without the content.
    Head,
    /// Sends data for the resource to process; often creates something.
    Post,
    /// Creates or replaces the resource at this URL.
    Put,
    /// Changes a part of the resource.
    Patch,
    /// Removes the resource.
    Delete,
    /// Asks which methods there are.
    Options,
}

impl Method {
    /// Whether two such requests have the same effect as one, by definition: all but `POST` and
    /// `PATCH`.
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Method::Post | Method::Patch)
    }

    /// Whether it changes nothing on the server.
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
