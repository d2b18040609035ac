//! The promises of the executor, each under its number and name.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fulmar::{AsyncRequest, Error, Executor, Status};

use crate::support::{Gate, HANG, assert_adds_up, eventually, executor, occupy};

#[test]
fn promise_1_every_accepted_request_ends_exactly_once() {
    let executor = executor(3);
    let runs: Arc<Vec<AtomicUsize>> = Arc::new((0..4_000).map(|_| AtomicUsize::new(0)).collect());
    let gate = Gate::new();
    let blocker = occupy(&executor, &gate);
    let mut requests = Vec::new();
    for index in 0..runs.len() {
        let runs = runs.clone();
        let operation = move |_: &(), ()| {
            runs[index].fetch_add(1, Ordering::Relaxed);
            match index % 3 {
                0 => Ok(index),
                1 => Err("an error"),
                _ => panic!("a panic of a test, on purpose"),
            }
        };
        requests.push(executor.submit(&Arc::new(()), operation, index % 2 == 0, ()).expect("accepted"));
        match index % 1_000 {
            200 => executor.resize(1 + index % 5).expect("live"),
            500 => drop(executor.reset(2, Duration::ZERO)),
            700 => assert!(blocker.wait(Duration::ZERO).expect_err("it is held").is_timeout(), "a wait that gives up"),
            _ => {}
        }
    }
    let cancelled = requests.iter().step_by(7).filter(|request| request.cancel()).count();
    requests.truncate(3_000);
    gate.open();
    executor.shutdown(None).expect("all that was accepted ends");
    let stats = executor.stats();
    assert_adds_up(&stats);
    assert_eq!(stats.unfinished(), 0, "{stats}");
    assert_eq!(stats.cancelled, cancelled as u64, "{stats}");
    let ran = runs.iter().map(|runs| runs.load(Ordering::Relaxed)).inspect(|runs| assert!(*runs <= 1, "ran twice"));
    assert_eq!(ran.sum::<usize>(), 4_000 - cancelled, "each that was not cancelled ran, dropped handles included");
    for request in &requests {
        assert!(request.status().is_final());
    }
}

#[test]
fn promise_2_a_wait_changes_nothing() {
    let executor = executor(1);
    let gate = Gate::new();
    let pass = gate.clone();
    let requests: Vec<AsyncRequest<usize>> = [
        executor.spawn(|| 0),
        executor.spawn(move || {
            pass.pass();
            1
        }),
        executor.spawn(|| 2),
    ]
    .into_iter()
    .collect::<Result<_, _>>()
    .expect("accepted");
    gate.await_arrivals(1);
    let timeout = executor.wait_requests(&requests, Duration::from_millis(1)).expect_err("one is held");
    assert!(matches!(timeout, Error::Timeout { left: 2, .. }), "{timeout:?}");
    assert!(requests[1].wait(Duration::ZERO).expect_err("held").is_timeout());
    assert_eq!(requests[1].status(), Status::Running, "a timeout leaves it running");
    gate.open();
    assert_eq!(executor.wait_any_request(&requests[1..2], None).expect("it ends"), 0);
    assert_eq!(executor.wait_requests(&requests, None).expect("all or nothing left all there"), [0, 1, 2]);
    assert!(matches!(requests[0].wait(None), Err(Error::ResultTaken)), "taken once");

    // On an error every other result stays, also one after it in the list.
    let store = Arc::new(());
    let fail_odd = |_: &(), n: usize| if n % 2 == 1 { Err(format!("{n} is odd")) } else { Ok(n) };
    let requests = executor.submit_many(&store, fail_odd, false, 0..5).expect("accepted");
    let error = executor.wait_requests(&requests, None).expect_err("two fail");
    assert_eq!(std::error::Error::source(&error).map(ToString::to_string).as_deref(), Some("1 is odd"), "the first");
    assert!(matches!(requests[1].try_take(), Some(Err(Error::ResultTaken))), "its error was returned");
    let rest: Vec<bool> = [0, 2, 3, 4].map(|n| requests[n].try_take().expect("ended").is_ok()).to_vec();
    assert_eq!(rest, [true, true, false, true]);
}

#[test]
fn promise_3_order_on_one_key() {
    let executor = executor(4);
    let (store, log, gate) = (Arc::new(()), Arc::new(Mutex::new(Vec::new())), Gate::new());
    let submit = |name: &'static str, is_modifier: bool, hold: bool| {
        let (log, gate) = (log.clone(), gate.clone());
        let operation = move |_: &(), _key: &'static str| {
            if hold {
                gate.pass();
            }
            log.lock().expect("no panic").push(name);
            Ok::<_, Error>(())
        };
        executor.submit(&store, operation, is_modifier, "AAPL").expect("accepted")
    };
    let reads = [submit("read 1", false, true), submit("read 2", false, true)];
    gate.await_arrivals(2);
    let write = submit("write", true, false);
    let late = [submit("read 3", false, false), submit("read 4", false, false)];
    let last = submit("write 2", true, false);
    assert_eq!(write.status(), Status::Deferred, "a modifier waits for the accessors before it");
    assert!(late.iter().all(|read| read.status() == Status::Deferred), "nobody overtakes a waiting modifier");
    assert_eq!(executor.stats().deferred, 4);
    let others = executor.submit(&store, |_: &(), _key: &str| Ok::<_, Error>("free"), true, "MSFT").expect("accepted");
    assert_eq!(others.wait(None).expect("another key"), "free", "a deferred request holds no thread");
    let other_store = executor.submit(&Arc::new(()), |_: &(), _key: &str| Ok::<_, Error>("free"), true, "AAPL");
    assert_eq!(other_store.expect("accepted").wait(None).expect("another store"), "free");
    gate.open();
    last.wait(None).expect("it ends");
    let log = log.lock().expect("no panic");
    let position = |name: &str| log.iter().position(|entry| *entry == name).expect("ran");
    assert_eq!((position("write"), position("write 2")), (2, 5), "{log:?}");
    drop((reads, late));
}

#[test]
fn promise_4_a_wait_inside_a_worker_never_deadlocks() {
    // One thread, and every operation waits for another one: a plain pool stops here for ever.
    let one = executor(1);
    fn sum(executor: Executor, from: u64, to: u64) -> u64 {
        if to - from == 1 {
            return from;
        }
        let middle = from + (to - from) / 2;
        let halves = [(from, middle), (middle, to)].map(|(from, to)| {
            let inner = executor.clone();
            executor.spawn(move || sum(inner, from, to)).expect("accepted")
        });
        executor.wait_requests(&halves, None).expect("both end").iter().sum()
    }
    let inner = one.clone();
    let total = one.spawn(move || sum(inner, 0, 500)).expect("accepted").wait(None);
    assert_eq!(total.expect("no deadlock"), 499 * 500 / 2);

    // What stands in the way on the key is run first, in its order.
    let (store, log) = (Arc::new(()), Arc::new(Mutex::new(Vec::new())));
    let (executor, order) = (one.clone(), log.clone());
    let outer = one.spawn(move || {
        let write = |n: usize| {
            let order = order.clone();
            let operation = move |_: &(), _key: &str| {
                order.lock().expect("no panic").push(n);
                Ok::<_, Error>(n)
            };
            executor.submit(&store, operation, true, "AAPL").expect("accepted")
        };
        let writes = [write(0), write(1), write(2)];
        writes[2].wait(None).expect("it was run right here")
    });
    assert_eq!(outer.expect("accepted").wait(None).expect("no deadlock"), 2);
    assert_eq!(*log.lock().expect("no panic"), [0, 1, 2]);

    // And what can't start until the waiter ends is refused at once.
    let (store, inner) = (Arc::new(()), one.clone());
    let same = store.clone();
    let nested = move |_: &(), _key: &str| {
        let behind_me = inner.submit(&same, |_: &(), _key: &str| Ok::<_, Error>(()), false, "AAPL")?;
        let refused = [behind_me.wait(None), behind_me.wait(Duration::from_secs(3_600))];
        Ok::<_, Error>(refused.map(|refused| matches!(refused, Err(Error::WouldDeadlock))))
    };
    let nested = one.submit(&store, nested, true, "AAPL").expect("accepted");
    assert_eq!(nested.wait(None).expect("it is told"), [true, true]);
}

#[test]
fn promise_5_cancel_takes_out_what_waits_and_tells_what_runs() {
    let executor = executor(1);
    let (gate, ran) = (Gate::new(), Arc::new(AtomicBool::new(false)));
    let (started, flag) = (Gate::new(), ran.clone());
    let arrive = started.clone();
    let running = executor.spawn(move || {
        arrive.pass();
        eventually("the running request is told", fulmar::is_cancelled);
        "decided by itself"
    });
    let running = running.expect("accepted");
    started.await_arrivals(1);
    let store = Arc::new(());
    let queued = executor.submit(
        &store,
        move |_: &(), _: &str| {
            flag.store(true, Ordering::Relaxed);
            Ok::<_, Error>(())
        },
        true,
        "AAPL",
    );
    let deferred = executor.submit(&store, |_: &(), _: &str| Ok::<_, Error>("after all"), true, "AAPL");
    let (queued, deferred) = (queued.expect("accepted"), deferred.expect("accepted"));
    assert_eq!((queued.status(), deferred.status()), (Status::Queued, Status::Deferred));
    assert!(queued.cancel(), "taken out for good");
    assert!(!queued.cancel(), "once");
    assert_eq!(deferred.status(), Status::Queued, "whom it stood in the way of goes on");
    assert!(!running.cancel(), "it is only told");
    started.open();
    assert_eq!(running.wait(None).expect("its own decision"), "decided by itself");
    assert!(matches!(queued.wait(None), Err(Error::Cancelled)));
    assert_eq!(deferred.wait(None).expect("it ran"), "after all");
    assert!(!ran.load(Ordering::Relaxed), "a cancelled request never runs");
    assert_eq!(executor.stats().cancelled, 1);
    gate.open();
}

#[test]
fn promise_6_resize_is_live_reset_moves_and_shutdown_finishes() {
    let executor = executor(1);
    assert_eq!(executor.stats().threads, 0, "threads start with the first submission");
    let gate = Gate::new();
    let held: Vec<_> = (0..4)
        .map(|_| {
            let gate = gate.clone();
            executor.spawn(move || gate.pass()).expect("accepted")
        })
        .collect();
    gate.await_arrivals(1);
    executor.resize(3).expect("live, while busy");
    gate.await_arrivals(3);
    assert_eq!(executor.stats().queued, 1, "three of four run on three threads");
    executor.resize(1).expect("live, while busy");
    assert_eq!(executor.stats().threads, 1, "two of three end after their current request");

    // Reset: the queued one moves to the new thread, the running ones finish on the old ones.
    let busy = executor.reset(1, Duration::ZERO).expect_err("the old threads are busy");
    assert!(matches!(busy, Error::Timeout { left: 3, .. }), "{busy:?}");
    gate.await_arrivals(4);

    let left = executor.shutdown(Duration::from_millis(1)).expect_err("four are held");
    assert!(matches!(left, Error::Timeout { left: 4, .. }), "it says how much is left: {left:?}");
    assert!(matches!(executor.spawn(|| ()), Err(Error::ShutDown)));
    gate.open();
    executor.await_termination(None).expect("all ends");
    assert!(held.iter().all(|request| request.status() == Status::Completed));
    assert_eq!(executor.stats().threads, 0);

    executor.reset(2, None).expect("open for business again");
    assert_eq!(executor.spawn(|| 5).expect("accepted").wait(None).expect("it runs"), 5);

    // The last handle goes while work is queued: it is finished, and then the threads end.
    let (gate, ended) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let count = ended.clone();
    let builder = Executor::builder().threads(1).on_thread_stop(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let executor = builder.build().expect("sound");
    drop(occupy(&executor, &gate));
    let queued = executor.spawn(|| 6).expect("accepted");
    drop(executor);
    gate.open();
    assert_eq!(queued.wait(None).expect("accepted is accepted"), 6);
    eventually("its thread ends", || ended.load(Ordering::Relaxed) == 1);
}

#[test]
#[cfg(target_os = "linux")]
fn promise_7_idle_costs_nothing() {
    let executor = executor(16);
    let gate = Gate::new();
    let requests: Vec<_> = (0..16)
        .map(|_| {
            let gate = gate.clone();
            executor.spawn(move || {
                gate.pass();
                std::fs::read_link("/proc/thread-self").expect("a thread on linux")
            })
        })
        .collect::<Result<_, _>>()
        .expect("accepted");
    gate.await_arrivals(16);
    gate.open();
    let threads: HashSet<_> = executor.wait_requests(&requests, None).expect("all end").into_iter().collect();
    assert_eq!(threads.len(), 16);
    let woken = |thread: &std::path::PathBuf| {
        let status = std::fs::read_to_string(std::path::Path::new("/proc").join(thread).join("status"));
        let status = status.expect("the thread sleeps, and so exists");
        assert!(status.contains("Name:\tfulmar-"), "{status}");
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).expect("a count")
    };
    let sleeping = |thread: &std::path::PathBuf| {
        let stat = std::fs::read_to_string(std::path::Path::new("/proc").join(thread).join("stat")).expect("it exists");
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
    };
    eventually("all sixteen threads sleep", || threads.iter().all(sleeping));
    let count = || threads.iter().map(woken).sum::<u64>();
    let before = count();
    // One request at a time, each after its thread went back to sleep: it wakes that thread and none of the others.
    for _ in 0..50 {
        executor.spawn(|| ()).expect("accepted").wait(None).expect("it ends");
        eventually("the thread sleeps again", || threads.iter().all(sleeping));
    }
    let wakes = count() - before;
    assert!(
        (1..=100).contains(&wakes),
        "{wakes} wake-ups for 50 requests: one thread each, and one more to be generous"
    );
}

#[test]
fn promise_8_counters_add_up_in_every_snapshot() {
    let executor = executor(3);
    let (store, watched) = (Arc::new(()), AtomicBool::new(false));
    let (submitting, submitted) = (AtomicUsize::new(2), AtomicUsize::new(0));
    let operation = |_: &(), (_, n): (&'static str, usize)| match n % 5 {
        0 => Err("an error"),
        // Without the hook, which would print thousands of them.
        1 => std::panic::resume_unwind(Box::new("a panic of a test, on purpose")),
        _ => Ok(n),
    };
    std::thread::scope(|scope| {
        for submitter in 0..2 {
            let (executor, store, watched) = (&executor, &store, &watched);
            let (submitting, submitted) = (&submitting, &submitted);
            scope.spawn(move || {
                // Traffic goes on until it was seen: the watcher may get no turn for long. If it has failed, not for ever.
                let enough = |n| n >= 4_000 && (watched.load(Ordering::Relaxed) || n >= 1_000_000);
                for n in (0..).take_while(|&n| !enough(n)) {
                    submitted.fetch_add(1, Ordering::Relaxed);
                    let key = ["AAPL", "MSFT"][(n + submitter) % 2];
                    let request = executor.submit(store, operation, n % 3 == 0, (key, n)).expect("accepted");
                    if n % 4 == 0 {
                        request.cancel();
                    }
                }
                submitting.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let mut last = executor.stats();
        let mut snapshots = 0;
        while submitting.load(Ordering::Relaxed) > 0 {
            let stats = executor.stats();
            assert_adds_up(&stats);
            assert!(stats.submitted >= last.submitted, "{last}\nthen {stats}");
            last = stats;
            snapshots += 1;
            watched.store(snapshots > 10, Ordering::Relaxed);
        }
    });
    executor.shutdown(None).expect("all ends");
    let stats = executor.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.submitted, stats.unfinished()), (submitted.into_inner() as u64, 0), "{stats}");
}

#[test]
fn promise_9_happens_before_on_the_way_in_and_out() {
    // Relaxed stores and loads on purpose: only the executor's own hand-overs order them.
    let executor = executor(2);
    for round in 0..2_000 {
        let (before, after) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        before.store(round, Ordering::Relaxed);
        let (seen, done) = (before.clone(), after.clone());
        let request = executor.spawn(move || {
            done.store(round + 1, Ordering::Relaxed);
            seen.load(Ordering::Relaxed)
        });
        assert_eq!(request.expect("accepted").wait(None).expect("it ends"), round);
        assert_eq!(after.load(Ordering::Relaxed), round + 1);
    }
    // Plain memory between two requests on one key, which the compiler would not let us share without the store.
    let store = Arc::new(Mutex::new(0_u32));
    let add = |store: &Mutex<u32>, _key: &'static str| {
        let mut value = store.try_lock().map_err(|_| "a modifier runs alone")?;
        *value += 1;
        Ok::<_, &str>(*value)
    };
    let requests = executor.submit_many(&store, add, true, std::iter::repeat_n("AAPL", 500)).expect("accepted");
    assert_eq!(executor.wait_requests(&requests, None).expect("alone"), (1..=500).collect::<Vec<_>>());
}

#[test]
fn promise_10_no_unsafe_code() {
    let lib = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).expect("the crate's root");
    assert!(lib.contains("#![deny(unsafe_code)]"), "two files allow it and argue; `tests/tidy.rs` knows which");
}

#[test]
fn promise_11_progress_and_the_order_of_starts() {
    // Reach: fewer than n operations are at work, so the first queued one starts, whatever the others wait for.
    let (executor, gate) = (executor(2), Gate::new());
    let held = [occupy(&executor, &gate), occupy(&executor, &gate)];
    let short: Vec<_> = (0..2).map(|_| executor.spawn(|| ()).expect("accepted")).collect();
    let mut pairs = Vec::new();
    for _ in 0..32 {
        let (send, receive) = std::sync::mpsc::channel();
        pairs.push(executor.spawn(move || receive.recv().expect("it is sent")).expect("accepted"));
        pairs.push(executor.spawn(move || send.send(()).expect("it is received")).expect("accepted"));
    }
    gate.open();
    executor.wait_requests(&pairs, HANG).expect("no pair is stuck");
    executor.wait_requests(&short, None).expect("they end");
    executor.wait_requests(&held, None).expect("they were let go");

    // Order: with one thread free, each starts in its turn, also those behind a long one.
    let (gate, long, started) = (Gate::new(), Gate::new(), Arc::new(Mutex::new(Vec::new())));
    let held = [occupy(&executor, &gate), occupy(&executor, &gate)];
    let pass = long.clone();
    let slow = executor.spawn(move || pass.pass()).expect("accepted");
    let store = Arc::new(());
    let requests: Vec<_> = (0..1_000)
        .map(|number| {
            let started = started.clone();
            let start = move |_: &(), _key: String| {
                started.lock().expect("no panic").push(number);
                Ok::<_, Error>(())
            };
            executor.submit(&store, start, true, format!("key {number}")).expect("accepted")
        })
        .collect();
    gate.open();
    executor.wait_requests(&requests, HANG).expect("one thread is free");
    assert!(started.lock().expect("no panic").is_sorted(), "in the order in which they were queued");
    long.open();
    slow.wait(None).expect("it was let go");
    executor.wait_requests(&held, None).expect("they were let go");
}

#[test]
fn promise_12_a_wait_keeps_its_word_inside_operations() {
    let executor = executor(4);
    let inner = executor.clone();
    let outer = executor.spawn(move || {
        let (gate, lock) = (Gate::new(), Arc::new(Mutex::new(())));
        let pass = gate.clone();
        let held = inner.spawn(move || pass.pass()).expect("accepted");
        assert!(held.wait(Duration::from_millis(5)).expect_err("it is held").is_timeout(), "a limit holds");
        let both = [held, inner.spawn(|| ()).expect("accepted")];
        assert_eq!(inner.wait_any_request(&both, None).expect("one ends"), 1, "the first that ends is told first");
        let guard = lock.lock().expect("no panic");
        let wanted = lock.clone();
        let awaited = inner.spawn(move || drop(wanted.lock().expect("no panic"))).expect("accepted");
        let waited = awaited.wait(Duration::from_millis(5));
        assert!(waited.expect_err("it wants the lock").is_timeout(), "it runs where it can wait, on a free thread");
        drop(guard);
        awaited.wait(None).expect("now it has it");
        gate.open();
    });
    outer.expect("accepted").wait(HANG).expect("no panic, no hang");

    // Nested on a single thread.
    fn nest(executor: &Executor, depth: usize) -> usize {
        let inner = executor.clone();
        let below = move || if depth == 0 { 0 } else { nest(&inner, depth - 1) + 1 };
        executor.spawn(below).expect("accepted").wait(None).expect("it ends")
    }
    let one = crate::support::executor(1);
    assert_eq!(nest(&one, 200), 200);
}

#[test]
fn promise_13_nobody_elses_code_breaks_it() {
    /// Submits when its thread ends.
    struct Last(Executor, Arc<AtomicUsize>);

    impl Drop for Last {
        fn drop(&mut self) {
            // Long beside all that a thread does after its last request.
            let (_open, never) = std::sync::mpsc::channel::<()>();
            let _ = never.recv_timeout(Duration::from_millis(50));
            let ended = self.1.clone();
            self.0.spawn(move || ended.fetch_add(1, Ordering::SeqCst)).expect("open").wait(None).expect("it ends");
        }
    }

    thread_local! {
        static LAST: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) };
    }

    let (executor, other) = (crate::support::executor(2), crate::support::executor(1));
    let ended = Arc::new(AtomicUsize::new(0));
    let last = Last(other.clone(), ended.clone());
    executor.spawn(move || LAST.set(Some(last))).expect("accepted").wait(None).expect("it ends");
    let called = Arc::new(AtomicUsize::new(0));
    for _ in 0..8 {
        let request = executor.spawn(|| panic!("a panic of a test, on purpose")).expect("accepted");
        let call = called.clone();
        request.on_complete(move |_: Status| {
            call.fetch_add(1, Ordering::SeqCst);
            panic!("a panic of a test, on purpose");
        });
        drop::<AsyncRequest<()>>(request);
    }
    executor.shutdown(HANG).expect("ends");
    assert_eq!(called.load(Ordering::SeqCst), 8, "callbacks have ended");
    assert_eq!(ended.load(Ordering::SeqCst), 1, "threads have ended, thread-locals and all");
    assert_eq!(executor.stats().threads, 0);
    other.shutdown(HANG).expect("ends");
}
