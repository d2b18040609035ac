//! A reply that is read piece by piece, and never held as a whole.

use std::fmt;
use std::io::{self, Read};

use ::http::HeaderMap;
use flate2::read::MultiGzDecoder;
use url::Url;

use super::error::HttpError;
use super::headers::media_type;
use super::kind::HttpErrorKind;
use super::limit::Permit;
use super::live::Live;
use super::method::Method;
use super::redact::{self, Secrets};
use super::response::{header, is_gzip};
use super::wire::{Body, Reply};

/// A reply with a status below 400, whose body is read as it comes, decompressed. It is whole when
/// a read gives 0 bytes: a connection that is cut is an error before that, with an [`HttpError`] in
/// it. Memory stays the same for any size; the limit for what is read into memory doesn't count
/// here.
///
/// ```
/// # use std::io::Write;
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let host = format!("http://{}", listener.local_addr()?);
/// # std::thread::spawn(move || {
/// #     let (mut stream, _) = listener.accept().unwrap();
/// #     let _ = std::io::Read::read(&mut stream, &mut [0; 4096]).unwrap();
/// #     stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\na,b\n1,2\n").unwrap();
/// # });
/// use fulmar::client::http::HttpClient;
/// use std::io::{BufRead, BufReader};
///
/// let client = HttpClient::builder().build()?;
/// let table = BufReader::new(client.get(&format!("{host}/table.csv")).stream()?);
/// let lines = table.lines().collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(lines, ["a,b", "1,2"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ResponseStream {
    method: Method,
    url: Url,
    status: u16,
    headers: HeaderMap,
    length: Option<u64>,
    length_known: bool,
    secrets: Secrets,
    body: Unpacked,
    /// The leave to ask, which others wait for; given back with the last byte.
    permit: Option<Permit>,
}

enum Unpacked {
    Plain(Box<Body>),
    Gzip(Box<MultiGzDecoder<Body>>),
}

impl ResponseStream {
    pub(super) fn new(live: Live) -> Result<ResponseStream, HttpError> {
        let Live { reply, url, method, secrets, permit } = live;
        let Reply { status, headers, body } = reply;
        let is_packed = method != Method::Head
            && is_gzip(&headers).map_err(|text| HttpError::new(HttpErrorKind::Content, method, &url, text))?;
        let (length, length_known) = (body.length().filter(|_| !is_packed), body.is_delimited());
        let body = if is_packed {
            Unpacked::Gzip(Box::new(MultiGzDecoder::new(body)))
        } else {
            Unpacked::Plain(Box::new(body))
        };
        let permit = Some(permit);
        Ok(ResponseStream { method, url, status, headers, length, length_known, secrets, body, permit })
    }

    /// The status, below 400.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header, if it is there and text; names in any case, the first if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The type without parameters and in lower case: `text/csv`.
    pub fn content_type(&self) -> Option<String> {
        self.header("content-type").and_then(media_type)
    }

    /// How many bytes there will be, if the server said so and doesn't compress them.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the server says where the body ends. If not, it ends where the connection does, and
    /// one that was cut short on the way can't always be told from one that is whole.
    pub fn length_known(&self) -> bool {
        self.length_known
    }
}

impl Read for ResponseStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.body {
            Unpacked::Plain(body) => body.read(buffer),
            Unpacked::Gzip(body) => body.read(buffer),
        };
        match read {
            Ok(0) if !buffer.is_empty() => {
                self.permit = None;
                Ok(0)
            }
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                self.permit = None;
                let error = HttpError::of_body(error, self.method, &self.url, &self.secrets).with_attempts(1);
                Err(io::Error::other(error))
            }
            read => read,
        }
    }
}

impl fmt::Debug for ResponseStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without headers: they may hold secrets.
        f.debug_struct("ResponseStream")
            .field("method", &self.method)
            .field("url", &redact::url(&self.url))
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
