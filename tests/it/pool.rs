//! The pool from outside: resize, reset, shutdown, thread names, hooks, a bounded queue, and
//! threads that don't start.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use fulmar::{AsyncRequest, Builder, Error, Executor, OnFull, Result, Status};

use crate::support::{Gate, HANG, assert_adds_up, eventually, executor, occupy};

fn name() -> String {
    thread::current().name().expect("the pool's threads have one").to_owned()
}

/// The names of `threads` threads that work at the same time.
fn names(executor: &Executor, threads: usize) -> Vec<String> {
    let gate = Gate::new();
    let requests: Vec<_> = (0..threads)
        .map(|_| {
            let gate = gate.clone();
            executor.spawn(move || {
                gate.pass();
                name()
            })
        })
        .collect::<Result<_>>()
        .expect("accepted");
    gate.await_arrivals(threads);
    gate.open();
    let names = executor.wait_requests(&requests, HANG).expect("all end");
    names.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

fn add(count: &Arc<AtomicUsize>) -> impl Fn() + Send + Sync + 'static {
    let count = count.clone();
    move || {
        count.fetch_add(1, Ordering::SeqCst);
    }
}

// Resize.

#[test]
fn names_take_the_lowest_free_number() {
    let executor = Executor::builder().threads(3).thread_name("loader").build().expect("sound");
    assert_eq!(names(&executor, 3), ["loader-0", "loader-1", "loader-2"]);
    executor.resize(1).expect("live");
    eventually("two threads end", || executor.stats().threads == 1);
    let survivor = executor.spawn(name).expect("accepted").wait(HANG).expect("a name");
    executor.resize(3).expect("live");
    let after = names(&executor, 3);
    assert!(after.contains(&survivor), "{survivor} lived on: {after:?}");
    assert_eq!(after.len(), 3, "no name twice at a time");
    // An old thread at work keeps its number, and the new one takes the next.
    let gate = Gate::new();
    executor.reset(1, HANG).expect("all are idle");
    let inside = gate.clone();
    let old = executor.spawn(move || {
        inside.pass();
        name()
    });
    gate.await_arrivals(1);
    assert!(executor.reset(2, Duration::ZERO).expect_err("one is held").is_timeout());
    assert_eq!(names(&executor, 2), ["loader-1", "loader-2"]);
    gate.open();
    assert_eq!(old.expect("accepted").wait(HANG).expect("a name"), "loader-0");
    executor.reset(None, HANG).expect("the old ones end");
    assert_eq!(names(&executor, 2), ["loader-0", "loader-1"]);
}

#[test]
fn a_size_that_makes_no_sense_changes_nothing() {
    let executor = executor(2);
    for threads in [0, 65_537, usize::MAX] {
        assert!(matches!(executor.resize(threads), Err(Error::Invalid(_))), "{threads}");
        let reset = executor.reset(threads, HANG);
        assert!(matches!(reset, Err(Error::Invalid(_))), "{threads}");
        assert!(matches!(Executor::builder().threads(threads).build(), Err(Error::Invalid(_))), "{threads}");
        assert_eq!(executor.threads(), 2);
    }
    executor.shutdown(HANG).expect("nothing to end");
    assert!(matches!(executor.reset(0, HANG), Err(Error::Invalid(_))));
    assert!(matches!(executor.spawn(|| ()), Err(Error::ShutDown)), "a refused reset doesn't open it");
}

/// Jobs so short that the one thread takes many of them at once, and then one that holds it.
fn batch_behind_a_held_one(executor: &Executor, gate: &Gate) -> Vec<AsyncRequest<usize>> {
    let (first, arrived) = (Gate::new(), gate.arrivals());
    drop(occupy(executor, &first));
    let quick = |n: usize| executor.spawn(move || n).expect("accepted");
    let mut requests: Vec<_> = (0..4).map(quick).collect();
    let held = gate.clone();
    requests.push(
        executor
            .spawn(move || {
                held.pass();
                4
            })
            .expect("accepted"),
    );
    requests.extend((5..200).map(quick));
    first.open();
    gate.await_arrivals(arrived + 1);
    requests
}

#[test]
fn what_a_held_thread_took_is_open_to_the_others() {
    for how in 0..3 {
        let (executor, gate) = (executor(1), Gate::new());
        let requests = batch_behind_a_held_one(&executor, &gate);
        match how {
            0 => executor.resize(2).expect("live"),
            1 => assert!(executor.reset(1, Duration::ZERO).expect_err("one is held").is_timeout()),
            _ => {
                // A second thread is held as well, and the first one dismissed or not: one of them
                // is let go.
                executor.resize(2).expect("live");
                executor.resize(1).expect("live");
                executor.reset(1, Duration::ZERO).expect_err("one is held");
            }
        }
        for (index, request) in requests.iter().enumerate().filter(|(index, _)| *index != 4) {
            assert_eq!(request.wait(HANG).expect("nobody is stuck behind the held one"), index);
        }
        assert_eq!(requests[4].status(), Status::Running);
        gate.open();
        assert_eq!(requests[4].wait(HANG).expect("it ends"), 4);
        executor.shutdown(HANG).expect("ends");
    }
}

#[test]
fn a_resize_of_a_shut_down_executor_waits_for_the_reset() {
    let executor = executor(1);
    executor.shutdown(HANG).expect("nothing to end");
    executor.resize(2).expect("a sound number");
    assert!(matches!(executor.spawn(|| ()), Err(Error::ShutDown)));
    executor.reset(None, HANG).expect("open again");
    assert_eq!(names(&executor, 2), ["fulmar-0", "fulmar-1"]);
}

// Hooks.

#[test]
fn every_thread_that_starts_is_told_of_its_start_and_its_end() {
    let (started, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let builder = Executor::builder().threads(4).on_thread_start(add(&started)).on_thread_stop(add(&stopped));
    let executor = builder.build().expect("sound");
    assert_eq!(started.load(Ordering::SeqCst), 0, "threads start with the first submission");
    names(&executor, 4);
    executor.resize(2).expect("live");
    eventually("two end", || stopped.load(Ordering::SeqCst) == 2);
    executor.resize(3).expect("live");
    names(&executor, 3);
    executor.reset(2, HANG).expect("three end");
    names(&executor, 2);
    executor.shutdown(HANG).expect("two end");
    assert_eq!((started.load(Ordering::SeqCst), stopped.load(Ordering::SeqCst)), (7, 7));
}

#[test]
fn a_hook_that_panics_costs_nobody_anything() {
    let hook = || panic!("a panic of a test, on purpose");
    let builder = Executor::builder().threads(2).on_thread_start(hook).on_thread_stop(hook);
    let executor = builder.build().expect("sound");
    assert_eq!(names(&executor, 2).len(), 2);
    executor.reset(1, HANG).expect("both end");
    assert_eq!(executor.spawn(|| 1).expect("accepted").wait(HANG).expect("it runs"), 1);
    executor.shutdown(HANG).expect("it ends");
    assert_eq!(executor.stats().threads, 0);
}

#[test]
fn a_slow_hook_keeps_no_job_from_a_thread_that_sleeps() {
    let (hooks, count, gate) = (Gate::new(), AtomicUsize::new(0), Gate::new());
    let slow = hooks.clone();
    let hook = move || {
        // The first thread's is quick.
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            slow.pass();
        }
    };
    let executor = Executor::builder().threads(4).on_thread_start(hook).build().expect("sound");
    let first = occupy(&executor, &gate);
    let second = executor.spawn(|| ()).expect("accepted");
    hooks.await_arrivals(1);
    gate.open();
    executor.wait_requests(&[first, second], HANG).expect("the first thread runs both");
    for round in 0..100 {
        assert_eq!(executor.spawn(move || round).expect("accepted").wait(HANG).expect("it is woken"), round);
    }
    hooks.open();
    executor.shutdown(HANG).expect("ends");
}

#[test]
fn hooks_run_side_by_side_but_none_runs_for_nothing() {
    let hooks = Gate::new();
    let slow = hooks.clone();
    let executor = Executor::builder().threads(8).on_thread_start(move || slow.pass()).build().expect("sound");
    let mut requests = Vec::new();
    for threads in 1..=8 {
        requests.push(executor.spawn(name).expect("accepted"));
        hooks.await_arrivals(threads);
        assert_eq!(executor.stats().threads, threads, "one for each job");
    }
    requests.extend((0..8).map(|_| executor.spawn(name).expect("accepted")));
    assert_eq!(executor.stats().threads, 8, "no more than may be at work");
    hooks.open();
    assert_eq!(executor.wait_requests(&requests, HANG).expect("all end").len(), 16);
    executor.shutdown(HANG).expect("ends");
    assert_eq!(hooks.arrivals(), 8);
}

#[test]
fn a_hook_may_wait_for_what_it_submits() {
    for threads in [1, 3] {
        let mine = Arc::new(OnceLock::<Executor>::new());
        let (started, waited) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // Weak: an executor that its own hook holds would never be freed.
        let (own, start, wait) = (Arc::downgrade(&mine), add(&started), add(&waited));
        let hook = move || {
            start();
            // Refused on a thread that starts behind the shutdown.
            let own = own.upgrade().expect("the test outlives the threads");
            if let Ok(request) = own.get().expect("set below").spawn(|| 7) {
                assert_eq!(request.wait(HANG).expect("it runs"), 7);
            }
            wait();
        };
        let executor = Executor::builder().threads(threads).on_thread_start(hook).build().expect("sound");
        mine.set(executor.clone()).expect("once");
        assert_eq!(executor.spawn(|| 1).expect("accepted").wait(HANG).expect("it runs"), 1);
        executor.shutdown(HANG).expect("ends");
        let started = started.load(Ordering::SeqCst);
        assert_eq!(waited.load(Ordering::SeqCst), started, "the wait failed in a hook");
        assert!((1..=2 * threads + 2).contains(&started), "{started} for {threads}");
    }
}

// Reset and shutdown.

#[test]
fn reset_none_keeps_the_size() {
    let executor = executor(3);
    executor.reset(None, HANG).expect("no thread has started");
    assert_eq!((executor.threads(), executor.stats().threads), (3, 0));
    names(&executor, 3);
    executor.reset(None, HANG).expect("all are idle");
    assert_eq!(executor.threads(), 3);
    assert_eq!(names(&executor, 3).len(), 3);
}

#[test]
fn inside_an_operation_only_a_look_is_allowed() {
    let executor = executor(1);
    let inner = executor.clone();
    let operation = move || {
        let limits = [None, Some(HANG), Some(Duration::MAX)];
        for limit in limits {
            let waits = [inner.shutdown(limit), inner.reset(2, limit), inner.await_termination(limit)];
            assert!(waits.iter().all(|wait| matches!(wait, Err(Error::WouldDeadlock))), "{waits:?}");
        }
        assert_eq!(inner.threads(), 1, "nothing was changed");
        assert!(inner.spawn(|| ()).expect("nor closed").cancel());
        let open = inner.await_termination(Duration::ZERO);
        assert!(matches!(open, Err(Error::Invalid(_))), "{open:?}");
        let left = inner.shutdown(Duration::ZERO);
        assert!(matches!(left, Err(Error::Timeout { left: 1, .. })), "{left:?}");
        assert!(inner.await_termination(Duration::ZERO).expect_err("this one runs").is_timeout());
        assert!(matches!(inner.spawn(|| ()), Err(Error::ShutDown)), "it has begun");
        let left = inner.reset(2, Duration::ZERO);
        assert!(matches!(left, Err(Error::Timeout { left: 1, .. })), "{left:?}");
        assert_eq!(inner.threads(), 2);
        (thread::current().id(), inner.spawn(|| thread::current().id()).expect("open again"))
    };
    let (old, next) = executor.spawn(operation).expect("accepted").wait(HANG).expect("no assertion failed");
    // By its id: a name may be used again, or be the third while the old thread has not ended.
    assert_ne!(next.wait(HANG).expect("on a new thread"), old);
    executor.shutdown(HANG).expect("all ends");
}

#[test]
fn an_operation_may_shut_down_another_executor() {
    let (one, two) = (executor(1), executor(1));
    let other = two.clone();
    let pending = two.spawn(|| 1).expect("accepted");
    one.spawn(move || other.shutdown(HANG).expect("it ends")).expect("accepted").wait(HANG).expect("no deadlock");
    assert_eq!(pending.try_take().expect("ended before the shutdown did").expect("a number"), 1);
}

#[test]
fn shutdown_twice_and_from_many_threads() {
    let (executor, gate) = (executor(2), Gate::new());
    let held = occupy(&executor, &gate);
    thread::scope(|scope| {
        let closers: Vec<_> = (0..4).map(|_| scope.spawn(|| executor.shutdown(HANG))).collect();
        eventually("it is closed", || matches!(executor.spawn(|| ()), Err(Error::ShutDown)));
        gate.open();
        for closer in closers {
            closer.join().expect("no panic").expect("each sees the end");
        }
    });
    assert_eq!(held.status(), Status::Completed, "seen by whoever saw the end");
    executor.shutdown(Duration::ZERO).expect("again, at once");
    executor.await_termination(Duration::ZERO).expect("it has ended");
}

#[test]
fn an_executor_that_was_never_used_ends_at_once() {
    let executor = executor(2);
    assert!(matches!(executor.await_termination(HANG), Err(Error::Invalid(_))), "it is open");
    executor.shutdown(Duration::ZERO).expect("there is nothing to wait for");
    executor.reset(1, Duration::ZERO).expect("nor here");
    assert_eq!(executor.spawn(|| 1).expect("open").wait(HANG).expect("it runs"), 1);
}

#[test]
fn a_shutdown_finishes_what_is_deferred() {
    let (executor, gate, store) = (executor(2), Gate::new(), Arc::new(()));
    let inside = gate.clone();
    let head = executor
        .submit(
            &store,
            move |_: &(), ()| {
                inside.pass();
                Ok::<_, Error>(())
            },
            true,
            (),
        )
        .expect("accepted");
    gate.await_arrivals(1);
    let requests = executor.submit_many(&store, |_: &(), n: usize| Ok::<_, Error>(n), true, 0..100).expect("accepted");
    assert_eq!(executor.stats().deferred, 100);
    let left = executor.shutdown(Duration::from_millis(1)).expect_err("one is held");
    assert!(matches!(left, Error::Timeout { left: 101, .. }), "{left:?}");
    gate.open();
    executor.await_termination(HANG).expect("all ends");
    assert_eq!(executor.wait_requests(&requests, Duration::ZERO).expect("ended"), (0..100).collect::<Vec<_>>());
    drop(head);
}

#[test]
fn what_is_accepted_in_a_race_with_a_shutdown_is_finished() {
    for round in 0..30 {
        let (executor, store) = (executor(2), Arc::new(()));
        let start = Gate::new();
        let accepted: usize = thread::scope(|scope| {
            let submit = |keyed: bool| {
                start.pass();
                let mut requests = Vec::new();
                loop {
                    let request = if keyed {
                        executor.submit(&store, |_: &(), ()| Ok::<_, Error>(()), true, ())
                    } else {
                        executor.spawn(|| ())
                    };
                    match request {
                        Ok(request) => requests.push(request),
                        Err(Error::ShutDown) => break,
                        Err(other) => panic!("{other:?}"),
                    }
                }
                requests.iter().for_each(|request| request.wait(HANG).expect("accepted is accepted"));
                requests.len()
            };
            let submitters = [true, false].map(|keyed| scope.spawn(move || submit(keyed)));
            start.await_arrivals(2);
            start.open();
            eventually("some are accepted", || executor.stats().submitted > round);
            executor.shutdown(HANG).expect("it ends");
            submitters.into_iter().map(|submitter| submitter.join().expect("no panic")).sum()
        });
        assert_eq!(executor.stats().completed, accepted as u64);
    }
}

#[test]
fn the_last_handle_goes_inside_an_operation() {
    let stopped = Arc::new(AtomicUsize::new(0));
    let executor = Executor::builder().threads(2).on_thread_stop(add(&stopped)).build().expect("sound");
    let (gate, go) = (Gate::new(), Gate::new());
    let (inside, inner) = (gate.clone(), executor.clone());
    let last = executor.spawn(move || {
        inside.pass();
        let queued = inner.spawn(|| 5).expect("open as long as there is a handle");
        drop(inner);
        queued
    });
    let blocker = go.clone();
    let other = executor.spawn(move || blocker.pass()).expect("accepted");
    gate.await_arrivals(1);
    drop(executor);
    gate.open();
    let queued = last.expect("accepted").wait(HANG).expect("it ends");
    assert_eq!(queued.wait(HANG).expect("accepted is accepted"), 5);
    go.open();
    other.wait(HANG).expect("it ends");
    // A handle keeps the counters and hooks alive, not the threads.
    drop((queued, other));
    eventually("every thread ends", || stopped.load(Ordering::SeqCst) >= 1 && Arc::strong_count(&stopped) == 1);
}

#[test]
fn an_executor_dropped_while_requests_are_deferred_finishes_them() {
    let (gate, store) = (Gate::new(), Arc::new(()));
    let executor = executor(1);
    let inside = gate.clone();
    let head = executor
        .submit(
            &store,
            move |_: &(), ()| {
                inside.pass();
                Ok::<_, Error>(())
            },
            true,
            (),
        )
        .expect("accepted");
    gate.await_arrivals(1);
    let requests = executor.submit_many(&store, |_: &(), n: usize| Ok::<_, Error>(n), true, 0..10).expect("accepted");
    let follower = head.then(|()| Ok::<_, Error>(7)).expect("accepted");
    drop(executor);
    assert!(matches!(head.then(|()| Ok::<_, Error>(8)), Err(Error::ShutDown)));
    gate.open();
    for (index, request) in requests.iter().enumerate() {
        assert_eq!(request.wait(HANG).expect("accepted is accepted"), index);
    }
    assert_eq!(follower.wait(HANG).expect("accepted is accepted"), 7);
}

// Threads that don't start.

#[test]
#[cfg(target_pointer_width = "64")]
fn where_no_thread_starts_nothing_is_accepted() {
    let builder = Executor::builder().threads(2).stack_size(1 << 60);
    for builder in [builder.clone(), builder.queue_capacity(2).on_full(OnFull::CallerRuns)] {
        let (executor, store) = (builder.build().expect("the system decides"), Arc::new(()));
        let dropped = Arc::new(());
        let token = dropped.clone();
        let spawned = executor.spawn(move || drop(token)).map(drop);
        let token = dropped.clone();
        let keyed = executor
            .submit(
                &store,
                move |_: &(), _: &str| {
                    drop(token);
                    Ok::<_, Error>(())
                },
                true,
                "AAPL",
            )
            .map(drop);
        let many = executor.submit_many(&store, |_: &(), _: &str| Ok::<_, Error>(()), true, ["AAPL", "AAPL"]).map(drop);
        for refused in [spawned, keyed, many] {
            let error = refused.expect_err("no machine has a stack of an exbibyte");
            assert!(matches!(error, Error::Spawn(_)) && error.is_retryable(), "{error:?}");
        }
        assert_eq!(Arc::strong_count(&dropped), 1, "what was refused is dropped");
        assert_eq!(executor.stats(), fulmar::Stats::default(), "nothing was counted");
        executor.resize(1).expect("there is nothing to start");
        executor.shutdown(HANG).expect("there is nothing to end");
    }
}

// A bounded queue.

/// One thread, held, and room for `capacity`.
fn bounded(capacity: usize, on_full: OnFull, gate: &Gate) -> (Executor, AsyncRequest<()>) {
    let builder: Builder = Executor::builder().threads(1).queue_capacity(capacity).on_full(on_full);
    let executor = builder.build().expect("sound");
    let held = occupy(&executor, gate);
    (executor, held)
}

fn modify(executor: &Executor, store: &Arc<()>) -> Result<AsyncRequest<()>> {
    executor.submit(store, |_: &(), _: &str| Ok::<_, Error>(()), true, "AAPL")
}

#[test]
fn a_full_queue_rejects_and_a_key_holds_back_as_many_as_fit_in() {
    assert!(matches!(Executor::builder().queue_capacity(0).build(), Err(Error::Invalid(_))));
    let (gate, store) = (Gate::new(), Arc::new(()));
    let (executor, held) = bounded(2, OnFull::Reject, &gate);
    let [queued, deferred, last] = [0, 1, 2].map(|_| modify(&executor, &store).expect("one is queued, two held back"));
    assert_eq!((deferred.status(), last.status()), (Status::Deferred, Status::Deferred));
    assert!(matches!(modify(&executor, &store), Err(Error::QueueFull)), "two are held back on this key");
    let other = executor.spawn(|| ()).expect("a slow key leaves the others their room");
    let token = Arc::new(());
    let refused_token = token.clone();
    let refused = executor.spawn(move || drop(refused_token));
    assert!(matches!(&refused, Err(error @ Error::QueueFull) if error.is_retryable()), "{refused:?}");
    assert_eq!(Arc::strong_count(&token), 1, "what was refused is dropped");
    assert_eq!(executor.stats().submitted, 5, "and not counted");

    assert!(last.cancel());
    let again = modify(&executor, &store).expect("a cancelled one that was held back gives room on its key");
    assert!(matches!(executor.spawn(|| ()), Err(Error::QueueFull)), "and nowhere else");
    assert!(other.cancel());
    let other = executor.spawn(|| ()).expect("a cancelled queued one gives room");
    assert!(queued.cancel());
    assert_eq!(deferred.status(), Status::Queued, "in its place");
    assert!(matches!(executor.spawn(|| ()), Err(Error::QueueFull)));

    let late =
        executor.submit_after(Duration::from_secs(3_600), &store, |_: &(), _: &str| Ok::<_, Error>(()), true, "AAPL");
    assert!(late.expect("what waits for its time takes no room").cancel());
    let follower = again.then(|()| Ok::<_, Error>(())).expect("followers are never refused for it");
    gate.open();
    for request in [&held, &other, &follower] {
        request.wait(HANG).expect("it ends");
    }
    modify(&executor, &store).expect("what has started gives room").wait(HANG).expect("it ends");
}

#[test]
fn many_at_once_fit_in_as_a_whole_or_not_at_all() {
    for on_full in [OnFull::Reject, OnFull::Wait(Duration::from_millis(1))] {
        let (gate, store) = (Gate::new(), Arc::new(()));
        let (executor, _held) = bounded(4, on_full, &gate);
        let submit = |many: usize| {
            executor.submit_many(&store, |_: &(), n: usize| Ok::<_, Error>(n), true, 0..many).map(|all| all.len())
        };
        let too_many = submit(5);
        assert!(matches!(too_many, Err(Error::Invalid(_))), "neither a wait nor another try helps: {too_many:?}");
        assert_eq!(submit(4).expect("one is queued, three held back"), 4);
        assert!(matches!(submit(2), Err(Error::QueueFull)), "one more would be held back, two would not");
        assert_eq!(executor.stats().submitted, 5, "none of them was accepted");
        assert_eq!(submit(0).expect("none needs no room"), 0);
        assert_eq!(submit(1).expect("there is room"), 1);
        gate.open();
        executor.shutdown(HANG).expect("all end");
        assert_eq!(executor.stats().completed, 6);
    }
}

#[test]
fn a_submission_waits_for_room_only_as_long_as_it_takes() {
    let gate = Gate::new();
    let (executor, _held) = bounded(1, OnFull::Wait(Duration::from_millis(2)), &gate);
    let _queued = executor.spawn(|| ()).expect("there is room");
    assert!(matches!(executor.spawn(|| ()), Err(Error::QueueFull)), "time passed first");
    assert_eq!(executor.stats().submitted, 2);
    gate.open();

    // Nobody can see that a submitter sleeps, so it is given a little more time in each round.
    for (round, end) in (0..90).map(|n| (n / 3, n % 3)) {
        let gate = Gate::new();
        // Without an end only once all else has been seen to work.
        let limit = if round == 29 { Duration::MAX } else { HANG / 4 };
        let (executor, _held) = bounded(1, OnFull::Wait(limit), &gate);
        let queued = executor.spawn(|| ()).expect("there is room");
        thread::scope(|scope| {
            let started = Gate::new();
            let (arrive, executor) = (started.clone(), &executor);
            let submitter = scope.spawn(move || {
                arrive.pass();
                executor.spawn(|| 7)
            });
            started.await_arrivals(1);
            started.open();
            (0..10 * round).for_each(|_| thread::yield_now());
            match end {
                0 => gate.open(),
                1 => assert!(queued.cancel()),
                _ => drop(executor.shutdown(Duration::ZERO)),
            }
            let submitted = submitter.join().expect("no panic");
            gate.open();
            match end {
                2 => assert!(matches!(submitted, Err(Error::ShutDown)), "{submitted:?}"),
                _ => assert_eq!(submitted.expect("there was room").wait(HANG).expect("it ends"), 7),
            }
        });
    }
}

#[test]
fn a_full_queue_has_the_caller_run_what_it_brings() {
    let (gate, store) = (Gate::new(), Arc::new(()));
    let (executor, held) = bounded(1, OnFull::CallerRuns, &gate);
    let here = thread::current().id();
    let queued = executor.spawn(move || thread::current().id() == here).expect("there is room");
    let ran = executor.spawn(move || thread::current().id() == here).expect("run right here");
    assert_eq!(ran.status(), Status::Completed, "before the submission returns");
    assert!(ran.wait(HANG).expect("it ran"), "on this thread");
    let panics = executor.spawn(|| panic!("a panic of a test, on purpose")).expect("its panic is its result");
    assert!(matches!(panics.wait(HANG), Err::<(), _>(Error::Panicked(_))));
    // What is ahead of it on its key is run first.
    assert!(queued.cancel());
    let order = Arc::new(AtomicUsize::new(0));
    let next = |expected: usize| {
        let order = order.clone();
        let operation = move |_: &(), _: &str| {
            assert_eq!(order.fetch_add(1, Ordering::SeqCst), expected);
            Ok::<_, Error>(thread::current().id() == here)
        };
        executor.submit(&store, operation, true, "AAPL").expect("accepted")
    };
    // The first is queued, the second held back behind it, and the third finds both places taken.
    for request in [next(0), next(1), next(2)] {
        assert!(request.wait(HANG).expect("in order"), "on this thread");
    }
    let many = executor.submit_many(&store, |_: &(), n: usize| Ok::<_, Error>(n), true, 0..20).expect("all accepted");
    assert!(many[..18].iter().all(AsyncRequest::is_done), "two fit in, each third one is run here, and both before it");
    gate.open();
    held.wait(HANG).expect("it ends");
    assert_eq!(executor.wait_requests(&many, HANG).expect("all end"), (0..20).collect::<Vec<_>>());
    assert_adds_up(&executor.stats());
}

#[test]
fn two_full_executors_whose_operations_submit_to_each_other_go_on() {
    let gate = Gate::new();
    let [one, two] =
        [0, 1].map(|_| Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::Wait(HANG)).build());
    let executors = [one.expect("sound"), two.expect("sound")];
    let crossed = [0, 1].map(|index| {
        let (inside, other) = (gate.clone(), executors[1 - index].clone());
        let outer = executors[index].spawn(move || {
            inside.pass();
            other.spawn(|| 7).map(|nested| nested.wait(HANG).expect("it ends"))
        });
        outer.expect("accepted")
    });
    gate.await_arrivals(2);
    let _full = executors.each_ref().map(|executor| executor.spawn(|| ()).expect("room for one"));
    gate.open();
    for outer in crossed {
        assert_eq!(outer.wait(HANG).expect("it ends").expect("another thread made room"), 7);
    }
}

#[test]
fn a_caller_that_runs_waits_for_who_runs_on_its_key() {
    let (gate, store) = (Gate::new(), Arc::new(()));
    let executor = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::CallerRuns).build().expect("sound");
    let inside = gate.clone();
    let running = executor
        .submit(
            &store,
            move |_: &(), _: &str| {
                inside.pass();
                Ok::<_, Error>(())
            },
            true,
            "AAPL",
        )
        .expect("accepted");
    gate.await_arrivals(1);
    let held_back = modify(&executor, &store).expect("a place behind it");
    let (send, receive) = channel();
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let request = modify(&executor, &store).expect("accepted");
            send.send(running.is_done()).expect("the test listens");
            request.status()
        });
        eventually("it is accepted and waits", || executor.stats().deferred == 2);
        assert!(receive.try_recv().is_err(), "it can't have run");
        gate.open();
        assert_eq!(caller.join().expect("no panic"), Status::Completed);
        assert!(receive.recv().expect("sent"), "after the one before it");
    });
    held_back.wait(HANG).expect("it ends");
}

#[test]
fn a_caller_inside_an_operation_runs_what_it_can() {
    let executor = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::CallerRuns).build().expect("sound");
    let (store, inner) = (Arc::new(()), executor.clone());
    let same = store.clone();
    let operation = move |_: &(), _: &str| {
        let [fills, ran] = [0, 1].map(|_| inner.spawn(name).expect("accepted"));
        assert_eq!(ran.try_take().expect("run right here").expect("a name"), name());
        // Behind oneself it can't be run: it stays accepted.
        let behind_me = modify(&inner, &same).expect("accepted");
        assert_eq!(behind_me.status(), Status::Deferred);
        drop(fills);
        Ok::<_, Error>(behind_me)
    };
    let outer = executor.submit(&store, operation, true, "AAPL").expect("accepted");
    let behind = outer.wait(HANG).expect("no deadlock");
    behind.wait(HANG).expect("it ran after all");
    executor.shutdown(HANG).expect("ends");
    assert_eq!(executor.stats().completed, 4);
}

#[test]
fn idle_threads_end_after_their_time_and_come_back_on_demand() {
    let (started, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (start, stop) = (started.clone(), stopped.clone());
    let executor = Executor::builder()
        .threads(4)
        .idle_timeout(Duration::from_millis(1))
        .on_thread_start(move || {
            let _ = start.fetch_add(1, Ordering::SeqCst);
        })
        .on_thread_stop(move || {
            let _ = stop.fetch_add(1, Ordering::SeqCst);
        })
        .build()
        .expect("sound");
    for burst in 1..=5 {
        let gate = Gate::new();
        let busy: Vec<_> = (0..4).map(|_| occupy(&executor, &gate)).collect();
        assert_eq!(executor.stats().threads, 4, "on demand");
        gate.open();
        assert_eq!(executor.wait_requests(&busy, HANG).expect("all end").len(), 4);
        eventually("no thread stays", || executor.stats().threads == 0);
        eventually("each has called its hook", || stopped.load(Ordering::SeqCst) == 4 * burst);
    }
    assert_eq!(started.load(Ordering::SeqCst), 20);
    executor.shutdown(HANG).expect("ends");
}

#[test]
fn threads_that_end_at_once_lose_nothing() {
    let executor = Executor::builder().threads(2).idle_timeout(Duration::ZERO).build().expect("sound");
    for round in 0..2_000 {
        let inner = executor.clone();
        let nested = executor.spawn(move || inner.spawn(move || round)?.wait(None)).expect("accepted");
        assert_eq!(nested.wait(HANG).expect("ends").expect("ends"), round);
    }
    executor.wait_idle(HANG).expect("becomes idle");
}
