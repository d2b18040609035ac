//! How long it pays to look again before going to sleep.

use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, Ordering, pause, spin_turn, spin_turns};

/// What those who waited at one end of the queue have found lately: whether what they wait for comes soon.
///
/// If it doesn't, looking again only burns the processor, and worse: a thread that is awake while the other one goes to
/// sleep is moved to a core of its own, and woken there from that core's deep sleep, which takes six times as long.
pub(super) struct Outlook {
    slow: AtomicBool,
}

/// A sleep that no patience would have spared.
const LONG: Duration = Duration::from_micros(100);

impl Outlook {
    pub(super) fn new() -> Outlook {
        Outlook { slow: AtomicBool::new(false) }
    }

    pub(super) fn patience(&self) -> Patience {
        let yields = spin_turns();
        // No yields: spinning makes no sense here at all. Relaxed: a guess that protects nothing.
        let none = yields == 0 || self.slow.load(Ordering::Relaxed);
        Patience { turn: 0, turns: if none { 0 } else { SPINS + yields } }
    }

    /// A thread has slept since `start`.
    pub(super) fn slept(&self, start: Instant) {
        let slow = start.elapsed() > LONG;
        // A look first: the next thread that waits reads this cache line.
        if spin_turns() > 0 && self.slow.load(Ordering::Relaxed) != slow {
            self.slow.store(slow, Ordering::Relaxed);
        }
    }
}

/// Spins, twice as long each time, for the other side may be at it on another core; then yields, for it may want this one.
/// Together they take about as long as a sleep and a wake-up would.
///
/// The numbers are those that did best of a dozen pairs in `cargo bench --bench queue`: the doubling spins are
/// `crossbeam-utils`' own, and where that yields 4 times and sleeps, yielding on saves one thread in front of another
/// most of its sleeps.
pub(super) struct Patience {
    turn: u32,
    turns: u32,
}

const SPINS: u32 = 7;

impl Patience {
    /// Lets a moment pass. Says whether it did: at the end of patience it is time to sleep.
    pub(super) fn turn(&mut self) -> bool {
        if self.turn == self.turns {
            return false;
        }
        if self.turn < SPINS {
            pause(1 << self.turn);
        } else {
            spin_turn();
        }
        self.turn += 1;
        true
    }
}
