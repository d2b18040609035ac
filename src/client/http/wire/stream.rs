//! A connection as bytes: a socket, and TLS over whatever carries it, with a deadline for each read
//! and write.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

/// Bytes in both directions. An error of the kind `TimedOut` says that the deadline passed.
pub(super) trait Stream: Read + Write + Send + Sync {
    /// Until when reads and writes may take from now on; `None` is for ever.
    fn limit(&mut self, deadline: Option<Instant>);

    /// The socket below.
    fn socket(&self) -> &TcpStream;

    /// Whether there is something to read above the socket.
    fn holds_bytes(&mut self) -> bool;

    /// Waits at most so long until something comes over the socket, an end or an error included.
    /// `false`: nothing came. An error is told by the next read.
    fn wait(&mut self, limit: Duration) -> bool;
}

/// A socket. Its time limits count from the deadline and not from the last byte.
pub(super) struct Socket {
    tcp: TcpStream,
    deadline: Option<Instant>,
    /// What a wait met. The system tells of a reset once: the read after it would see an end, and
    /// take half a body for the whole.
    failed: Option<io::Error>,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream) -> Socket {
        Socket { tcp, deadline: None, failed: None }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        let left = deadline.saturating_duration_since(Instant::now());
        // The system takes zero for "no limit".
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left.max(Duration::from_micros(1)))) }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            self.tcp.set_read_timeout(self.left()?)?;
            match self.tcp.read(buffer) {
                // A signal; the time that is left is less now.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome.map_err(timed_out),
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.tcp.set_write_timeout(self.left()?)?;
            match self.tcp.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome.map_err(timed_out),
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
        &self.tcp
    }

    fn holds_bytes(&mut self) -> bool {
        false
    }

    fn wait(&mut self, limit: Duration) -> bool {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        // The system takes zero for "no limit". Where it takes no limit at all, the read says so.
        if self.tcp.set_read_timeout(Some(limit.max(Duration::from_micros(1)))).is_err() {
            return true;
        }
        match self.tcp.peek(&mut [0]) {
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => return false,
            Err(error) => self.failed = Some(error),
            Ok(_) => {}
        }
        true
    }
}

/// Unix says `WouldBlock` where a time limit of a socket passes.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

/// TLS over another stream. The end without a `close_notify` is an error, `UnexpectedEof`: every
/// machine on the way can cut a connection.
pub(super) struct Tls(StreamOwned<ClientConnection, Box<dyn Stream>>);

impl Tls {
    /// Shakes hands, until the stream's deadline.
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

/// What the server said before it broke the connection off, if it said why: it may have done so
/// before all was sent.
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
        // Says goodbye, if that takes no time. That it didn't work changes nothing.
        self.0.conn.send_close_notify();
        if self.socket().set_nonblocking(true).is_ok() {
            self.limit(None);
            let _ = self.0.conn.write_tls(&mut self.0.sock);
        }
    }
}

/// Whether an unused connection still stands: nothing has come over it, and no end either. What
/// comes unasked is no reply.
pub(super) fn is_quiet(socket: &TcpStream) -> bool {
    if socket.set_nonblocking(true).is_err() {
        return false;
    }
    let peeked = socket.peek(&mut [0]);
    let quiet = matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    quiet && socket.set_nonblocking(false).is_ok()
}
