//! A connection as a stream of bytes: a socket, or TLS over another stream, with a deadline for
//! reads and writes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use super::tcp::Tcp;

/// Bytes in both directions. An error of the kind `TimedOut` says that the deadline passed.
pub(super) trait Stream: Read + Write + Send + Sync {
    /// Sets the deadline of all further reads and writes; `None` is no limit.
    fn limit(&mut self, deadline: Option<Instant>);

    /// The socket below.
    fn socket(&self) -> &TcpStream;

    /// Whether bytes have been read from the socket that the next `read` will return.
    fn holds_bytes(&mut self) -> bool;

    /// Waits for at most `limit` until bytes, the end or an error come over the socket. Returns
    /// false if nothing came. The next read returns the error, if there was one.
    fn wait(&mut self, limit: Duration) -> bool;
}

/// A socket. Its deadline is a point in time: bytes that come don't extend it. A call that blocks
/// in it fails if the operation that this thread runs is cancelled, and so does each later one.
pub(super) struct Socket {
    tcp: Arc<Tcp>,
    deadline: Option<Instant>,
    /// An error that `wait` met, for the next read. The system reports a reset only once: otherwise
    /// that read would see a normal end, and take half a body for the whole.
    failed: Option<io::Error>,
}

impl Socket {
    pub(super) fn new(tcp: Arc<Tcp>) -> Socket {
        Socket { tcp, deadline: None, failed: None }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        let left = deadline.saturating_duration_since(Instant::now());
        // At least a microsecond, because zero means "no limit" to the system.
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left.max(Duration::from_micros(1)))) }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let _interrupt = self.tcp.shut_on_cancel();
        loop {
            self.tcp.check()?;
            self.tcp.stream().set_read_timeout(self.left()?)?;
            match self.tcp.stream().read(buffer) {
                // A signal interrupted the call: try again with the remaining time.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What came before the cancel has come. Its end would be taken for that of a body.
                Ok(count @ 1..) => return Ok(count),
                outcome => return self.tcp.check().and(outcome.map_err(timed_out)),
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _interrupt = self.tcp.shut_on_cancel();
        loop {
            self.tcp.check()?;
            self.tcp.stream().set_write_timeout(self.left()?)?;
            match self.tcp.stream().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(count @ 1..) => return Ok(count),
                outcome => return self.tcp.check().and(outcome.map_err(timed_out)),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Socket {
    fn limit(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    fn socket(&self) -> &TcpStream {
        self.tcp.stream()
    }

    fn holds_bytes(&mut self) -> bool {
        false
    }

    fn wait(&mut self, limit: Duration) -> bool {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        let _interrupt = self.tcp.shut_on_cancel();
        // At least a microsecond, because zero means "no limit" to the system. If the system
        // refuses the limit, return true: the read will fail with the error.
        if self.tcp.stream().set_read_timeout(Some(limit.max(Duration::from_micros(1)))).is_err() {
            return true;
        }
        match self.tcp.stream().peek(&mut [0]) {
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => return false,
            Err(error) => self.failed = Some(error),
            Ok(_) => {}
        }
        true
    }
}

/// On Unix a socket's time limit is reported as `WouldBlock`: turns that into `TimedOut`.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

/// TLS over another stream. If the connection ends without a `close_notify`, that is an error,
/// `UnexpectedEof`, because any machine on the way can cut a connection.
pub(super) struct Tls(StreamOwned<ClientConnection, Box<dyn Stream>>);

impl Tls {
    /// Does the TLS handshake, until the stream's deadline.
    pub(super) fn handshake(mut tls: ClientConnection, mut below: Box<dyn Stream>) -> io::Result<Tls> {
        while tls.is_handshaking() {
            let (read, written) =
                tls.complete_io(&mut below).map_err(|error| last_word(&mut tls, &mut *below, error))?;
            if read == 0 && written == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Tls(StreamOwned::new(tls, below)))
    }
}

/// If a write failed: the reason that the server gave before it closed the connection, if it gave
/// one; otherwise `error`.
fn last_word(tls: &mut ClientConnection, mut below: &mut dyn Stream, error: io::Error) -> io::Error {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    if !matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset) {
        return error;
    }
    while let Ok(1..) = tls.read_tls(&mut below) {
        if let Err(refusal) = tls.process_new_packets() {
            return io::Error::new(io::ErrorKind::InvalidData, refusal);
        }
    }
    error
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for Tls {
    fn limit(&mut self, deadline: Option<Instant>) {
        self.0.sock.limit(deadline);
    }

    fn socket(&self) -> &TcpStream {
        self.0.sock.socket()
    }

    fn holds_bytes(&mut self) -> bool {
        let decrypted = self.0.conn.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0);
        decrypted || self.0.sock.holds_bytes()
    }

    fn wait(&mut self, limit: Duration) -> bool {
        self.0.sock.wait(limit)
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // Tell the server that the connection ends, if that takes no time. An error doesn't matter.
        self.0.conn.send_close_notify();
        if self.socket().set_nonblocking(true).is_ok() {
            self.limit(None);
            let _ = self.0.conn.write_tls(&mut self.0.sock);
        }
    }
}

/// Whether an unused connection can be used again: neither bytes nor an end have come over it.
/// Bytes that come before a request can't be its reply.
pub(super) fn is_quiet(socket: &TcpStream) -> bool {
    if socket.set_nonblocking(true).is_err() {
        return false;
    }
    let peeked = socket.peek(&mut [0]);
    let quiet = matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    quiet && socket.set_nonblocking(false).is_ok()
}
