//! Reads the body of a reply, and tells its end from a cut. (RFC 9112, 6.3, 7.1, 8 and 9.8)

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::timeouts::until;
use super::super::wait::Cancelled;
use super::connection::{Connection, Pool};
use super::fault::Fault;
use super::head::Framing;
use crate::time::Deadline;

/// The most bytes of a line before a chunk, and of the trailers after the last one.
const LONGEST_LINE: u64 = 8 << 10;
const MOST_TRAILERS: u64 = 64 << 10;

/// A body that hasn't been read to its end. A read returns `Ok(0)` only if the body was complete.
pub(in super::super) struct Body {
    state: State,
    framing: Framing,
    keep: Option<Arc<Pool>>,
    silence: Option<Duration>,
    total: Deadline,
    /// The deadline of a `wait` for bytes: the next read keeps it, so that both together take at
    /// most the limit on silence.
    waiting_until: Option<Option<Instant>>,
}

enum State {
    /// So many bytes are left.
    Length(Connection, u64),
    /// The next line is the one before a chunk.
    ChunkSize(Connection),
    /// So many bytes of a chunk are left.
    Chunk(Connection, u64),
    UntilClose(Connection),
    Whole,
    Failed,
}

impl Body {
    pub(super) fn new(
        connection: Connection,
        framing: Framing,
        keep: Option<Arc<Pool>>,
        silence: Option<Duration>,
        total: Deadline,
    ) -> Body {
        let state = match framing {
            Framing::Length(length) => State::Length(connection, length),
            Framing::Chunked => State::ChunkSize(connection),
            Framing::UntilClose => State::UntilClose(connection),
        };
        let mut body = Body { state, framing, keep, silence, total, waiting_until: None };
        body.settle();
        body
    }

    /// The body's length as it is sent, if the server said so.
    pub(in super::super) fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        }
    }

    /// Whether the body's end can be told from a cut: not if it ends with the connection.
    pub(in super::super) fn is_delimited(&self) -> bool {
        self.framing != Framing::UntilClose
    }

    /// Whether the connection can be used again once the body is read, which is of at most `most`
    /// bytes as far as is known.
    pub(in super::super) fn is_worth_reading(&self, most: u64) -> bool {
        self.keep.is_some() && self.is_delimited() && self.length().is_none_or(|length| length <= most)
    }

    /// Shortens the time limit of the rest of the body to `limit`, from now.
    pub(in super::super) fn hurry(&mut self, limit: Duration) {
        let sooner = Deadline::start(limit);
        if self.total.at().is_none_or(|at| sooner.at().is_some_and(|sooner| sooner < at)) {
            self.total = sooner;
        }
    }

    /// Waits until the next `read` will return at once: with bytes, or with the body's end or
    /// error. Returns false if `cancelled` returned true meanwhile. Also returns true when the time
    /// limit has passed: the next read then fails.
    pub(in super::super) fn wait(&mut self, cancelled: &dyn Fn() -> bool) -> bool {
        let until = until(self.silence, self.total);
        // The next read gets this deadline. If it counted anew, a silent server would have twice
        // the time.
        self.waiting_until = Some(until);
        match &mut self.state {
            State::Length(connection, _)
            | State::ChunkSize(connection)
            | State::Chunk(connection, _)
            | State::UntilClose(connection) => connection.wait(until, cancelled),
            State::Whole | State::Failed => !cancelled(),
        }
    }

    /// This body, except that a read fails if `cancelled` returns true before there is something to
    /// read.
    pub(in super::super) fn unless<'a>(&'a mut self, cancelled: Cancelled<'a>) -> Unless<'a> {
        Unless { body: self, cancelled }
    }

    /// Gives the connection back to the pool once the whole body has come.
    fn settle(&mut self) {
        if matches!(self.state, State::Length(_, 0)) {
            if let State::Length(connection, 0) = std::mem::replace(&mut self.state, State::Whole) {
                self.release(connection);
            }
        }
    }

    fn release(&mut self, connection: Connection) {
        if let Some(pool) = &self.keep {
            pool.put(connection);
        }
    }

    /// Reads at least one byte of the body into `out`, which isn't empty; returns 0 only if the
    /// body is complete. As soon as it is, the connection goes back to the pool, if it can be used
    /// again.
    ///
    /// Waits for bytes until the limit on silence or the deadline of the whole request passes.
    /// After a fault the connection is closed, and each later call fails.
    fn step(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        let until = self.waiting_until.take().unwrap_or_else(|| until(self.silence, self.total));
        loop {
            // An early return by `?` leaves `Failed` behind, and drops the connection.
            match std::mem::replace(&mut self.state, State::Failed) {
                State::Whole => {
                    self.state = State::Whole;
                    return Ok(0);
                }
                State::Failed => {
                    return Err(Fault::broken(
                        "an earlier read of this reply has failed, so the rest is unknown: send the request again",
                    ));
                }
                State::UntilClose(mut connection) => {
                    connection.limit(until);
                    let count = read(&mut connection, out).map_err(|error| self.cut(error))?;
                    self.state = if count == 0 { State::Whole } else { State::UntilClose(connection) };
                    return Ok(count);
                }
                State::Length(mut connection, left) => {
                    connection.limit(until);
                    let count = self.piece(&mut connection, out, left)?;
                    self.state = State::Length(connection, left - count as u64);
                    self.settle();
                    return Ok(count);
                }
                State::ChunkSize(mut connection) => {
                    connection.limit(until);
                    let line = self.line(&mut connection, LONGEST_LINE)?;
                    match chunk_size(&line).ok_or_else(|| Fault::broken("a chunk of the reply has no sound length"))? {
                        0 => self.trailers(connection)?,
                        size => self.state = State::Chunk(connection, size),
                    }
                }
                State::Chunk(mut connection, left) => {
                    connection.limit(until);
                    let count = self.piece(&mut connection, out, left)?;
                    self.state = match left - count as u64 {
                        0 => {
                            let end = self.line(&mut connection, LONGEST_LINE)?;
                            if !matches!(&end[..], b"\r\n" | b"\n") {
                                return Err(Fault::broken("a chunk of the reply is longer than it says"));
                            }
                            State::ChunkSize(connection)
                        }
                        left => State::Chunk(connection, left),
                    };
                    return Ok(count);
                }
            }
        }
    }

    /// Reads at most `left` bytes, and at least one.
    fn piece(&self, connection: &mut Connection, out: &mut [u8], left: u64) -> Result<usize, Fault> {
        let most = usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
        match read(connection, &mut out[..most]).map_err(|error| self.cut(error))? {
            0 => Err(self.cut(io::ErrorKind::UnexpectedEof.into())),
            count => Ok(count),
        }
    }

    /// Reads a line with its line feed. Fails if it is longer than `most` bytes, or is cut.
    fn line(&self, connection: &mut Connection, most: u64) -> Result<Vec<u8>, Fault> {
        let mut line = Vec::new();
        (&mut connection.reader).take(most).read_until(b'\n', &mut line).map_err(|error| self.cut(error))?;
        match line.last() {
            Some(b'\n') => Ok(line),
            _ if line.len() as u64 == most => Err(Fault::broken("a line between the reply's chunks has no end")),
            _ => Err(self.cut(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Reads the trailers after the last chunk. The body is complete already, so if they are cut,
    /// only the connection can't be used again.
    fn trailers(&mut self, mut connection: Connection) -> Result<(), Fault> {
        let mut left = MOST_TRAILERS;
        self.state = loop {
            if left == 0 {
                return Err(Fault::broken("what follows the reply has no end"));
            }
            let mut line = Vec::new();
            if (&mut connection.reader).take(left).read_until(b'\n', &mut line).is_err() || line.is_empty() {
                break State::Whole;
            }
            left -= line.len() as u64;
            if matches!(&line[..], b"\r\n" | b"\n") {
                self.release(connection);
                break State::Whole;
            }
        };
        Ok(())
    }

    /// The fault for an error within the body: says whether a time limit passed, or how the
    /// connection ended.
    fn cut(&self, error: io::Error) -> Fault {
        Fault::within(error, |error| match error.kind() {
            io::ErrorKind::TimedOut if self.total.is_past() => Fault::timeout("the whole took too long"),
            io::ErrorKind::TimedOut => Fault::timeout("no more of the reply came in time"),
            io::ErrorKind::UnexpectedEof => {
                Fault::broken("the connection ended before the reply did").with_source(error)
            }
            io::ErrorKind::ConnectionReset => {
                Fault::broken("the connection was reset before the reply ended").with_source(error)
            }
            _ => Fault::broken("the connection broke before the reply ended").with_source(error),
        })
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        self.step(out).map_err(io::Error::from)
    }
}

/// See [`Body::unless`].
pub(in super::super) struct Unless<'a> {
    body: &'a mut Body,
    cancelled: Cancelled<'a>,
}

impl Read for Unless<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.is_some_and(|cancelled| !self.body.wait(cancelled)) {
            return Err(Fault::cancelled().into());
        }
        self.body.read(out)
    }
}

fn read(connection: &mut Connection, out: &mut [u8]) -> io::Result<usize> {
    connection.reader.read(out)
}

/// Parses the line before a chunk: hexadecimal digits, and perhaps extensions after a semicolon,
/// which it ignores.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line.split(|byte| *byte == b';').next()?).ok()?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}
