//! How those who wait for work, or for the end of a task, are woken: a count that only grows, and a condition variable.

use std::time::Instant;

use crate::sync::{Condvar, Mutex};

#[derive(Debug, Default)]
struct Rings {
    work: u64,
    ends: u64,
}

/// Rung by an engine. A ring says only that looking may pay: the truth is in the database.
pub(super) struct Bell {
    rings: Mutex<Rings>,
    rung: Condvar,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Work,
    End,
}

impl Bell {
    pub(super) fn new() -> Bell {
        Bell { rings: Mutex::new(Rings::default()), rung: Condvar::new() }
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

    /// The count to hand to [`wait`](Bell::wait): taken before looking, it lets no ring fall between the look and the wait.
    pub(super) fn count(&self, news: News) -> u64 {
        Bell::of(&self.rings.lock(), news)
    }

    /// Waits until it was rung since `seen`, or until `until`.
    pub(super) fn wait(&self, news: News, seen: u64, until: Instant) {
        let mut rings = self.rings.lock();
        while Bell::of(&rings, news) == seen {
            if self.rung.wait_until(&mut rings, until).timed_out() {
                return;
            }
        }
    }

    fn of(rings: &Rings, news: News) -> u64 {
        match news {
            News::Work => rings.work,
            News::End => rings.ends,
        }
    }
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}
