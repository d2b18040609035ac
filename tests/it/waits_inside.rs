//! Waits inside operations, callbacks and destructors: each ends, or is refused as a deadlock.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use fulmar::{AsyncRequest, Error, Executor, as_completed, queue};

use crate::support::{Gate, ends, executor, occupy};

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

/// A wait in a callback, on a worker of a one-thread executor: it is not known to be a worker, and
/// parks for ever.
#[test]
fn a_wait_in_a_callback_does_not_deadlock() {
    let executor = executor(1);
    let gate = Gate::new();
    let held = occupy(&executor, &gate);
    let inner = executor.clone();
    let (told, tell) = channel();
    held.on_complete(move |_| {
        let nested = inner.spawn(|| 5).expect("accepted");
        told.send(nested.wait(None).map_err(|error| error.to_string())).expect("the receiver lives");
    });
    gate.open();
    let told = tell.recv_timeout(Duration::from_secs(5));
    assert_eq!(told, Ok(Ok(5)), "hang: it is run right there");
}

/// A long chain of followers, waited for inside an operation: `explore` and `obstacle` recurse once
/// a link.
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

/// A deadlock that no thread is told of (found by tests/stress.rs as a hang, one run of 10 million
/// in two). While a worker waits inside a request that it runs out of turn, `Edges::enter` replaces
/// the outer request's edge by the inner one, and the outer target is hidden. A thread that closes
/// a cycle through the hidden edge is not refused; when the inner wait ends, the outer edge comes
/// back, and no thread looks again.
///
/// Three threads. A (modifier on "a") waits for D1, a modifier on "k" behind the accessors E
/// (running) and B (queued): it runs B, which waits for D2, which is held. Now E waits for Z, a
/// modifier on "a" behind A: a cycle A, D1, E, Z, A.
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
            // With a limit no thread enters an edge, but it is told of a deadlock all the same. So
            // once it is not told any more, A's edge to D1 is hidden. Without the bug it is told
            // each time.
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

/// A delayed request that falls due behind the very operation that waits for it: looked at only
/// once, it seemed free.
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

/// As above, but nothing waits for the delayed request itself: only one that follows it is waited for.
#[test]
fn a_wait_for_what_follows_a_delayed_request_on_ones_own_key_is_told() {
    let executor = executor(2);
    let (store, inner) = (Arc::new(()), executor.clone());
    let same = store.clone();
    let waits = move |_: &(), _: &str| {
        let delay = Duration::from_millis(5);
        let behind_me = inner.submit_after(delay, &same, |_: &(), _: &str| Ok::<_, Error>(()), false, "k")?;
        let follows = behind_me.then(|()| Ok::<_, Error>(()))?;
        Ok::<_, Error>(matches!(follows.wait(None), Err(Error::WouldDeadlock)))
    };
    let told = executor.submit(&store, waits, true, "k").expect("accepted");
    assert!(ends("a wait for what follows one behind oneself", move || told.wait(None).expect("no panic")));
}

/// A result whose destructor waits, dropped by the worker that made it: a thread that wasn't a
/// worker any more.
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
        tell.send(follower.wait(None).expect("released before")).expect("the receiver lives");
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

/// python/cpython#92001: a wait for a request that was cancelled before the wait began hung.
#[test]
fn a_wait_for_what_was_cancelled_before_ends() {
    ends("waits for a cancelled request", || {
        let (executor, gate) = (executor(1), Gate::new());
        let busy = occupy(&executor, &gate);
        let cancelled = [executor.spawn(|| ()).expect("accepted"), executor.spawn(|| ()).expect("accepted")];
        assert!(cancelled.iter().all(AsyncRequest::cancel));
        assert_eq!(executor.wait_any_request(&cancelled, None).ok(), Some(0));
        assert!(matches!(executor.wait_requests(&cancelled, None), Err(Error::Cancelled)));
        let late = executor.spawn(|| ()).expect("accepted");
        assert!(late.cancel());
        let told: Vec<_> = as_completed(std::slice::from_ref(&late), None).collect();
        assert!(matches!(told[..], [(0, Err(Error::Cancelled))]));
        gate.open();
        busy.wait(None).expect("it ends");
    });
}

/// rayon-rs/rayon#446: operations of two pools that wait for each other's, nested, used up the
/// threads.
#[test]
fn waits_nested_through_two_executors_end() {
    fn nest(mine: &Executor, other: &Executor, depth: usize) -> usize {
        if depth == 0 {
            return 0;
        }
        let (next, after) = (other.clone(), mine.clone());
        let below = mine.spawn(move || nest(&next, &after, depth - 1)).expect("accepted");
        below.wait(None).expect("it ends") + 1
    }
    ends("nested waits", || assert_eq!(nest(&executor(1), &executor(1), 200), 200));
}

/// rayon-rs/rayon#835: an operation that produced into a bounded queue kept its consumer from
/// starting. A wait for a queue holds its thread: two threads are needed.
#[test]
fn a_producer_inside_an_operation_meets_its_consumer_on_the_other_thread() {
    ends("producer and consumer", || {
        let executor = executor(2);
        let (producer, consumer) = queue::bounded(1).expect("sound");
        let produce = executor.spawn(move || (0..100).filter(|n| producer.put(*n).is_ok()).count()).expect("accepted");
        let consume = executor.spawn(move || consumer.iter().take(100).sum::<i32>()).expect("accepted");
        assert_eq!(produce.wait(None).expect("it ends"), 100);
        assert_eq!(consume.wait(None).expect("it ends"), 4_950);
    });
}
