//! The head of a request as it is sent, and that of a reply as it comes: HTTP/1.1 (RFC 9112).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use url::Url;

use super::super::method::Method;
use super::fault::Fault;

/// The most headers of a reply.
const MOST_HEADERS: usize = 200;

/// Writes the head of a request. If `absolute`, for a proxy, it has the whole URL. (RFC 9112, 3.2)
pub(super) fn write(
    method: Method,
    url: &Url,
    absolute: bool,
    headers: &HeaderMap,
    further: &[(&str, &str)],
    length: Option<u64>,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    let host = authority(url);
    text.extend_from_slice(method.as_str().as_bytes());
    text.push(b' ');
    if absolute {
        text.extend_from_slice(format!("{}://{host}", url.scheme()).as_bytes());
    }
    text.extend_from_slice(url.path().as_bytes());
    if let Some(query) = url.query() {
        text.push(b'?');
        text.extend_from_slice(query.as_bytes());
    }
    text.extend_from_slice(format!(" HTTP/1.1\r\nHost: {host}\r\n").as_bytes());
    let mut line = |name: &str, value: &[u8]| {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    };
    for (name, value) in headers {
        line(name.as_str(), value.as_bytes());
    }
    for (name, value) in further.iter().filter(|(name, _)| !headers.contains_key(*name)) {
        line(name, value.as_bytes());
    }
    if let Some(length) = length {
        line("content-length", length.to_string().as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// Host and port; the port only if it isn't the scheme's default.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The head of a reply.
pub(super) struct Head {
    pub(super) status: u16,
    /// Whether it is HTTP/1.0, where the connection ends with the reply unless a header says
    /// otherwise.
    is_old: bool,
    pub(super) headers: HeaderMap,
}

/// Whether the empty line that ends a head has come.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\n\r\n") || bytes.ends_with(b"\n\n")
}

/// How many of `bytes` are the head; `None` if its end hasn't come yet. The first `seen` bytes were
/// searched before.
pub(super) fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3);
    (from..bytes.len()).find_map(|at| {
        let rest = &bytes[at..];
        if rest.starts_with(b"\n\r\n") {
            Some(at + 3)
        } else if rest.starts_with(b"\n\n") {
            Some(at + 2)
        } else {
            None
        }
    })
}

/// Parses a whole head. It accepts the folded lines and the blanks before colons of old servers,
/// and ignores lines that aren't headers.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = httparse::ParserConfig::default()
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .parse_response(&mut head, bytes);
    let (status, version) = match (parsed, head.code, head.version) {
        (Ok(httparse::Status::Complete(_)), Some(status @ 100..), Some(version)) => (status, version),
        (Err(error), ..) => return Err(Fault::broken("what came isn't sound HTTP").with_source(error)),
        _ => return Err(Fault::broken("what came isn't sound HTTP")),
    };
    let mut map = HeaderMap::new();
    for found in head.headers.iter() {
        let value = unfolded(found.value);
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(found.name.as_bytes()), HeaderValue::from_bytes(&value))
        {
            map.append(name, value);
        }
    }
    Ok(Head { status, is_old: version == 0, headers: map })
}

/// A folded value of several lines as a single line. (RFC 9112, 5.2)
fn unfolded(value: &[u8]) -> Vec<u8> {
    value.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect()
}

/// How a reader finds the end of a body. (RFC 9112, 6.3)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    /// At the end of the connection, which may also be a cut.
    UntilClose,
}

impl Head {
    /// How the body of this reply to a request of `method` ends. A reply to `HEAD`, a 204 and a 304
    /// have no body. Chunks win over a length.
    ///
    /// Fails if the transfer has another encoding than chunks, if the length isn't a number, or if
    /// there are two different ones.
    pub(super) fn framing(&self, method: Method) -> Result<Framing, Fault> {
        if method == Method::Head || matches!(self.status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        let codings: Vec<String> =
            self.tokens(header::TRANSFER_ENCODING).filter(|coding| coding != "identity").collect();
        match codings.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => {}
            ["chunked"] => return Ok(Framing::Chunked),
            _ => return Err(Fault::broken("the server encoded the transfer in a way that it wasn't asked for")),
        }
        let mut lengths: Vec<String> = self.tokens(header::CONTENT_LENGTH).collect();
        lengths.dedup();
        match &lengths[..] {
            [] => Ok(Framing::UntilClose),
            [length] => super::super::headers::number(length)
                .map(Framing::Length)
                .ok_or_else(|| Fault::broken("the reply's length isn't a number")),
            _ => Err(Fault::broken("the reply names two lengths")),
        }
    }

    /// Whether the connection can serve another request after this reply.
    pub(super) fn keeps_connection(&self) -> bool {
        let says = |word: &str| self.tokens(header::CONNECTION).any(|token| token == word);
        // If a server sends both chunks and a length, the end of the reply is in doubt.
        let is_confused = self.headers.contains_key(header::TRANSFER_ENCODING)
            && (self.is_old || self.headers.contains_key(header::CONTENT_LENGTH));
        !is_confused && if self.is_old { says("keep-alive") } else { !says("close") }
    }

    /// How long the server keeps an unused connection, if it says so: `Keep-Alive: timeout=5`. (RFC
    /// 2068, 19.7.1.1)
    pub(super) fn kept_for(&self) -> Option<Duration> {
        let seconds = self.tokens(HeaderName::from_static("keep-alive")).find_map(|word| {
            let (name, seconds) = word.split_once('=')?;
            (name.trim() == "timeout").then(|| super::super::headers::number(seconds.trim())).flatten()
        });
        seconds.map(Duration::from_secs)
    }

    /// The comma-separated words of a header, in lower case.
    fn tokens(&self, name: HeaderName) -> impl Iterator<Item = String> {
        let values = self.headers.get_all(name).iter();
        values.flat_map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
            text.split(',').map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()).collect::<Vec<_>>()
        })
    }
}
