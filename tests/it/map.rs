//! `Executor::map`: lazy, bounded, in both orders, over endless input; and nothing goes on behind
//! one that is gone.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fulmar::{Error, Executor, OnFull};

use crate::support::{Gate, HANG, assert_adds_up, ends, executor, occupy};

#[test]
fn results_come_in_the_order_of_endless_input_within_the_window() {
    let executor = executor(4);
    let (at_work, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, seen) = (at_work.clone(), most.clone());
    // Not `Send`: it is read on this thread.
    let read = Rc::new(Cell::new(0));
    let count = read.clone();
    let mut squares = executor
        .map((0u64..).inspect(move |_| count.set(count.get() + 1)), 3, move |n| {
            seen.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            inside.fetch_sub(1, Ordering::SeqCst);
            n * n
        })
        .expect("sound");
    assert_eq!((read.get(), executor.stats().submitted), (0, 0), "lazy");
    for n in 0..2_000 {
        assert_eq!(squares.next().expect("endless").expect("can't fail"), n * n);
        assert!((n + 1..=n + 3).contains(&read.get()), "{} were read for {} results", read.get(), n + 1);
    }
    drop(squares);
    assert!(most.load(Ordering::SeqCst) <= 3);
}

#[test]
fn the_window_is_filled_while_the_first_result_is_missing() {
    let executor = executor(1);
    let gate = Gate::new();
    let (pass, open) = (gate.clone(), gate.clone());
    let items = (0..).inspect(move |n| {
        if *n == 3 {
            open.open();
        }
    });
    let mut results = executor
        .map(items, 4, move |n| {
            pass.pass();
            n
        })
        .expect("sound");
    // It would hang if fewer were read.
    assert_eq!(ends("reads four", move || results.next()).expect("endless").expect("can't fail"), 0);
}

#[test]
fn a_failure_and_a_panic_are_the_results_of_their_items() {
    let executor = executor(2);
    let parse = |word: &str| {
        assert!(word != "panic", "in a test, on purpose");
        word.parse::<u64>()
    };
    let words = ["1", "two", "3", "panic", "5"];
    let told = |result: fulmar::Result<u64>| match result {
        Ok(number) => number,
        Err(error) if error.operation::<std::num::ParseIntError>().is_some() => 100,
        Err(Error::Panicked(text)) if text.contains("on purpose") => 200,
        Err(other) => panic!("{other:?}"),
    };
    let in_order: Vec<u64> = executor.map(words, 2, parse).expect("sound").map(told).collect();
    assert_eq!(in_order, [1, 100, 3, 200, 5]);
    let mut completed: Vec<(usize, u64)> = executor
        .map(words, 2, parse)
        .expect("sound")
        .as_completed()
        .map(|(number, result)| (number, told(result)))
        .collect();
    completed.sort_unstable();
    assert_eq!(completed, [(0, 1), (1, 100), (2, 3), (3, 200), (4, 5)]);
    let stats = executor.stats();
    assert_eq!((stats.completed, stats.failed, stats.panicked), (6, 2, 2), "{stats}");
    let first = executor.map(words, 2, parse).expect("sound").collect::<Result<Vec<_>, _>>();
    assert!(first.expect_err("`two`").operation::<std::num::ParseIntError>().is_some());
}

#[test]
fn as_completed_hands_out_what_comes_first_and_each_once() {
    let executor = executor(2);
    let gate = Gate::new();
    let pass = gate.clone();
    let mut results = executor
        .map(0..1_000usize, 2, move |n| {
            if n == 0 {
                pass.pass();
            }
            n
        })
        .expect("sound")
        .as_completed();
    for n in 1..500 {
        let (number, result) = results.next().expect("the others don't wait for the first");
        assert_eq!((number, result.expect("can't fail")), (n, n));
    }
    gate.open();
    let mut rest: Vec<usize> = results.by_ref().map(|(_, result)| result.expect("can't fail")).collect();
    rest.sort_unstable();
    assert_eq!(rest, std::iter::once(0).chain(500..1_000).collect::<Vec<_>>());
    assert!(results.next().is_none(), "and so it stays");
}

#[test]
fn a_map_that_has_begun_in_order_goes_on_as_completed() {
    let executor = executor(2);
    let mut letters = executor.map("abcdef".chars(), 3, |letter| letter).expect("sound");
    assert_eq!(letters.next().expect("the first").expect("can't fail"), 'a');
    assert_eq!(letters.size_hint().1, Some(5));
    let mut rest: Vec<(usize, char)> =
        letters.as_completed().map(|(number, letter)| (number, letter.expect("can't fail"))).collect();
    rest.sort_unstable();
    assert_eq!(rest, [(1, 'b'), (2, 'c'), (3, 'd'), (4, 'e'), (5, 'f')]);
}

#[test]
fn a_dropped_map_reads_no_more_and_cancels_what_has_not_started() {
    for is_ordered in [true, false] {
        let executor = executor(1);
        let (first, second) = (Gate::new(), Gate::new());
        let (open, pass, wait) = (first.clone(), first.clone(), second.clone());
        let told = Arc::new(AtomicUsize::new(0));
        let tell = told.clone();
        let items = (0..).inspect(move |n| {
            if *n == 4 {
                open.open();
            }
        });
        let mut results = executor
            .map(items, 5, move |n| {
                match n {
                    0 => pass.pass(),
                    1 => wait.pass(),
                    _ => {}
                }
                tell.fetch_add(usize::from(fulmar::is_cancelled()), Ordering::SeqCst);
                n
            })
            .expect("sound");
        assert_eq!(results.next().expect("endless").expect("can't fail"), 0);
        second.await_arrivals(1);
        if is_ordered {
            drop(results);
        } else {
            drop(results.as_completed());
        }
        assert_eq!(executor.stats().cancelled, 3, "{}", executor.stats());
        second.open();
        executor.shutdown(HANG).expect("ends");
        assert_eq!(told.load(Ordering::SeqCst), 1, "the one that ran");
        let stats = executor.stats();
        assert_eq!((stats.submitted, stats.completed), (5, 2), "{stats}");
        assert_adds_up(&stats);
    }
}

#[test]
fn maps_in_maps_need_one_thread() {
    let executor = executor(1);
    let sum = move || {
        let (outer, inner, innermost) = (executor.clone(), executor.clone(), executor);
        let rows = outer.map(0..20u64, 4, move |row| {
            let innermost = innermost.clone();
            let cells = inner.map(0..5u64, 2, move |cell| {
                let one = innermost.map([row, cell], 2, |n| n)?;
                one.sum::<Result<u64, Error>>()
            })?;
            cells.as_completed().map(|(_, cell)| cell).sum::<Result<u64, Error>>()
        });
        rows.expect("sound").sum::<Result<u64, Error>>()
    };
    assert_eq!(ends("maps in maps", sum).expect("nothing fails"), 20 * 19 / 2 * 5 + 20 * 10);
}

#[test]
fn a_shutdown_ends_the_iteration_behind_what_was_read() {
    for is_ordered in [true, false] {
        let executor = executor(2);
        let other = executor.clone();
        let items = (0..).inspect(move |n| {
            if *n == 10 {
                // Whether it is over at once depends on how far the threads are.
                drop(other.shutdown(std::time::Duration::ZERO));
            }
        });
        let map = executor.map(items, 4, |n| n).expect("sound");
        let results: Vec<fulmar::Result<i32>> =
            if is_ordered { map.collect() } else { map.as_completed().map(|(_, result)| result).collect() };
        let (ended, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let mut ended: Vec<i32> = ended.into_iter().flatten().collect();
        ended.sort_unstable();
        assert_eq!(ended, (0..10).collect::<Vec<_>>(), "none is lost");
        assert!(matches!(refused[..], [Err(Error::ShutDown)]), "{refused:?}");
    }
}

#[test]
fn a_full_queue_refuses_nothing_of_a_map() {
    let builder = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::Reject);
    let executor = builder.build().expect("sound");
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let open = gate.clone();
    let items = (0..100).inspect(move |n| {
        if *n == 9 {
            open.open();
        }
    });
    let doubled = executor.map(items, 10, |n| 2 * n).expect("sound");
    assert_eq!(doubled.collect::<Result<Vec<_>, _>>().expect("none is refused").len(), 100);
    busy.wait(HANG).expect("ends");
}

#[test]
fn a_panic_of_the_input_is_the_callers_and_the_rest_still_comes() {
    let executor = executor(2);
    let items = (0..6).inspect(|n| assert!(*n != 2, "in a test, on purpose"));
    let mut results = executor.map(items, 1, |n| n).expect("sound");
    assert_eq!(results.next().expect("an item").expect("can't fail"), 0);
    assert_eq!(results.next().expect("an item").expect("can't fail"), 1);
    assert!(catch_unwind(AssertUnwindSafe(|| results.next())).is_err());
    assert_eq!(results.collect::<Result<Vec<_>, _>>().expect("can't fail"), [3, 4, 5]);
}

#[test]
fn a_window_of_none_is_refused() {
    let refused = executor(1).map(0..3, 0, |n| n).expect_err("lets nothing start");
    assert!(matches!(refused, Error::Invalid(why) if why.contains("window of 0")));
}
