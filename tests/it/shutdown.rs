//! Shutdowns and resets that meet cancels, callbacks, series and refused threads: each ends, and
//! nothing is lost.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fulmar::{Error, Executor, OnFull, is_cancelled};

use crate::support::{Gate, HANG, assert_adds_up, ends, eventually, executor, occupy};

/// reset while no thread can be started: `run_stranded` runs operations under the order's lock,
/// which their end takes again. Needs an address space limit, so it runs itself.
#[test]
fn a_reset_that_can_start_no_thread_does_not_hang() {
    if std::env::var_os("IN_LITTLE_SPACE").is_some() {
        let executor = Executor::builder().threads(1).stack_size(512 << 20).build().expect("sound");
        let gate = Gate::new();
        let held = occupy(&executor, &gate);
        let queued = executor.submit(&Arc::new(()), |_: &(), ()| Ok::<_, Error>(7), true, ()).expect("accepted");
        let opener = gate.clone();
        let again = executor.clone();
        let value = ends("reset with no thread to start", move || {
            let _ = again.reset(1, Duration::ZERO);
            opener.open();
            held.wait(None).expect("it ends");
            queued.wait(None).expect("it ends")
        });
        assert_eq!(value, 7);
        return;
    }
    let me = std::env::current_exe().expect("a path");
    let name = "a_reset_that_can_start_no_thread_does_not_hang";
    let script = format!("ulimit -v 900000; exec '{}' --exact shutdown::{name} --nocapture", me.display());
    let output = Command::new("sh").args(["-c", &script]).env("IN_LITTLE_SPACE", "1").output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    // Under a wrong name nothing is run, and that succeeds as well.
    let is_run = said.contains("1 passed");
    assert!(output.status.success() && is_run, "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// A request whose time has come is queued, but the system has refused its thread: a shutdown gives
/// up no retry, or no thread would ever start. Needs an address space limit, so it runs itself.
#[test]
fn a_shutdown_starts_the_thread_that_was_refused_before() {
    const STACK: usize = 500 << 20;
    if std::env::var_os("IN_LITTLE_SPACE").is_some() {
        let executor = Executor::builder().threads(1).stack_size(STACK).build().expect("sound");
        // Beside it there is room for the timer's thread and no other.
        let ballast = Vec::<u8>::with_capacity(STACK);
        let due = executor.submit_after(Duration::from_millis(1), &Arc::new(()), |_: &(), ()| 7, false, ());
        let due = due.expect("accepted");
        eventually("it is queued, and its thread refused", || {
            let stats = executor.stats();
            (stats.queued, stats.threads) == (1, 0)
        });
        assert!(executor.shutdown(Duration::ZERO).expect_err("it is queued").is_timeout());
        drop(ballast);
        let closing = executor.clone();
        ends("a shutdown with a thread to start", move || closing.shutdown(None)).expect("ends");
        assert_eq!(due.try_take().expect("it has ended").expect("it ran"), 7);
        return;
    }
    let me = std::env::current_exe().expect("a path");
    let name = "a_shutdown_starts_the_thread_that_was_refused_before";
    let script = format!("ulimit -v 1500000; exec '{}' --exact shutdown::{name} --nocapture", me.display());
    let output = Command::new("sh").args(["-c", &script]).env("IN_LITTLE_SPACE", "1").output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    // Under a wrong name nothing is run, and that succeeds as well.
    let is_run = said.contains("1 passed");
    assert!(output.status.success() && is_run, "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// A shutdown in a callback, on a worker of a one-thread executor, would wait for its own callback.
#[test]
fn a_shutdown_in_a_callback_is_told() {
    let executor = executor(1);
    let gate = Gate::new();
    let held = occupy(&executor, &gate);
    let inner = executor.clone();
    let (told, tell) = channel();
    held.on_complete(move |_| {
        told.send(inner.shutdown(None).map_err(|error| error.to_string())).expect("the receiver lives")
    });
    gate.open();
    let told = tell.recv_timeout(Duration::from_secs(5));
    assert!(told.is_ok(), "hang: {told:?}");
}

/// A full queue hides the shutdown, with OnFull::Reject alone: `make_room` looks before `admit`
/// asks whether it is closed.
#[test]
fn a_full_executor_that_is_shut_down_says_so() {
    let executor = Executor::builder().threads(1).queue_capacity(1).build().expect("sound");
    let gate = Gate::new();
    drop(occupy(&executor, &gate));
    let queued = executor.spawn(|| ()).expect("accepted");
    executor.shutdown(Duration::ZERO).expect_err("one is held");
    let refused = executor.spawn(|| ());
    gate.open();
    queued.wait(None).expect("it ends");
    assert!(matches!(refused, Err(Error::ShutDown)), "{refused:?}");
}

/// The doc of `await_termination`: "A reset meanwhile ends the wait as well." `Pool::wait_for_end`
/// asks `ended` only once there is no thread at all, so with a thread held, or new ones at work,
/// the wait goes on.
#[test]
fn a_reset_ends_the_wait_for_the_end() {
    let executor = executor(1);
    let gate = Gate::new();
    let held = occupy(&executor, &gate);
    let closing = executor.clone();
    let closer = std::thread::spawn(move || closing.shutdown(None));
    eventually("it is closed", || matches!(executor.spawn(|| ()), Err(Error::ShutDown)));
    assert!(executor.reset(1, Duration::ZERO).expect_err("one is held").is_timeout());
    let start = Instant::now();
    while !closer.is_finished() && start.elapsed() < Duration::from_secs(5) {
        std::thread::yield_now();
    }
    let ended = closer.is_finished();
    gate.open();
    held.wait(None).expect("it ends");
    assert!(ended, "the wait for the end went on after the reset");
}

/// Two submitters meet a system that starts no thread: the one that was accepted meanwhile has
/// no thread to run it.
#[test]
fn whoever_is_accepted_while_a_thread_is_refused_is_run() {
    let builder = Executor::builder().threads(2).stack_size(1 << 47);
    accept_while_threads_are_refused(builder.clone().build().expect("sound so far"));
    // With a bound, whose lock is free while a submitter runs what was accepted.
    let bounded = builder.queue_capacity(8).build().expect("sound so far");
    ends("a bounded queue without a thread", move || accept_while_threads_are_refused(bounded));
}

fn accept_while_threads_are_refused(executor: Executor) {
    let (both, start) = (std::sync::Barrier::new(2), Instant::now());
    let submit = || {
        both.wait();
        let Ok(request) = executor.spawn(|| 1) else { return 0 };
        request.wait(Duration::from_secs(10)).expect("accepted is accepted")
    };
    // Until it has happened often enough: the first to come is always refused.
    let mut accepted = 0;
    for round in 1.. {
        accepted += std::thread::scope(|scope| {
            let other = scope.spawn(submit);
            submit() + other.join().expect("no panic")
        });
        if accepted >= 10 {
            break;
        }
        assert!(
            start.elapsed() < HANG,
            "no request came while a thread was refused, but {accepted} times in {round} rounds"
        );
    }
}

/// A series that was running during a shutdown went on after a reset.
#[test]
fn a_shutdown_ends_a_series_in_the_middle_of_a_run() {
    let executor = executor(1);
    let gate = Gate::new();
    let inside = gate.clone();
    let run = move |_: &(), ()| {
        inside.pass();
        Ok::<_, Error>(())
    };
    let series = executor.submit_every(Duration::from_millis(1), &Arc::new(()), run, false, ()).expect("accepted");
    gate.await_arrivals(1);
    assert!(executor.shutdown(Duration::ZERO).expect_err("one runs").is_timeout());
    assert!(executor.reset(1, Duration::ZERO).expect_err("one runs").is_timeout());
    gate.open();
    eventually("the series ends with its run", || series.is_done());
    executor.shutdown(None).expect("it ends");
    assert_eq!(series.runs(), 1, "{series:?}");
}

/// python/cpython#94440: a shutdown right after a submission and its cancel hung.
#[test]
fn a_shutdown_right_after_a_cancel_ends() {
    ends("submit, cancel, shut down", || {
        for round in 0..2_000 {
            let executor = executor(1 + round % 2);
            executor.spawn(|| ()).expect("accepted").wait(None).expect("it ends");
            let ran = executor.spawn(|| ()).expect("accepted").cancel();
            executor.shutdown(None).expect("it ends");
            assert_eq!(executor.stats().cancelled, u64::from(ran));
        }
    });
}

/// tensorflow/tensorflow#933, #932: operations that submit others during a shutdown were dropped,
/// or stuck.
#[test]
fn a_tree_of_operations_meets_a_shutdown_and_adds_up() {
    fn grow(executor: &Executor, level: u32, ran: &Arc<AtomicUsize>, refused: &Arc<AtomicUsize>) {
        ran.fetch_add(1, Ordering::Relaxed);
        for _ in 0..if level == 0 { 0 } else { 2 } {
            let (inside, ran, below) = (executor.clone(), ran.clone(), refused.clone());
            let grown = executor.spawn(move || grow(&inside, level - 1, &ran, &below));
            refused.fetch_add(usize::from(grown.is_err()), Ordering::Relaxed);
        }
    }
    ends("a tree and a shutdown", || {
        for _ in 0..50 {
            let executor = executor(4);
            let (ran, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            grow(&executor, 10, &ran, &refused);
            executor.shutdown(None).expect("it ends");
            let stats = executor.stats();
            assert_adds_up(&stats);
            assert_eq!(stats.completed as usize + 1, ran.load(Ordering::Relaxed), "{stats}");
        }
    });
}

/// elastic/elasticsearch#104580: with a bounded queue, requests during a shutdown were neither run
/// nor refused.
#[test]
fn what_is_submitted_during_a_shutdown_is_run_or_refused() {
    ends("a bounded queue and a shutdown", || {
        for on_full in [OnFull::Reject, OnFull::CallerRuns, OnFull::Wait(HANG)] {
            for _ in 0..100 {
                let built = Executor::builder().threads(2).queue_capacity(2).on_full(on_full).build();
                let executor = built.expect("sound");
                let ran = Arc::new(AtomicUsize::new(0));
                let submitters: Vec<_> = (0..4)
                    .map(|_| {
                        let (executor, ran, store) = (executor.clone(), ran.clone(), Arc::new(()));
                        std::thread::spawn(move || {
                            let submit = |n: usize| {
                                let ran = ran.clone();
                                let count = move |_: &(), _: &str| {
                                    ran.fetch_add(1, Ordering::Relaxed);
                                    Ok::<_, Error>(())
                                };
                                executor.submit(&store, count, n % 2 == 0, if n % 3 == 0 { "a" } else { "b" }).is_ok()
                            };
                            (0..50).filter(|n| submit(*n)).count()
                        })
                    })
                    .collect();
                executor.shutdown(None).expect("it ends");
                let accepted: usize = submitters.into_iter().map(|thread| thread.join().expect("no panic")).sum();
                executor.await_termination(None).expect("it has ended");
                assert_eq!(ran.load(Ordering::Relaxed), accepted, "{on_full:?}");
                assert_eq!(executor.stats().completed as usize, accepted, "{on_full:?}");
            }
        }
    });
}

/// They are of before the shutdown, although the reset has opened the executor since.
#[test]
fn what_is_submitted_across_a_shutdown_now_and_a_reset_is_refused() {
    let executor = executor(2);
    let (store, shuts) = (Arc::new(()), executor.clone());
    let numbers = (0..4).inspect(move |n| {
        if *n == 2 {
            shuts.shutdown_now();
            shuts.reset(None, HANG).expect("open again");
        }
    });
    let submitted = executor.submit_many(&store, |_: &(), n: i32| n, false, numbers);
    assert!(matches!(submitted, Err(Error::ShutDown)), "{submitted:?}");
    let after = executor.submit_many(&store, |_: &(), n: i32| (n, is_cancelled()), false, [4]).expect("accepted");
    assert_eq!(after[0].wait(HANG).expect("it runs"), (4, false));
    assert_eq!(executor.stats().submitted, 1);
    assert_adds_up(&executor.stats());
}
