//! Ends another thread's wait on a socket: a pair of sockets, of which that thread watches one.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Clone it for each thread that may want to ring. A ring is kept until it is heard; many count as
/// one.
#[derive(Clone, Debug)]
pub(super) struct Waker(Arc<(UnixStream, UnixStream)>);

impl Waker {
    /// # Errors
    /// If the process has no file descriptors left.
    pub(super) fn new() -> io::Result<Waker> {
        let (rings, hears) = UnixStream::pair()?;
        rings.set_nonblocking(true)?;
        hears.set_nonblocking(true)?;
        Ok(Waker(Arc::new((rings, hears))))
    }

    pub(super) fn ring(&self) {
        // Full means that it has been rung and not heard. Nothing else can go wrong: both ends live
        // as long as this.
        let _ = (&self.0.0).write(&[1]);
    }

    /// What can be read once it has been rung.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.1.as_fd()
    }

    /// Forgets the rings so far.
    pub(super) fn hear(&self) {
        let mut rings = [0; 64];
        while matches!((&self.0.1).read(&mut rings), Ok(count) if count == rings.len()) {}
    }
}
