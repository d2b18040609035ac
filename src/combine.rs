//! Work of many threads in one transaction, and one commit.
//!
//! A commit with full durability waits for the disk, whatever it holds. So a thread puts its work
//! into a list. If a place for a commit is free, the thread takes that place and, with it, the whole
//! list: it has all of it done in one transaction and tells each thread what came of its work.
//! Meanwhile the next list grows. Alone, a thread never waits for another. Under load the commits
//! grow instead of the queue. A thread of its own would do the same at the price of two changes of
//! threads for each work.
//!
//! What a transaction is, how many go on at once, and what is too much for one, is the engine's
//! affair: [`Transaction`].
//!
//! # Progress
//! A thread whose work is in the list leads as soon as it finds a free place. A place is given back
//! under the lock of the list, and the first thread of the list is told at that moment. So if work
//! is left and a place is free, one thread has been told and has not looked yet.
//!
//! Work may be done twice: if a transaction of many fails, each is done again alone, so that one
//! that can't be committed (the disk is full) harms no other.
//!
//! Source: Hendler, Incze, Shavit, Tzafrir, "Flat Combining and the Synchronization-Parallelism
//! Tradeoff", SPAA 2010. Model: `tests/model_combine.rs`.

// Public for its model, which is another crate.
#![cfg_attr(not(loom), allow(unreachable_pub))]

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::panics;
use crate::sync::{Condvar, Mutex, spin_turn};

/// What an engine does for a [`Combiner`].
pub trait Transaction {
    /// What one thread wants done.
    type Work;
    /// What came of it.
    type Outcome;
    /// Why it came to nothing.
    type Error;
    /// What one transaction needs, such as a connection: as many go on at once as there are places.
    type Place;

    /// How many turns of spinning a leader waits for more work, if the last commits were of more.
    /// Those who are told come back soon, and the first of them would commit alone. A small part of
    /// a commit.
    const PATIENCE: usize = 0;

    /// Whether `work` still fits into the transaction with what was `taken` before.
    fn fits(&self, taken: &Taken, work: &Self::Work) -> bool;

    /// Of how many pieces a work is, and of how many bytes: counted in [`Taken`].
    fn size(&self, _: &Self::Work) -> (usize, usize) {
        (1, 0)
    }

    /// Does all of `works` in one transaction, and says what came of each, in their order. With an
    /// error nothing was done.
    fn commit(&self, place: &mut Self::Place, works: &mut [Self::Work]) -> Outcomes<Self>;

    /// The same error for another thread, if each work alone would meet it, too.
    fn of_all(&self, error: &Self::Error) -> Option<Self::Error>;

    /// What the threads are told if their work panicked.
    fn panicked(&self, message: &str) -> Self::Error;
}

/// What came of each work of a transaction, or why nothing was done.
pub type Outcomes<T> = Result<Vec<Outcome<T>>, <T as Transaction>::Error>;

/// What came of one work.
pub type Outcome<T> = Result<<T as Transaction>::Outcome, <T as Transaction>::Error>;

/// What a transaction has so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// How many pieces.
    pub pieces: usize,
    /// How many bytes.
    pub bytes: usize,
}

/// Has the work of many threads done together.
pub struct Combiner<T: Transaction> {
    state: Mutex<State<T>>,
}

struct State<T: Transaction> {
    waiting: VecDeque<Piece<T>>,
    /// Of transactions that could begin now.
    places: Vec<T::Place>,
    /// How many threads had work, or waited with it, when the last transaction was through.
    regulars: usize,
}

/// Where the threads of a list wait for what came of their work.
type Slots<T> = Vec<Arc<Slot<Outcome<T>>>>;

/// The work of one thread, and where that waits for the outcome.
struct Piece<T: Transaction> {
    work: T::Work,
    slot: Arc<Slot<Outcome<T>>>,
}

/// Waiting <-> Look     Waiting -> Done     Look -> Done
/// Only a leader who has taken the piece out of the list settles it.
enum Progress<R> {
    Waiting,
    /// A place was free: look whether it still is.
    Look,
    Done(R),
}

/// Its lock is taken inside of the combiner's, or alone.
struct Slot<R> {
    progress: Mutex<Progress<R>>,
    changed: Condvar,
}

impl<T: Transaction> Combiner<T> {
    /// With a place for each transaction that may go on at once.
    pub fn new(places: impl IntoIterator<Item = T::Place>) -> Combiner<T> {
        let places = places.into_iter().collect();
        Combiner { state: Mutex::new(State { waiting: VecDeque::new(), places, regulars: 0 }) }
    }

    /// Has `work` done by `transaction`, alone or with that of others, and returns what came of it.
    pub fn run(&self, transaction: &T, work: T::Work) -> Outcome<T> {
        let slot = Arc::new(Slot { progress: Mutex::new(Progress::Waiting), changed: Condvar::new() });
        let mut state = self.state.lock();
        state.waiting.push_back(Piece { work, slot: Arc::clone(&slot) });
        loop {
            // With nothing left to do, this thread's work is another leader's: it would take places in vain until told.
            let place = if state.waiting.is_empty() { None } else { state.places.pop() };
            drop(state);
            match place {
                Some(place) => self.lead(transaction, place),
                None => slot.wait(),
            }
            if let Some(outcome) = slot.take() {
                return outcome;
            }
            state = self.state.lock();
        }
    }

    /// What `look` sees in a place that is free now; `None` if all are taken.
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&mut T::Place) -> R) -> Option<R> {
        self.state.lock().places.first_mut().map(look)
    }

    /// Does one list.
    fn lead(&self, transaction: &T, place: T::Place) {
        self.gather(T::PATIENCE);
        let (mut works, slots) = self.state.lock().take(transaction);
        let mut leading = Leading { combiner: self, place: Some(place), led: works.len() };
        let outcomes = match leading.place.as_mut() {
            Some(place) if !works.is_empty() => commit(transaction, place, &mut works),
            // Taken by the leader at another place.
            _ => Vec::new(),
        };
        // Before the threads are told, so that they find the place free, or a leader who has their work.
        drop(leading);
        for (slot, outcome) in slots.into_iter().zip(outcomes) {
            slot.settle(outcome);
        }
    }

    /// Waits until all who had work the last time are there again, or no more come.
    fn gather(&self, patience: usize) {
        let (mut seen, mut idle) = (0, 0);
        while idle < patience {
            let state = self.state.lock();
            let (waiting, regulars) = (state.waiting.len(), state.regulars);
            drop(state);
            if waiting >= regulars {
                return;
            }
            idle = if waiting > seen { 0 } else { idle + 1 };
            seen = waiting;
            spin_turn();
        }
    }
}

/// As many outcomes as works.
fn commit<T: Transaction>(transaction: &T, place: &mut T::Place, works: &mut [T::Work]) -> Vec<Outcome<T>> {
    // A thread that is told nothing would wait for ever.
    let mut attempt = |works: &mut [T::Work]| {
        let outcomes = panics::catch(|| transaction.commit(place, works));
        match outcomes.unwrap_or_else(|panic| Err(transaction.panicked(&panic))) {
            Ok(outcomes) if outcomes.len() != works.len() => {
                Err(transaction.panicked("there are more works than outcomes, or fewer"))
            }
            outcomes => outcomes,
        }
    };
    match attempt(works) {
        Ok(outcomes) => outcomes,
        Err(error) if works.len() == 1 => vec![Err(error)],
        Err(error) => {
            let of_all: Option<Vec<_>> = works.iter().map(|_| transaction.of_all(&error).map(Err)).collect();
            // Otherwise one is to blame, and the others shall not pay for it.
            let alone = |work: &mut [T::Work]| attempt(work).unwrap_or_else(|error| vec![Err(error)]);
            of_all.unwrap_or_else(|| works.chunks_mut(1).flat_map(alone).collect())
        }
    }
}

impl<T: Transaction> State<T> {
    /// What one transaction may hold of the list; the first, however large it is.
    fn take(&mut self, transaction: &T) -> (Vec<T::Work>, Slots<T>) {
        let (mut works, mut slots, mut taken) = (Vec::new(), Vec::new(), Taken::default());
        while let Some(next) = self.waiting.front() {
            if !works.is_empty() && !transaction.fits(&taken, &next.work) {
                break;
            }
            let (pieces, bytes) = transaction.size(&next.work);
            taken = Taken { pieces: taken.pieces + pieces, bytes: taken.bytes + bytes };
            let Some(Piece { work, slot }) = self.waiting.pop_front() else { break };
            works.push(work);
            slots.push(slot);
        }
        self.invite();
        (works, slots)
    }

    /// Has the first thread of the list look for a place, if one is free.
    fn invite(&self) {
        if let Some(next) = self.waiting.front().filter(|_| !self.places.is_empty()) {
            next.slot.invite();
        }
    }
}

impl<T: Transaction> fmt::Debug for Combiner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Combiner").finish_non_exhaustive()
    }
}

/// A place in use, given back even by a panic.
struct Leading<'a, T: Transaction> {
    combiner: &'a Combiner<T>,
    place: Option<T::Place>,
    led: usize,
}

impl<T: Transaction> Drop for Leading<'_, T> {
    fn drop(&mut self) {
        let mut state = self.combiner.state.lock();
        state.places.extend(self.place.take());
        state.regulars = self.led + state.waiting.len();
        state.invite();
    }
}

impl<R> Slot<R> {
    /// Until it is settled, or told to look.
    fn wait(&self) {
        let mut progress = self.progress.lock();
        while matches!(*progress, Progress::Waiting) {
            self.changed.wait(&mut progress);
        }
    }

    /// The outcome, once. An invitation is taken as well.
    fn take(&self) -> Option<R> {
        match std::mem::replace(&mut *self.progress.lock(), Progress::Waiting) {
            Progress::Done(outcome) => Some(outcome),
            Progress::Waiting | Progress::Look => None,
        }
    }

    fn invite(&self) {
        let mut progress = self.progress.lock();
        if matches!(*progress, Progress::Waiting) {
            *progress = Progress::Look;
            self.changed.notify_all();
        }
    }

    fn settle(&self, outcome: R) {
        *self.progress.lock() = Progress::Done(outcome);
        self.changed.notify_all();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// Counts its transactions, and panics at 0.
    struct Count;

    impl Transaction for Count {
        type Work = usize;
        type Outcome = usize;
        type Error = String;
        type Place = usize;

        fn fits(&self, taken: &Taken, work: &usize) -> bool {
            taken.bytes + work <= 10
        }

        fn size(&self, work: &usize) -> (usize, usize) {
            (1, *work)
        }

        fn commit(&self, count: &mut usize, works: &mut [usize]) -> Outcomes<Count> {
            *count += 1;
            assert!(!works.contains(&0), "in a test, on purpose");
            Ok(works.iter().map(|_| Ok(*count)).collect())
        }

        fn of_all(&self, _: &String) -> Option<String> {
            None
        }

        fn panicked(&self, message: &str) -> String {
            message.to_owned()
        }
    }

    /// As threads leave it that have work and find no place.
    fn with_waiting(works: &[usize]) -> (Combiner<Count>, Slots<Count>) {
        let combiner = Combiner::new([0]);
        let slots = works.iter().map(|&work| {
            let slot = Arc::new(Slot { progress: Mutex::new(Progress::Waiting), changed: Condvar::new() });
            combiner.state.lock().waiting.push_back(Piece { work, slot: Arc::clone(&slot) });
            slot
        });
        let slots = slots.collect();
        (combiner, slots)
    }

    fn told(slots: &Slots<Count>) -> Vec<Option<Outcome<Count>>> {
        slots.iter().map(|slot| slot.take()).collect()
    }

    #[test]
    fn what_waits_goes_with_what_comes() {
        let (combiner, slots) = with_waiting(&[1, 2]);
        assert_eq!(combiner.run(&Count, 3), Ok(1));
        assert_eq!(told(&slots), [Some(Ok(1)), Some(Ok(1))]);
        assert_eq!(combiner.run(&Count, 3), Ok(2));
    }

    #[test]
    fn what_is_too_large_for_one_goes_in_several_in_its_order() {
        let (combiner, slots) = with_waiting(&[4, 4, 4, 99, 4]);
        assert_eq!(combiner.run(&Count, 4), Ok(4));
        assert_eq!(told(&slots), [1, 1, 2, 3, 4].map(|count| Some(Ok(count))));
    }

    #[test]
    fn a_panic_is_told_and_the_place_is_free_again() {
        let (combiner, slots) = with_waiting(&[0, 1]);
        // Together, then the first alone, the second, and this one.
        assert_eq!(combiner.run(&Count, 2), Ok(4));
        assert_eq!(told(&slots), [Some(Err("in a test, on purpose".to_owned())), Some(Ok(3))]);
        assert_eq!(combiner.run(&Count, 2), Ok(5));
    }
}
