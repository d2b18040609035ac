//! `fulmar::scope`: operations that borrow, with the order and the waits of an executor, and all of
//! it over when it returns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use fulmar::queue::bounded;
use fulmar::{Error, Policy, Status};

use crate::support::{Gate, HANG, ends, executor};

#[test]
fn operations_borrow_and_give_back_what_borrows() {
    let words = [String::from("AAPL"), String::from("IBM"), String::from("GE")];
    let mut lengths = [0; 3];
    let longest = fulmar::scope(2, |s| {
        for (word, length) in words.iter().zip(&mut lengths) {
            drop(s.spawn(|| *length = word.len())?);
        }
        let longest: fulmar::ScopedRequest<'_, Option<&str>> =
            s.spawn(|| words.iter().map(String::as_str).max_by_key(|word| word.len()))?;
        longest.wait(HANG)
    });
    assert_eq!(longest.expect("starts").expect("ends"), Some("AAPL"));
    assert_eq!(lengths, [4, 3, 2], "it returned when all had ended");
}

#[test]
fn one_key_of_a_borrowed_store_is_in_order_and_others_are_not_held_up() {
    struct Log(Mutex<Vec<(&'static str, usize)>>);
    impl Log {
        fn add(&self, key: &'static str, n: usize) -> usize {
            let mut lines = self.0.lock().expect("no panic");
            lines.push((key, n));
            lines.len()
        }
        fn count(&self, key: &str) -> usize {
            self.0.lock().expect("no panic").iter().filter(|line| line.0 == key).count()
        }
    }
    let log = Log(Mutex::default());
    let gate = Gate::new();
    fulmar::scope(4, |s| {
        let hold = s.submit(&log, |_: &Log, _: &str| gate.pass(), true, "A").expect("accepted");
        let writes: Vec<_> = (0..100).map(|n| s.submit_write(&log, Log::add, ("A", n)).expect("accepted")).collect();
        let count = s.submit_read(&log, Log::count, "A").expect("accepted");
        s.submit_write(&log, Log::add, ("B", 0)).expect("accepted").wait(HANG).expect("another key");
        assert!(writes.iter().all(|write| write.status() == Status::Deferred));
        gate.open();
        assert_eq!(count.wait(HANG).expect("behind the writes"), 100);
        let seen = s.wait_requests(&writes, HANG).expect("all end");
        assert_eq!(seen, (2..102).collect::<Vec<_>>(), "B was first");
        hold.wait(HANG).expect("ends");
    })
    .expect("starts");
    let lines = log.0.into_inner().expect("no panic");
    assert!(lines[1..].iter().map(|line| line.1).eq(0..100), "in the order of submission");
}

#[test]
fn waits_in_operations_need_no_second_thread_and_what_cant_end_is_told() {
    fn sum<'scope>(s: &'scope fulmar::Scope<'scope, '_>, from: u64, to: u64) -> fulmar::Result<u64> {
        if to - from == 1 {
            return Ok(from);
        }
        let middle = from.midpoint(to);
        let (low, high) = (s.spawn(move || sum(s, from, middle))?, s.spawn(move || sum(s, middle, to))?);
        Ok(low.wait(None)?? + high.wait(None)??)
    }
    let total = ends("nested waits", || fulmar::scope(1, |s| sum(s, 0, 64)));
    assert_eq!(total.expect("starts").expect("nothing fails"), 63 * 32);

    let store = &();
    let told = fulmar::scope(2, |s| {
        let itself = move |_: &(), _: &str| {
            let behind = s.submit(store, |_: &(), _: &str| (), true, "A")?;
            behind.wait(None)
        };
        s.submit(store, itself, true, "A").expect("accepted").wait(HANG)
    });
    let told = told.expect("starts").expect_err("behind itself");
    assert!(matches!(told.operation(), Some(Error::WouldDeadlock)), "{told:?}");
}

#[test]
fn a_put_into_a_full_queue_lends_the_thread_and_so_does_the_scope() {
    let executor = executor(1);
    let inner = executor.clone();
    let scoped = move || {
        let (producer, consumer) = bounded(1).expect("sound");
        let mut taken = Vec::new();
        fulmar::scope(1, |s| {
            drop(s.spawn(|| (0..100).try_for_each(|n| producer.put(n)))?);
            drop(s.spawn(|| taken.extend(consumer.iter().take(100)))?);
            // On the thread of the executor below, which is the operation that waits here.
            drop(s.spawn(|| inner.spawn(|| 7)?.wait(None))?);
            Ok::<_, Error>(())
        })??;
        Ok::<_, Error>(taken)
    };
    let taken = ends("all of it", move || executor.spawn(scoped).expect("accepted").wait(None)).expect("ends");
    assert_eq!(taken.expect("nothing fails"), (0..100).collect::<Vec<i32>>());
}

#[test]
fn results_come_as_they_do_and_time_limits_hold() {
    let gate = Gate::new();
    fulmar::scope(2, |s| {
        let requests: Vec<_> = (0..3)
            .map(|n| {
                let gate = &gate;
                let wait = move || {
                    if n == 0 {
                        gate.pass();
                    }
                    n
                };
                s.spawn(wait).expect("accepted")
            })
            .collect();
        assert!(requests[0].wait(Duration::from_millis(1)).expect_err("the gate is shut").is_timeout());
        assert_ne!(s.wait_any_request(&requests, HANG).expect("one ends"), 0);
        let mut order = Vec::new();
        for (index, result) in s.as_completed(&requests, HANG) {
            assert_eq!(result.expect("can't fail"), index);
            order.push(index);
            if order.len() == 2 {
                gate.open();
            }
        }
        assert_eq!(order.last(), Some(&0));
        assert!(matches!(requests[1].wait(HANG), Err(Error::ResultTaken)));
    })
    .expect("starts");
}

#[test]
fn a_cancelled_operation_is_dropped_at_once_and_one_that_runs_is_told() {
    let gate = Gate::new();
    let (told, dropped) = (AtomicBool::new(false), AtomicUsize::new(0));
    struct Guard<'a>(&'a AtomicUsize);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    fulmar::scope(1, |s| {
        let running = s.spawn(|| {
            gate.pass();
            told.store(fulmar::is_cancelled(), Ordering::SeqCst);
        });
        let running = running.expect("accepted");
        gate.await_arrivals(1);
        let guard = Guard(&dropped);
        let queued = s.spawn(move || drop(guard)).expect("accepted");
        assert!(queued.cancel());
        assert_eq!((queued.status(), dropped.load(Ordering::SeqCst)), (Status::Cancelled, 1));
        assert!(matches!(queued.wait(HANG), Err(Error::Cancelled)));
        assert!(!running.cancel());
        gate.open();
    })
    .expect("starts");
    assert!(told.into_inner());
}

/// An operation waits for what another one owns, which was cancelled with the scope or with the
/// group around it.
#[test]
fn what_a_cancelled_operation_owns_is_dropped_before_the_scope_ends() {
    let gate = Gate::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        fulmar::scope(1, |s| {
            let (sender, receiver) = channel::<u32>();
            let hold = gate.clone();
            drop(s.spawn(move || {
                hold.pass();
                receiver.iter().count()
            }));
            gate.await_arrivals(1);
            drop(s.spawn(move || sender.send(1)));
            gate.open();
            panic!("the closure, on purpose");
        })
    }));
    panicked.map(|outcome: fulmar::Result<()>| outcome.is_ok()).expect_err("it goes on");

    let executor = executor(1);
    let group = executor.group(Policy::All);
    let (started, starts) = channel();
    let in_a_group = group.spawn(move || {
        fulmar::scope(1, |s| {
            let (gate, (sender, receiver)) = (Gate::new(), channel::<u32>());
            let hold = gate.clone();
            drop(s.spawn(move || hold.pass()));
            gate.await_arrivals(1);
            drop(s.spawn(move || sender.send(1)));
            started.send(()).expect("the test listens");
            let received = receiver.iter().count();
            gate.open();
            received
        })
    });
    starts.recv_timeout(HANG).expect("it starts");
    group.cancel();
    let received = ends("the scope's closure", move || in_a_group.expect("accepted").wait(None));
    assert_eq!(received.expect("returns"), 0, "it was cancelled before it sent");
}

#[test]
fn a_panic_of_an_operation_is_its_result_and_one_of_the_closure_ends_the_scope_first() {
    let failed = fulmar::scope(2, |s| {
        let request = s.spawn(|| -> u8 { panic!("in a test, on purpose") }).expect("accepted");
        let failed = request.wait(HANG).expect_err("a panic");
        assert!(request.panic_payload().is_some());
        failed
    });
    assert!(matches!(failed.expect("starts"), Error::Panicked(text) if text.contains("on purpose")));

    // Others wait for what the closure would have done: they are told (crossbeam's issue 196).
    let gate = Gate::new();
    let (ran, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        fulmar::scope(1, |s| {
            let waits = s.spawn(|| {
                gate.pass();
                while !fulmar::is_cancelled() {
                    std::thread::yield_now();
                }
                ended.store(true, Ordering::SeqCst);
            });
            drop(waits);
            gate.await_arrivals(1);
            for _ in 0..10 {
                drop(s.spawn(|| ran.fetch_add(1, Ordering::SeqCst)));
            }
            gate.open();
            panic!("the closure, on purpose");
        })
    }));
    let payload = panicked.map(|outcome: fulmar::Result<()>| outcome.is_ok()).expect_err("it goes on");
    assert_eq!(payload.downcast_ref(), Some(&"the closure, on purpose"));
    assert!(ended.into_inner(), "it had ended before");
    assert_eq!(ran.into_inner(), 0, "and what had not started was cancelled");
}

#[test]
fn a_scope_in_a_scope_and_many_at_once() {
    let total = AtomicUsize::new(0);
    fulmar::scope(3, |outer| {
        for n in 0..30 {
            let total = &total;
            let inner = move || {
                fulmar::scope(2, |inner| {
                    (0..10).try_for_each(|m| inner.spawn(move || total.fetch_add(n * m, Ordering::SeqCst)).map(drop))
                })
            };
            drop(outer.spawn(inner).expect("accepted"));
        }
    })
    .expect("starts");
    assert_eq!(total.into_inner(), (0..30).sum::<usize>() * 45);
}

#[test]
fn a_scope_of_no_threads_is_refused_and_calls_nothing() {
    let refused = fulmar::scope(0, |_| unreachable!("refused before")).expect_err("no threads");
    assert!(matches!(refused, Error::Invalid(why) if why.contains("0 threads")));
}
