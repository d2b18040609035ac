//! How long a waiting thread should look again before it goes to sleep.

use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, Ordering, pause, spin_turn, spin_turns};

/// Whether the last wait at one side of the queue was short, which predicts the next one.
///
/// If waits are long, looking again only wastes processor time. It even makes wake-ups slower: the
/// system moves a thread that spins while the other side sleeps to another core, and waking a
/// thread on a core in deep sleep takes six times as long.
pub(super) struct SpinBudget {
    slow: AtomicBool,
}

/// A sleep longer than this could not have been avoided by looking again.
const LONG: Duration = Duration::from_micros(100);

impl SpinBudget {
    pub(super) fn new() -> SpinBudget {
        SpinBudget { slow: AtomicBool::new(false) }
    }

    pub(super) fn patience(&self) -> Patience {
        let yields = spin_turns();
        // `yields` is 0 on a single core, where spinning is useless. Relaxed: a guess that protects
        // no data.
        let none = yields == 0 || self.slow.load(Ordering::Relaxed);
        Patience { turn: 0, turns: if none { 0 } else { SPINS + yields } }
    }

    /// Remembers that a thread has slept from `start` until now.
    pub(super) fn slept(&self, start: Instant) {
        let slow = start.elapsed() > LONG;
        // Store only a change: other waiting threads read this cache line, and a store would take
        // it from them.
        if spin_turns() > 0 && self.slow.load(Ordering::Relaxed) != slow {
            self.slow.store(slow, Ordering::Relaxed);
        }
    }
}

/// One thread's turns of waiting awake. First it spins, twice as long each turn, because the other
/// side may be running on another core. Then it yields, because the other side may need this core.
/// All turns together take about as long as a sleep and a wake-up.
///
/// The numbers did best of a dozen pairs in `cargo bench --bench queue`. The doubling spins are
/// those of `crossbeam-utils`. That yields 4 times before it sleeps; with more yields, a consumer
/// that runs directly behind its producer avoids most of its sleeps.
pub(super) struct Patience {
    turn: u32,
    turns: u32,
}

const SPINS: u32 = 7;

impl Patience {
    /// Waits for one turn. Returns false, without waiting, when all turns are used up and the
    /// thread should sleep.
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
