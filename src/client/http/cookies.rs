//! Cookies, for services that log in with them. (RFC 6265)
//!
//! A cookie goes back only to the origin that set it, as every other secret of this client does:
//! the attribute `Domain` is ignored. `Path`, `Max-Age`, `Expires` and the deletion of cookies
//! follow the RFC. No cookie is stored on the disk.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, header};
use url::Url;

use super::origin::Origin;
use crate::sync::Mutex;

/// How many cookies of one origin are kept, and how many bytes each may have: the minimum that the
/// RFC asks for.
const MOST: usize = 50;
const LONGEST: usize = 4096;

/// The cookies of a client.
#[derive(Default)]
pub(super) struct Jar {
    origins: Mutex<HashMap<Origin, Vec<Cookie>>>,
}

#[derive(Debug, PartialEq)]
struct Cookie {
    name: String,
    value: String,
    path: String,
    expires: Option<SystemTime>,
}

impl Jar {
    /// Stores the cookies that a reply from `url` sets.
    pub(super) fn take(&self, url: &Url, origin: &Origin, headers: &HeaderMap, now: SystemTime) {
        let values = headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
        let found: Vec<Cookie> = values.filter_map(|value| Cookie::parse(value, url, now)).collect();
        if found.is_empty() {
            return;
        }
        let mut origins = self.origins.lock();
        let kept = origins.entry(origin.clone()).or_default();
        for cookie in found {
            kept.retain(|old| (&old.name, &old.path) != (&cookie.name, &cookie.path));
            kept.push(cookie);
        }
        kept.retain(|cookie| cookie.is_fresh(now));
        let surplus = kept.len().saturating_sub(MOST);
        kept.drain(..surplus);
    }

    /// The cookies to send to `url`: names and values, those with the longest path first.
    pub(super) fn of(&self, url: &Url, origin: &Origin, now: SystemTime) -> Vec<(String, String)> {
        let origins = self.origins.lock();
        let Some(kept) = origins.get(origin) else { return Vec::new() };
        let mut found: Vec<&Cookie> =
            kept.iter().filter(|cookie| cookie.is_fresh(now) && cookie.covers(url.path())).collect();
        found.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        found.into_iter().map(|cookie| (cookie.name.clone(), cookie.value.clone())).collect()
    }
}

impl Cookie {
    /// Reads one `Set-Cookie` header of a reply from `url`. `Max-Age` wins over `Expires`. A cookie
    /// that the server deletes by `Max-Age` comes out as one that expired in 1970.
    ///
    /// `None` if there is no name, if name and value together are longer than `LONGEST`, or if the
    /// cookie is `Secure` and the reply came unencrypted.
    fn parse(text: &str, url: &Url, now: SystemTime) -> Option<Cookie> {
        let mut parts = text.split(';');
        let (name, value) = parts.next()?.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || name.len() + value.len() > LONGEST {
            return None;
        }
        let mut cookie =
            Cookie { name: name.into(), value: value.into(), path: folder(url.path()).into(), expires: None };
        let mut lifetime = None;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "path" if value.starts_with('/') => cookie.path = value.to_owned(),
                // If the date can't be read, the cookie lasts as long as the client.
                "expires" => cookie.expires = date(value),
                "max-age" => lifetime = value.parse::<i64>().ok(),
                // A server that sets this doesn't want it sent over an open connection.
                "secure" if url.scheme() != "https" => return None,
                _ => {}
            }
        }
        if let Some(seconds) = lifetime {
            // Zero or less deletes the cookie.
            let end = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
            cookie.expires = match end {
                None => Some(SystemTime::UNIX_EPOCH),
                Some(seconds) => now.checked_add(seconds),
            };
        }
        Some(cookie)
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|end| end > now)
    }

    /// Whether the cookie is sent to this path: it is the cookie's path or below it. (RFC 6265,
    /// 5.1.4)
    fn covers(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.path.as_str());
        rest.is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'))
    }
}

/// A date in one of HTTP's forms, or in Netscape's, with dashes:
/// `Mon, 11-Oct-1999 22:00:00 GMT`.
fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).or_else(|_| httpdate::parse_http_date(&text.replace('-', " "))).ok()
}

/// The path of a URL up to its last slash.
fn folder(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(end) => &path[..end],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(cookies: &[&str], from: &str, to: &str) -> String {
        let (from, to) = (Url::parse(from).expect("a URL"), Url::parse(to).expect("a URL"));
        let (jar, now) = (Jar::default(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        for cookie in cookies {
            let mut headers = HeaderMap::new();
            headers.append(header::SET_COOKIE, cookie.parse().expect("a value"));
            jar.take(&from, &Origin::of_url(&from).expect("an origin"), &headers, now);
        }
        let found = jar.of(&to, &Origin::of_url(&to).expect("an origin"), now);
        found.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_cookie_goes_back_where_it_came_from() {
        let all = ["a=1; Path=/", "b=2; path=/x/y", "c=3"];
        assert_eq!(told(&all, "https://h.org/x/login", "https://h.org/x/y/z"), "b=2; c=3; a=1");
        assert_eq!(told(&all, "https://h.org/x/login", "https://h.org/xy"), "a=1");
        for other in ["https://h.org:8443/x/y", "http://h.org/x/y", "https://sub.h.org/x/y", "https://other.org/x/y"] {
            assert_eq!(told(&all, "https://h.org/x/login", other), "", "{other}");
        }
        assert_eq!(told(&["a=1; Domain=org; Path=/"], "https://h.org/", "https://other.org/"), "");
    }

    #[test]
    fn the_last_of_one_name_counts_and_one_that_has_ended_is_gone() {
        let url = "https://h.org/";
        assert_eq!(told(&["a=1", "a=2=3"], url, url), "a=2=3");
        assert_eq!(told(&["a=1", "a=; Max-Age=0"], url, url), "");
        assert_eq!(told(&["a=1", "a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], url, url), "");
        assert_eq!(told(&["a=1", "a=1; Expires=Mon, 11-Oct-1999 22:00:00 GMT"], url, url), "");
        assert_eq!(told(&["a=1; Expires=Mon, 11-Oct-2100 22:00:00 GMT"], url, url), "a=1");
        assert_eq!(told(&["a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], url, url), "a=1");
        assert_eq!(told(&["a=1; Max-Age=99999999999999999999; Expires=soon"], url, url), "a=1");
        assert_eq!(told(&["a=1; Secure"], "http://h.org/", "http://h.org/"), "");
        assert_eq!(told(&["a", "=1", "", ";", "; ; a=1"], url, url), "");
        let many: Vec<String> = (0..100).map(|at| format!("c{at}={at}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(told(&many, url, url).split("; ").count(), MOST);
    }
}
