//! The combiner of commits, in every order that the memory model allows, on the code that ships.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --no-default-features --test model_combine -- --nocapture` prints how
//! many interleavings each model went through. A thread that is never told leaves all threads blocked, which fails the
//! model.
#![cfg(loom)]

mod explore;

use std::sync::Arc;

use explore::check;
use fulmar::combine::{Combiner, Outcomes, Taken, Transaction};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// Adds up what was committed, with room for `most` works in a transaction.
struct Sum {
    most: usize,
    committed: AtomicUsize,
}

/// Spoils the transaction that it is in, and comes to nothing alone.
const POISON: usize = 100;

/// No transaction that it is in could be committed.
const AWAY: usize = 1_000;

impl Transaction for Sum {
    type Work = usize;
    type Outcome = usize;
    type Error = &'static str;
    type Place = ();

    fn fits(&self, taken: &Taken, _: &usize) -> bool {
        taken.pieces < self.most
    }

    fn commit(&self, _: &mut (), works: &mut [usize]) -> Outcomes<Sum> {
        if works.contains(&AWAY) {
            return Err("away");
        }
        if works.contains(&POISON) {
            return if works.len() == 1 { Ok(vec![Err("poison")]) } else { Err("spoilt") };
        }
        self.committed.fetch_add(works.iter().sum(), Ordering::Relaxed);
        Ok(works.iter().map(|work| Ok(*work)).collect())
    }

    fn of_all(&self, error: &&'static str) -> Option<&'static str> {
        (*error == "away").then_some("away")
    }

    fn panicked(&self, _: &str) -> &'static str {
        "panicked"
    }
}

/// Has each of `works` done by a thread of its own, the last by this one. Gives the outcomes, and what was committed.
fn run(places: usize, most: usize, works: &[usize]) -> (Vec<Result<usize, &'static str>>, usize) {
    let shared = Arc::new((Combiner::new(vec![(); places]), Sum { most, committed: AtomicUsize::new(0) }));
    let start = |&work: &usize| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || shared.0.run(&shared.1, work))
    };
    let (last, others) = works.split_last().expect("some work");
    let threads: Vec<_> = others.iter().map(start).collect();
    let of_last = shared.0.run(&shared.1, *last);
    let mut outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    outcomes.push(of_last);
    (outcomes, shared.1.committed.load(Ordering::Relaxed))
}

#[test]
fn each_work_is_done_once_and_its_thread_is_told() {
    check("one place", 3, || assert_eq!(run(1, 9, &[1, 2, 4]), (vec![Ok(1), Ok(2), Ok(4)], 7)));
}

#[test]
fn what_is_left_for_the_next_transaction_is_not_forgotten() {
    check("one work a transaction", 3, || assert_eq!(run(1, 1, &[1, 2, 4]), (vec![Ok(1), Ok(2), Ok(4)], 7)));
}

#[test]
fn two_places_share_the_work() {
    check("two places", 3, || assert_eq!(run(2, 1, &[1, 2, 4]), (vec![Ok(1), Ok(2), Ok(4)], 7)));
}

#[test]
fn one_that_can_not_be_committed_harms_no_other() {
    check("poison", 3, || assert_eq!(run(1, 9, &[1, POISON, 4]), (vec![Ok(1), Err("poison"), Ok(4)], 5)));
}

#[test]
fn what_all_would_meet_is_told_to_all_that_were_together() {
    check("away", 4, || {
        let (outcomes, committed) = run(1, 9, &[1, AWAY]);
        // Alone, or with the other.
        let of_the_first = if committed == 1 { Ok(1) } else { Err("away") };
        assert_eq!(outcomes, [of_the_first, Err("away")]);
    });
}
