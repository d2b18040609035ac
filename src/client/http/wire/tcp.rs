//! A TCP socket that a cancel shuts down, from the first step of connecting on.
//!
//! A blocked thread can't be told anything; its socket can. The thread that cancels shuts it down,
//! and the system ends the blocked call. A mark is set before that, since the end of a socket that
//! was shut down looks as if the server had ended it.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::fault::Fault;
use crate::sync::interrupt::{self, Interrupt};
use crate::sync::{AtomicBool, Ordering};

pub(super) struct Tcp {
    stream: TcpStream,
    is_shut: AtomicBool,
}

impl Tcp {
    fn new(stream: TcpStream) -> Arc<Tcp> {
        Arc::new(Tcp { stream, is_shut: AtomicBool::new(false) })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Shuts it down if the operation that this thread runs is cancelled while the returned value
    /// lives, or was before.
    pub(super) fn shut_on_cancel(self: &Arc<Tcp>) -> Interrupt {
        let tcp = self.clone();
        interrupt::on_cancel(move || {
            // SeqCst, before the shutdown: a thread that doesn't see it in `check` blocks, if at
            // all, before the shutdown, which wakes it.
            tcp.is_shut.store(true, Ordering::SeqCst);
            let _ = tcp.stream.shutdown(Shutdown::Both);
        })
    }

    /// # Errors
    /// A [`Fault`] inside, if a cancel has shut it down.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.is_shut.load(Ordering::SeqCst) { Err(Fault::cancelled().into()) } else { Ok(()) }
    }

    /// Connects, within `limit`.
    ///
    /// # Errors
    /// The system's; `TimedOut`; and those of [`check`](Tcp::check).
    #[cfg(target_os = "linux")]
    pub(super) fn connect(address: &SocketAddr, limit: Option<Duration>) -> io::Result<Arc<Tcp>> {
        use std::time::Instant;

        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use rustix::io::Errno;
        use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // The standard library has no socket that isn't connected yet, and so none to shut down.
        let tcp = Tcp::new(socket_with(family, SocketType::STREAM, flags, None)?.into());
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let _interrupt = tcp.shut_on_cancel();
        let connected = connect(&tcp.stream, address);
        // After the connect: what isn't connecting yet can't be shut down.
        tcp.check()?;
        match connected {
            Ok(()) => {}
            Err(Errno::INPROGRESS) => loop {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                let left = left.and_then(|left| Timespec::try_from(left).ok());
                match poll(&mut [PollFd::new(&tcp.stream, PollFlags::OUT)], left.as_ref()) {
                    Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                    Ok(_) => break,
                    // A signal; the time that is left is less now.
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            },
            Err(error) => return Err(error.into()),
        }
        tcp.check()?;
        sockopt::socket_error(&tcp.stream)??;
        tcp.stream.set_nonblocking(false)?;
        Ok(tcp)
    }

    /// Connects, within `limit`. A cancel is seen when that is over.
    ///
    /// # Errors
    /// The system's; `TimedOut`.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn connect(address: &SocketAddr, limit: Option<Duration>) -> io::Result<Arc<Tcp>> {
        let stream = match limit {
            None => TcpStream::connect(address),
            Some(limit) => TcpStream::connect_timeout(address, limit),
        };
        stream.map(Tcp::new)
    }
}
