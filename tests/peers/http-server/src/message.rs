//! Requests and replies of HTTP/1.1, whose bodies have a length.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// A head or a body beyond this size, in bytes, ends the connection.
const MAX_SIZE: usize = 16 << 20;

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, ..
    pub method: String,
    /// The path with its query, as it came.
    pub target: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The path, as it came.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// The parts of the path, decoded.
    pub fn segments(&self) -> Vec<String> {
        let parts = self.path().split('/').filter(|part| !part.is_empty());
        parts.map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A field of the query.
    pub fn query(&self, name: &str) -> Option<String> {
        field(self.target.split_once('?')?.1.as_bytes(), name)
    }

    /// A field of a form in the body.
    pub fn form(&self, name: &str) -> Option<String> {
        field(&self.body, name)
    }

    /// The next request of a connection; `None` at its end.
    pub(crate) fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
        let mut line = String::new();
        if reader.take(MAX_SIZE as u64).read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Ok(None);
        };
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.take(MAX_SIZE as u64).read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None => break,
            }
        }
        let mut request = Request { method, target, headers, body: Vec::new() };
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if length > MAX_SIZE {
            return Ok(None);
        }
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body)?;
        Ok(Some(request))
    }
}

fn field(pairs: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(pairs).find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

/// What to do about a request.
pub enum Answer {
    /// Send this.
    Reply(Reply),
    /// Cut the connection without a word.
    Cut,
    /// Reset the connection, as a host does that has crashed.
    Reset,
}

/// What is sent back.
pub struct Reply {
    /// The status.
    pub status: u16,
    content_type: String,
    headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Where the connection is cut, in bytes of the body.
    pub cut_at: Option<usize>,
    /// How many seconds the clock is ahead that `Date` is read from.
    pub ahead: i64,
}

impl Reply {
    /// A body with its type.
    pub fn new(status: u16, content_type: &str, body: Vec<u8>) -> Reply {
        Reply { status, content_type: content_type.to_owned(), headers: Vec::new(), body, cut_at: None, ahead: 0 }
    }

    /// A body of JSON.
    pub fn json(status: u16, body: &Value) -> Reply {
        Reply::new(status, "application/json", body.to_string().into_bytes())
    }

    /// With one more header.
    pub fn header(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(crate) fn write(&self, writer: &mut TcpStream, server: &str) -> io::Result<()> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nServer: {server}\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
            self.status,
            if self.status < 400 { "OK" } else { "Error" },
            httpdate::fmt_http_date(clock(self.ahead)),
            self.content_type,
            self.body.len()
        );
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        let body = &self.body[..self.cut_at.unwrap_or(self.body.len())];
        if body.len() < 64 << 10 {
            bytes.extend_from_slice(body);
            writer.write_all(&bytes)
        } else {
            writer.write_all(&bytes)?;
            writer.write_all(body)
        }
    }
}

/// What a clock says that is so many seconds ahead.
fn clock(ahead: i64) -> SystemTime {
    let by = Duration::from_secs(ahead.unsigned_abs());
    if ahead < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
}
