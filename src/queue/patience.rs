//! How long it pays to look again before going to sleep.

use crate::sync::{pause, spin_turn, spin_turns};

/// Spins, twice as long each time, for the other side may be at it on another core; then yields, for it may want this one.
/// Together they take about as long as a sleep and a wake-up would.
///
/// The numbers are those that did best of a dozen pairs in `cargo bench --bench queue`: the doubling spins are
/// `crossbeam-utils`' own, and where that yields 4 times and sleeps, yielding on saves one thread in front of another
/// most of its sleeps.
pub(super) struct Patience {
    turn: u32,
}

const SPINS: u32 = 7;

impl Patience {
    pub(super) fn new() -> Patience {
        Patience { turn: 0 }
    }

    /// Lets a moment pass. Says whether it did: at the end of patience it is time to sleep.
    pub(super) fn turn(&mut self) -> bool {
        let yields = spin_turns();
        // No yields: spinning makes no sense here at all.
        if yields == 0 || self.turn == SPINS + yields {
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
