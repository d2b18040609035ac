//! Every hand-over between threads, in every order that the memory model allows, on the code that
//! ships.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test model -- --nocapture` prints how many
//! interleavings each model went through. They are all those with at most so many preemptions as a
//! model says; a switch where a thread blocks or ends is free. Source: Musuvathi, Qadeer,
//! "Iterative Context Bounding", PLDI 2007.
#![cfg(loom)]

mod explore;

use std::sync::Arc;

use explore::check;
use fulmar::batch::{BatchRunner, Context, JobError, Poll, RemoteJob, Submitted};
use fulmar::{Error, Executor, Policy, Status};
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

/// Memory without an order of its own: where nothing else orders two accesses, some interleaving
/// reads a stale value.
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
fn a_group_meets_a_cancel_a_submission_and_its_end() {
    check("group/cancel/submit/end", 2, || {
        let executor = executor(1);
        let runs = Arc::new(AtomicUsize::new(0));
        let group = Arc::new(executor.group(Policy::Each));
        let other = group.clone();
        let canceller = thread::spawn(move || other.cancel());
        let count = runs.clone();
        let request = group.spawn(move || count.fetch_add(1, Ordering::Relaxed)).expect("accepted");
        let waited = group.wait(None);
        assert!(request.is_done(), "the group's end was told before that of its request");
        let stats = group.stats();
        assert_eq!((stats.submitted, stats.unfinished(), stats.failed), (1, 0, 0), "{stats:?}");
        assert_eq!(stats.succeeded as usize, runs.load(Ordering::Relaxed));
        assert!(canceller.join().expect("no panic"), "nothing else ended it");
        assert!(matches!(waited, Ok(_) | Err(Error::Cancelled)), "{waited:?}");
        drop(group);
        end(&executor);
    });
}

#[test]
fn a_group_that_is_dropped_outlives_what_its_operations_submit() {
    check("group/own submission/drop", 2, || {
        let executor = executor(1);
        let (begun, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let group = executor.group(Policy::All);
        let (inner, before, after) = (executor.clone(), begun.clone(), done.clone());
        let operation = move || {
            drop(inner.spawn(move || {
                before.fetch_add(1, Ordering::Relaxed);
                after.fetch_add(1, Ordering::Relaxed);
            }));
        };
        drop(group.spawn(operation).expect("accepted"));
        drop(group);
        let ran = begun.load(Ordering::Relaxed);
        assert_eq!(ran, done.load(Ordering::Relaxed));
        end(&executor);
        assert_eq!(begun.load(Ordering::Relaxed), ran, "an operation has started after its group's end");
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

/// A lost wake-up leaves both blocked, because only the end of the first wait lets the other go.
#[test]
fn a_cancel_meets_a_wait_that_nothing_else_ends() {
    check("cancel/wait", 2, || {
        let (waits, holds) = (executor(1), executor(1));
        let (producer, consumer) = fulmar::queue::bounded(1).expect("holds something");
        let held = Arc::new(holds.spawn(move || consumer.get()).expect("accepted"));
        let awaited = held.clone();
        let waiting = waits.spawn(move || awaited.wait(None)).expect("accepted");
        let cancelled = waiting.cancel();
        match waiting.wait(None) {
            Ok(Err(Error::Interrupted)) => assert!(!cancelled),
            Err(Error::Cancelled) => assert!(cancelled),
            other => panic!("{other:?}"),
        }
        producer.put(3).expect("open");
        assert!(matches!(held.wait(None), Ok(Ok(3))), "it goes on");
        end(&waits);
        end(&holds);
    });
}

#[test]
fn a_cancel_meets_a_wait_and_the_end_that_it_waits_for() {
    check("cancel/wait/end", 2, || {
        let (waits, others) = (executor(1), executor(1));
        let awaited = Arc::new(others.spawn(|| 3).expect("accepted"));
        let inner = awaited.clone();
        let waiting = waits.spawn(move || inner.wait(None)).expect("accepted");
        let cancelled = waiting.cancel();
        let first = waiting.wait(None);
        match (cancelled, first, awaited.wait(None)) {
            (true, Err(Error::Cancelled), Ok(3))
            | (false, Ok(Ok(3)), Err(Error::ResultTaken))
            | (false, Ok(Err(Error::Interrupted)), Ok(3)) => {}
            other => panic!("the result is had once: {other:?}"),
        }
        end(&waits);
        end(&others);
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
fn a_head_start_meets_a_plain_submission_and_a_thread_that_goes_to_sleep() {
    check("head start/push/sleep", 2, || {
        let executor = executor(1);
        let other = executor.clone();
        let ahead = executor.ahead(std::time::Duration::from_secs(1));
        let submitter = thread::spawn(move || other.spawn(|| 1).expect("accepted").wait(None));
        assert_eq!(ahead.spawn(|| 2).expect("accepted").wait(None).expect("ends"), 2);
        assert_eq!(submitter.join().expect("no panic").expect("ends"), 1);
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
fn the_last_end_is_seen_by_a_thread_that_waits_until_all_is_done() {
    check("idle/end", 3, || {
        let executor = executor(1);
        let (done, told) = (Plain::new(), Plain::new());
        let (set, tell) = (done.clone(), told.clone());
        let request = executor.spawn(move || set.set(1)).expect("accepted");
        drop(request.on_complete(move |_| tell.set(1)));
        executor.wait_idle(None).expect("it becomes idle");
        assert_eq!((done.get(), told.get()), (1, 1), "callbacks included");
        assert_eq!(executor.stats().completed, 1);
        end(&executor);
    });
}

#[test]
fn the_last_cancel_is_seen_by_a_thread_that_waits_until_all_is_done() {
    check("idle/cancel", 2, || {
        let executor = executor(1);
        let request = executor.spawn(|| 1).expect("accepted");
        let canceller = thread::spawn(move || request.cancel());
        executor.wait_idle(None).expect("it becomes idle");
        assert_eq!(executor.stats().unfinished(), 0);
        canceller.join().expect("no panic");
        end(&executor);
    });
}

#[test]
fn a_shutdown_now_cancels_or_a_thread_runs_but_not_both() {
    check("shutdown now/run", 3, || {
        let executor = executor(1);
        let first = executor.spawn(|| 1).expect("accepted");
        let follower = first.then(|one| one + 1).expect("accepted");
        let cancelled = executor.shutdown_now() as u64;
        end(&executor);
        assert!(first.is_done() && follower.is_done());
        let stats = executor.stats();
        // The follower may have been on its way, and then its thread has cancelled it, or its first
        // was cancelled, and then it ran to the same error.
        assert!(cancelled <= stats.cancelled && stats.cancelled <= 2, "{stats}");
    });
}

#[test]
fn a_submission_on_a_key_meets_a_shutdown_now() {
    check("shutdown now/submit", 2, || {
        let executor = executor(1);
        let (other, store) = (executor.clone(), Arc::new(()));
        let submitter = thread::spawn(move || match other.submit(&store, |_: &(), _: &str| (), true, "A") {
            Ok(request) => request.wait(None).is_ok(),
            Err(Error::ShutDown) => false,
            Err(other) => panic!("{other:?}"),
        });
        let cancelled = executor.shutdown_now();
        let ran = submitter.join().expect("no panic");
        end(&executor);
        let stats = executor.stats();
        assert_eq!((stats.cancelled, stats.completed), (cancelled as u64, u64::from(ran)), "{stats}");
    });
}

#[test]
fn a_hook_meets_a_shutdown_now() {
    check("hook/shutdown now", 2, || {
        let executor = executor(1);
        let calls = Arc::new(AtomicUsize::new(0));
        let (count, other) = (calls.clone(), executor.clone());
        let request = executor
            .spawn(move || {
                let was_stopped = fulmar::is_cancelled();
                let called = count.clone();
                let hook = fulmar::on_cancel(move || {
                    called.fetch_add(1, Ordering::Relaxed);
                });
                if was_stopped {
                    assert!(!hook.take_back(), "the shutdown came first");
                    assert_eq!(count.load(Ordering::Relaxed), 1, "by whichever thread");
                }
            })
            .expect("accepted");
        let stopper = thread::spawn(move || other.shutdown_now());
        let cancelled = match request.wait(None) {
            Ok(()) => 0,
            Err(Error::Cancelled) => 1,
            other => panic!("{other:?}"),
        };
        assert_eq!(stopper.join().expect("no panic"), cancelled);
        assert!(calls.load(Ordering::Relaxed) <= 1 - cancelled, "once at most, and never without an operation");
        end(&executor);
    });
}

#[test]
fn a_thread_that_ends_because_it_is_idle_meets_a_submission() {
    check("idle timeout/push", 3, || {
        let builder = Executor::builder().threads(1).idle_timeout(std::time::Duration::ZERO);
        let executor = builder.build().expect("sound");
        let first = executor.spawn(|| 1).expect("accepted");
        let second = executor.spawn(|| 2).expect("accepted");
        assert_eq!(first.wait(None).expect("it ends") + second.wait(None).expect("it ends"), 3);
        end(&executor);
    });
}

#[test]
fn a_turn_that_ends_meets_a_cancel_in_the_line() {
    check("limit/cancel", 2, || {
        let executor = executor(2);
        let one = executor.limit(1).expect("sound");
        let at_work = Arc::new(AtomicUsize::new(0));
        let work = || {
            let inside = at_work.clone();
            move || {
                assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "one at once");
                inside.fetch_sub(1, Ordering::Relaxed);
            }
        };
        let first = one.spawn(work()).expect("accepted");
        let second = one.spawn(work()).expect("accepted");
        let cancelled = first.cancel();
        second.wait(None).expect("it gets its turn");
        assert_eq!(first.wait(None).is_err(), cancelled);
        end(&executor);
    });
}

#[test]
fn a_turn_is_given_on_though_its_request_is_cancelled_as_its_key_lets_it_in() {
    check("limit/cancel/key", 2, || {
        let executor = executor(1);
        let (one, store) = (executor.limit(1).expect("sound"), Arc::new(()));
        let first = executor.submit_write(&store, |_: &(), _: &str| (), "A").expect("accepted");
        let second = one.submit_write(&store, |_: &(), _: &str| (), "A").expect("accepted");
        let cancelled = second.cancel();
        one.spawn(|| ()).expect("accepted").wait(None).expect("it gets its turn");
        assert_eq!(second.wait(None).is_err(), cancelled);
        first.wait(None).expect("ends");
        end(&executor);
    });
}

#[test]
fn a_timer_that_parks_meets_an_earlier_entry() {
    // `tests/model_timer.rs` looks closer.
    check("submit_after/park", 2, || {
        let executor = executor(1);
        let store = Arc::new(());
        let first = executor.submit_after(std::time::Duration::ZERO, &store, |_: &(), ()| Ok::<_, Error>(1), true, ());
        let second = executor.submit_after(std::time::Duration::ZERO, &store, |_: &(), ()| Ok::<_, Error>(2), true, ());
        assert_eq!(second.expect("accepted").wait(None).expect("its time has come"), 2);
        assert_eq!(first.expect("accepted").wait(None).expect("its time has come"), 1);
        end(&executor);
    });
}

#[test]
fn a_hook_of_a_step_meets_the_cancel_of_its_batch_and_the_next_step() {
    /// Enters a hook in its first step, which has to be gone in the next.
    struct Hooked(Arc<AtomicUsize>, Arc<Plain>);

    impl RemoteJob for Hooked {
        type Output = ();

        fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
            let was_cancelled = fulmar::is_cancelled();
            let (called, seen) = (self.0.clone(), self.1.clone());
            let hook = fulmar::on_cancel(move || {
                assert_eq!(seen.get(), 0, "after the step's end");
                called.fetch_add(1, Ordering::Relaxed);
            });
            if was_cancelled {
                assert!(!hook.take_back(), "the cancel came first");
                assert_eq!(self.0.load(Ordering::Relaxed), 1, "by whichever thread");
            }
            Ok(Submitted::Ready { id: String::new() })
        }

        fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
            unreachable!("it is ready at once")
        }

        fn fetch(&mut self, _: &mut Context<'_>) -> Result<(), JobError> {
            self.1.set(1);
            Ok(())
        }

        fn cancel(&mut self, _: &mut Context<'_>) -> Result<(), JobError> {
            assert!(!fulmar::is_cancelled(), "the cancellation is cancelled");
            self.1.set(1);
            Ok(())
        }
    }

    check("hook/cancel of a batch/next step", 2, || {
        let executor = executor(1);
        let calls = Arc::new(AtomicUsize::new(0));
        let runner = BatchRunner::builder().executor(&executor).build().expect("sound");
        let batch = runner.start([Hooked(calls.clone(), Plain::new())]);
        batch.cancel();
        let report = batch.wait(None).expect("it ends");
        assert_eq!(report.jobs.len(), 1);
        assert!(calls.load(Ordering::Relaxed) <= 1, "once at most");
        drop(batch);
        end(&executor);
    });
}
