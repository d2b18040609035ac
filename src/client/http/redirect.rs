//! Which request follows a redirect, and what of the first one it may carry. Pure. (RFC 9110, 15.4)

use url::Url;

use super::method::Method;
use super::origin::Origin;

/// How many redirects one request follows.
pub(super) const MOST: usize = 10;

/// The request that a redirect asks for.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) keeps_body: bool,
}

/// Whether the status is a redirect that names another URL.
pub(super) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// The next request after `status` with this `Location`. The error says why the client doesn't
/// follow the redirect.
pub(super) fn next(
    method: Method,
    url: &Url,
    has_body: bool,
    status: u16,
    location: Option<&str>,
) -> Result<Next, &'static str> {
    let location = location.ok_or("a redirect without a location")?;
    let mut to = url.join(location).map_err(|_| "a redirect to what isn't a URL")?;
    let (from, origin) = (Origin::of_url(url), Origin::of_url(&to).ok_or("a redirect to another scheme than http")?);
    if url.scheme() == "https" && to.scheme() != "https" {
        return Err("a redirect from https to http, which would show the request to everybody");
    }
    // Drop user and password that the server put into the URL.
    let _ = to.set_username("");
    let _ = to.set_password(None);
    if to.fragment().is_none() {
        to.set_fragment(url.fragment());
    }
    let (method, keeps_body) = match (status, method) {
        // After 301 and 302, too: all clients do that, and it repeats no POST.
        (301..=303, Method::Post) => (Method::Get, false),
        (303, Method::Get | Method::Head) => (method, false),
        (303, _) => (Method::Get, false),
        _ => (method, has_body),
    };
    if keeps_body && from.as_ref() != Some(&origin) {
        return Err("a redirect that would carry the request's body to another host");
    }
    Ok(Next { method, url: to, keeps_body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(method: Method, from: &str, status: u16, to: &str) -> Result<(Method, String, bool), &'static str> {
        let body = !matches!(method, Method::Get | Method::Head | Method::Delete);
        next(method, &Url::parse(from).expect("a URL"), body, status, Some(to))
            .map(|next| (next.method, next.url.to_string(), next.keeps_body))
    }

    #[test]
    fn a_post_becomes_a_get_or_keeps_its_body() {
        let url = "https://h.org/a/b";
        for status in [301, 302, 303] {
            assert_eq!(follow(Method::Post, url, status, "c"), Ok((Method::Get, "https://h.org/a/c".into(), false)));
        }
        for status in [307, 308] {
            assert_eq!(follow(Method::Post, url, status, "/c"), Ok((Method::Post, "https://h.org/c".into(), true)));
        }
        assert_eq!(follow(Method::Put, url, 301, "/c"), Ok((Method::Put, "https://h.org/c".into(), true)));
        assert_eq!(follow(Method::Put, url, 303, "/c"), Ok((Method::Get, "https://h.org/c".into(), false)));
        assert_eq!(follow(Method::Head, url, 303, "/c"), Ok((Method::Head, "https://h.org/c".into(), false)));
        assert_eq!(follow(Method::Delete, url, 302, "/c"), Ok((Method::Delete, "https://h.org/c".into(), false)));
    }

    #[test]
    fn what_would_leak_is_not_followed() {
        assert!(follow(Method::Get, "https://h.org/", 302, "http://h.org/").is_err(), "downgrade");
        assert!(follow(Method::Get, "https://h.org/", 302, "ftp://h.org/").is_err(), "scheme");
        assert!(follow(Method::Get, "https://h.org/", 302, "file:///etc/passwd").is_err(), "scheme");
        assert!(follow(Method::Post, "https://h.org/", 307, "https://other.org/").is_err(), "body to a stranger");
        assert!(follow(Method::Post, "https://h.org/", 307, "https://h.org:444/").is_err(), "another port");
        assert!(follow(Method::Get, "http://h.org/", 302, "https://h.org/").is_ok(), "upgrade");
        let url = Url::parse("http://h.org/").expect("a URL");
        assert!(next(Method::Get, &url, false, 302, None).is_err(), "no location");
    }

    #[test]
    fn credentials_in_a_location_are_dropped() {
        let followed = follow(Method::Get, "http://h.org/", 302, "http://me:pw@o.org/x").expect("followed");
        assert_eq!(followed.1, "http://o.org/x");
    }
}
