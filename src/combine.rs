//! Flat combining: the work of many threads in one transaction, with one commit.
//!
//! A commit with full durability waits for the disk, whether it holds one work or a hundred. So
//! each thread puts its work into a list. If a place for a commit is free, the thread becomes the
//! leader: it takes the place and the whole list, does all of it in one transaction, and tells each
//! thread the outcome of its work. Meanwhile the next list grows. If only one thread has work, it
//! never waits for another. Under load the commits grow instead of the list. A dedicated thread
//! could do the same, but each work would then cost two thread switches.
//!
//! Left to the engine, which implements [`Transaction`]: what a transaction is, how many run at
//! once, and how much fits into one.
//!
//! # Progress
//! A thread whose work is in the list leads as soon as it finds a free place. A leader gives its
//! place back under the lock of the list, and at that moment invites the first thread of the list
//! to look. So if work is left and a place is free, one thread has been invited and has not looked
//! yet.
//!
//! Work may be done twice: if a transaction with several works fails, the leader does each again
//! alone, so that one that can't be committed doesn't fail the others.
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

/// What a [`Combiner`] needs from an engine: how to run one transaction.
pub trait Transaction {
    /// What one thread wants done.
    type Work;
    /// What a thread gets back for its work.
    type Outcome;
    /// Why work wasn't done.
    type Error;
    /// What one transaction needs, such as a connection. As many transactions run at once as there
    /// are places.
    type Place;

    /// For how many turns of spinning a leader waits for the threads of the last commit to come
    /// back with new work. They do so soon after they get their outcomes, and the first of them
    /// would otherwise commit alone. All turns together should take a small part of a commit's
    /// time.
    const PATIENCE: usize = 0;

    /// Whether `work` still fits into a transaction that already has what `taken` counts.
    fn fits(&self, taken: &Taken, work: &Self::Work) -> bool;

    /// The number of pieces and of bytes in a work, which [`Taken`] adds up.
    fn size(&self, _: &Self::Work) -> (usize, usize) {
        (1, 0)
    }

    /// Does all of `works` in one transaction, and returns the outcome of each, in their order.
    /// After an error nothing of it is stored.
    fn commit(&self, place: &mut Self::Place, works: &mut [Self::Work]) -> Outcomes<Self>;

    /// A copy of `error` for another thread, if each work alone would fail with it, too, because
    /// the connection is lost, say. `None` if a single work may be the cause: then each is tried
    /// alone.
    fn of_all(&self, error: &Self::Error) -> Option<Self::Error>;

    /// The error that the threads get if `commit` panicked with this message.
    fn panicked(&self, message: &str) -> Self::Error;
}

/// The outcome of each work of a transaction, or the error of the whole transaction.
pub type Outcomes<T> = Result<Vec<Outcome<T>>, <T as Transaction>::Error>;

/// The outcome of one work.
pub type Outcome<T> = Result<<T as Transaction>::Outcome, <T as Transaction>::Error>;

/// How much a transaction holds so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// How many pieces.
    pub pieces: usize,
    /// How many bytes.
    pub bytes: usize,
}

/// Runs the work of many threads together, in few transactions.
pub struct Combiner<T: Transaction> {
    state: Mutex<State<T>>,
}

struct State<T: Transaction> {
    waiting: VecDeque<Share<T>>,
    /// The free places: as many transactions could begin now.
    places: Vec<T::Place>,
    /// How many threads to expect: those in the last transaction, and those in the list when it
    /// ended.
    regulars: usize,
}

/// Where the threads of a list wait for their outcomes.
type Slots<T> = Vec<Arc<Slot<Outcome<T>>>>;

/// The work of one thread, and where that thread waits for the outcome.
struct Share<T: Transaction> {
    work: T::Work,
    slot: Arc<Slot<Outcome<T>>>,
}

/// Waiting <-> Look     Waiting -> Done     Look -> Done
///
/// Only the leader that has taken the piece out of the list sets `Done`.
enum Progress<R> {
    Waiting,
    /// A place was given back: the thread should look whether it is still free.
    Look,
    Done(R),
}

/// A thread takes this lock either alone, or while it holds the combiner's.
struct Slot<R> {
    progress: Mutex<Progress<R>>,
    changed: Condvar,
}

impl<T: Transaction> Combiner<T> {
    /// With one place for each transaction that may run at once.
    pub fn new(places: impl IntoIterator<Item = T::Place>) -> Combiner<T> {
        let places = places.into_iter().collect();
        Combiner { state: Mutex::new(State { waiting: VecDeque::new(), places, regulars: 0 }) }
    }

    /// Does `work` in a transaction, alone or together with other threads' work, and returns its
    /// outcome. The calling thread either leads a transaction or sleeps until a leader has its
    /// outcome.
    pub fn run(&self, transaction: &T, work: T::Work) -> Outcome<T> {
        let slot = Arc::new(Slot { progress: Mutex::new(Progress::Waiting), changed: Condvar::new() });
        let mut state = self.state.lock();
        state.waiting.push_back(Share { work, slot: Arc::clone(&slot) });
        loop {
            // If the list is empty, another leader has this thread's work: a place would be of no
            // use here.
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

    /// Calls `look` with a free place and returns its result; `None` if no place is free.
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&mut T::Place) -> R) -> Option<R> {
        self.state.lock().places.first_mut().map(look)
    }

    /// Leads one transaction: waits shortly for more work, takes the list, commits it at `place`,
    /// and wakes its threads. Their outcomes are in their slots, this thread's own perhaps among
    /// them.
    fn lead(&self, transaction: &T, place: T::Place) {
        self.gather(T::PATIENCE);
        let (mut works, slots) = self.state.lock().take(transaction);
        let mut leading = Leading { combiner: self, place: Some(place), led: works.len() };
        let outcomes = match leading.place.as_mut() {
            Some(place) if !works.is_empty() => commit(transaction, place, &mut works),
            // A leader at another place was faster, and has taken the whole list.
            _ => Vec::new(),
        };
        // Give the place back before the threads wake, so that one that comes back with new work
        // finds the place free, or a leader that takes its work.
        drop(leading);
        for (slot, outcome) in slots.into_iter().zip(outcomes) {
            slot.settle(outcome);
        }
    }

    /// Waits until as many threads are in the list as took part in the last transaction, or until
    /// no thread has come for `patience` turns. A leader does this before it takes the list, so
    /// that one commit serves all of them.
    fn gather(&self, patience: usize) {
        let (mut seen, mut idle) = (0, 0);
        while idle < patience {
            let state = self.state.lock();
            let (waiting, regulars) = (state.waiting.len(), state.regulars);
            drop(state);
            if waiting >= regulars {
                return;
            }
            // Each newcomer starts the patience anew: others may be right behind it.
            idle = if waiting > seen { 0 } else { idle + 1 };
            seen = waiting;
            spin_turn();
        }
    }
}

/// Commits `works` together; if that fails because of one of them, each alone. Returns exactly one
/// outcome for each.
fn commit<T: Transaction>(transaction: &T, place: &mut T::Place, works: &mut [T::Work]) -> Vec<Outcome<T>> {
    // A thread without an outcome would sleep for ever, so a panic and a wrong count become errors.
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
            // `None`: a single work may be the cause, so try each alone, and the others succeed.
            let alone = |work: &mut [T::Work]| attempt(work).unwrap_or_else(|error| vec![Err(error)]);
            of_all.unwrap_or_else(|| works.chunks_mut(1).flat_map(alone).collect())
        }
    }
}

impl<T: Transaction> State<T> {
    /// Takes as much of the list as fits into one transaction, but at least the first work, however
    /// large. If more is left, invites the next thread to lead.
    fn take(&mut self, transaction: &T) -> (Vec<T::Work>, Slots<T>) {
        let (mut works, mut slots, mut taken) = (Vec::new(), Vec::new(), Taken::default());
        while let Some(next) = self.waiting.front() {
            if !works.is_empty() && !transaction.fits(&taken, &next.work) {
                break;
            }
            let (pieces, bytes) = transaction.size(&next.work);
            taken = Taken { pieces: taken.pieces + pieces, bytes: taken.bytes + bytes };
            let Some(Share { work, slot }) = self.waiting.pop_front() else { break };
            works.push(work);
            slots.push(slot);
        }
        self.invite();
        (works, slots)
    }

    /// Wakes the first thread of the list if a place is free, so that it leads.
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

/// A place in use: its drop gives the place back, also if the leader panics.
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
    /// Sleeps until the outcome is here, or until the thread is invited to lead.
    fn wait(&self) {
        let mut progress = self.progress.lock();
        while matches!(*progress, Progress::Waiting) {
            self.changed.wait(&mut progress);
        }
    }

    /// Takes the outcome, if it is here. Also takes back an invitation, which the thread is about
    /// to follow.
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
            combiner.state.lock().waiting.push_back(Share { work, slot: Arc::clone(&slot) });
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
