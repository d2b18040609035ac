//! How those who wait for work, or for the end of a task, are woken: a count that only grows, and a
//! condition variable.

#[cfg(feature = "sqlite")]
use std::time::Duration;
use std::time::Instant;

use crate::sync::{Condvar, Mutex};

#[derive(Debug, Default)]
struct Rings {
    work: u64,
    ends: u64,
    /// Threads in [`Signal::wait`].
    waiting: usize,
    #[cfg(feature = "sqlite")]
    closed: bool,
}

/// Rung by an engine. A ring says only that looking may pay: the truth is in the database.
pub(super) struct Signal {
    rings: Mutex<Rings>,
    rung: Condvar,
    /// A thread began to wait where none did, or the signal was closed.
    watched: Condvar,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Work,
    End,
}

impl Signal {
    pub(super) fn new() -> Signal {
        Signal { rings: Mutex::new(Rings::default()), rung: Condvar::new(), watched: Condvar::new() }
    }

    pub(super) fn ring(&self, news: News) {
        let mut rings = self.rings.lock();
        match news {
            News::Work => rings.work += 1,
            News::End => rings.ends += 1,
        }
        drop(rings);
        self.rung.notify_all();
    }

    /// The count to hand to [`wait`](Signal::wait): taken before looking, it lets no ring fall
    /// between the look and the wait.
    pub(super) fn count(&self, news: News) -> u64 {
        Signal::of(&self.rings.lock(), news)
    }

    /// Waits until it was rung since `seen`, or until `until`.
    pub(super) fn wait(&self, news: News, seen: u64, until: Instant) {
        let mut rings = self.rings.lock();
        rings.waiting += 1;
        if rings.waiting == 1 {
            self.watched.notify_one();
        }
        while Signal::of(&rings, news) == seen {
            if self.rung.wait_until(&mut rings, until).timed_out() {
                break;
            }
        }
        rings.waiting -= 1;
    }

    /// For an engine that hears nothing of other processes: asks `has_news` every `period` while a
    /// thread waits, and rings for everything if it has. Ends when the signal is
    /// [closed](Signal::close).
    #[cfg(feature = "sqlite")]
    pub(super) fn watch(&self, period: Duration, mut has_news: impl FnMut() -> bool) {
        let mut rings = self.rings.lock();
        loop {
            while rings.waiting == 0 && !rings.closed {
                self.watched.wait(&mut rings);
            }
            let until = Instant::now() + period;
            while !rings.closed && !self.watched.wait_until(&mut rings, until).timed_out() {}
            if rings.closed {
                return;
            }
            drop(rings);
            if has_news() {
                self.ring(News::Work);
                self.ring(News::End);
            }
            rings = self.rings.lock();
        }
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn close(&self) {
        self.rings.lock().closed = true;
        self.watched.notify_all();
    }

    fn of(rings: &Rings, news: News) -> u64 {
        match news {
            News::Work => rings.work,
            News::End => rings.ends,
        }
    }
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signal").finish_non_exhaustive()
    }
}
