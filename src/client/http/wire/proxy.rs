//! Decides through which proxy a request goes, if any, by the rules of curl and of Python's
//! requests. Pure: the caller passes the environment's variables.
//!
//! Sources: curl's manual, "Environment" (`lib/noproxy.c` for the details); Python,
//! `urllib.request.getproxies_environment`.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::super::kind::HttpErrorKind;
use super::super::redact::Secrets;
use super::fault::Fault;

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http,
    /// HTTP within TLS.
    Https,
    /// SOCKS version 5; this machine looks names up.
    Socks5,
    /// SOCKS version 5; the proxy looks names up.
    Socks5h,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub(in super::super) struct Proxy {
    pub(super) speaks: Speaks,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<(String, String)>,
    /// The variable or setting that named it, such as `HTTPS_PROXY`, for errors.
    set_by: &'static str,
}

impl Proxy {
    /// Parses `http://user:password@host:port`. Without a scheme it is `http`, and without a port
    /// the scheme's default. The error says what is wrong, but doesn't repeat the text, which may
    /// contain a password.
    pub(in super::super) fn parse(text: &str, set_by: &'static str) -> Result<Proxy, String> {
        let text = text.trim();
        let wrong =
            |why: &str| format!("{set_by} names no proxy ({why}): use http://host:port, https:// or socks5h://");
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&whole).map_err(|_| wrong("it isn't a URL"))?;
        let (speaks, usual) = match url.scheme() {
            "http" => (Speaks::Http, 80),
            "https" => (Speaks::Https, 443),
            "socks5" => (Speaks::Socks5, 1080),
            "socks5h" => (Speaks::Socks5h, 1080),
            _ => return Err(wrong("its scheme is not supported")),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it has no host"))?.to_owned();
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let user = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                let pair = decoded(user).and_then(|user| Ok((user, decoded(password.unwrap_or_default())?)));
                Some(pair.map_err(|_| wrong("its user or password is not text in UTF-8"))?)
            }
        };
        Ok(Proxy { speaks, host, port: url.port().unwrap_or(usual), user, set_by })
    }

    /// The header `Proxy-Authorization`, if the proxy's URL has a user. (RFC 7617)
    pub(super) fn authorization(&self) -> Option<String> {
        use base64::Engine;
        let (user, password) = self.user.as_ref()?;
        let both = format!("{user}:{password}");
        Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both)))
    }
}

/// Shows the proxy's host and port and the setting that named it, but never the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {}:{} of {}", self.host, self.port, self.set_by)
    }
}

/// The proxies of a client, each for its scheme.
#[derive(Default)]
pub(in super::super) struct Proxies {
    http: Option<Result<Proxy, String>>,
    https: Option<Result<Proxy, String>>,
    except: NoProxy,
}

impl Proxies {
    /// One proxy for both schemes.
    pub(in super::super) fn of(proxy: Proxy) -> Proxies {
        Proxies { http: Some(Ok(proxy.clone())), https: Some(Ok(proxy)), except: NoProxy::default() }
    }

    /// The proxies of the environment, of which `variable` returns each variable: `http_proxy`,
    /// `HTTP_PROXY` and so on. Lower case wins, and an empty value counts as not set. In a CGI
    /// program `HTTP_PROXY` is a header from the request, which anyone can set, so it is ignored
    /// there.
    pub(in super::super) fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let read = |name: &'static str| variable(name).filter(|value| !value.is_empty()).map(|value| (name, value));
        let is_cgi = variable("REQUEST_METHOD").is_some();
        let proxy = |names: &[&'static str]| {
            let found = names.iter().filter(|name| !(is_cgi && **name == "HTTP_PROXY")).find_map(|name| read(name));
            found.map(|(name, value)| Proxy::parse(&value, name))
        };
        Proxies {
            http: proxy(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
            https: proxy(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            except: read("no_proxy")
                .or_else(|| read("NO_PROXY"))
                .map(|(_, value)| NoProxy::parse(&value))
                .unwrap_or_default(),
        }
    }

    /// Sets the hosts to which requests go directly.
    pub(in super::super) fn except(mut self, list: Option<&str>) -> Proxies {
        if let Some(list) = list {
            self.except = NoProxy::parse(list);
        }
        self
    }

    pub(in super::super) fn except_as(mut self, other: Proxies) -> Proxies {
        self.except = other.except;
        self
    }

    /// Adds what a request to `url` tells the proxy, if it goes through one, to `secrets`: the
    /// proxy, or the server behind it, may repeat it.
    pub(in super::super) fn hide(&self, url: &Url, secrets: &mut Secrets) {
        let Ok(Some(proxy)) = self.for_url(url) else { return };
        if let Some((_, password)) = &proxy.user {
            secrets.add(password);
        }
        if let Some(authorization) = proxy.authorization() {
            secrets.add(&authorization);
        }
    }

    /// The proxy that a request to `url` goes through.
    pub(super) fn for_url(&self, url: &Url) -> Result<Option<&Proxy>, Fault> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        let Some(proxy) = proxy else { return Ok(None) };
        if self.except.covers(url) {
            return Ok(None);
        }
        match proxy {
            Ok(proxy) => Ok(Some(proxy)),
            Err(why) => Err(Fault::before(HttpErrorKind::Proxy, why.clone(), false)),
        }
    }
}

/// The list of `NO_PROXY`: hosts to which requests go directly.
#[derive(Debug, Default, PartialEq, Eq)]
struct NoProxy {
    all: bool,
    entries: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    pattern: Pattern,
    /// An entry may be for one port only, as in Python's requests; curl has no ports here.
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    /// A domain and all below it, in lower case, without dots at its ends.
    Domain(String),
    /// An address, and how many of its first bits count.
    Net(IpAddr, u32),
}

impl NoProxy {
    /// Parses a list with commas or blanks between its entries. `*` alone means every host.
    fn parse(list: &str) -> NoProxy {
        let all = list.trim() == "*";
        let entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).filter_map(Entry::parse);
        NoProxy { all, entries: entries.collect() }
    }

    /// Whether requests to `url` go directly: if an entry covers its host, and its port if it names
    /// one.
    fn covers(&self, url: &Url) -> bool {
        let Some(host) = url.host() else { return false };
        let port = url.port_or_known_default();
        self.all
            || self
                .entries
                .iter()
                .any(|entry| entry.port.is_none_or(|p| Some(p) == port) && entry.pattern.covers(&host))
    }
}

impl Entry {
    /// Parses an address, a network or a domain, each with or without a port. `*.` and dots before
    /// a domain mean nothing. `None` if it is none of these: the list leaves it out.
    fn parse(text: &str) -> Option<Entry> {
        // Try an address first, because the colons of an IPv6 address don't begin a port.
        if let Some(pattern) = net(text) {
            return Some(Entry { pattern, port: None });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (name, Some(port.parse().ok()?))
            }
            _ => (text, None),
        };
        if let Some(pattern) = net(name) {
            return Some(Entry { pattern, port });
        }
        let name = name.strip_prefix("*.").unwrap_or(name).trim_matches('.');
        // Normalise the name as URLs do: lower case, and ASCII for other scripts.
        let name = match Host::parse(name).ok()? {
            Host::Domain(name) => name,
            _ => return None,
        };
        Some(Entry { pattern: Pattern::Domain(name), port })
    }
}

/// Parses an address or a network: `10.0.0.1`, `10.0.0.0/8`, `::1`, `[::1]`, `fd00::/8`.
fn net(text: &str) -> Option<Pattern> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr =
        address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address).parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), |bits| bits.parse().ok()).filter(|bits| *bits <= most)?;
    Some(Pattern::Net(address, bits))
}

impl Pattern {
    /// Whether requests to `host` go directly: it is the domain or below it, or an address in the
    /// network. A name is never looked up to compare it with a network.
    fn covers(&self, host: &Host<&str>) -> bool {
        match (self, host) {
            (Pattern::Domain(name), Host::Domain(host)) => {
                let host = host.trim_end_matches('.');
                let above = host.strip_suffix(name.as_str());
                above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
            (Pattern::Net(IpAddr::V4(net), bits), Host::Ipv4(host)) => {
                let distance = u32::from(*net) ^ u32::from(*host);
                // `None` is a shift by all 32 bits, of the network `/0`, which holds every address.
                distance.checked_shr(32 - bits).unwrap_or(0) == 0
            }
            (Pattern::Net(IpAddr::V6(net), bits), Host::Ipv6(host)) => {
                let distance = u128::from(*net) ^ u128::from(*host);
                distance.checked_shr(128 - bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}
