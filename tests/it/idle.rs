//! `wait_idle`: it returns when nothing is left to do, whichever way the last request went, and
//! never before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fulmar::{Error, Executor, OnFull};

use crate::support::{Gate, HANG, ends, executor, occupy};

#[test]
fn it_returns_when_the_last_request_has_ended_callbacks_included() {
    let executor = executor(3);
    executor.wait_idle(Duration::ZERO).expect("nothing was submitted");
    for round in 1..=200 {
        let told = Arc::new(AtomicUsize::new(0));
        for n in 0..10 {
            let tell = told.clone();
            let request = executor.spawn(move || n).expect("accepted");
            drop(request.on_complete(move |_| {
                std::thread::yield_now();
                tell.fetch_add(1, Ordering::SeqCst);
            }));
        }
        executor.wait_idle(HANG).expect("becomes idle");
        let stats = executor.stats();
        assert_eq!((stats.completed, stats.unfinished()), (round * 10, 0), "{stats}");
        assert_eq!(told.load(Ordering::SeqCst), 10);
    }
    drop(executor.spawn(|| 1).expect("it closes nothing"));
}

#[test]
fn it_waits_for_the_callbacks_of_threads_that_a_reset_told_to_leave() {
    let (executor, gate) = (executor(1), Gate::new());
    let held = occupy(&executor, &gate);
    let (callback, told) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let (inside, tell) = (callback.clone(), told.clone());
    drop(held.on_complete(move |_| {
        inside.pass();
        tell.fetch_add(1, Ordering::SeqCst);
    }));
    gate.open();
    callback.await_arrivals(1);
    assert!(executor.reset(1, Duration::ZERO).expect_err("a callback is held").is_timeout());
    let early = executor.wait_idle(Duration::ZERO);
    let other = executor.clone();
    let waiter = std::thread::spawn(move || other.wait_idle(HANG).map(|()| told.load(Ordering::SeqCst)));
    callback.open();
    assert_eq!(waiter.join().expect("no panic").expect("becomes idle"), 1);
    assert!(matches!(early, Err(Error::Timeout { left: 0, .. })), "{early:?}");
}

#[test]
fn it_waits_for_what_runs_and_for_what_waits() {
    let executor = executor(1);
    let gate = Gate::new();
    let store = Arc::new(());
    let pass = gate.clone();
    let hold = executor.submit(&store, move |_: &(), ()| pass.pass(), true, ()).expect("accepted");
    let deferred = executor.submit(&store, |_: &(), ()| (), true, ()).expect("accepted");
    let follower = deferred.then(|()| ()).expect("accepted");
    match executor.wait_idle(Duration::from_millis(1)) {
        Err(Error::Timeout { left: 3, limit }) => assert_eq!(limit, Duration::from_millis(1)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(executor.wait_idle(Duration::ZERO), Err(Error::Timeout { left: 3, .. })));
    let other = executor.clone();
    let waiter = std::thread::spawn(move || other.wait_idle(HANG).map(|()| other.stats().completed));
    gate.open();
    assert_eq!(waiter.join().expect("no panic").expect("becomes idle"), 3);
    assert!(hold.is_done() && deferred.is_done() && follower.is_done());
}

#[test]
fn the_end_of_the_last_one_is_seen_when_it_is_cancelled_or_runs_elsewhere() {
    let executor = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::CallerRuns).build().expect("sound");
    for _ in 0..50 {
        let late = executor.submit_after(HANG, &Arc::new(()), |_: &(), ()| (), false, ()).expect("accepted");
        let other = executor.clone();
        let waiter = std::thread::spawn(move || other.wait_idle(HANG));
        // One of these is run by this thread, most likely.
        for _ in 0..3 {
            drop(executor.spawn(std::thread::yield_now).expect("accepted"));
        }
        assert!(late.cancel());
        waiter.join().expect("no panic").expect("becomes idle");
    }
}

#[test]
fn what_is_refused_leaves_no_waiter_behind() {
    let executor = Executor::builder().threads(1).queue_capacity(2).on_full(OnFull::Reject).build().expect("sound");
    let store = Arc::new(());
    for _ in 0..200 {
        let other = executor.clone();
        let waiter = std::thread::spawn(move || other.wait_idle(HANG));
        // The first enters the lane, the second is deferred, and a third key's requests are one too
        // many.
        let keys = ["A", "A", "B", "C", "D"];
        match executor.submit_many(&store, |_: &(), _: &str| (), true, ["A", "A"]) {
            Ok(_) | Err(Error::QueueFull) => {}
            Err(other) => panic!("{other:?}"),
        }
        executor.submit_many(&store, |_: &(), _: &str| (), true, keys).expect_err("never fits");
        waiter.join().expect("no panic").expect("becomes idle");
    }
}

#[test]
fn inside_an_operation_it_is_refused_at_once_or_lends_the_thread() {
    let executor = executor(1);
    let inner = executor.clone();
    let refused = executor.spawn(move || inner.wait_idle(None)).expect("accepted").wait(HANG).expect("ends");
    assert!(matches!(refused, Err(Error::WouldDeadlock)), "{refused:?}");

    // On another one, whose operation needs the thread of the first.
    let second = crate::support::executor(1);
    let (first, back) = (executor.clone(), executor.clone());
    let wait = move || {
        drop(second.spawn(move || back.spawn(|| 7)?.wait(None))?);
        second.wait_idle(None).map(|()| second.stats().completed)
    };
    let waits = ends("the thread is lent", move || first.spawn(wait)?.wait(None)).expect("ends");
    assert_eq!(waits.expect("becomes idle"), 1);
}

#[test]
fn an_executor_that_is_busy_again_and_again_is_idle_in_between() {
    let executor = executor(2);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let other = executor.clone();
    let waiter = std::thread::spawn(move || other.wait_idle(HANG));
    gate.open();
    busy.wait(HANG).expect("ends");
    waiter.join().expect("no panic").expect("becomes idle");
}
