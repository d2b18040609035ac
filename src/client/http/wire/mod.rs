//! One request over one connection, and its reply: HTTP/1.1. The folder above adds redirects,
//! credentials and further attempts.
//!
//! Promises:
//!
//! - An error says whether the server may have got the request. It hasn't before the connection is
//!   made and encrypted.
//! - If a connection is cut or reset within a body, that is an error, and never the body's end.
//! - Every read and write has a deadline.
//! - If a server refuses a request while the client is still sending it, the client reads the
//!   reply.
//!
//! Sources: RFC 9112 (HTTP/1.1), RFC 9110 (semantics), RFC 8446 6.1 (the end of TLS).

mod body;
mod connection;
mod dial;
mod fault;
mod head;
#[cfg(test)]
mod properties;
mod proxy;
mod stream;
mod tcp;
mod tls;
mod tunnel;

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use url::Url;

use super::kind::HttpErrorKind;
use super::method::Method;
use super::origin::Origin;
use super::payload::{Payload, Source};
use super::timeouts::{Timeouts, until};
use super::wait::{Cancelled, next_look};
use crate::time::Deadline;
use connection::{Connection, Pool};
use head::Head;

pub(super) use body::Body;
pub(super) use fault::Fault;
pub(super) use proxy::{Proxies, Proxy};
pub(super) use tls::{Identity, TlsSettings, certificates};
pub(super) use tunnel::WANTS_PASSWORD;

/// The most bytes of a reply's heads, those of `100 Continue` and the like included.
const LONGEST_HEAD: usize = 64 << 10;

/// How many bytes of a body are sent at a time. A shorter body is sent together with the head.
const PIECE: usize = 64 << 10;

/// How long to wait for the reply of a server that closed the connection during sending.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The connections of a client, and the settings for new ones.
pub(super) struct Wire {
    pub(super) tls: TlsSettings,
    pub(super) proxies: Proxies,
    pub(super) timeouts: Timeouts,
    pub(super) agent: String,
    pool: Arc<Pool>,
}

/// A request with its limits.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) origin: &'a Origin,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Option<&'a Payload>,
    pub(super) total: Deadline,
    /// How long the server may take until it sends the head of its reply.
    pub(super) first_byte: Option<Duration>,
    pub(super) cancelled: Cancelled<'a>,
    /// Whether to send it again if a kept connection turns out to be closed.
    pub(super) repeatable: bool,
}

/// A reply whose body is still to come.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

impl Wire {
    pub(super) fn new(tls: TlsSettings, proxies: Proxies, timeouts: Timeouts, agent: String) -> Wire {
        Wire { tls, proxies, timeouts, agent, pool: Arc::default() }
    }

    /// Sends a request and reads the head of its reply.
    pub(super) fn ask(&self, ask: &Ask<'_>) -> Result<Reply, Fault> {
        if let Some(kept) = self.pool.take(ask.origin) {
            match self.ask_over(kept, ask) {
                // The server closed the kept connection just when we sent the request (RFC 9112,
                // 9.3.1). Send it again on another connection, but only if that does no harm.
                Err(fault) if fault.unanswered && ask.repeatable => {}
                outcome => return outcome,
            }
        }
        self.ask_over(self.dial(ask.url, ask.origin, ask.total)?, ask)
    }

    /// Sends the request over this connection, and reads the head of the reply.
    fn ask_over(&self, mut connection: Connection, ask: &Ask<'_>) -> Result<Reply, Fault> {
        let source = ask.body.map(Payload::open).transpose().map_err(|error| {
            Fault::before(HttpErrorKind::File, "the file that is to be sent can't be read", false).with_source(error)
        })?;
        let sent = self.send(&mut connection, ask, source);
        let (head, is_sound) = match sent {
            Ok(()) => {
                let until = until(ask.first_byte, ask.total);
                (self.receive(&mut connection, until, ask.total, ask.cancelled)?, true)
            }
            Err(error) => {
                // A server may refuse a request before it has read all of it, and close the
                // connection. Read its reply, which says why.
                match self.receive(&mut connection, until(Some(LAST_WORD), ask.total), ask.total, None) {
                    Ok(head) if head.status >= 300 => (head, false),
                    Err(refusal) if refusal.kind == HttpErrorKind::Tls => return Err(refusal),
                    _ => return Err(unsent(error, ask.total)),
                }
            }
        };
        connection.has_served = true;
        if let Some(limit) = head.kept_for() {
            connection.keep_for(limit);
        }
        let framing = head.framing(ask.method)?;
        // If the request wasn't sent whole, the server waits for its rest on this connection.
        let keep = (is_sound && head.keeps_connection()).then(|| self.pool.clone());
        let body = Body::new(connection, framing, keep, self.timeouts.body, ask.total);
        Ok(Reply { status: head.status, headers: head.headers, body })
    }

    /// Writes the request: its head, and the body if there is one.
    fn send(&self, connection: &mut Connection, ask: &Ask<'_>, source: Option<Source<'_>>) -> io::Result<()> {
        let mut further = vec![("user-agent", self.agent.as_str()), ("accept", "*/*"), ("accept-encoding", "gzip")];
        let authorization = connection.proxy_authorization.take();
        if let Some(authorization) = &authorization {
            further.push(("proxy-authorization", authorization));
        }
        let takes_body = matches!(ask.method, Method::Post | Method::Put | Method::Patch);
        // If the method may have a body, and there is none, the request has to say so.
        let length = source.as_ref().map(Source::length).or(takes_body.then_some(0));
        let mut head = head::write(ask.method, ask.url, connection.absolute, ask.headers, &further, length);
        connection.proxy_authorization = authorization;
        // The limit starts anew with each piece: it ends an upload that stalls, not a long one.
        let mut put = |piece: &[u8]| {
            connection.limit(until(self.timeouts.send, ask.total));
            connection.write(piece)
        };
        match source {
            // Head and body in one write, so in one packet if they fit.
            Some(Source::Bytes(bytes)) if bytes.len() <= PIECE => {
                head.extend_from_slice(bytes);
                put(&head)
            }
            Some(Source::Bytes(bytes)) => std::iter::once(&head[..]).chain(bytes.chunks(PIECE)).try_for_each(put),
            Some(Source::File { file, length }) => {
                put(&head)?;
                // `take`: the head has promised this length. If the file grows meanwhile, the
                // server would read the rest as the next request.
                let (mut file, mut piece, mut left) = (file.take(length), vec![0; PIECE], length);
                while left > 0 {
                    let count = match file.read(&mut piece) {
                        Ok(0) => return Err(changed(io::Error::other("it became shorter meanwhile"))),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        count => count.map_err(changed)?,
                    };
                    put(&piece[..count])?;
                    left -= count as u64;
                }
                Ok(())
            }
            None => put(&head),
        }
    }

    /// Reads the head of the reply, and skips those of interim replies.
    fn receive(
        &self,
        connection: &mut Connection,
        until: Option<Instant>,
        total: Deadline,
        cancelled: Cancelled<'_>,
    ) -> Result<Head, Fault> {
        // If the caller may cancel, read with short limits, and ask `cancelled` in between.
        let soon = || [until, next_look(cancelled)].into_iter().flatten().min();
        connection.limit(soon());
        let (mut bytes, mut passed) = (Vec::new(), 0);
        loop {
            let seen = bytes.len();
            let more = match connection.reader.fill_buf() {
                Ok([]) if seen + passed == 0 => {
                    let fault = Fault::broken("the server ended the connection without a reply");
                    return Err(Fault { unanswered: true, ..fault });
                }
                Ok([]) => return Err(Fault::broken("the connection ended within the reply's headers")),
                Ok(more) => more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error)
                    if error.kind() == io::ErrorKind::TimedOut && until.is_none_or(|until| Instant::now() < until) =>
                {
                    if cancelled.is_some_and(|cancelled| cancelled()) {
                        return Err(Fault::cancelled());
                    }
                    connection.limit(soon());
                    continue;
                }
                Err(error) => return Err(silence(error, connection, seen + passed == 0, total)),
            };
            bytes.extend_from_slice(more);
            let count = more.len();
            let Some(end) = head::end(&bytes, seen) else {
                connection.reader.consume(count);
                if passed + bytes.len() > LONGEST_HEAD {
                    return Err(too_long());
                }
                continue;
            };
            connection.reader.consume(end - seen);
            passed += end;
            if passed > LONGEST_HEAD {
                return Err(too_long());
            }
            // Servers may put empty lines before a head.
            if bytes[..end].iter().all(u8::is_ascii_whitespace) {
                bytes.clear();
                continue;
            }
            let head = head::parse(&bytes[..end])?;
            match head.status {
                101 => return Err(Fault::broken("the server switched to a protocol that it wasn't asked for")),
                100..=199 => bytes.clear(),
                _ => return Ok(head),
            }
        }
    }
}

/// The fault of a request that could not be sent completely.
fn unsent(error: io::Error, total: Deadline) -> Fault {
    Fault::within(error, |error| match error.kind() {
        io::ErrorKind::TimedOut if total.is_past() => Fault::timeout("the whole took too long"),
        io::ErrorKind::TimedOut => Fault::timeout("sending took too long"),
        _ => {
            let fault = Fault::broken("the connection broke while the request was sent").with_source(error);
            Fault { unanswered: true, ..fault }
        }
    })
}

/// The error if a file changed while it was sent. The server has got a part, and knows from the
/// length that it isn't all.
fn changed(error: io::Error) -> io::Error {
    let fault = Fault::broken("the file that is to be sent could not be read to its end").with_source(error);
    Fault { kind: HttpErrorKind::File, retryable: false, ..fault }.into()
}

fn too_long() -> Fault {
    Fault { kind: HttpErrorKind::TooLarge, retryable: false, ..Fault::broken("the reply's headers are too long") }
}

/// The fault if there is no reply.
fn silence(error: io::Error, connection: &Connection, is_first: bool, total: Deadline) -> Fault {
    // In TLS 1.3 a server may refuse the client's certificate after the client has finished the
    // handshake, but before it reads a request.
    if is_first && !connection.has_served && tls::is_refusal(&error) {
        if let Some(refusal) = tls::fault_of(&error) {
            return refusal;
        }
    }
    Fault::within(error, |error| match error.kind() {
        io::ErrorKind::TimedOut if total.is_past() => Fault::timeout("the whole took too long"),
        io::ErrorKind::TimedOut => Fault::timeout("no reply came in time"),
        kind => {
            let text = match kind {
                io::ErrorKind::ConnectionReset => "the connection was reset before a reply came",
                _ => "the connection broke before a reply came",
            };
            Fault { unanswered: is_first, ..Fault::broken(text).with_source(error) }
        }
    })
}
