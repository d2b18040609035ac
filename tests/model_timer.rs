//! The timer, in every order that the memory model allows, on the code that ships.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --no-default-features --test model_timer --
//! --nocapture` prints how many interleavings each model went through. An entry that nothing wakes
//! the timer's thread for leaves all threads blocked, which fails the model.
#![cfg(loom)]

mod explore;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use explore::check;
use fulmar::timer::{Alarm, Clockwork, Timer, Untimed};
use loom::sync::{Condvar, Mutex};
use loom::thread;

/// No model takes as long.
const HOUR: Duration = Duration::from_secs(3_600);

/// Keeps what it fires.
struct Clock {
    me: Weak<Clock>,
    timer: Timer<u32>,
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    fired: Vec<u32>,
    ended: u32,
}

impl Clockwork for Clock {
    type Entry = u32;

    fn timer(&self) -> &Timer<u32> {
        &self.timer
    }

    fn shared(&self) -> Arc<Clock> {
        self.me.upgrade().expect("held by the model")
    }

    fn fire(&self, due: Vec<u32>) {
        self.seen.lock().expect("no panic").fired.extend(due);
        self.changed.notify_all();
    }

    fn wound_down(&self) {
        self.seen.lock().expect("no panic").ended += 1;
        self.changed.notify_all();
    }
}

impl Clock {
    fn new() -> Arc<Clock> {
        Arc::new_cyclic(|me| Clock {
            me: me.clone(),
            timer: Timer::new("timer".into(), None),
            seen: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn insert(&self, at: Instant, entry: u32, session: Option<u64>) -> Result<Alarm, Untimed> {
        self.timer.insert(self, at, entry, session)
    }

    /// Waits until it is so.
    fn until(&self, is_so: impl Fn(&Seen) -> bool) {
        let mut seen = self.seen.lock().expect("no panic");
        while !is_so(&seen) {
            seen = self.changed.wait(seen).expect("no panic");
        }
    }

    /// Ends the thread, which a model has to.
    fn end(&self) -> Vec<u32> {
        let given_up = self.timer.close(|_| false);
        self.until(|seen| seen.ended > 0);
        assert!(!self.timer.is_running());
        self.timer.join();
        given_up
    }
}

#[test]
fn a_thread_that_parks_meets_an_earlier_entry() {
    check("timer insert/park", 5, || {
        let (clock, now) = (Clock::new(), Instant::now());
        clock.insert(now + HOUR, 1, None).expect("taken");
        clock.insert(now, 2, None).expect("taken");
        clock.until(|seen| seen.fired == [2]);
        assert_eq!(clock.end(), [1]);
    });
}

#[test]
fn entries_of_two_threads_are_both_fired() {
    check("timer insert/insert", 3, || {
        let (clock, now) = (Clock::new(), Instant::now());
        let other = clock.clone();
        let inserts = thread::spawn(move || other.insert(now, 1, None).map(drop).expect("taken"));
        clock.insert(now + HOUR, 2, None).expect("taken");
        clock.until(|seen| seen.fired == [1]);
        inserts.join().expect("no panic");
        assert_eq!(clock.end(), [2]);
    });
}

#[test]
fn an_entry_that_is_taken_out_meets_its_time() {
    check("timer remove/fire", 5, || {
        let clock = Clock::new();
        let alarm = clock.insert(Instant::now(), 1, None).expect("taken");
        let removed = clock.timer.remove(alarm);
        assert_eq!(clock.end(), [0; 0]);
        let fired = std::mem::take(&mut clock.seen.lock().expect("no panic").fired);
        assert_eq!(removed.into_iter().chain(fired).collect::<Vec<_>>(), [1], "one of them has it");
    });
}

#[test]
fn new_work_meets_a_close() {
    check("timer insert/close", 5, || {
        let (clock, now) = (Clock::new(), Instant::now());
        clock.insert(now, 1, None).expect("taken");
        let (other, session) = (clock.clone(), clock.timer.session());
        let inserts = thread::spawn(move || other.insert(now + HOUR, 2, Some(session)).is_ok());
        let given_up = clock.end();
        // Refused, or given up; never kept by a timer whose thread is gone.
        assert_eq!(inserts.join().expect("no panic"), given_up.contains(&2));
    });
}

#[test]
fn the_last_entry_of_a_closed_timer_meets_another() {
    check("timer end/insert", 3, || {
        let (clock, now) = (Clock::new(), Instant::now());
        clock.insert(now, 1, None).expect("taken");
        assert!(clock.timer.close(|_| true).is_empty());
        // Of work that was accepted before: the thread takes it, or a new one does.
        clock.insert(now, 2, None).expect("taken");
        clock.until(|seen| seen.fired == [1, 2]);
        while clock.timer.is_running() {
            clock.until(|seen| seen.ended > 0);
            thread::yield_now();
        }
        clock.timer.join();
    });
}
