//! Every hand-over between threads, in every order that the memory model allows, on the code that ships.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test model -- --nocapture` prints how many interleavings each model
//! went through. They are all those with at most so many preemptions as a model says; a switch where a thread blocks
//! or ends is free. Source: Musuvathi, Qadeer, "Iterative Context Bounding", PLDI 2007.
#![cfg(loom)]

mod explore;

use std::sync::Arc;

use explore::check;
use fulmar::{Error, Executor, Status};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

fn executor(threads: usize) -> Executor {
    Executor::builder().threads(threads).build().expect("sound")
}

/// Ends the threads, which a model has to, and looks at the account.
fn end(executor: &Executor) {
    executor.shutdown(None).expect("ends");
    let stats = executor.stats();
    assert_eq!(stats.unfinished(), 0, "{stats}");
    let ended = stats.completed + stats.failed + stats.panicked + stats.cancelled;
    assert_eq!(stats.submitted, ended, "{stats}");
    assert_eq!(stats.threads, 0, "{stats}");
}

/// Memory without an order of its own: where nothing else orders two accesses, some interleaving reads a stale value.
struct Plain(AtomicUsize);

impl Plain {
    fn new() -> Arc<Plain> {
        Arc::new(Plain(AtomicUsize::new(0)))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }
}

#[test]
fn finish_is_seen_by_a_waiter() {
    check("finish/wait", 5, || {
        let executor = executor(1);
        let (before, after) = (Plain::new(), Plain::new());
        before.set(1);
        let (seen, done) = (before.clone(), after.clone());
        let request = executor
            .spawn(move || {
                done.set(seen.get() + 1);
                3
            })
            .expect("accepted");
        assert_eq!(request.wait(None).expect("it ends"), 3);
        assert_eq!(after.get(), 2);
        end(&executor);
    });
}

#[test]
fn two_waiters_get_one_result() {
    check("finish/two waiters", 3, || {
        let executor = executor(1);
        let request = Arc::new(executor.spawn(|| 3).expect("accepted"));
        let other = request.clone();
        let waiter = thread::spawn(move || matches!(other.wait(None), Ok(3)));
        let mine = match request.wait(None) {
            Ok(3) => true,
            Err(Error::ResultTaken) => false,
            other => panic!("{other:?}"),
        };
        assert!(waiter.join().expect("no panic") != mine, "one of the two");
        end(&executor);
    });
}

#[test]
fn cancel_or_run_but_not_both() {
    check("cancel/run", 5, || {
        let executor = executor(1);
        let runs = Arc::new(AtomicUsize::new(0));
        let count = runs.clone();
        let request = executor.spawn(move || count.fetch_add(1, Ordering::Relaxed)).expect("accepted");
        let cancelled = request.cancel();
        match request.wait(None) {
            Ok(_) => assert!(!cancelled),
            Err(Error::Cancelled) => assert!(cancelled),
            other => panic!("{other:?}"),
        }
        end(&executor);
        assert_eq!(runs.load(Ordering::Relaxed), usize::from(!cancelled));
    });
}

#[test]
fn a_hook_meets_a_cancel_and_the_end() {
    check("hook/cancel/end", 3, || {
        let executor = executor(1);
        let (calls, ended) = (Arc::new(AtomicUsize::new(0)), Plain::new());
        let (count, late) = (calls.clone(), ended.clone());
        let request = executor
            .spawn(move || {
                let was_cancelled = fulmar::is_cancelled();
                let (seen, count) = (late.clone(), count);
                let called = count.clone();
                let hook = fulmar::on_cancel(move || {
                    assert_eq!(seen.get(), 0, "after the operation's end");
                    called.fetch_add(1, Ordering::Relaxed);
                });
                if was_cancelled {
                    assert!(!hook.take_back(), "the cancel came first");
                    assert_eq!(count.load(Ordering::Relaxed), 1, "by whichever thread");
                }
            })
            .expect("accepted");
        let cancelled = request.cancel();
        match request.wait(None) {
            Ok(()) => assert!(!cancelled),
            Err(Error::Cancelled) => assert!(cancelled),
            other => panic!("{other:?}"),
        }
        ended.set(1);
        end(&executor);
        assert!(
            calls.load(Ordering::Relaxed) <= usize::from(!cancelled),
            "once at most, and never without an operation"
        );
    });
}

#[test]
fn a_resize_meets_a_thread_that_parks() {
    check("resize/park", 4, || {
        let executor = executor(2);
        let first = executor.spawn(|| 1).expect("accepted");
        executor.resize(1).expect("live");
        let second = executor.spawn(|| 2).expect("accepted");
        assert_eq!(first.wait(None).expect("it ends") + second.wait(None).expect("it ends"), 3);
        end(&executor);
    });
}

#[test]
fn a_reset_loses_nothing() {
    check("reset/take", 3, || {
        let executor = executor(1);
        let requests = [executor.spawn(|| 1).expect("accepted"), executor.spawn(|| 2).expect("accepted")];
        executor.reset(1, None).expect("the old thread ends");
        assert_eq!(executor.wait_requests(&requests, None).expect("both end"), [1, 2]);
        end(&executor);
    });
}

#[test]
fn a_modifier_hands_over_its_lane() {
    check("lanes hand-over", 3, || {
        let executor = executor(2);
        let store = Plain::new();
        let add = |store: &Plain, _key: &str| {
            store.set(store.get() + 1);
            Ok::<_, Error>(store.get())
        };
        let first = executor.submit(&store, add, true, "AAPL").expect("accepted");
        let second = executor.submit(&store, add, true, "AAPL").expect("accepted");
        assert_eq!(second.wait(None).expect("it ends"), 2);
        assert!(first.is_done(), "it ran before, and so is seen to have ended before");
        assert_eq!(first.wait(None).expect("it ends"), 1);
        end(&executor);
    });
}

#[test]
fn a_cancelled_modifier_releases_whom_it_held_back() {
    check("cancel/release", 4, || {
        let executor = executor(1);
        let store = Plain::new();
        let add = |store: &Plain, _key: &str| {
            store.set(store.get() + 1);
            Ok::<_, Error>(())
        };
        let first = executor.submit(&store, add, true, "AAPL").expect("accepted");
        let second = executor.submit(&store, add, true, "AAPL").expect("accepted");
        let cancelled = first.cancel();
        second.wait(None).expect("it ends");
        end(&executor);
        assert_eq!(store.get(), if cancelled { 1 } else { 2 });
    });
}

#[test]
fn a_submission_meets_a_shutdown() {
    check("shutdown/submit", 5, || {
        let executor = executor(1);
        let other = executor.clone();
        let submitter = thread::spawn(move || match other.spawn(|| 1) {
            Ok(request) => request.wait(None).expect("what was accepted ends"),
            Err(Error::ShutDown) => 0,
            Err(other) => panic!("{other:?}"),
        });
        executor.shutdown(None).expect("ends");
        let accepted = submitter.join().expect("no panic");
        end(&executor);
        assert_eq!(executor.stats().completed, accepted);
    });
}

#[test]
fn the_last_handle_goes_while_work_is_queued() {
    check("drop/finish", 5, || {
        let executor = executor(1);
        let request = executor.spawn(|| 1).expect("accepted");
        drop(executor);
        assert_eq!(request.wait(None).expect("accepted is accepted"), 1);
    });
}

#[test]
fn another_thread_runs_what_a_worker_waits_for() {
    check("block/stand in", 3, || {
        let executor = executor(1);
        let inner = executor.clone();
        let outer = executor
            .spawn(move || {
                let nested = inner.spawn(|| 1).expect("accepted");
                nested.wait(None).expect("no deadlock") + 1
            })
            .expect("accepted");
        assert_eq!(outer.wait(None).expect("no deadlock"), 2);
        end(&executor);
    });
}

#[test]
fn two_workers_that_wait_for_each_other_are_told() {
    check("deadlock/detect", 1, || {
        let executor = executor(2);
        let store = Arc::new(());
        let submit = |own: &'static str, other: &'static str| {
            let (inner, same) = (executor.clone(), store.clone());
            let operation = move |_: &(), _key: &str| {
                let behind = inner.submit(&same, |_: &(), _key: &str| Ok::<_, Error>(()), true, other)?;
                match behind.wait(None) {
                    Ok(()) => Ok(true),
                    Err(Error::WouldDeadlock) => Ok(false),
                    Err(other) => Err(other),
                }
            };
            executor.submit(&store, operation, true, own).expect("accepted")
        };
        let crossed = [submit("A", "B"), submit("B", "A")];
        // Both may go on, one after the other, or at least one is refused: but nobody hangs.
        executor.wait_requests(&crossed, None).expect("no deadlock");
        end(&executor);
    });
}

#[test]
fn a_follower_starts_after_what_it_follows() {
    check("then/finish", 4, || {
        let executor = executor(1);
        let first = executor.spawn(|| 1).expect("accepted");
        let follower = first.then(|value| Ok::<_, Error>(value + 1)).expect("accepted");
        assert_eq!(follower.wait(None).expect("it ends"), 2);
        assert_eq!(first.status(), Status::Completed);
        end(&executor);
    });
}

#[test]
fn one_of_two_wakes_who_waits_for_any() {
    check("wait any/finish", 4, || {
        let executor = executor(1);
        let requests = [executor.spawn(|| 1).expect("accepted"), executor.spawn(|| 2).expect("accepted")];
        let index = executor.wait_any_request(&requests, None).expect("one ends");
        assert!(requests[index].is_done());
        let results: usize = fulmar::as_completed(&requests, None).map(|(_, result)| result.expect("a number")).sum();
        assert_eq!(results, 3);
        end(&executor);
    });
}

#[test]
fn a_full_queue_lets_the_next_one_in() {
    check("queue full/start", 3, || {
        let limit = std::time::Duration::from_secs(60);
        let builder = Executor::builder().threads(1).queue_capacity(1).on_full(fulmar::OnFull::Wait(limit));
        let executor = builder.build().expect("sound");
        let first = executor.spawn(|| 1).expect("accepted");
        let second = executor.spawn(|| 2).expect("accepted once there is room");
        assert_eq!(first.wait(None).expect("it ends") + second.wait(None).expect("it ends"), 3);
        end(&executor);
    });
}

#[test]
fn what_is_queued_is_within_reach_of_a_new_thread() {
    check("queue/take", 2, || {
        let executor = executor(1);
        let store = Arc::new(());
        let requests =
            executor.submit_many(&store, |_: &(), n: usize| Ok::<_, Error>(n), false, 0..3).expect("accepted");
        executor.resize(2).expect("live");
        assert_eq!(executor.wait_requests(&requests, None).expect("all end"), [0, 1, 2]);
        end(&executor);
    });
}

#[test]
fn every_snapshot_adds_up() {
    check("snapshot", 4, || {
        let executor = executor(1);
        let requests = [executor.spawn(|| 1).expect("accepted"), executor.spawn(|| 2).expect("accepted")];
        requests[1].cancel();
        let stats = executor.stats();
        let parts = stats.deferred + stats.queued + stats.running + stats.completed + stats.cancelled;
        assert_eq!((stats.submitted, parts), (2, 2), "{stats}");
        end(&executor);
    });
}

#[test]
fn a_timer_that_parks_meets_an_earlier_entry() {
    check("timer insert/park", 3, || {
        let executor = executor(1);
        let store = Arc::new(());
        let first = executor.submit_after(std::time::Duration::ZERO, &store, |_: &(), ()| Ok::<_, Error>(1), true, ());
        let second = executor.submit_after(std::time::Duration::ZERO, &store, |_: &(), ()| Ok::<_, Error>(2), true, ());
        assert_eq!(second.expect("accepted").wait(None).expect("its time has come"), 2);
        assert_eq!(first.expect("accepted").wait(None).expect("its time has come"), 1);
        end(&executor);
    });
}
