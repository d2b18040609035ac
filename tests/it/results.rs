//! What goes in and comes out: values of odd sizes and types, errors of all kinds, settings that
//! are refused.

use std::sync::Arc;

use fulmar::{Args, BoxError, Error, Executor};

use crate::support::{HANG, executor};

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

#[test]
fn an_iterator_of_arguments_may_use_the_executor() {
    let (executor, store) = (executor(1), Arc::new(()));
    let inner = executor.clone();
    let args = (0..3).map(|n: usize| inner.spawn(move || 10 * n).expect("accepted").wait(HANG).expect("it ends"));
    let requests =
        executor.submit_many(&store, |_: &(), n: usize| Ok::<_, Error>(n + 1), true, args).expect("accepted");
    assert_eq!(executor.wait_requests(&requests, HANG).expect("all end"), [1, 11, 21]);
}

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
