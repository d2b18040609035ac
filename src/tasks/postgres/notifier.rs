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

/// A process sends one notification in this time on average, and after a quiet time up to
/// [`AT_ONCE`] without a pause: each one wakes every other process of the queue.
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

    /// Wakes the waiting threads of this process now, and has the notifier's thread tell the other
    /// processes soon.
    pub(super) fn tell(&self, news: News) {
        self.desk.signal.ring(news);
        let mut orders = self.desk.orders.lock();
        // If something was there before, the thread was rung for it and hasn't taken it yet: it
        // will take this with it.
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
    /// The thread: keeps a connection that listens and notifies. If it breaks, makes another one
    /// after a pause. Meanwhile workers and waits learn of changes by looking, only later.
    fn serve(&self) {
        // Many processes lose their server at one moment. The pauses are spread by a seed that
        // differs between processes, so that they don't all come back at one moment, too.
        let pauses = Backoff::new(Duration::from_millis(50)).cap(self.limits.heartbeat).jitter(0.5);
        let seed = self.tag.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let mut failures = 0;
        while !self.orders.lock().stop {
            let Err(error) = self.serve_one(&mut failures) else { return };
            crate::trace::event!(WARN, "no news from PostgreSQL for now", error = error.to_string());
            let until = Instant::now() + pauses.delay_with(failures, seed);
            failures = failures.saturating_add(1);
            while Instant::now() < until && !self.orders.lock().stop {
                // poll(2) fails without memory or descriptors. To go on would be a hot loop, so the
                // thread ends.
                if libpq::wait(self.waker.fd(), false, None, Some(until)).is_err() {
                    return;
                }
                self.waker.hear();
            }
        }
    }

    /// Listens and notifies over one connection, until the thread is told to stop (`Ok`) or the
    /// connection breaks. Sets `failures` to 0 once it listens.
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
        // A pooler's session is lent to others when the statement is over: they would be sent what
        // this process asked for. It tells news all the same, and learns of those of others by
        // looking.
        if !connection.is_pooled() {
            connection.listen(&channel)?;
        }
        *failures = 0;
        // Other processes may have notified while this one didn't listen: wake all that wait here.
        self.ring(true, true);
        // When the next notification would be due at one per `PAUSE`. Each one that is sent moves
        // this on, and may be sent while this is at most `AT_ONCE` pauses away: a token bucket.
        let mut pace = Instant::now();
        loop {
            let now = Instant::now();
            let (work, end) = {
                let mut orders = self.orders.lock();
                if orders.stop {
                    return Ok(());
                }
                let found = (orders.work, orders.end);
                // If it is too early to send, the orders stay for the next round.
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
                // A heartbeat of silence: a server that is gone is silent, too, so ask it.
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
