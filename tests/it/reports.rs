//! What users of other pools reported, as small programs. Each names the report.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use fulmar::{AsyncRequest, Error, Executor, OnFull, Status, as_completed, queue};

use crate::support::{Gate, HANG, assert_adds_up, ends, eventually, executor, occupy};

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

/// tensorflow/tensorflow#933, #932: operations that submit others during a shutdown were dropped, or stuck.
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

/// elastic/elasticsearch#104580: with a bounded queue, requests during a shutdown were neither run nor refused.
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

/// Submits, and waits for it, when it is dropped.
struct Submits(Executor, std::sync::mpsc::Sender<bool>);

impl Drop for Submits {
    fn drop(&mut self) {
        let told = self.0.spawn(|| ()).map(|request| request.wait(HANG).is_ok());
        let _ = self.1.send(told.unwrap_or(false));
    }
}

/// tokio-rs/tokio#2082: what a dropped operation captured used the pool in its destructor, under the pool's lock.
#[test]
fn the_destructor_of_what_was_cancelled_may_use_the_executor() {
    ends("a destructor that submits", || {
        let (executor, gate, (told, tell)) = (executor(2), Gate::new(), channel());
        let busy = occupy(&executor, &gate);
        let other = occupy(&executor, &gate);
        let submits = Submits(executor.clone(), told);
        let cancelled = Arc::new(executor.spawn(move || drop(submits)).expect("accepted"));
        let theirs = cancelled.clone();
        let canceller = std::thread::spawn(move || theirs.cancel());
        eventually("it is cancelled", || cancelled.status() == Status::Cancelled);
        gate.open();
        assert!(canceller.join().expect("no panic"));
        assert_eq!(tell.recv(), Ok(true), "what the destructor submitted has run");
        executor.wait_requests(&[busy, other], None).expect("both end");
        executor.shutdown(None).expect("it ends");
    });
}

/// rayon-rs/rayon#446: operations of two pools that wait for each other's, nested, used up the threads.
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

/// crossbeam-rs/crossbeam#196, rust-threadpool#13: where one side panicked, the other waited for ever.
#[test]
fn the_other_side_of_a_queue_is_told_of_a_panic() {
    ends("a consumer that panics", || {
        let executor = executor(2);
        let (producer, consumer) = queue::bounded::<u8>(1).expect("sound");
        let consume = executor.spawn(move || {
            let _first = consumer.get();
            panic!("a panic of a test, on purpose");
        });
        let consume: AsyncRequest<()> = consume.expect("accepted");
        let produce = executor.spawn(move || (0..u8::MAX).find(|n| producer.put(*n).is_err())).expect("accepted");
        assert!(produce.wait(None).expect("it ends").is_some(), "a put was refused");
        assert!(matches!(consume.wait(None), Err(Error::Panicked(_))));
    });
}

/// agronholm/pythonfutures#16: an idle thread kept the last operation, and the handle what the operation captured.
#[test]
fn an_idle_thread_and_a_handle_keep_nothing_of_what_ran() {
    let executor = executor(1);
    let kept = Arc::new(());
    let inside = kept.clone();
    let request = executor.spawn(move || drop(Arc::clone(&inside))).expect("accepted");
    request.wait(HANG).expect("it ends");
    eventually("what it captured is gone", || Arc::strong_count(&kept) == 1);
    assert_eq!(request.status(), Status::Completed);
}

/// Ericsson/ecchronos#1624: what was cancelled stayed in the timer's queue until its time came.
#[test]
fn a_cancelled_delay_keeps_nothing() {
    let executor = executor(1);
    let (store, kept) = (Arc::new(()), Arc::new(()));
    for _ in 0..1_000 {
        let inside = kept.clone();
        let late = move |_: &(), ()| {
            drop(inside);
            Ok::<_, Error>(())
        };
        let request = executor.submit_after(Duration::from_secs(3_600), &store, late, true, ()).expect("accepted");
        assert!(request.cancel());
        assert_eq!(Arc::strong_count(&kept), 1);
    }
    assert_eq!(Arc::strong_count(&store), 1);
    executor.shutdown(HANG).expect("nothing is left to wait for");
}

/// sfackler/scheduled-thread-pool#9: runs longer than their period ran at the same time, or one after the other at once.
#[test]
fn runs_that_are_longer_than_their_period_never_overlap() {
    let (executor, gate, at_work) = (executor(4), Gate::new(), Arc::new(AtomicUsize::new(0)));
    let (inside, count) = (gate.clone(), at_work.clone());
    let run = move |_: &(), ()| {
        let others = count.fetch_add(1, Ordering::SeqCst);
        inside.pass();
        count.fetch_sub(1, Ordering::SeqCst);
        if others == 0 { Ok(()) } else { Err(Error::Invalid("two at once".into())) }
    };
    let series = executor.submit_every(Duration::from_nanos(1), &Arc::new(()), run, false, ()).expect("accepted");
    gate.await_arrivals(1);
    gate.open();
    eventually("it goes on", || series.runs() > 100);
    assert!(series.cancel());
    executor.shutdown(HANG).expect("it ends");
    assert!(series.missed() > 0);
}
