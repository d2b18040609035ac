//! A reply whose body the caller reads piece by piece, without holding all of it in memory.

use std::fmt;
use std::io::{self, Read};

use ::http::HeaderMap;
use url::Url;

use super::error::HttpError;
use super::gzip::Gunzip;
use super::headers::media_type;
use super::kind::HttpErrorKind;
use super::limit::Permit;
use super::live::Live;
use super::method::Method;
use super::redact::{self, Secrets};
use super::response::{header, is_gzip};
use super::wire::{Body, Reply};

/// A reply with a status below 400, whose body is read as it comes, decompressed. When a read
/// returns 0 bytes, the body is complete. If the connection breaks before that, a read fails with
/// an error that has an [`HttpError`] in it. A body of any size needs the same memory, so the limit
/// for replies in memory doesn't apply.
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
    /// The permit of the rate limit, for which other requests may wait: dropped with the last byte.
    permit: Option<Permit>,
}

enum Unpacked {
    Plain(Box<Body>),
    Gzip(Box<Gunzip<Body>>),
}

impl ResponseStream {
    pub(super) fn new(live: Live) -> Result<ResponseStream, HttpError> {
        let Live { reply, url, method, secrets, permit } = live;
        let Reply { status, headers, body } = reply;
        let is_packed = method != Method::Head
            && is_gzip(&headers).map_err(|text| HttpError::new(HttpErrorKind::Content, method, &url, text))?;
        let (length, length_known) = (body.length().filter(|_| !is_packed), body.is_delimited());
        let body =
            if is_packed { Unpacked::Gzip(Box::new(Gunzip::new(body))) } else { Unpacked::Plain(Box::new(body)) };
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

    /// Whether the server said where the body ends. If not, the body ends with the connection, and
    /// one that was cut short can't always be told from a complete one.
    pub fn length_known(&self) -> bool {
        self.length_known
    }
}

impl Read for ResponseStream {
    /// Reads the next bytes, decompressed. The end of the body, and an error, give the permit of
    /// the rate limit back. An error holds an `HttpError`; only `Interrupted` is passed on as it
    /// is.
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
        // Without headers: they may contain secrets.
        f.debug_struct("ResponseStream")
            .field("method", &self.method)
            .field("url", &redact::url(&self.url))
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
