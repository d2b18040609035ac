//! Requests that wait for their time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use fulmar::{Error, Executor, Status};

use crate::support::{Gate, HANG, assert_adds_up, eventually, executor, occupy};

const HOUR: Duration = Duration::from_secs(3_600);

fn nothing(_: &(), (): ()) -> Result<(), Error> {
    Ok(())
}

#[test]
fn a_request_starts_after_its_delay_and_not_before() {
    let executor = executor(1);
    let delay = Duration::from_millis(20);
    let submitted = Instant::now();
    let started = |_: &(), (): ()| Ok::<_, Error>(Instant::now());
    let request = executor.submit_after(delay, &Arc::new(()), started, false, ()).expect("accepted");
    assert_eq!(request.status(), Status::Deferred);
    assert_eq!(executor.stats().deferred, 1);
    let started = request.wait(None).expect("its time comes");
    assert!(started - submitted >= delay, "{:?} is early", started - submitted);
    assert!(request.schedule_delay().expect("it started") >= delay, "counted from the submission");
}

#[test]
#[cfg(target_pointer_width = "64")]
fn where_the_timer_gets_no_thread_nothing_is_accepted() {
    let executor = Executor::builder().threads(1).stack_size(1 << 60).build().expect("the system decides");
    let (store, both) = (Arc::new(()), std::sync::Barrier::new(2));
    let submit_all = || {
        let submit = |_| {
            both.wait();
            executor.submit_after(Duration::ZERO, &store, nothing, false, ()).map(drop)
        };
        (0..2_000).map(submit).filter(Result::is_ok).count()
    };
    let accepted: usize = std::thread::scope(|scope| {
        let submitters = [scope.spawn(submit_all), scope.spawn(submit_all)];
        submitters.into_iter().map(|submitter| submitter.join().expect("no panic")).sum()
    });
    assert_eq!(accepted, 0, "accepted, with nobody to fire them");
    assert_eq!(executor.stats(), fulmar::Stats::default(), "nothing was counted");
    executor.shutdown(HANG).expect("nothing is left to wait for");
}

#[test]
fn a_cancelled_one_is_gone_at_once() {
    let executor = executor(1);
    let held = Arc::new(());
    let inside = held.clone();
    let operation = move |_: &(), (): ()| {
        drop(inside);
        Ok::<_, Error>(())
    };
    let request = executor.submit_after(HOUR, &Arc::new(()), operation, true, ()).expect("accepted");
    assert!(request.wait(Duration::from_millis(1)).expect_err("an hour is long").is_timeout());
    assert!(request.cancel());
    assert_eq!(Arc::strong_count(&held), 1, "the operation is dropped with the cancel");
    assert!(matches!(request.wait(None), Err(Error::Cancelled)));
    executor.shutdown(None).expect("nothing is left to wait for");
    assert_eq!(executor.stats().cancelled, 1);
}

#[test]
fn a_delayed_request_takes_its_place_in_the_order_when_its_time_has_come() {
    let mut delay = Duration::from_millis(5);
    while !it_takes_its_place_after(delay) {
        delay *= 2;
    }
}

/// Says whether the time had not come yet when the other request was submitted: on a busy machine
/// that may take a while.
fn it_takes_its_place_after(delay: Duration) -> bool {
    let executor = executor(2);
    let (store, gate, log) = (Arc::new(()), Gate::new(), Arc::new(Mutex::new(Vec::new())));
    let submit = |name: &'static str, delay: Option<Duration>, hold: bool| {
        let (gate, log) = (gate.clone(), log.clone());
        let operation = move |_: &(), _key: &'static str| {
            if hold {
                gate.pass();
            }
            log.lock().expect("no panic").push(name);
            Ok::<_, Error>(())
        };
        match delay {
            None => executor.submit(&store, operation, true, "AAPL"),
            Some(delay) => executor.submit_after(delay, &store, operation, true, "AAPL"),
        }
        .expect("accepted")
    };
    let delayed = submit("delayed", Some(delay), false);
    let running = submit("running", None, true);
    gate.await_arrivals(1);
    if !log.lock().expect("no panic").is_empty() {
        gate.open();
        return false;
    }
    // A sentinel of the same delay on another key tells that the time has come.
    let sentinel = executor.submit_after(delay, &store, |_: &(), _: &str| Ok::<_, Error>(()), true, "X");
    sentinel.expect("accepted").wait(None).expect("its time comes");
    assert_eq!(delayed.status(), Status::Deferred, "its time has come, but not its turn");
    let last = submit("last", None, false);
    gate.open();
    last.wait(None).expect("it ends");
    assert_eq!(*log.lock().expect("no panic"), ["running", "delayed", "last"]);
    drop(running);
    true
}

#[test]
fn a_worker_may_wait_for_a_delayed_request_on_a_single_thread() {
    let executor = executor(1);
    let inner = executor.clone();
    let outer = executor.spawn(move || {
        let store = Arc::new(());
        let delayed =
            inner.submit_after(Duration::from_millis(2), &store, |_: &(), _: &str| Ok::<_, Error>(7), true, "k")?;
        // Queued ahead of it on its key: has to be run first, by this very thread.
        let ahead = inner.submit(&store, |_: &(), _: &str| Ok::<_, Error>(6), true, "k")?;
        Ok::<_, Error>((delayed.wait(None)?, ahead.wait(None)?))
    });
    assert_eq!(outer.expect("accepted").wait(None).expect("no deadlock").expect("both ran"), (7, 6));
}

#[test]
fn a_shutdown_waits_for_what_was_accepted_and_says_how_much_is_left() {
    let executor = executor(1);
    let store = Arc::new(());
    let soon = executor.submit_after(Duration::from_millis(30), &store, nothing, false, ()).expect("accepted");
    let late = executor.submit_after(HOUR, &store, nothing, false, ()).expect("accepted");
    let left = executor.shutdown(Duration::from_millis(1)).expect_err("two are left");
    assert!(matches!(left, Error::Timeout { left: 2, .. }), "{left:?}");
    assert!(matches!(executor.submit_after(HOUR, &store, nothing, false, ()), Err(Error::ShutDown)));
    soon.wait(None).expect("accepted is accepted");
    assert!(late.cancel());
    executor.await_termination(None).expect("nothing is left");
    executor.reset(1, None).expect("open again");
    executor.submit_after(Duration::ZERO, &store, nothing, false, ()).expect("accepted").wait(None).expect("it ends");
}

#[test]
fn the_last_handle_may_go_before_the_time_comes() {
    let executor = executor(1);
    let request = executor.submit_after(Duration::from_millis(5), &Arc::new(()), nothing, false, ()).expect("accepted");
    drop(executor);
    request.wait(None).expect("accepted is accepted");
}

#[test]
fn a_delay_beyond_the_clock_and_a_period_of_zero_are_refused_by_name() {
    let executor = executor(1);
    let store = Arc::new(());
    let delay = executor.submit_after(Duration::MAX, &store, nothing, false, ()).expect_err("no such time");
    assert!(delay.to_string().contains("beyond the clock"), "{delay}");
    let period = executor.submit_every(Duration::ZERO, &store, nothing, false, ()).expect_err("no period");
    assert!(period.to_string().contains("period of zero"), "{period}");
    assert_eq!(executor.stats().submitted, 0);
}

#[test]
fn periodic_work_never_overlaps_and_counts_what_it_misses() {
    let executor = executor(4);
    let period = Duration::from_millis(1);
    let (inside, runs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (tick, ticks) = mpsc::channel();
    let operation = {
        let (inside, runs) = (inside.clone(), runs.clone());
        move |_: &(), (): ()| {
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two runs at once");
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                // The first one outlasts twenty periods.
                let start = Instant::now();
                eventually("twenty periods pass", || start.elapsed() > 20 * period);
            }
            inside.fetch_sub(1, Ordering::SeqCst);
            tick.send(())
        }
    };
    // Accessors without a key: only the series keeps them apart.
    let series = executor.submit_every(period, &Arc::new(()), operation, false, ()).expect("accepted");
    for _ in 0..3 {
        ticks.recv().expect("it runs");
    }
    assert!(series.cancel());
    assert!(!series.cancel(), "once");
    assert!(series.is_done());
    executor.shutdown(None).expect("it ends");
    assert!(series.missed() >= 19, "{series:?}");
    assert_eq!(series.failed(), 0, "{series:?}");
    assert!(series.runs() >= 3, "{series:?}");
    assert_adds_up(&executor.stats());
}

#[test]
fn errors_and_panics_do_not_end_a_series_and_a_shutdown_does() {
    let executor = executor(1);
    let (tick, ticks) = mpsc::channel();
    let runs = Arc::new(AtomicUsize::new(0));
    let operation = move |_: &(), (): ()| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        tick.send(run).expect("the test listens");
        match run {
            0 => Err("an error"),
            1 => panic!("a panic of a test, on purpose"),
            _ => Ok(()),
        }
    };
    let series = executor.submit_every(Duration::from_millis(1), &Arc::new(()), operation, true, ()).expect("accepted");
    while ticks.recv().expect("it goes on") < 3 {}
    assert_eq!(series.failed(), 2, "{series:?}");
    executor.shutdown(None).expect("a series does not keep an executor open");
    assert!(series.is_done());
    assert!(!series.cancel());
}

#[test]
fn a_cancelled_series_takes_its_waiting_run_along() {
    let executor = executor(1);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let (held, operation) = held();
    let series =
        executor.submit_every(Duration::from_millis(1), &Arc::new(()), operation, false, ()).expect("accepted");
    eventually("the first run is queued", || executor.stats().queued == 1);
    assert!(series.cancel());
    // By the timer's thread, if that was still about to note the run when it was cancelled.
    eventually("the run is taken out", || executor.stats().cancelled == 1);
    eventually("the operation is dropped with it", || Arc::strong_count(&held) == 1);
    gate.open();
    busy.wait(None).expect("it ends");
    executor.shutdown(None).expect("nothing is left");
    assert_eq!((series.runs(), series.failed()), (1, 0), "a cancelled run isn't a failed one");
    assert_eq!(executor.stats().completed, 1, "only what was busy");
}

#[test]
fn a_series_that_is_cancelled_while_it_waits_or_runs_keeps_nothing_of_its_operation() {
    let executor = executor(1);
    let (held_by_waiting, operation) = held();
    let waiting = executor.submit_every(HOUR, &Arc::new(()), operation, false, ()).expect("accepted");
    assert!(waiting.cancel());
    assert_eq!(Arc::strong_count(&held_by_waiting), 1, "its time is an hour away");

    let (gate, (held_by_running, operation)) = (Gate::new(), held());
    let pass = gate.clone();
    let operation = move |store: &(), (): ()| {
        pass.pass();
        operation(store, ())
    };
    let running =
        executor.submit_every(Duration::from_millis(1), &Arc::new(()), operation, false, ()).expect("accepted");
    gate.await_arrivals(1);
    assert!(running.cancel());
    gate.open();
    executor.shutdown(None).expect("the run ends");
    assert_eq!(Arc::strong_count(&held_by_running), 1, "the run has ended");
}

/// An operation, and something that it captures.
fn held() -> (Arc<()>, impl Fn(&(), ()) -> Result<(), Error> + Clone + Send + 'static) {
    let held = Arc::new(());
    let inside = held.clone();
    let operation = move |_: &(), (): ()| {
        let _ = &inside;
        Ok(())
    };
    (held, operation)
}

#[test]
fn a_series_does_not_keep_a_dropped_executor_alive() {
    let executor: Executor = executor(1);
    let (held, operation) = held();
    let series = executor.submit_every(HOUR, &Arc::new(()), operation, false, ()).expect("accepted");
    drop(executor);
    assert!(series.is_done());
    assert_eq!(Arc::strong_count(&held), 1, "the operation is dropped now, not with the last handle of the series");
}
