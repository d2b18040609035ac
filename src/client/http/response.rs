//! A reply in memory, and reading it there within its limits.

use std::fmt;
use std::io::Read;

use ::http::HeaderMap;
use serde::de::DeserializeOwned;
use url::Url;

use super::error::HttpError;
use super::headers::{file_name_of, media_type};
use super::json;
use super::kind::HttpErrorKind;
use super::live::Live;
use super::method::Method;
use super::redact::{self, Secrets};
use super::wait::Cancelled;
use super::wire::Reply;

/// A reply with a status below 400, with its whole body.
pub struct Response {
    method: Method,
    url: Url,
    status: u16,
    headers: HeaderMap,
    is_delimited: bool,
    body: Vec<u8>,
    /// The body as it came, if it came compressed.
    packed: Option<Vec<u8>>,
    secrets: Secrets,
}

impl Response {
    /// The method of the last request: `GET` if a `POST` was redirected to its result.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The status, below 400.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The value of the first header of this name, in upper or lower case, if there is one and it
    /// is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Whether the server said how long the body is. If not, the body ends with the connection, and
    /// a reply that was cut short can't always be told from a complete one.
    pub fn length_known(&self) -> bool {
        self.is_delimited
    }

    /// The URL of the last request, after redirects, with its query. It may contain secrets that
    /// the caller put there.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The type without parameters and in lower case: `application/json`.
    pub fn content_type(&self) -> Option<String> {
        self.header("content-type").and_then(media_type)
    }

    /// The file name that the server proposes, if it is safe: see [`file_name_of`].
    pub fn file_name(&self) -> Option<String> {
        self.header("content-disposition").and_then(file_name_of)
    }

    /// The body, decompressed.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as it came, compressed or not. Some servers store files compressed, and name the
    /// length and checksum of the compressed file.
    pub fn stored_bytes(&self) -> &[u8] {
        self.packed.as_deref().unwrap_or(&self.body)
    }

    /// The body, decompressed, by value.
    pub fn into_bytes(self) -> Vec<u8> {
        self.body
    }

    /// The body as UTF-8, whatever character set the server claims.
    ///
    /// # Errors
    /// [`HttpErrorKind::Content`] if the body isn't UTF-8.
    pub fn text(&self) -> Result<&str, HttpError> {
        std::str::from_utf8(&self.body)
            .map_err(|error| self.unusable("the reply is not text in UTF-8").with_source(error))
    }

    /// `text` without the request's secrets, which a server may repeat: for an error or a log that
    /// quotes the reply.
    pub fn hide(&self, text: &str) -> String {
        self.secrets.hide(text)
    }

    /// The body as JSON. It skips a byte order mark. Some servers send `NaN`, `Infinity` and
    /// `-Infinity`, which JSON doesn't have: these are read as null, and
    /// [`not_numbers`](Response::not_numbers) counts them.
    ///
    /// # Errors
    /// [`HttpErrorKind::Content`] if the body isn't JSON, or doesn't fit `T`. The source says
    /// where, without showing values.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        json::from_slice(&self.body).map_err(|error| {
            let what = match self.content_type().as_deref() {
                Some("text/html") => "the reply is a page in HTML, not JSON",
                _ if error.is_data() => "the reply is JSON of another shape than expected",
                _ => "the reply is not JSON",
            };
            self.unusable(what).with_source(redact::without_quotes(&error.to_string()))
        })
    }

    /// How many `NaN`, `Infinity` and `-Infinity` are in the body.
    pub fn not_numbers(&self) -> usize {
        json::not_numbers(&self.body)
    }

    fn unusable(&self, what: &str) -> HttpError {
        HttpError::new(HttpErrorKind::Content, self.method, &self.url, what).with_attempts(1)
    }

    /// Reads a reply into memory, of at most `most` bytes after decompression.
    pub(super) fn read(live: Live, most: u64, cancelled: Cancelled<'_>) -> Result<Response, HttpError> {
        let Live { reply, url, method, secrets, permit } = live;
        let Reply { status, headers, mut body } = reply;
        let too_large = || {
            let text = format!("the reply is larger than the {most} bytes that are read into memory: raise `max_body`");
            HttpError::new(HttpErrorKind::TooLarge, method, &url, text)
        };
        let is_packed = method != Method::Head
            && is_gzip(&headers).map_err(|text| HttpError::new(HttpErrorKind::Content, method, &url, text))?;
        if body.length().is_some_and(|length| length > most) {
            return Err(too_large());
        }
        let failed = |error| HttpError::of_body(error, method, &url, &secrets);
        let is_more = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most;
        let (mut bytes, mut packed) = (Vec::new(), None);
        body.unless(cancelled).take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if is_more(&bytes) {
            return Err(too_large());
        }
        // An empty body can't be decompressed, and needn't be.
        if is_packed && !bytes.is_empty() {
            let stored = std::mem::take(&mut bytes);
            let decoder = flate2::read::MultiGzDecoder::new(&stored[..]);
            decoder.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
            if is_more(&bytes) {
                return Err(too_large());
            }
            packed = Some(stored);
        }
        drop(permit);
        let is_delimited = body.is_delimited();
        Ok(Response { method, url, status, headers, is_delimited, body: bytes, packed, secrets })
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without headers and body: both may contain secrets.
        f.debug_struct("Response")
            .field("method", &self.method)
            .field("url", &redact::url(&self.url))
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The value of a header, if it is there and UTF-8, which servers use in file names.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    std::str::from_utf8(headers.get(name)?.as_bytes()).ok()
}

/// The codings of HTTP that change a body, from IANA's registry. Servers also send other words in
/// this header, about an upload or a character set: these don't change the bytes.
const CODINGS: &[&str] =
    &["br", "compress", "dcb", "dcz", "deflate", "exi", "gzip", "pack200-gzip", "x-compress", "x-gzip", "zstd"];

/// Whether a body is compressed with gzip, the only way that the client asks for. An error if it is
/// compressed in another way.
pub(super) fn is_gzip(headers: &HeaderMap) -> Result<bool, &'static str> {
    let values = headers.get_all("content-encoding").iter().filter_map(|value| value.to_str().ok());
    let words = values.flat_map(|value| value.split(',')).map(|word| word.trim().to_ascii_lowercase());
    let codings: Vec<String> = words.filter(|word| CODINGS.contains(&word.as_str())).collect();
    match codings.as_slice() {
        [] => Ok(false),
        [one] if one == "gzip" || one == "x-gzip" => Ok(true),
        _ => Err("the server compressed the reply in a way that it wasn't asked for"),
    }
}
