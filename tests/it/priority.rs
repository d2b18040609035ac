//! Priorities: who starts first is a matter of times, and no request starves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fulmar::{AsyncRequest, Error, Executor, OnFull};

use crate::support::{Gate, HANG, assert_adds_up, ends, executor, occupy};

const HOUR: Duration = Duration::from_secs(3_600);

type Log = Arc<Mutex<Vec<usize>>>;

fn note(log: &Log, n: usize) -> impl FnOnce() + Send + 'static {
    let log = log.clone();
    move || log.lock().expect("no panic").push(n)
}

/// Submits, by hours ahead of the others, while the one thread is busy. Gives the order of starts.
fn order_of_starts(hours: &[i32]) -> Vec<usize> {
    let (executor, gate, log) = (executor(1), Gate::new(), Log::default());
    let busy = occupy(&executor, &gate);
    let requests: Vec<AsyncRequest<()>> = hours
        .iter()
        .enumerate()
        .map(|(n, &hours)| {
            let (by, run) = (HOUR * hours.unsigned_abs(), note(&log, n));
            let submitted = match hours {
                0 => executor.spawn(run),
                1.. => executor.ahead(by).spawn(run),
                _ => executor.behind(by).spawn(run),
            };
            submitted.expect("accepted")
        })
        .collect();
    gate.open();
    executor.wait_requests(&requests, HANG).expect("all end");
    busy.wait(HANG).expect("ends");
    assert_adds_up(&executor.stats());
    Arc::try_unwrap(log)
        .map_or_else(|log| log.lock().expect("no panic").clone(), |log| log.into_inner().expect("no panic"))
}

#[test]
fn those_ahead_start_first_and_those_behind_last() {
    assert_eq!(order_of_starts(&[-1, 0, 0, 2, 1, 2]), [3, 5, 4, 1, 2, 0]);
}

/// Submissions take less than an hour: so the order is that of hours, then of submissions.
#[test]
fn requests_start_in_the_order_of_their_times() {
    for case in 0..3_usize.pow(5) {
        let hours: Vec<i32> = (0..5).map(|digit| (case / 3_usize.pow(digit) % 3) as i32 - 1).collect();
        let mut expected: Vec<usize> = (0..hours.len()).collect();
        expected.sort_by_key(|&n| -hours[n]);
        assert_eq!(order_of_starts(&hours), expected, "{hours:?}");
    }
}

/// Each request with a head start submits the next one until the one without has run: if it
/// starved, there would be no end.
#[test]
fn what_has_no_head_start_is_not_starved_by_those_that_have() {
    fn next(executor: Executor, log: Log) {
        log.lock().expect("no panic").push(1);
        if !log.lock().expect("no panic").contains(&0) {
            let again = executor.clone();
            let ahead = executor.ahead(Duration::from_millis(10));
            drop(ahead.spawn(move || next(again, log)).expect("accepted"));
        }
    }
    let (executor, gate, log) = (executor(1), Gate::new(), Log::default());
    let busy = occupy(&executor, &gate);
    let plain = executor.spawn(note(&log, 0)).expect("accepted");
    let (again, chained) = (executor.clone(), log.clone());
    drop(executor.ahead(HOUR).spawn(move || next(again, chained)).expect("accepted"));
    gate.open();
    plain.wait(HANG).expect("its turn comes");
    executor.wait_idle(HANG).expect("and so does the end");
    assert_eq!(log.lock().expect("no panic")[0], 1, "the first one was an hour ahead");
    busy.wait(HANG).expect("ends");
}

#[test]
fn on_a_key_the_order_of_submissions_stays() {
    let (executor, gate) = (executor(1), Gate::new());
    let busy = occupy(&executor, &gate);
    let store = Log::default();
    let add = |log: &Mutex<Vec<usize>>, _: &str, n: usize| log.lock().expect("no panic").push(n);
    let behind = executor.behind(HOUR).submit_write(&store, add, ("A", 0)).expect("accepted");
    let other = executor.submit_write(&store, add, ("B", 1)).expect("accepted");
    let ahead = executor.ahead(HOUR).submit_write(&store, add, ("A", 2)).expect("accepted");
    gate.open();
    executor.wait_requests(&[behind, other, ahead], HANG).expect("all end");
    // Once it is let in, the one ahead keeps its head start, but there is nothing left to overtake.
    assert_eq!(*store.lock().expect("no panic"), [1, 0, 2]);
    busy.wait(HANG).expect("ends");
}

#[test]
fn what_was_held_back_by_its_key_still_has_its_head_start() {
    let (executor, gate, held) = (executor(1), Gate::new(), Gate::new());
    let store: Log = Log::default();
    let pass = held.clone();
    let first =
        executor.submit_write(&store, move |_: &Mutex<Vec<usize>>, _: &str| pass.pass(), "A").expect("accepted");
    held.await_arrivals(1);
    let push = |log: &Mutex<Vec<usize>>, _: &str, n: usize| log.lock().expect("no panic").push(n);
    let ahead = executor.ahead(HOUR).submit_write(&store, push, ("A", 1)).expect("accepted");
    let plain = executor.submit_write(&store, push, ("B", 2)).expect("accepted");
    gate.open();
    held.open();
    executor.wait_requests(&[ahead, plain], HANG).expect("both end");
    assert_eq!(*store.lock().expect("no panic"), [1, 2]);
    first.wait(HANG).expect("ends");
}

/// A request is queued when its key lets it in. What was submitted long ago and is let in later
/// passes nothing that is queued.
#[test]
fn a_backlog_on_a_key_does_not_pass_what_is_ahead() {
    let (executor, gate, store) = (executor(1), Gate::new(), Log::default());
    let busy = occupy(&executor, &gate);
    let push = |log: &Mutex<Vec<usize>>, _: &str, n: usize| log.lock().expect("no panic").push(n);
    let backlog = [0, 1, 2].map(|n| executor.submit_write(&store, push, ("A", n)).expect("accepted"));
    let ahead = executor.ahead(Duration::from_nanos(1)).spawn(note(&store, 9)).expect("accepted");
    gate.open();
    executor.wait_requests(&backlog, HANG).expect("all end");
    executor.wait_requests(&[ahead, busy], HANG).expect("both end");
    assert_eq!(*store.lock().expect("no panic"), [0, 9, 1, 2]);
}

#[test]
fn a_free_thread_takes_what_is_behind_at_once() {
    let executor = executor(1);
    assert_eq!(executor.behind(Duration::MAX).spawn(|| 1).expect("accepted").wait(HANG).expect("ends"), 1);
    assert_eq!(executor.ahead(Duration::MAX).spawn(|| 2).expect("accepted").wait(HANG).expect("ends"), 2);
}

#[test]
fn what_an_operation_waits_for_is_run_before_what_is_queued() {
    let (executor, log) = (executor(1), Log::default());
    let (inside, inner) = (executor.clone(), log.clone());
    let outer = executor.spawn(move || {
        let behind = inside.behind(HOUR).spawn(note(&inner, 0)).expect("accepted");
        let plain = inside.spawn(note(&inner, 1)).expect("accepted");
        behind.wait(HANG).expect("ends");
        plain
    });
    outer.expect("accepted").wait(HANG).expect("no deadlock").wait(HANG).expect("ends");
    assert_eq!(*log.lock().expect("no panic"), [0, 1]);
}

#[test]
fn every_thread_reaches_all_of_them_whatever_the_others_wait_for() {
    let (executor, gate) = (executor(2), Gate::new());
    let busy = occupy(&executor, &gate);
    let requests: Vec<_> = (0..300)
        .map(|n| match n % 3 {
            0 => executor.ahead(HOUR).spawn(move || n).expect("accepted"),
            1 => executor.behind(HOUR).spawn(move || n).expect("accepted"),
            _ => executor.spawn(move || n).expect("accepted"),
        })
        .collect();
    assert_eq!(executor.wait_requests(&requests, HANG).expect("one thread is free").len(), 300);
    gate.open();
    busy.wait(HANG).expect("ends");
}

#[test]
fn a_reset_takes_them_along_and_a_shutdown_now_takes_them_out() {
    let (executor, gate, log) = (executor(1), Gate::new(), Log::default());
    let busy = occupy(&executor, &gate);
    let kept = [1, 0].map(|n| {
        let way = if n == 0 { executor.ahead(HOUR) } else { executor.behind(HOUR) };
        way.spawn(note(&log, n)).expect("accepted")
    });
    assert!(executor.reset(1, Duration::ZERO).expect_err("the old thread is busy").is_timeout());
    executor.wait_requests(&kept, HANG).expect("the new thread has them");
    assert_eq!(*log.lock().expect("no panic"), [0, 1]);

    let again = Gate::new();
    let busy_again = occupy(&executor, &again);
    let ahead = executor.ahead(HOUR).spawn(|| ()).expect("accepted");
    let behind = executor.behind(HOUR).spawn(|| ()).expect("accepted");
    assert_eq!(executor.shutdown_now(), 2);
    assert!([&ahead, &behind].iter().all(|request| matches!(request.wait(HANG), Err(Error::Cancelled))));
    gate.open();
    again.open();
    ends("the shutdown", {
        let executor = executor.clone();
        move || executor.await_termination(None)
    })
    .expect("ends");
    assert_adds_up(&executor.stats());
    busy.wait(HANG).expect("ends");
    busy_again.wait(HANG).expect("ends");
}

#[test]
fn a_full_queue_refuses_them_as_all_others() {
    let executor = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::Reject).build().expect("sound");
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let queued = executor.behind(HOUR).spawn(|| ()).expect("there is room for one");
    assert!(matches!(executor.ahead(HOUR).spawn(|| ()), Err(Error::QueueFull)));
    assert!(queued.cancel());
    let ahead = executor.ahead(HOUR).spawn(|| ()).expect("its room is free again");
    gate.open();
    ahead.wait(HANG).expect("ends");
    busy.wait(HANG).expect("ends");
}
