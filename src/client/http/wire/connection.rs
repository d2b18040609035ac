//! A connection to a server, and the pool of unused ones.

use std::io::{BufReader, Write};
use std::time::{Duration, Instant};

use super::super::origin::Origin;
use super::super::wait::next_look;
use super::stream::{Stream, is_quiet};
use crate::sync::Mutex;

/// How many unused connections to one host are kept, and to all hosts.
const KEPT_PER_HOST: usize = 32;
const KEPT: usize = 128;

/// How long an unused connection is kept: shorter than most servers do, so that a request rarely
/// gets one that the server has just closed.
const KEPT_FOR: Duration = Duration::from_secs(15);

/// How many bytes are read at a time.
const BUFFER: usize = 64 << 10;

pub(super) struct Connection {
    pub(super) reader: BufReader<Box<dyn Stream>>,
    pub(super) origin: Origin,
    /// Whether it ends at a proxy that needs whole URLs in requests.
    pub(super) absolute: bool,
    /// The credentials for that proxy, which it gets with each request.
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

    /// Sets how long the server keeps the connection. We keep it a second less, because the server
    /// counts from when it sent the reply.
    pub(super) fn keep_for(&mut self, limit: Duration) {
        self.kept_for = KEPT_FOR.min(limit.saturating_sub(Duration::from_secs(1)));
    }

    pub(super) fn limit(&mut self, until: Option<Instant>) {
        self.reader.get_mut().limit(until);
    }

    /// Waits until bytes, the end or an error come, or until `until`. Returns false if `cancelled`
    /// returned true meanwhile.
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
    /// Takes the connection to `origin` that was used last, because that is most likely still open.
    pub(super) fn take(&self, origin: &Origin) -> Option<Connection> {
        loop {
            let found = {
                let mut kept = self.kept.lock();
                let at = kept.iter().rposition(|kept| kept.connection.origin == *origin)?;
                kept.remove(at)
            };
            // Without the lock: this asks the system, and dropping a closed connection may write to
            // it.
            if found.since.elapsed() < found.connection.kept_for && is_quiet(found.connection.reader.get_ref().socket())
            {
                return Some(found.connection);
            }
        }
    }

    /// Keeps a connection for the next request. If the server has sent more than the reply, the
    /// connection is dropped, because its bytes could be taken for the next reply.
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
