//! A connection to a server, and those that are kept for the next request.

use std::io::{BufReader, Write};
use std::time::{Duration, Instant};

use super::super::origin::Origin;
use super::super::wait::next_look;
use super::stream::{Stream, is_quiet};
use crate::sync::Mutex;

/// How many unused connections to one host are kept, and to all hosts.
const KEPT_PER_HOST: usize = 32;
const KEPT: usize = 128;

/// How long an unused connection is kept: shorter than what servers allow, or a request meets one
/// that was just closed.
const KEPT_FOR: Duration = Duration::from_secs(15);

/// How much is read at a time.
const BUFFER: usize = 64 << 10;

pub(super) struct Connection {
    pub(super) reader: BufReader<Box<dyn Stream>>,
    pub(super) origin: Origin,
    /// Whether it ends at a proxy that wants whole URLs.
    pub(super) absolute: bool,
    /// What that proxy is told with each request.
    pub(super) proxy_authorization: Option<String>,
    /// Whether a reply has come over it.
    pub(super) has_served: bool,
    /// How long it is kept unused.
    kept_for: Duration,
}

impl Connection {
    pub(super) fn new(
        stream: Box<dyn Stream>,
        origin: Origin,
        absolute: bool,
        proxy_authorization: Option<String>,
    ) -> Connection {
        let reader = BufReader::with_capacity(BUFFER, stream);
        Connection { reader, origin, absolute, proxy_authorization, has_served: false, kept_for: KEPT_FOR }
    }

    /// The server keeps it so long. A second less, since it counts from when it wrote.
    pub(super) fn keep_for(&mut self, limit: Duration) {
        self.kept_for = KEPT_FOR.min(limit.saturating_sub(Duration::from_secs(1)));
    }

    pub(super) fn limit(&mut self, until: Option<Instant>) {
        self.reader.get_mut().limit(until);
    }

    /// Waits until something comes, an end included, or until then. `false`: the caller doesn't
    /// want to wait any longer.
    pub(super) fn wait(&mut self, until: Option<Instant>, cancelled: &dyn Fn() -> bool) -> bool {
        if !self.reader.buffer().is_empty() || self.reader.get_mut().holds_bytes() {
            return true;
        }
        loop {
            if cancelled() {
                return false;
            }
            let look = next_look(Some(cancelled));
            let Some(next) = [until, look].into_iter().flatten().min() else { return true };
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() || self.reader.get_mut().wait(left) {
                return true;
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let stream = self.reader.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }
}

/// Unused connections.
#[derive(Default)]
pub(super) struct Pool {
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// The one used last, which has the best chance to stand still.
    pub(super) fn take(&self, origin: &Origin) -> Option<Connection> {
        loop {
            let found = {
                let mut kept = self.kept.lock();
                let at = kept.iter().rposition(|kept| kept.connection.origin == *origin)?;
                kept.remove(at)
            };
            // Outside of the lock, and so is the goodbye to one that stands no longer.
            if found.since.elapsed() < found.connection.kept_for && is_quiet(found.connection.reader.get_ref().socket())
            {
                return Some(found.connection);
            }
        }
    }

    /// Keeps a connection that has nothing more to say. One that has said more than it was asked
    /// isn't trusted again.
    pub(super) fn put(&self, connection: Connection) {
        if !connection.reader.buffer().is_empty() {
            return;
        }
        let now = Instant::now();
        let surplus: Vec<Kept> = {
            let mut kept = self.kept.lock();
            kept.push(Kept { connection, since: now });
            let origin = kept.last().map(|kept| kept.connection.origin.clone());
            let (fresh, mut surplus): (Vec<Kept>, Vec<Kept>) =
                kept.drain(..).partition(|kept| now - kept.since < kept.connection.kept_for);
            *kept = fresh;
            let of_host = |kept: &Kept| Some(&kept.connection.origin) == origin.as_ref();
            if kept.iter().filter(|kept| of_host(kept)).count() > KEPT_PER_HOST {
                if let Some(at) = kept.iter().position(of_host) {
                    surplus.push(kept.remove(at));
                }
            }
            if kept.len() > KEPT {
                surplus.push(kept.remove(0));
            }
            surplus
        };
        drop(surplus);
    }
}
