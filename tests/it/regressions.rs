//! What went wrong once, each as small as it could be made.

use std::future::Future;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use crate::support::{Gate, HANG, ends, eventually, executor, occupy};
use fulmar::{AsyncRequest, Error, Executor, as_completed};

/// as_completed inside an operation: the end is visible before the inbox is told, so `help`
/// returns and the inbox is still empty: a timeout is reported although there is no limit.
#[test]
fn as_completed_inside_an_operation_gives_no_timeout_without_a_limit() {
    let executor = executor(2);
    struct Held(Gate);
    impl Wake for Held {
        fn wake(self: Arc<Self>) {
            self.0.pass();
        }
    }
    let (gate, waker_gate) = (Gate::new(), Gate::new());
    let inside = gate.clone();
    let mut held = executor.spawn(move || inside.pass()).expect("accepted");
    gate.await_arrivals(1);
    // A task that is told before the iteration, and takes its time.
    let waker = Waker::from(Arc::new(Held(waker_gate.clone())));
    assert!(Pin::new(&mut held).poll(&mut Context::from_waker(&waker)).is_pending());
    let open_later = waker_gate.clone();
    let reader = executor.spawn(move || {
        let requests = [held];
        let mut completed = as_completed(&requests, None);
        gate.open();
        // Its end can be seen, and those who asked earlier are still being told.
        waker_gate.await_arrivals(1);
        assert!(requests[0].is_done());
        let opener = std::thread::spawn(move || open_later.open());
        let next = completed.next().map(|(index, result)| (index, result.map_err(|error| error.to_string())));
        opener.join().expect("no panic");
        next
    });
    let next = reader.expect("accepted").wait(None).expect("no panic");
    assert_eq!(next, Some((0, Ok(()))));
}

/// The same without a waker that blocks: the race by itself.
#[test]
fn as_completed_inside_an_operation_race() {
    let executor = executor(2);
    for _ in 0..20_000 {
        let inner = executor.clone();
        let outer = executor.spawn(move || {
            let requests: Vec<AsyncRequest<()>> = (0..2)
                .map(|_| {
                    inner
                        .spawn(|| {
                            for _ in 0..100 {
                                std::hint::spin_loop()
                            }
                        })
                        .expect("accepted")
                })
                .collect();
            as_completed(&requests, None)
                .map(|(_, result)| result)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| error.to_string())
        });
        outer.expect("accepted").wait(None).expect("no panic").expect("no limit, so no timeout");
    }
}

/// A payload whose destructor panics, out of a result's destructor: the worker thread is lost.
struct Bomb;
impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("the destructor of a payload");
        }
    }
}
struct PanicsWithABomb;
impl Drop for PanicsWithABomb {
    fn drop(&mut self) {
        std::panic::panic_any(Bomb);
    }
}

#[test]
fn no_thread_is_lost_to_the_payload_of_a_destructors_panic() {
    let executor = executor(1);
    let gate = Gate::new();
    drop(occupy(&executor, &gate));
    drop(executor.spawn(|| PanicsWithABomb).expect("accepted"));
    gate.open();
    eventually("it ended", || executor.stats().completed == 2);
    let next = executor.spawn(|| 1).expect("accepted");
    assert_eq!(next.wait(Duration::from_secs(5)).expect("the thread lives"), 1);
    executor.shutdown(Duration::from_secs(5)).expect("the thread ends");
}

/// A sweep drops unclaimed results of requests run out of turn on whoever cancels or waits: their panic reaches it.
struct PanicsInDrop;
impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("the destructor of a result, on purpose");
    }
}

#[test]
fn a_canceller_does_not_pay_for_the_destructor_of_a_result_in_the_queue() {
    let executor = executor(1);
    let inner = executor.clone();
    let outer = executor.spawn(move || {
        // Run out of turn by this wait; its queue entry stays behind, and is its last handle soon.
        let result = [inner.spawn(|| PanicsInDrop).expect("accepted")];
        inner.wait_any_request(&result, None).expect("run right here");
        drop(result);
        let others: Vec<AsyncRequest<()>> = (0..63).map(|_| inner.spawn(|| ()).expect("accepted")).collect();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            others.iter().for_each(|other| assert!(other.cancel()));
        }))
        .is_ok()
    });
    assert!(outer.expect("accepted").wait(None).expect("no panic"), "a cancel panicked");
}

/// reset while no thread can be started: `run_stranded` runs operations under the order's lock, which their end
/// takes again. Needs an address space limit, so it runs itself.
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
    let script = format!("ulimit -v 900000; exec '{}' --exact regressions::{name} --nocapture", me.display());
    let output = Command::new("sh").args(["-c", &script]).env("IN_LITTLE_SPACE", "1").output().expect("a shell");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A wait in a callback, on a worker of a one-thread executor: it is not known to be a worker, and parks for ever.
#[test]
fn a_wait_in_a_callback_does_not_deadlock() {
    let executor = executor(1);
    let gate = Gate::new();
    let held = occupy(&executor, &gate);
    let inner = executor.clone();
    let (told, tell) = channel();
    held.on_complete(move |_| {
        let nested = inner.spawn(|| 5).expect("accepted");
        told.send(nested.wait(None).map_err(|error| error.to_string())).expect("somebody listens");
    });
    gate.open();
    let told = tell.recv_timeout(Duration::from_secs(5));
    assert_eq!(told, Ok(Ok(5)), "hang: it is run right there");
}

/// The same with a shutdown.
#[test]
fn a_shutdown_in_a_callback_is_told() {
    let executor = executor(1);
    let gate = Gate::new();
    let held = occupy(&executor, &gate);
    let inner = executor.clone();
    let (told, tell) = channel();
    held.on_complete(move |_| {
        told.send(inner.shutdown(None).map_err(|error| error.to_string())).expect("somebody listens")
    });
    gate.open();
    let told = tell.recv_timeout(Duration::from_secs(5));
    assert!(told.is_ok(), "hang: {told:?}");
}

/// A long chain of followers, waited for inside an operation: `explore` and `obstacle` recurse once a link.
#[test]
fn a_long_chain_is_waited_for_inside_an_operation_without_overflow() {
    let executor = executor(1);
    let inner = executor.clone();
    let outer = executor.spawn(move || {
        let mut last = inner.spawn(|| 0_u64).expect("accepted");
        for _ in 0..20_000 {
            last = last.then(|n| Ok::<_, Error>(n + 1)).expect("accepted");
        }
        last.wait(None).expect("no deadlock")
    });
    assert_eq!(outer.expect("accepted").wait(None).expect("no panic"), 20_000);
}

/// A full queue hides the shutdown, with OnFull::Reject alone: `make_room` looks before `admit` asks whether it is closed.
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

/// The doc of `await_termination`: "A reset meanwhile ends the wait as well." `Pool::wait_for_end` asks `ended` only
/// once there is no thread at all, so with a thread held, or new ones at work, the wait goes on.
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

/// A deadlock that nobody is told of (found by tests/stress.rs as a hang, one run of 10 million in two). While a
/// worker waits inside a request that it runs out of turn, `Edges::enter` replaces the outer request's edge by the inner
/// one, and the outer target is hidden. Whoever closes a cycle through the hidden edge is not refused; when the inner
/// wait ends, the outer edge comes back, and nobody looks again.
///
/// Three threads. A (modifier on "a") waits for D1, a modifier on "k" behind the accessors E (running) and B (queued): it
/// runs B, which waits for D2, which is held. Now E waits for Z, a modifier on "a" behind A: a cycle A, D1, E, Z, A.
#[test]
fn a_deadlock_through_the_outer_one_of_two_waits_is_told() {
    let executor = executor(3);
    let store = Arc::new(());
    let (hold, b_waits, e_goes) = (Gate::new(), Gate::new(), Gate::new());
    b_waits.open();
    let d2 = occupy(&executor, &hold);

    let (inner, same, go) = (executor.clone(), store.clone(), e_goes.clone());
    let e = executor.submit(
        &store,
        move |_: &(), _: &str| {
            go.pass();
            let z = inner.submit(&same, |_: &(), _: &str| Ok::<_, Error>(()), true, "a")?;
            // With a limit nobody enters an edge, but it is told of a deadlock all the same. So once it is not told any
            // more, A's edge to D1 is hidden. Without the bug it is told each time.
            for _ in 0..2_000 {
                match z.wait(Duration::from_millis(1)) {
                    Err(Error::WouldDeadlock) => std::thread::yield_now(),
                    _ => break,
                }
            }
            match z.wait(None) {
                Err(Error::WouldDeadlock) => Ok(true),
                other => other.map(|()| false),
            }
        },
        false,
        "k",
    );
    let e = e.expect("accepted");
    e_goes.await_arrivals(1);

    let (inner, same, arrive) = (executor.clone(), store.clone(), b_waits.clone());
    let a = executor.submit(
        &store,
        move |_: &(), _: &str| {
            let b = inner.submit(
                &same,
                move |_: &(), _: &str| {
                    arrive.pass();
                    d2.wait(None)
                },
                false,
                "k",
            )?;
            let d1 = inner.submit(&same, |_: &(), _: &str| Ok::<_, Error>(()), true, "k")?;
            let waited = d1.wait(None);
            drop(b);
            match waited {
                Err(Error::WouldDeadlock) => Ok(true),
                other => other.map(|()| false),
            }
        },
        true,
        "a",
    );
    let a = a.expect("accepted");
    b_waits.await_arrivals(1);
    e_goes.open();
    // E waits for Z, or was told. Only then is B let go.
    let start = Instant::now();
    while !e.is_done() && start.elapsed() < Duration::from_secs(4) {
        std::thread::yield_now();
    }
    hold.open();
    let told = [&a, &e].map(|request| request.wait(Duration::from_secs(5)));
    assert!(told.iter().all(|told| told.is_ok()), "hang: {told:?}, {}", executor.stats());
    assert!(told.iter().any(|told| matches!(told, Ok(true))), "it is a deadlock: {told:?}");
}

/// A delayed request that falls due behind the very operation that waits for it: looked at only once, it seemed free.
#[test]
fn a_wait_for_a_delayed_request_on_ones_own_key_is_told() {
    let executor = executor(2);
    let (store, inner) = (Arc::new(()), executor.clone());
    let same = store.clone();
    let waits = move |_: &(), _: &str| {
        let delay = Duration::from_millis(5);
        let behind_me = inner.submit_after(delay, &same, |_: &(), _: &str| Ok::<_, Error>(()), false, "k")?;
        Ok::<_, Error>(matches!(behind_me.wait(None), Err(Error::WouldDeadlock)))
    };
    let told = executor.submit(&store, waits, true, "k").expect("accepted");
    assert!(ends("a wait for what is behind oneself", move || told.wait(None).expect("no panic")));
}

/// A result whose destructor waits, dropped by the worker that made it: a thread that was no worker any more.
#[test]
fn a_destructor_of_a_result_may_wait() {
    struct Joins(Option<AsyncRequest<u8>>);
    impl Drop for Joins {
        fn drop(&mut self) {
            assert_eq!(self.0.take().expect("once").wait(None).expect("run right here"), 5);
        }
    }
    let executor = executor(1);
    let gate = Gate::new();
    let (inside, inner) = (gate.clone(), executor.clone());
    let unclaimed = executor.spawn(move || {
        inside.pass();
        Joins(Some(inner.spawn(|| 5).expect("accepted")))
    });
    drop(unclaimed);
    gate.open();
    let next = executor.spawn(|| 6).expect("accepted");
    assert_eq!(ends("a destructor that waits", move || next.wait(None).expect("it ends")), 6);
    assert_eq!(executor.stats().panicked, 0);
}

/// A callback that waits for a follower of the request that has just ended.
#[test]
fn a_callback_may_wait_for_a_follower() {
    let executor = executor(1);
    let gate = Gate::new();
    let first = occupy(&executor, &gate);
    let (give, given) = channel::<AsyncRequest<u8>>();
    let (tell, told) = channel();
    first.on_complete(move |_| {
        let follower = given.recv().expect("it is given");
        tell.send(follower.wait(None).expect("released before")).expect("somebody listens");
    });
    give.send(first.then(|()| Ok::<_, Error>(7)).expect("accepted")).expect("it listens");
    gate.open();
    assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(7), "hang");
}

/// A worker that waits for room in its own executor's queue.
#[test]
fn waiting_for_room_inside_an_operation_runs_it_instead() {
    let builder = Executor::builder().threads(1).queue_capacity(1).on_full(fulmar::OnFull::Wait(Duration::MAX));
    let executor = builder.build().expect("sound");
    let inner = executor.clone();
    let outer = executor.spawn(move || {
        let requests = [inner.spawn(|| 1).expect("room"), inner.spawn(|| 2).expect("run right here")];
        inner.wait_requests(&requests, None).expect("both end")
    });
    let outer = outer.expect("accepted");
    assert_eq!(ends("waiting for room", move || outer.wait(None).expect("no panic")), [1, 2]);
}

/// Two submitters meet a system that starts no thread: the one that was accepted meanwhile has nobody to run it.
#[test]
fn whoever_is_accepted_while_a_thread_is_refused_is_run() {
    let executor = Executor::builder().threads(2).stack_size(1 << 47).build().expect("sound so far");
    let (both, start) = (std::sync::Barrier::new(2), Instant::now());
    let submit = || {
        both.wait();
        let Ok(request) = executor.spawn(|| 1) else { return 0 };
        request.wait(Duration::from_secs(10)).expect("accepted is accepted")
    };
    // Until it has happened often enough: whoever comes first is always refused.
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
            "nobody came while a thread was refused, but {accepted} times in {round} rounds"
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

/// What a cancelled series captured: dropped on the timer's thread, whose panic ended the thread for good.
#[test]
fn no_destructor_of_a_series_costs_the_timer() {
    struct Bomb {
        series: Arc<std::sync::Mutex<Option<fulmar::Periodic>>>,
        armed: bool,
    }
    impl fulmar::Args for Bomb {}
    impl Clone for Bomb {
        fn clone(&self) -> Bomb {
            self.series.lock().expect("no panic under it").as_ref().map(fulmar::Periodic::cancel);
            Bomb { series: self.series.clone(), armed: true }
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(!self.armed, "a panic of a test, on purpose");
        }
    }
    let executor = executor(1);
    let series = Arc::new(std::sync::Mutex::new(None));
    let bomb = Bomb { series: series.clone(), armed: false };
    let nothing = |_: &(), _: Bomb| Ok::<_, Error>(());
    let periodic = executor.submit_every(Duration::from_millis(1), &Arc::new(()), nothing, false, bomb);
    *series.lock().expect("no panic under it") = Some(periodic.expect("accepted"));
    eventually("it has cancelled itself", || series.lock().expect("no panic").as_ref().is_some_and(|s| s.runs() > 0));
    let later =
        executor.submit_after(Duration::from_millis(1), &Arc::new(()), |_: &(), ()| Ok::<_, Error>(7), false, ());
    let later = later.expect("accepted");
    assert_eq!(ends("the timer is dead", move || later.wait(None).expect("its time comes")), 7);
}

/// Iterations that end early left a callback in each request, every time.
#[test]
fn an_iteration_that_ends_early_leaves_nothing_behind() {
    let executor = executor(1);
    let gate = Gate::new();
    let requests = [occupy(&executor, &gate)];
    let held = Arc::new(());
    for _ in 0..100 {
        assert_eq!(as_completed(&requests, Duration::ZERO).filter(|(_, result)| result.is_ok()).count(), 0);
    }
    let inside = held.clone();
    requests[0].on_complete(move |_| drop(inside));
    gate.open();
    assert_eq!(as_completed(&requests, None).count(), 1);
    eventually("the callback has run", || Arc::strong_count(&held) == 1);
}
