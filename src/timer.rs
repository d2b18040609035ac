//! A timer: entries with a point in time, and one thread that sleeps until the first of them and
//! then fires it.
//!
//! Promises: the thread fires entries in the order of their times. To insert or remove an entry
//! costs O(log n) and no thread. The thread sleeps until the first entry's time; an insert wakes it
//! only if the new entry comes before all others. Times are points on the monotonic clock, so a
//! changed wall clock moves nothing. If the machine was suspended, the entries of that time are
//! fired on return, each once.
//!
//! Left to the owner of the timer: what firing an entry means ([`Clockwork`]). Model:
//! `tests/model_timer.rs`.

// Public for its model, which is another crate.
#![cfg_attr(not(loom), allow(unreachable_pub))]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::sync::Mutex;
use crate::sync::thread::{self, Thread};

/// Names an entry: its time, and a number that tells it from other entries of the same time.
pub type Alarm = (Instant, u64);

/// Why [`Timer::insert`] refused an entry.
#[derive(Debug)]
pub enum Untimed {
    /// The timer was closed, or has been closed since the entry's session began.
    Closed,
    /// The system refused to start the timer's thread.
    Spawn(io::Error),
}

/// The most entries that the thread takes out under one hold of the lock, so that other threads can
/// insert in between.
const GO: usize = 256;

/// The owner of a timer: it keeps the timer, and does what an entry stands for.
pub trait Clockwork: Send + Sync + 'static {
    /// What is fired.
    type Entry: Send + 'static;

    /// The timer itself.
    fn timer(&self) -> &Timer<Self::Entry>;
    /// A handle to the owner for the timer's thread to keep.
    fn shared(&self) -> Arc<Self>;
    /// Does what the entries stand for. Runs on the timer's thread, which holds no lock of the
    /// timer, with the entries in the order of their times. It must neither block nor panic.
    fn fire(&self, due: Vec<Self::Entry>);
    /// Called when the timer's thread has ended, as the last thing that it does.
    fn wound_down(&self);
}

/// Entries in the order of their times, and the thread that fires them.
pub struct Timer<E> {
    state: Mutex<State<E>>,
    thread_name: String,
    stack_size: Option<usize>,
}

struct State<E> {
    entries: BTreeMap<Alarm, E>,
    next_number: u64,
    /// Whether the thread is there. It is there whenever there are entries.
    running: bool,
    /// How many threads fire no more entries but still destroy their thread-locals.
    ending: usize,
    /// Of all threads not yet joined: `join` joins them once they have ended.
    handles: Vec<thread::JoinHandle<()>>,
    /// The thread, while it sleeps.
    sleeper: Option<Thread>,
    /// Whether the thread ends when no entry is left. While open, it sleeps on.
    closed: bool,
    /// The number of closes so far. An entry of an earlier session is refused even after the timer
    /// was opened again.
    session: u64,
}

impl<E: Send + 'static> Timer<E> {
    /// A timer without entries. Its thread, which the first entry starts, has this name and stack.
    pub fn new(thread_name: String, stack_size: Option<usize>) -> Timer<E> {
        let entries = BTreeMap::new();
        let state = State {
            entries,
            next_number: 0,
            running: false,
            ending: 0,
            handles: Vec::new(),
            sleeper: None,
            closed: false,
            session: 0,
        };
        Timer { state: Mutex::new(state), thread_name, stack_size }
    }

    /// Adds `entry`, which the thread fires at `at`, or at once if that has passed. Starts the
    /// thread if there is none.
    ///
    /// With a `session` the entry is new work: it is refused once the timer was closed after that
    /// session began. Without one, the entry belongs to work that was accepted before, and even a
    /// closed timer takes it.
    pub fn insert<C: Clockwork<Entry = E>>(
        &self,
        clockwork: &C,
        at: Instant,
        entry: E,
        session: Option<u64>,
    ) -> Result<Alarm, Untimed> {
        let mut state = self.state.lock();
        if session.is_some_and(|session| state.closed || session != state.session) {
            drop(state);
            return Err(Untimed::Closed);
        }
        if !state.running {
            let (clockwork, last) = (clockwork.shared(), clockwork.shared());
            let last = move || {
                last.timer().state.lock().ending -= 1;
                last.wound_down();
            };
            // Still under the lock: otherwise another thread could insert an entry that relies on
            // this thread, and then the system refuses to start it.
            let body = move || run(&*clockwork);
            match thread::spawn_joinable(self.thread_name.clone(), self.stack_size, body, last) {
                Ok(handle) => state.handles.push(handle),
                Err(error) => {
                    drop(state);
                    return Err(Untimed::Spawn(error));
                }
            }
            state.running = true;
        }
        let alarm = (at, state.next_number);
        state.next_number += 1;
        state.entries.insert(alarm, entry);
        // Wake the thread only if it would otherwise sleep past this entry.
        let is_first = state.entries.first_key_value().is_some_and(|(first, _)| *first == alarm);
        let sleeper = if is_first { state.sleeper.take() } else { None };
        drop(state);
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
        Ok(alarm)
    }

    /// Takes an entry out again; `None` if the thread has taken it to fire it.
    pub fn remove(&self, alarm: Alarm) -> Option<E> {
        let mut state = self.state.lock();
        let removed = state.entries.remove(&alarm);
        // If this was the last entry of a closed timer, wake the thread so that it ends.
        let sleeper = if state.closed && state.entries.is_empty() { state.sleeper.take() } else { None };
        drop(state);
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
        removed
    }

    /// What `pick` picks of the entries.
    pub fn select<R>(&self, pick: impl Fn(&E) -> Option<R>) -> Vec<R> {
        self.state.lock().entries.values().filter_map(pick).collect()
    }

    /// Closes the timer for a shutdown: it keeps the entries for which `keep` is true, and returns
    /// the others, which are never fired. The thread ends once it has fired the kept entries.
    pub fn close(&self, keep: impl Fn(&E) -> bool) -> Vec<E> {
        let mut state = self.state.lock();
        state.closed = true;
        // So that `insert` refuses entries of the session that ends here, even after `open`.
        state.session += 1;
        let (kept, given_up) = std::mem::take(&mut state.entries).into_iter().partition(|(_, entry)| keep(entry));
        state.entries = kept;
        // Wake the thread: its next entry may be gone, or it may have to end.
        let sleeper = state.sleeper.take();
        drop(state);
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
        let given_up: BTreeMap<Alarm, E> = given_up;
        given_up.into_values().collect()
    }

    /// Opens a closed timer: from now on the thread stays, also while there are no entries.
    pub fn open(&self) {
        self.state.lock().closed = false;
    }

    /// The number of the current session, which lasts from one close to the next: for
    /// [`insert`](Timer::insert).
    pub fn session(&self) -> u64 {
        self.state.lock().session
    }

    /// Whether a thread of the timer is there, if only to destroy its thread-locals.
    pub fn is_running(&self) -> bool {
        let state = self.state.lock();
        state.running || state.ending > 0
    }

    /// Joins the threads that have ended, unless one is there again: the timer was opened since the
    /// caller looked, and that thread ends only with the next close.
    pub fn join(&self) {
        let handles = {
            let mut state = self.state.lock();
            if state.running || state.ending > 0 {
                return;
            }
            std::mem::take(&mut state.handles)
        };
        for handle in handles {
            let _ = handle.join();
        }
    }
}

/// The timer's thread: fires entries whose time has come, and sleeps until the next one.
fn run<C: Clockwork>(clockwork: &C) {
    let timer = clockwork.timer();
    loop {
        let mut state = timer.state.lock();
        let now = Instant::now();
        let mut due = Vec::new();
        while due.len() < GO {
            match state.entries.first_entry() {
                Some(entry) if entry.key().0 <= now => due.push(entry.remove()),
                _ => break,
            }
        }
        if !due.is_empty() {
            drop(state);
            clockwork.fire(due);
            // Look again before sleeping: there may be more than `GO`, and firing took time.
            continue;
        }
        let next = state.entries.first_key_value().map(|(alarm, _)| alarm.0);
        if next.is_none() && state.closed {
            // Under the lock: the next `insert` has to start a new thread.
            state.running = false;
            state.ending += 1;
            return;
        }
        state.sleeper = Some(thread::current());
        drop(state);
        // After a spurious wake-up, the loop just looks again.
        thread::park_until(next);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sync::Condvar;

    /// Far longer than anything takes here: it only turns a hang into a failure with a reason.
    const HANG: Duration = Duration::from_secs(60);

    const HOUR: Duration = Duration::from_secs(3_600);

    /// Keeps what it fires.
    struct Clock {
        me: std::sync::Weak<Clock>,
        timer: Timer<usize>,
        seen: Mutex<Seen>,
        changed: Condvar,
    }

    #[derive(Default)]
    struct Seen {
        fired: Vec<usize>,
        ended: bool,
    }

    impl Clockwork for Clock {
        type Entry = usize;

        fn timer(&self) -> &Timer<usize> {
            &self.timer
        }

        fn shared(&self) -> Arc<Clock> {
            self.me.upgrade().expect("held by the test")
        }

        fn fire(&self, due: Vec<usize>) {
            self.seen.lock().fired.extend(due);
            self.changed.notify_all();
        }

        fn wound_down(&self) {
            self.seen.lock().ended = true;
            self.changed.notify_all();
        }
    }

    impl Clock {
        fn new() -> Arc<Clock> {
            Arc::new_cyclic(|me| Clock {
                me: me.clone(),
                timer: Timer::new("timer".into(), None),
                seen: Mutex::new(Seen::default()),
                changed: Condvar::new(),
            })
        }

        fn insert(&self, at: Instant, entry: usize) -> Alarm {
            self.timer.insert(self, at, entry, Some(self.timer.session())).expect("open")
        }

        fn until(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
            let (mut seen, deadline) = (self.seen.lock(), Instant::now() + HANG);
            while !is_so(&seen) {
                assert!(!self.changed.wait_until(&mut seen, deadline).timed_out(), "hang: {what}");
            }
        }
    }

    #[test]
    fn a_hundred_thousand_timers_in_random_order_fire_in_order() {
        const TIMERS: usize = 100_000;
        let (clock, start) = (Clock::new(), Instant::now());
        for n in 0..TIMERS {
            // 7919 is prime and no divisor of 100,000, so this visits every number once, in no
            // order.
            let place = n * 7919 % TIMERS;
            clock.insert(start + HOUR + Duration::from_nanos(place as u64), place);
        }
        // Brought forward all at once, because an hour is long. The thread may be asleep, or about
        // to look.
        let mut state = clock.timer.state.lock();
        let early = |(alarm, entry): (Alarm, usize)| ((alarm.0 - HOUR, alarm.1), entry);
        state.entries = std::mem::take(&mut state.entries).into_iter().map(early).collect();
        let sleeper = state.sleeper.take();
        drop(state);
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
        clock.until("they are not all fired", |seen| seen.fired.len() == TIMERS);
        let fired = std::mem::take(&mut clock.seen.lock().fired);
        assert!(fired.into_iter().eq(0..TIMERS), "not in the order of their times");
        assert!(clock.timer.close(|_| true).is_empty());
        clock.until("the thread does not end", |seen| seen.ended);
        assert!(!clock.timer.is_running());
    }

    #[test]
    fn an_entry_before_all_others_wakes_the_sleeping_thread() {
        let clock = Clock::new();
        clock.insert(Instant::now() + HOUR, 1);
        while clock.timer.state.lock().sleeper.is_none() {
            crate::sync::spin_turn();
        }
        clock.insert(Instant::now(), 2);
        clock.until("the thread sleeps on", |seen| seen.fired == [2]);
    }

    #[test]
    fn what_is_taken_out_is_not_fired_and_a_closed_timer_ends_with_its_last_entry() {
        let (clock, hour) = (Clock::new(), Instant::now() + HOUR);
        let (first, second) = (clock.insert(hour, 1), clock.insert(hour, 2));
        assert_eq!(clock.timer.remove(first), Some(1));
        assert_eq!(clock.timer.remove(first), None);
        clock.insert(hour, 3);
        assert_eq!(clock.timer.close(|entry| *entry != 3), [3], "given up");
        assert!(matches!(clock.timer.insert(&*clock, hour, 4, Some(1)), Err(Untimed::Closed)));
        let accepted = clock.timer.insert(&*clock, hour, 5, None).expect("it was accepted before");
        assert_eq!(clock.timer.remove(accepted), Some(5));
        assert_eq!(clock.timer.remove(second), Some(2));
        clock.until("the thread does not end", |seen| seen.ended);
        assert_eq!(clock.seen.lock().fired, [0; 0], "nothing was due");
        clock.timer.open();
        assert!(matches!(clock.timer.insert(&*clock, hour, 4, Some(0)), Err(Untimed::Closed)), "an earlier session's");
        clock.insert(Instant::now(), 6);
        clock.until("it does not start again", |seen| seen.fired == [6]);
    }
}
