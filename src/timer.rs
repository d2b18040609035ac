//! Things to do at points in time: one thread, asleep until the next of them.
//!
//! Promises: what is due is fired in the order of its times; an entry costs O(log n) and no thread, also to take out
//! again; while nothing is due the thread sleeps, and it is woken only for an entry that comes before all others. Times
//! are points on the monotonic clock, so that a changed wall clock moves nothing; on a machine that was suspended, what
//! fell due meanwhile is fired on return, once.
//!
//! Left to others: what firing means ([`Clockwork`]).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::sync::Mutex;
use crate::sync::thread::{self, Thread};

/// Names an entry: when it is due, and a number that tells it from others of the same time.
pub(crate) type Alarm = (Instant, u64);

/// Why an entry was not taken.
#[derive(Debug)]
pub(crate) enum Untimed {
    /// The timer is closed, and the entry was not accepted before.
    Closed,
    /// The thread is needed and can't be started.
    Spawn(io::Error),
}

/// The most entries fired in one go, so that an avalanche of them keeps no lock for long.
const GO: usize = 256;

/// What a timer works for.
pub(crate) trait Clockwork: Send + Sync + 'static {
    type Entry: Send + 'static;

    fn timer(&self) -> &Timer<Self::Entry>;
    /// For the timer's thread to keep.
    fn shared(&self) -> Arc<Self>;
    /// Runs on the timer's thread, under no lock, with entries in the order of their times. Must neither block nor panic.
    fn fire(&self, due: Vec<Self::Entry>);
    /// The timer's thread has ended.
    fn wound_down(&self);
}

pub(crate) struct Timer<E> {
    state: Mutex<State<E>>,
    thread_name: String,
    stack_size: Option<usize>,
}

struct State<E> {
    entries: BTreeMap<Alarm, E>,
    next_number: u64,
    /// Whether the thread is there. It is as long as there are entries.
    running: bool,
    /// Threads that run no more entries, but still destroy their thread-locals.
    ending: usize,
    /// Of threads that have ended, or soon do.
    handles: Vec<thread::JoinHandle<()>>,
    /// The thread, while it sleeps.
    sleeper: Option<Thread>,
    /// The thread ends when there are no entries.
    closed: bool,
    /// Counts the closes.
    session: u64,
}

impl<E: Send + 'static> Timer<E> {
    pub(crate) fn new(thread_name: String, stack_size: Option<usize>) -> Timer<E> {
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

    /// Has `entry` fired at `at`; at once if that has passed. One of a `session` is taken only as long as that lasts, one
    /// without was accepted already, and is taken even when closed.
    pub(crate) fn insert<C: Clockwork<Entry = E>>(
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
            // Under the lock, so that no other thread counts meanwhile on one that is then refused.
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
        let is_first = state.entries.first_key_value().is_some_and(|(first, _)| *first == alarm);
        let sleeper = if is_first { state.sleeper.take() } else { None };
        drop(state);
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
        Ok(alarm)
    }

    /// Takes an entry out again, if it was not fired.
    pub(crate) fn remove(&self, alarm: Alarm) -> Option<E> {
        let mut state = self.state.lock();
        let removed = state.entries.remove(&alarm);
        let sleeper = if state.closed && state.entries.is_empty() { state.sleeper.take() } else { None };
        drop(state);
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
        removed
    }

    /// Has the thread end once it has fired what `keep` keeps. Returns the rest.
    pub(crate) fn close(&self, keep: impl Fn(&E) -> bool) -> Vec<E> {
        let mut state = self.state.lock();
        state.closed = true;
        state.session += 1;
        let (kept, given_up) = std::mem::take(&mut state.entries).into_iter().partition(|(_, entry)| keep(entry));
        state.entries = kept;
        let sleeper = state.sleeper.take();
        drop(state);
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
        let given_up: BTreeMap<Alarm, E> = given_up;
        given_up.into_values().collect()
    }

    /// Has the thread stay from now on, once there is one.
    pub(crate) fn open(&self) {
        self.state.lock().closed = false;
    }

    /// The time from one close to the next.
    pub(crate) fn session(&self) -> u64 {
        self.state.lock().session
    }

    /// Whether its thread is there, if only to destroy its thread-locals.
    pub(crate) fn is_running(&self) -> bool {
        let state = self.state.lock();
        state.running || state.ending > 0
    }

    /// Joins the threads that have ended. Only while none is running: then it takes no time.
    pub(crate) fn join(&self) {
        let handles = std::mem::take(&mut self.state.lock().handles);
        for handle in handles {
            let _ = handle.join();
        }
    }
}

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
            continue;
        }
        let next = state.entries.first_key_value().map(|(alarm, _)| alarm.0);
        if next.is_none() && state.closed {
            state.running = false;
            state.ending += 1;
            return;
        }
        state.sleeper = Some(thread::current());
        drop(state);
        // Spurious wake-ups only cost another look.
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
            // 7919 is prime and no divisor of 100,000, so this visits every number once, in no order.
            let place = n * 7919 % TIMERS;
            clock.insert(start + HOUR + Duration::from_nanos(place as u64), place);
        }
        // Brought forward all at once, because an hour is long. The thread may be asleep, or about to look.
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
