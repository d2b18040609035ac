//! As much of HTTP/1.1 as a client of this server speaks: kept connections, bodies with a length.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::SystemTime;

use serde_json::Value;

use crate::{Shared, api, lock};

/// A head or a body beyond this size, in bytes, ends the connection.
const MAX_SIZE: usize = 16 << 20;

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether it came to the store.
    pub at_store: bool,
    /// `GET`, `POST`, ..
    pub method: String,
    /// The path with its query, as it came.
    pub target: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

pub(crate) struct Request {
    pub(crate) method: String,
    /// Decoded segment by segment.
    pub(crate) path: Vec<String>,
    /// As it came.
    pub(crate) target: String,
    query: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    content_type: String,
    headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Where the connection is cut, in bytes of the body.
    pub(crate) cut_at: Option<usize>,
}

/// What to do about a request.
pub(crate) enum Answer {
    Reply(Reply),
    /// Cut the connection without a word.
    Cut,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn query(&self, name: &str) -> Option<String> {
        field(&self.query, name)
    }

    /// A field of a form in the body.
    pub(crate) fn form(&self, name: &str) -> Option<String> {
        field(&String::from_utf8_lossy(&self.body), name)
    }
}

/// A value of `a=b&c=d`, decoded.
fn field(text: &str, name: &str) -> Option<String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(found, value)| (decoded(found), decoded(&value.replace('+', " "))))
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// Without `%XX`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16)).unwrap_or(0);
        bytes.push(if byte == b'%' { (digit() * 16 + digit()) as u8 } else { byte });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &str, body: Vec<u8>) -> Reply {
        Reply { status, content_type: content_type.to_owned(), headers: Vec::new(), body, cut_at: None }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Reply {
        Reply::new(status, "application/json", body.to_string().into_bytes())
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// Serves one connection to its end.
pub(crate) fn serve(stream: TcpStream, shared: &Shared, at_store: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(request) = read(&mut reader)? {
        let (method, target, headers) = (request.method.clone(), request.target.clone(), request.headers.clone());
        lock(&shared.seen).push(Seen { at_store, method, target, headers, body: request.body.clone() });
        shared.bump("total");
        let keep = request.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
        match api::answer(shared, &request, at_store) {
            Answer::Cut => return writer.shutdown(Shutdown::Both),
            Answer::Reply(reply) => {
                write(&mut writer, &reply)?;
                if reply.cut_at.is_some() || !keep {
                    return writer.shutdown(Shutdown::Both);
                }
            }
        }
    }
    Ok(())
}

fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.take(MAX_SIZE as u64).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (method, target, query) = (method.to_owned(), target.to_owned(), query.to_owned());
    let path = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.take(MAX_SIZE as u64).read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut request = Request { method, path, target, query, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if length > MAX_SIZE {
        return Ok(None);
    }
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body)?;
    Ok(Some(request))
}

fn write(writer: &mut TcpStream, reply: &Reply) -> io::Result<()> {
    let mut head = format!(
        "HTTP/1.1 {} {}\r\nServer: openeo-server\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
        reply.status,
        if reply.status < 400 { "OK" } else { "Error" },
        http_date(SystemTime::now()),
        reply.content_type,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let mut bytes = head.into_bytes();
    let body = &reply.body[..reply.cut_at.unwrap_or(reply.body.len())];
    if body.len() < 64 << 10 {
        bytes.extend_from_slice(body);
        writer.write_all(&bytes)
    } else {
        writer.write_all(&bytes)?;
        writer.write_all(body)
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn http_date(at: SystemTime) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let weekday = DAYS[(seconds / 86_400 % 7) as usize];
    let (mut days, mut year) = (seconds / 86_400, 1970);
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", days + 1, MONTHS[month])
}
