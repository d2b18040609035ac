//! Waits for handles together: references, tuples of several types, each result, the first failure.

use std::time::Duration;

use fulmar::{AsyncRequest, Error, wait_all, wait_each};

use crate::support::{Gate, HANG, executor};

#[test]
fn handles_and_references_to_them_are_waited_for_in_their_order() {
    let executor = executor(2);
    let make = |n: u32| executor.spawn(move || n).expect("accepted");
    assert_eq!(wait_all(&[make(1), make(2)], HANG).expect("end"), [1, 2], "an array");
    assert_eq!(wait_all(&vec![make(1), make(2)], HANG).expect("end"), [1, 2], "a vector");
    let (a, b) = (make(3), make(4));
    assert_eq!(wait_all([&b, &a], HANG).expect("end"), [4, 3], "references");
    let many: Vec<_> = (0..100).map(make).collect();
    let odd: Vec<_> = many.iter().filter(|request| request.id() % 2 == 1).collect();
    assert_eq!(wait_all(&odd, HANG).expect("end").len(), 50);
    assert!(wait_all(&[] as &[AsyncRequest<u32>], HANG).expect("none to wait for").is_empty());
}

#[test]
fn handles_of_several_types_are_waited_for_as_a_tuple() {
    let executor = executor(2);
    let (text, number) = (executor.spawn(|| "AAPL".to_owned()), executor.spawn(|| 7));
    let (text, number) = (text.expect("accepted"), number.expect("accepted"));
    assert_eq!(wait_all((&number, &text), HANG).expect("end"), (7, "AAPL".to_owned()));
    assert!(matches!(wait_each((&number, &text), HANG), (Err(Error::ResultTaken), Err(Error::ResultTaken))));
}

#[test]
fn the_first_failure_in_time_is_told_and_everything_else_stays() {
    let executor = executor(3);
    let gate = Gate::new();
    let hold = gate.clone();
    let slow = executor.spawn(move || hold.pass()).expect("accepted");
    let quick = executor.spawn(|| "quick").expect("accepted");
    let bad = executor.submit(&().into(), |_: &(), ()| "x".parse::<u8>(), false, ()).expect("accepted");
    let failed = wait_all((&slow, &quick, &bad), HANG).expect_err("one failed");
    assert!(failed.operation::<std::num::ParseIntError>().is_some(), "{failed}");
    assert!(!slow.is_done());
    assert_eq!(quick.wait(HANG).expect("still there"), "quick");
    assert!(matches!(bad.wait(HANG), Err(Error::ResultTaken)));
    let panicked = executor.spawn(|| panic!("in a test, on purpose")).expect("accepted");
    assert!(matches!(wait_all([&slow, &panicked], HANG), Err(Error::Panicked(_))));
    gate.open();
    wait_all(&[slow], HANG).expect("it ends");
}

#[test]
fn a_time_limit_leaves_every_handle_as_it_was() {
    let executor = executor(2);
    let gate = Gate::new();
    let hold = gate.clone();
    let (slow, quick) = (executor.spawn(move || hold.pass()), executor.spawn(|| 7));
    let (slow, quick) = (slow.expect("accepted"), quick.expect("accepted"));
    quick.wait(HANG).expect("it ends");
    let quick = executor.spawn(|| 8).expect("accepted");
    while !quick.is_done() {
        std::thread::yield_now();
    }
    assert!(wait_all((&slow, &quick), Duration::ZERO).expect_err("one goes on").is_timeout());
    let (one, other) = wait_each((&slow, &quick), Duration::ZERO);
    assert!(one.expect_err("it goes on").is_timeout());
    assert_eq!(other.expect("it had ended"), 8);
    gate.open();
    slow.wait(HANG).expect("the handle is still good");
}

#[test]
fn the_result_of_each_comes_whatever_the_others_do() {
    let executor = executor(2);
    let (blocked, gate) = (executor.clone(), Gate::new());
    let hold = gate.clone();
    let busy = [(); 2].map(|()| {
        let hold = hold.clone();
        executor.spawn(move || hold.pass()).expect("accepted")
    });
    gate.await_arrivals(2);
    let numbers = ["1", "two", "3"].map(|text| {
        blocked.submit(&().into(), |_: &(), text: &str| text.parse::<u64>(), false, text).expect("accepted")
    });
    assert!(numbers[2].cancel());
    gate.open();
    let results = wait_each(&numbers, HANG);
    assert!(matches!(results[..], [Ok(1), Err(Error::Operation(_)), Err(Error::Cancelled)]), "{results:?}");
    wait_all(&busy, HANG).expect("they end");
}

#[test]
fn inside_an_operation_as_well_and_what_never_ends_is_told() {
    let executor = executor(1);
    let inner = executor.clone();
    let sum = executor.spawn(move || {
        let (one, two) = (inner.spawn(|| 1).expect("accepted"), inner.spawn(|| 2_u64).expect("accepted"));
        wait_all((&one, &two), None).map(|(one, two)| u64::from(one as u32) + two)
    });
    assert_eq!(sum.expect("accepted").wait(HANG).expect("ends").expect("no failure"), 3);
    let (inner, store) = (executor.clone(), std::sync::Arc::new(()));
    let own = store.clone();
    let stuck = executor.submit(
        &store,
        move |_: &(), _: &str| {
            let behind = inner.submit(&own, |_: &(), _: &str| (), true, "key").expect("accepted");
            let free = inner.spawn(|| 7).expect("accepted");
            matches!(wait_each((&behind, &free), None), (Err(Error::WouldDeadlock), Ok(7)))
        },
        true,
        "key",
    );
    assert!(stuck.expect("accepted").wait(HANG).expect("ends"));
}
