//! Edges: values that are odd, destructors that panic, arguments that panic, and settings that make no sense.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fulmar::{Args, BoxError, Error, Executor, Stats, Status};

use crate::support::{Gate, HANG, assert_adds_up, executor, occupy};

/// Panics when it is dropped, with a payload that is dropped in peace.
struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("a panic of a test, on purpose");
    }
}

/// A payload that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a panic of a test, on purpose");
        }
    }
}

/// The executor's one thread is the one that it was, works, and ends.
fn assert_unharmed(executor: &Executor) {
    let name = executor.spawn(|| std::thread::current().name().map(str::to_owned)).expect("accepted");
    assert_eq!(name.wait(HANG).expect("the thread lives").as_deref(), Some("fulmar-0"));
    executor.shutdown(HANG).expect("the thread ends");
    let stats = executor.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.unfinished(), stats.threads), (0, 0), "{stats}");
}

// Values.

#[test]
fn results_of_no_size_and_of_much() {
    struct Huge([u64; 4_096]);
    let executor = executor(1);
    executor.spawn(|| ()).expect("accepted").wait(HANG).expect("nothing is a result");
    let huge = executor.spawn(|| Huge(std::array::from_fn(|n| n as u64))).expect("accepted");
    let Huge(numbers) = huge.wait(HANG).expect("it ends");
    assert!(numbers.iter().enumerate().all(|(n, number)| n as u64 == *number));
    let captured = [7_u8; 20_000];
    let sum = executor.spawn(move || captured.iter().map(|n| u64::from(*n)).sum::<u64>()).expect("accepted");
    assert_eq!(sum.wait(HANG).expect("it ends"), 140_000);
}

#[test]
fn arguments_and_results_need_be_neither_clone_nor_sync_nor_debug() {
    struct Odd(std::cell::Cell<u8>);
    impl Args for Odd {}
    let executor = executor(1);
    let request = executor.submit(
        &Arc::new(3_u8),
        |n: &u8, odd: Odd| Ok::<_, Error>(Odd((odd.0.get() + n).into())),
        true,
        Odd(4.into()),
    );
    assert_eq!(request.expect("accepted").wait(HANG).expect("it ends").0.get(), 7);
}

#[test]
fn errors_of_all_kinds_come_back_as_they_were() {
    let (executor, store) = (executor(1), Arc::new(()));
    let text = executor.submit(&store, |_: &(), ()| Err::<(), _>("in words"), false, ()).expect("accepted");
    assert_eq!(format!("{:#}", text.wait(HANG).expect_err("it fails")), "the operation failed: in words");
    let boxed = |_: &(), ()| Err::<(), BoxError>("x".parse::<u8>().expect_err("no number").into());
    let boxed = executor.submit(&store, boxed, false, ()).expect("accepted").wait(HANG).expect_err("it fails");
    assert!(boxed.operation::<std::num::ParseIntError>().is_some(), "boxed once: {boxed:?}");
    // The crate's own error, of an operation, is not mistaken for one about the operation.
    let own = executor.submit(&store, |_: &(), ()| Err::<(), _>(Error::ShutDown), false, ()).expect("accepted");
    let own = own.wait(HANG).expect_err("it fails");
    assert!(matches!(own.operation(), Some(Error::ShutDown)), "{own:?}");
    // What `spawn` returns is the result, an `Err` too.
    let result = executor.spawn(|| Err::<(), _>("in words")).expect("accepted");
    assert_eq!(result.wait(HANG).expect("it ended well"), Err("in words"));
    assert_eq!((executor.stats().failed, executor.stats().completed), (3, 1));
}

// Panics.

#[test]
fn a_panic_is_told_in_its_words() {
    let executor = executor(1);
    let word = executor.spawn(|| panic!("in a word")).expect("accepted").wait(HANG);
    assert!(matches!(word, Err::<(), _>(Error::Panicked(text)) if text == "in a word"));
    let number = 7;
    let words = executor.spawn(move || panic!("number {number}")).expect("accepted").wait(HANG);
    assert!(matches!(words, Err::<(), _>(Error::Panicked(text)) if text == "number 7"));
    let other = executor.spawn(|| panic_any(7)).expect("accepted").wait(HANG);
    assert!(matches!(other, Err::<(), _>(Error::Panicked(text)) if !text.is_empty()));
    assert_eq!(executor.stats().panicked, 3);
    assert_unharmed(&executor);
}

#[test]
fn a_payload_that_panics_in_turn_harms_nobody() {
    let executor = executor(1);
    let request = executor.spawn(|| panic_any(Bomb)).expect("accepted");
    assert!(matches!(request.wait(HANG), Err::<(), _>(Error::Panicked(_))));
    assert_unharmed(&executor);
}

#[test]
fn a_captured_value_that_panics_in_its_destructor_harms_nobody() {
    let (executor, gate) = (executor(1), Gate::new());
    let value = PanicsInDrop;
    let ran = executor.spawn(move || drop(value)).expect("accepted");
    assert!(matches!(ran.wait(HANG), Err(Error::Panicked(_))), "part of its operation");
    // Dropped by the cancel: the canceller doesn't pay for it, whatever the payload.
    struct PanicsWithABomb;
    impl Drop for PanicsWithABomb {
        fn drop(&mut self) {
            panic_any(Bomb);
        }
    }
    let blocker = occupy(&executor, &gate);
    let (one, two) = (PanicsInDrop, PanicsWithABomb);
    let cancelled =
        [executor.spawn(move || drop(one)).expect("accepted"), executor.spawn(move || drop(two)).expect("accepted")];
    let seen = Arc::new(AtomicUsize::new(0));
    for request in &cancelled {
        let count = seen.clone();
        request.on_complete(move |status| {
            assert_eq!(status, Status::Cancelled);
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert!(request.cancel());
    }
    assert_eq!(seen.load(Ordering::Relaxed), 2, "those who asked are told all the same");
    gate.open();
    blocker.wait(HANG).expect("it ends");
    assert_unharmed(&executor);
}

#[test]
fn an_unclaimed_result_that_panics_in_its_destructor_harms_nobody() {
    let (executor, gate) = (executor(1), Gate::new());
    let blocker = occupy(&executor, &gate);
    drop(executor.spawn(|| PanicsInDrop).expect("accepted"));
    let fails = |_: &(), ()| Err::<(), _>(Box::new(Fails(PanicsInDrop)));
    drop(executor.submit(&Arc::new(()), fails, true, ()).expect("accepted"));
    gate.open();
    blocker.wait(HANG).expect("it ends");
    assert_unharmed(&executor);
}

struct Fails(#[allow(dead_code)] PanicsInDrop);

impl std::fmt::Debug for Fails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fails")
    }
}

impl std::fmt::Display for Fails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it fails")
    }
}

impl std::error::Error for Fails {}

#[test]
fn arguments_that_panic_when_asked_for_their_key_are_not_accepted() {
    struct NoKey;
    impl Args for NoKey {
        fn key(&self) -> Option<&str> {
            panic!("a panic of a test, on purpose")
        }
    }
    let (executor, store) = (executor(1), Arc::new(()));
    let one = || executor.submit(&store, |_: &(), _: NoKey| Ok::<_, Error>(()), true, NoKey).map(drop);
    let many = || {
        let args = (0..10).map(|n| if n == 5 { panic!("a panic of a test, on purpose") } else { n });
        executor.submit_many(&store, |_: &(), n: usize| Ok::<_, Error>(n), true, args).map(drop)
    };
    assert!(catch_unwind(AssertUnwindSafe(one)).is_err(), "it is the caller's own");
    assert!(catch_unwind(AssertUnwindSafe(many)).is_err(), "it is the caller's own");
    assert_eq!(executor.stats(), Stats::default(), "none of ten was accepted");
    assert_eq!(Arc::strong_count(&store), 1, "and nothing is held back");
    assert_unharmed(&executor);
}

#[test]
fn an_iterator_of_arguments_may_use_the_executor() {
    let (executor, store) = (executor(1), Arc::new(()));
    let inner = executor.clone();
    let args = (0..3).map(|n: usize| inner.spawn(move || 10 * n).expect("accepted").wait(HANG).expect("it ends"));
    let requests =
        executor.submit_many(&store, |_: &(), n: usize| Ok::<_, Error>(n + 1), true, args).expect("accepted");
    assert_eq!(executor.wait_requests(&requests, HANG).expect("all end"), [1, 11, 21]);
}

// Settings.

#[test]
fn settings_that_make_no_sense_are_named() {
    let says = |builder: fulmar::Builder, what: &str| match builder.build() {
        Err(Error::Invalid(text)) => assert!(text.contains(what), "{text}"),
        other => panic!("{what}: {other:?}"),
    };
    says(Executor::builder().threads(0), "0 threads");
    says(Executor::builder().queue_capacity(0), "capacity of 0");
    says(Executor::builder().thread_name("a\0b"), "NUL");
    let executor = Executor::builder().thread_name("").threads(1).build().expect("an empty name is a name");
    let name = executor.spawn(|| std::thread::current().name().map(str::to_owned)).expect("accepted");
    assert_eq!(name.wait(HANG).expect("it runs").as_deref(), Some("-0"));
    let sized = Executor::builder().threads(1).stack_size(1 << 20).build().expect("sound");
    assert_eq!(sized.spawn(|| 1).expect("accepted").wait(HANG).expect("it runs"), 1);
}
