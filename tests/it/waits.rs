//! A wait keeps its word inside operations, too: its limit holds, the first that ends is the first that is told, and it
//! runs nothing on its thread that a free thread could run. No wait is for ever that could end.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use fulmar::{AsyncRequest, Error, Executor, OnFull, Result, as_completed};

use crate::support::{Gate, HANG, ends, eventually, executor, occupy};

const SHORT: Duration = Duration::from_millis(10);

/// An executor whose threads all have started, and sleep.
fn awake(threads: usize) -> Executor {
    let (executor, gate) = (executor(threads), Gate::new());
    let held: Vec<_> = (0..threads).map(|_| occupy(&executor, &gate)).collect();
    gate.open();
    executor.wait_requests(&held, None).expect("they were let go");
    executor
}

/// Runs `operation` with two requests below it: one that is held until the operation opens the gate, and a quick one.
fn beside<T: Send + 'static>(
    what: &'static str,
    threads: usize,
    operation: impl FnOnce(&Executor, [AsyncRequest<u8>; 2], &Gate) -> T + Send + 'static,
) -> T {
    ends(what, move || {
        let executor = awake(threads);
        let inner = executor.clone();
        let outer = executor.spawn(move || {
            let gate = Gate::new();
            let pass = gate.clone();
            let held =
                inner.spawn(move || pass.pass()).expect("accepted").then(|()| Ok::<_, Error>(0)).expect("accepted");
            let quick = inner.spawn(|| 1).expect("accepted");
            let result = operation(&inner, [held, quick], &gate);
            gate.open();
            result
        });
        outer.expect("accepted").wait(None).expect("it ends")
    })
}

#[test]
fn a_wait_inside_an_operation_keeps_its_limit() {
    for threads in [2, 4] {
        beside("wait", threads, |executor, [held, _], gate| {
            assert!(held.wait(SHORT).expect_err("it is held").is_timeout());
            assert!(executor.wait_request(&held, SHORT).expect_err("it is held").is_timeout());
            gate.open();
            assert_eq!(held.wait(None).expect("after a timeout the handle is still good"), 0);
        });
        beside("wait_requests", threads, |executor, both, _| {
            let timeout = executor.wait_requests(&both, SHORT).expect_err("one is held");
            assert!(timeout.is_timeout(), "{timeout:?}");
        });
        beside("wait_any_request", threads, |executor, [held, _], _| {
            let timeout = executor.wait_any_request(&[held], SHORT).expect_err("it is held");
            assert!(timeout.is_timeout(), "{timeout:?}");
        });
        beside("as_completed", threads, |_, [held, _], _| {
            let late = as_completed(&[held], SHORT).next().expect("a timeout is told");
            assert!(late.1.expect_err("it is held").is_timeout());
        });
    }
}

#[test]
fn a_wait_inside_an_operation_tells_the_first_that_ends_first() {
    for threads in [2, 4] {
        for limit in [None, Some(HANG)] {
            let first = beside("wait_any_request", threads, move |executor, both, _| {
                executor.wait_any_request(&both, limit).expect("the quick one ends")
            });
            assert_eq!(first, 1, "the other one is held");
            let first = beside("as_completed", threads, move |_, both, _| {
                as_completed(&both, limit).next().map(|(index, result)| (index, result.expect("it ends")))
            });
            assert_eq!(first, Some((1, 1)));
        }
    }
}

#[test]
fn a_wait_inside_an_operation_for_what_a_key_holds_back_keeps_its_limit() {
    ends("deferred", || {
        let (executor, gate, store) = (awake(3), Gate::new(), Arc::new(()));
        let pass = gate.clone();
        let hold = move |_: &(), _key: &'static str| {
            pass.pass();
            Ok::<_, Error>(())
        };
        let modifier = executor.submit(&store, hold, true, "AAPL").expect("accepted");
        let inner = executor.clone();
        let outer = executor.spawn(move || {
            let behind = |_: &(), _key: &'static str| Ok::<_, Error>(());
            let behind = inner.submit(&store, behind, true, "AAPL").expect("accepted");
            assert!(behind.wait(SHORT).expect_err("behind a held modifier").is_timeout());
            gate.open();
            behind.wait(None)
        });
        outer.expect("accepted").wait(None).expect("no panic").expect("it ends");
        modifier.wait(None).expect("it ends");
    });
}

#[test]
fn a_timed_wait_under_a_lock_that_the_awaited_one_wants_ends() {
    for threads in [1, 2, 4] {
        ends("a wait under a lock", move || {
            let (executor, lock) = (awake(threads), Arc::new(Mutex::new(0)));
            let inner = executor.clone();
            let outer = executor.spawn(move || {
                let guard = lock.lock().expect("no panic");
                let wanted = lock.clone();
                let awaited = inner.spawn(move || *wanted.lock().expect("no panic") += 1).expect("accepted");
                assert!(awaited.wait(SHORT).expect_err("it wants the lock").is_timeout());
                drop(guard);
                awaited.wait(None).expect("now it has it");
                assert_eq!(*lock.lock().expect("no panic"), 1);
            });
            outer.expect("accepted").wait(None).expect("no panic");
        });
    }
}

#[test]
fn any_of_two_is_told_under_a_lock_that_the_other_one_wants() {
    ends("wait_any under a lock", || {
        let (executor, lock) = (awake(4), Arc::new(Mutex::new(())));
        let inner = executor.clone();
        let outer = executor.spawn(move || {
            let guard = lock.lock().expect("no panic");
            let wanted = lock.clone();
            let blocked = inner.spawn(move || drop(wanted.lock().expect("no panic"))).expect("accepted");
            let both = [blocked, inner.spawn(|| ()).expect("accepted")];
            let first = inner.wait_any_request(&both, None).expect("one ends");
            drop(guard);
            first
        });
        assert_eq!(outer.expect("accepted").wait(None).expect("no panic"), 1);
    });
}

thread_local! {
    static BORROWED: RefCell<u32> = const { RefCell::new(0) };
}

#[test]
fn a_thread_local_may_be_borrowed_across_a_wait() {
    ends("a thread-local across a wait", || {
        for threads in [2, 4] {
            let executor = awake(threads);
            for _ in 0..200 {
                let inner = executor.clone();
                let outer = executor.spawn(move || {
                    BORROWED.with_borrow_mut(|mine| {
                        *mine += 1;
                        let below = inner.spawn(|| BORROWED.with_borrow_mut(|theirs| *theirs += 1)).expect("accepted");
                        below.wait(None)
                    })
                });
                outer.expect("accepted").wait(None).expect("no panic").expect("it ran beside the borrow");
            }
        }
    });
}

struct Unparker(Thread);

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// As executors of futures have it: it parks, and knows nothing of the thread that it parks.
fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unparker(thread::current())));
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

fn block_on_nested(executor: &Executor, depth: usize) -> usize {
    if depth == 0 {
        return 0;
    }
    let inner = executor.clone();
    let below = executor.spawn(move || block_on_nested(&inner, depth - 1)).expect("accepted");
    1 + block_on(below).expect("it ends")
}

#[test]
fn a_future_that_is_blocked_on_inside_an_operation_ends() {
    for threads in [1, 2, 4] {
        for depth in [1, threads, threads + 1, 20] {
            let reached = ends("block_on inside operations", move || {
                let executor = executor(threads);
                let inner = executor.clone();
                executor.spawn(move || block_on_nested(&inner, depth)).expect("accepted").wait(None).expect("it ends")
            });
            assert_eq!(reached, depth);
        }
    }
}

/// The other executor's request needs the thread that is blocked on it, and doesn't know.
#[test]
fn a_future_of_another_executor_is_blocked_on_beside_a_thread_in_ones_place() {
    let answer = ends("block_on between executors", || {
        let (one, other) = (executor(1), executor(1));
        let back = one.clone();
        let outer = one.spawn(move || {
            let there = other.spawn(move || back.spawn(|| 7).expect("accepted").wait(None)).expect("accepted");
            block_on(there)
        });
        outer.expect("accepted").wait(None)
    });
    assert_eq!(answer.expect("ends").expect("ends").expect("ends"), 7);
}

/// An operation that a full queue has the submitter run polls as well, on the same thread.
#[test]
fn a_thread_that_another_one_stands_in_for_stays_so_when_what_it_ran_meanwhile_ends() {
    let builder = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::CallerRuns);
    let (executor, gate) = (builder.build().expect("sound"), Gate::new());
    let (inner, hold) = (executor.clone(), gate.clone());
    let outer = executor.spawn(move || {
        let pass = hold.clone();
        let mut first = inner.spawn(move || pass.pass()).expect("accepted");
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut first).poll(&mut context).is_pending());
        hold.await_arrivals(1);
        let mut second = inner.spawn(|| 2).expect("queued");
        let mut polled = inner.spawn(move || {
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut second).poll(&mut context).is_pending());
            second
        });
        let second = polled.as_mut().expect("run right here").try_take().expect("it has ended").expect("no panic");
        hold.open();
        block_on(second)
    });
    let outer = outer.expect("accepted");
    assert_eq!(ends("a thread lent twice", move || outer.wait(None)).expect("ends").expect("ends"), 2);
}

/// A thread may stand in for one that waits, and is one too many when that one goes on.
#[test]
#[cfg(target_os = "linux")]
fn operations_that_wait_for_one_child_each_need_few_threads() {
    ends("fork and join", || {
        let executor = executor(4);
        let operation = |inner: Executor| {
            move || {
                let below = inner.spawn(|| std::fs::read_link("/proc/thread-self").expect("linux")).expect("accepted");
                let here = std::fs::read_link("/proc/thread-self").expect("linux");
                [here, below.wait(None).expect("it ends")]
            }
        };
        let requests: Vec<_> =
            (0..2_000).map(|_| executor.spawn(operation(executor.clone())).expect("accepted")).collect();
        let threads = executor.wait_requests(&requests, None).expect("they end");
        let threads: std::collections::HashSet<_> = threads.into_iter().flatten().collect();
        assert!(
            threads.len() <= 32,
            "{} threads for four at work, and those that wait for one child each",
            threads.len()
        );
    });
}

// Waits across executors.

/// Both end; nobody waits for ever, and whoever would is told.
fn all_told(what: &'static str, results: impl FnOnce() -> Vec<Result<()>> + Send + 'static) {
    let results = ends(what, results);
    let told = results.iter().filter(|result| matches!(result, Err(Error::WouldDeadlock))).count();
    assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(Error::WouldDeadlock))), "{what}: {results:?}");
    assert!(told >= 1, "{what}: {results:?}");
}

#[test]
fn a_shutdown_of_an_executor_that_waits_for_oneself_is_told() {
    type End = fn(&Executor) -> Result<()>;
    let kinds: [(&str, End); 3] = [
        ("shutdown", |other| other.shutdown(None)),
        ("reset", |other| other.reset(1, None)),
        // It isn't told, and waits for as long as this, if it begins before the other one waits.
        ("shutdown with a limit", |other| other.shutdown(Duration::from_secs(1))),
    ];
    for (what, end) in kinds {
        all_told(what, move || {
            let (a, b, gate) = (executor(2), executor(2), Gate::new());
            let (other, pass) = (b.clone(), gate.clone());
            let ender = a.spawn(move || {
                pass.pass();
                end(&other)
            });
            let ender = Arc::new(ender.expect("accepted"));
            let awaited = ender.clone();
            let (begun, has_begun) = channel();
            let waiter = b.spawn(move || {
                begun.send(()).expect("the receiver lives");
                awaited.wait(None).map(drop)
            });
            let waiter = waiter.expect("accepted");
            has_begun.recv().expect("it begins");
            gate.open();
            // The result of `ender` is taken by the waiter, unless that was refused.
            let waited = waiter.wait(None).expect("no panic");
            let ended = match ender.wait(None) {
                Ok(result) => result,
                Err(Error::ResultTaken) => Err(Error::WouldDeadlock),
                Err(error) => panic!("{error}"),
            };
            vec![waited, ended]
        });
    }
}

#[test]
fn executors_that_shut_each_other_down_are_told() {
    for count in [2, 3] {
        all_told("a ring of shutdowns", move || {
            let executors: Vec<Executor> = (0..count).map(|_| executor(1)).collect();
            let gate = Gate::new();
            let requests: Vec<_> = (0..count)
                .map(|index| {
                    let (next, pass) = (executors[(index + 1) % count].clone(), gate.clone());
                    let shut = move || {
                        pass.pass();
                        next.shutdown(None)
                    };
                    executors[index].spawn(shut).expect("accepted")
                })
                .collect();
            gate.await_arrivals(count);
            gate.open();
            requests.iter().map(|request| request.wait(None).expect("no panic")).collect()
        });
    }
}

// One result, two owners.

#[test]
fn a_result_that_belongs_to_a_follower_is_nobody_elses() {
    type Take = fn(&Executor, AsyncRequest<u8>) -> Option<Result<u8>>;
    let takes: [(&str, Take); 7] = [
        ("wait", |_, first| Some(first.wait(None))),
        ("wait with a limit", |_, first| Some(first.wait(HANG))),
        ("try_take", |_, first| {
            eventually("it ends", || first.is_done());
            first.try_take()
        }),
        ("wait_requests", |executor, first| Some(executor.wait_requests(&[first], None).map(|results| results[0]))),
        ("as_completed", |_, first| as_completed(&[first], None).next().map(|(_, result)| result)),
        ("the future", |_, first| Some(block_on(first))),
        ("a second follower", |_, first| Some(first.then(Ok::<_, Error>).expect("accepted").wait(None))),
    ];
    for (how, take) in takes {
        let (taken, follower) = ends(how, move || {
            let (executor, gate, later) = (executor(1), Gate::new(), Gate::new());
            let (pass, wait) = (gate.clone(), later.clone());
            let first = executor.spawn(move || {
                pass.pass();
                7
            });
            let first = first.expect("accepted");
            // Somebody else's work, behind which the follower has to queue.
            let other = executor.spawn(move || wait.pass()).expect("accepted");
            let follower = first.then(|n| Ok::<_, Error>(n + 1)).expect("accepted");
            gate.open();
            if how != "a second follower" {
                let taken = take(&executor, first);
                later.open();
                other.wait(None).expect("it was let go");
                return (taken, follower.wait(None));
            }
            later.open();
            (take(&executor, first), follower.wait(None))
        });
        assert!(matches!(taken, Some(Err(Error::ResultTaken))), "{how}: {taken:?}");
        assert_eq!(follower.expect("the result belongs to it"), 8, "{how}");
    }
}
