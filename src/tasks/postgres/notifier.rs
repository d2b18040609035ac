//! News between processes: one thread that listens for those of others, and tells ours, but not too
//! often.
//!
//! PostgreSQL takes a lock of the whole server for a commit with a `NOTIFY` in it, so that one in
//! each enqueuing would bring all of them into a line. So ours go out after the commit, on a
//! connection of their own, one in so many milliseconds. One that is lost costs the poll interval:
//! a waiting thread looks by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::names::sql;
use super::super::signal::{News, Signal};
use super::super::worker_id::random_name;
use super::connection::{Heard, Limits};
use super::error::PgError;
use super::libpq;
use super::pool::Door;
use super::sql::locks;
use super::target::Target;
use super::waker::Waker;
use crate::backoff::Backoff;
use crate::sync::{Mutex, thread};

/// In the long run no more than one notification a process in this time; after a quiet time, some
/// at once.
const PAUSE: Duration = Duration::from_millis(15);
const AT_ONCE: u32 = 16;

/// The handle; its thread ends after it is dropped.
pub(super) struct Notifier {
    desk: Arc<NotifierState>,
}

struct NotifierState {
    target: Target,
    limits: Limits,
    signal: Arc<Signal>,
    waker: Waker,
    door: Door,
    /// Ours, so that we don't listen to ourselves.
    tag: String,
    orders: Mutex<Orders>,
}

#[derive(Default)]
struct Orders {
    work: bool,
    end: bool,
    stop: bool,
}

impl Notifier {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the process has no descriptors, or no threads left.
    pub(super) fn start(target: Target, limits: Limits, signal: Arc<Signal>) -> std::io::Result<Notifier> {
        let (waker, tag, orders) = (Waker::new()?, random_name(), Mutex::new(Orders::default()));
        let desk = Arc::new(NotifierState { target, limits, signal, waker, door: Door::default(), tag, orders });
        let notifier = Arc::clone(&desk);
        thread::spawn("fulmar-news".into(), None, move || notifier.serve())?;
        Ok(Notifier { desk })
    }

    /// Tells ourselves at once, and the others soon.
    pub(super) fn tell(&self, news: News) {
        self.desk.signal.ring(news);
        let mut orders = self.desk.orders.lock();
        let first = !orders.work && !orders.end;
        match news {
            News::Work => orders.work = true,
            News::End => orders.end = true,
        }
        drop(orders);
        if first {
            self.desk.waker.ring();
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.desk.orders.lock().stop = true;
        self.desk.waker.ring();
    }
}

impl NotifierState {
    fn serve(&self) {
        let pauses = Backoff::new(Duration::from_millis(50)).cap(self.limits.heartbeat).jitter(0.5);
        let seed = self.tag.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let mut failures = 0;
        while !self.orders.lock().stop {
            let Err(error) = self.serve_one(&mut failures) else { return };
            crate::trace::event!(WARN, "no news from PostgreSQL for now", error = error.to_string());
            let until = Instant::now() + pauses.delay_with(failures, seed);
            failures = failures.saturating_add(1);
            while Instant::now() < until && !self.orders.lock().stop {
                // Without descriptors or memory for poll(2) there is nothing left to wait with, nor
                // anything to listen to.
                if libpq::wait(self.waker.fd(), false, None, Some(until)).is_err() {
                    return;
                }
                self.waker.hear();
            }
        }
    }

    /// Until it is told to stop, or the connection breaks.
    fn serve_one(&self, failures: &mut u32) -> Result<(), PgError> {
        let mut connection = self.door.open(&self.target, self.limits)?;
        // A heartbeat of silence and one without an answer, and the connection is taken for dead.
        connection.set_limit(self.limits.heartbeat);
        // A notification needs no durability, and its commit shall not wait for the disk.
        if !connection.is_pooled() {
            connection.script("SET synchronous_commit = off")?;
        }
        // A channel is the whole database's: its name is this schema's alone, as the numbers of its
        // locks are.
        let name = sql!("SELECT 'news_of_fulmar_' || to_hex(", locks!(), ")");
        let channel: String = connection.query_once(name, &[])?.only()?.get(0)?;
        connection.listen(&channel)?;
        *failures = 0;
        // What was told while this process didn't listen.
        self.ring(true, true);
        // When the next one would be sent if they went at their pace: each moves it on, and it
        // stays not too far behind.
        let mut pace = Instant::now();
        loop {
            let now = Instant::now();
            let (work, end) = {
                let mut orders = self.orders.lock();
                if orders.stop {
                    return Ok(());
                }
                let found = (orders.work, orders.end);
                if now + PAUSE * AT_ONCE >= pace {
                    *orders = Orders::default();
                }
                found
            };
            let something = work || end;
            if something && now + PAUSE * AT_ONCE >= pace {
                pace = pace.max(now) + PAUSE;
                let news = format!("{}{} {}", mark(work, 'w'), mark(end, 'e'), self.tag);
                connection.query("SELECT pg_notify($1::text, $2::text)", &[(&*channel).into(), (&*news).into()])?;
                continue;
            }
            let until = if something { pace - PAUSE * AT_ONCE } else { now + self.limits.heartbeat };
            match connection.wait(&self.waker, Some(until))? {
                Heard::Notified(all) => {
                    let others =
                        all.iter().filter_map(|one| one.payload.split_once(' ')).filter(|(_, tag)| *tag != self.tag);
                    let (work, end) = others.fold((false, false), |(work, end), (news, _)| {
                        (work || news.contains('w'), end || news.contains('e'))
                    });
                    self.ring(work, end);
                }
                Heard::Rung => {}
                // A connection that is dead without a word would be silent, too.
                Heard::Nothing if !something => connection.ping()?,
                Heard::Nothing => {}
            }
        }
    }

    fn ring(&self, work: bool, end: bool) {
        if work {
            self.signal.ring(News::Work);
        }
        if end {
            self.signal.ring(News::End);
        }
    }
}

fn mark(is_so: bool, letter: char) -> String {
    if is_so { letter.to_string() } else { String::new() }
}
