//! Hooks of a cancel: called once, by who cancels, and never after the operation's end.

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use fulmar::{Executor, OnFull, Status, is_cancelled, on_cancel};

use crate::support::{Gate, HANG, executor};

#[test]
fn a_cancel_calls_the_hooks_of_what_runs_once_and_the_latest_first() {
    let executor = executor(1);
    let (entered, hooks) = mpsc::channel();
    let (told, tell) = mpsc::channel();
    let gate = Gate::new();
    let hold = gate.clone();
    let request = executor.spawn(move || {
        for name in ["first", "second"] {
            let told = told.clone();
            on_cancel(move || told.send((name, std::thread::current().id())).expect("the test listens"));
        }
        entered.send(()).expect("the test listens");
        hold.pass();
        is_cancelled()
    });
    let request = request.expect("accepted");
    hooks.recv_timeout(HANG).expect("the operation runs");
    assert!(!request.cancel(), "it runs");
    assert!(!request.cancel(), "once more");
    let here = std::thread::current().id();
    assert_eq!([tell.try_recv(), tell.try_recv()], [Ok(("second", here)), Ok(("first", here))]);
    assert!(tell.try_recv().is_err(), "once each");
    gate.open();
    assert!(request.wait(HANG).expect("it ends"));
}

#[test]
fn a_blocked_read_ends_with_the_cancel() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let (connected, connects) = mpsc::channel();
    let request = executor(1).spawn(move || {
        let mut socket = TcpStream::connect(address).expect("it listens");
        let other = socket.try_clone().expect("a second handle");
        on_cancel(move || other.shutdown(Shutdown::Both).expect("it is connected"));
        connected.send(()).expect("the test listens");
        socket.read(&mut [0])
    });
    let request = request.expect("accepted");
    connects.recv_timeout(HANG).expect("it connects");
    request.cancel();
    assert_eq!(request.wait(HANG).expect("it ends").expect("the stream's end"), 0);
}

#[test]
fn a_hook_is_dropped_unheard_with_its_operation_or_when_taken_back() {
    let executor = executor(1);
    let alive = Arc::new(());
    let (mine, gate) = (alive.clone(), Gate::new());
    let hold = gate.clone();
    let request = executor.spawn(move || {
        let (kept, taken) = (mine.clone(), mine);
        on_cancel(move || panic!("called after the end: {kept:?}"));
        assert!(on_cancel(move || panic!("called although taken back: {taken:?}")).take_back());
        hold.pass();
    });
    let request = request.expect("accepted");
    gate.await_arrivals(1);
    assert_eq!(Arc::strong_count(&alive), 2, "one was taken back");
    gate.open();
    request.wait(HANG).expect("it ends");
    assert_eq!(Arc::strong_count(&alive), 1, "and the other has gone with the operation");
    assert!(!request.cancel());
    // Outside of an operation there is nothing to cancel.
    let outside = alive.clone();
    assert!(on_cancel(move || panic!("called: {outside:?}")).take_back());
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn a_hook_that_comes_after_the_cancel_is_called_at_once() {
    let gate = Gate::new();
    let hold = gate.clone();
    let request = executor(1).spawn(move || {
        hold.pass();
        let (told, tell) = mpsc::channel();
        let hook = on_cancel(move || told.send(std::thread::current().id()).expect("it listens"));
        (tell.try_recv() == Ok(std::thread::current().id()), hook.take_back())
    });
    let request = request.expect("accepted");
    gate.await_arrivals(1);
    request.cancel();
    gate.open();
    assert_eq!(request.wait(HANG).expect("it ends"), (true, false));
}

#[test]
fn an_operation_ends_after_the_hook_that_is_being_called() {
    let executor = executor(1);
    let (hook, end) = (Gate::new(), Gate::new());
    let (in_hook, hold) = (hook.clone(), end.clone());
    let over = Arc::new(AtomicUsize::new(0));
    let counted = over.clone();
    let request = executor.spawn(move || {
        on_cancel(move || {
            in_hook.pass();
            counted.fetch_add(1, Ordering::SeqCst);
        });
        hold.pass();
    });
    let request = Arc::new(request.expect("accepted"));
    end.await_arrivals(1);
    let cancelled = request.clone();
    let canceller = std::thread::spawn(move || cancelled.cancel());
    hook.await_arrivals(1);
    end.open();
    assert!(request.wait(std::time::Duration::from_millis(20)).expect_err("it waits for its hook").is_timeout());
    hook.open();
    request.wait(HANG).expect("it ends");
    assert_eq!(over.load(Ordering::SeqCst), 1, "before the end");
    assert!(!canceller.join().expect("no panic"));
}

#[test]
fn a_hook_that_panics_costs_nobody_anything() {
    let executor = executor(1);
    let gate = Gate::new();
    let hold = gate.clone();
    let request = executor.spawn(move || {
        on_cancel(|| panic!("in a test, on purpose"));
        hold.pass();
        7
    });
    let request = request.expect("accepted");
    gate.await_arrivals(1);
    assert!(!request.cancel());
    gate.open();
    assert_eq!(request.wait(HANG).expect("it ends"), 7);
    assert_eq!(executor.spawn(|| 8).expect("accepted").wait(HANG).expect("it ends"), 8);
}

#[test]
fn a_hook_belongs_to_the_innermost_operation_on_its_thread() {
    let executor = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::CallerRuns).build();
    let executor = executor.expect("an executor");
    let called = Arc::new(AtomicUsize::new(0));
    let (inner, count, gate) = (executor.clone(), called.clone(), Gate::new());
    let hold = gate.clone();
    let outer = executor.spawn(move || {
        let _queued = inner.spawn(|| ()).expect("accepted");
        let here = std::thread::current().id();
        let nested = inner.spawn(move || {
            on_cancel(move || {
                count.fetch_add(1, Ordering::SeqCst);
            });
            std::thread::current().id() == here
        });
        assert_eq!(nested.expect("accepted").status(), Status::Completed);
        hold.pass();
    });
    let outer = outer.expect("accepted");
    gate.await_arrivals(1);
    outer.cancel();
    gate.open();
    outer.wait(HANG).expect("it ends");
    assert_eq!(called.load(Ordering::SeqCst), 0, "that operation had ended");
}

#[test]
fn cancels_and_ends_that_race_call_each_hook_at_most_once_and_in_time() {
    let executor = executor(2);
    let mut calls = Vec::new();
    for _ in 0..2_000 {
        let (ended, called) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (late, count) = (ended.clone(), called.clone());
        let request = executor.spawn(move || {
            on_cancel(move || {
                count.fetch_add(1 + 100 * late.load(Ordering::SeqCst), Ordering::SeqCst);
            });
            std::thread::yield_now();
        });
        let request = request.expect("accepted");
        while matches!(request.status(), Status::Queued) {
            std::thread::yield_now();
        }
        let other = executor.spawn(|| ()).expect("accepted");
        request.cancel();
        request.wait(HANG).expect("it had started");
        ended.store(1, Ordering::SeqCst);
        other.wait(HANG).expect("it ends");
        calls.push(called);
    }
    executor.shutdown(HANG).expect("ends");
    let calls: Vec<usize> = calls.iter().map(|called| called.load(Ordering::SeqCst)).collect();
    assert!(calls.iter().all(|called| *called <= 1), "twice, or after the end: {calls:?}");
}

#[cfg(feature = "sqlite")]
#[test]
fn a_statement_of_sqlite_ends_with_the_cancel_and_the_connection_goes_on() {
    use fulmar::tasks::interrupt_on_cancel;
    use fulmar::tasks::rusqlite::{Connection, ErrorCode};

    let executor = executor(1);
    let (about, begins) = mpsc::channel();
    // Before the statement's first step, or after it: a cancel at any moment arrives.
    for _ in 0..20 {
        let about = about.clone();
        let request = executor.spawn(move || {
            let db = Connection::open_in_memory().expect("memory");
            interrupt_on_cancel(&db);
            about.send(()).expect("the test listens");
            let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
            let refused = db.query_row(endless, [], |row| row.get::<_, i64>(0)).expect_err("it has no end");
            (refused.sqlite_error_code(), db)
        });
        let request = request.expect("accepted");
        begins.recv_timeout(HANG).expect("it begins");
        assert!(!request.cancel(), "it runs");
        let (code, db) = request.wait(HANG).expect("it ends");
        assert_eq!(code, Some(ErrorCode::OperationInterrupted));
        // The cancel was of that request, and the connection is as good as before.
        let seven = executor.spawn(move || db.query_row("SELECT 7", [], |row| row.get::<_, i64>(0))).expect("accepted");
        assert_eq!(seven.wait(HANG).expect("it ends").expect("a row"), 7);
    }
}
