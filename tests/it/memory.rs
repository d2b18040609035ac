//! What a long-lived request, thread or series keeps: nothing of what others gave up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use fulmar::{AsyncRequest, Error, Executor, Status, as_completed};

use crate::support::{Gate, HANG, eventually, executor, occupy};

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

/// agronholm/pythonfutures#16: an idle thread kept the last operation, and the handle what the
/// operation captured.
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

/// sfackler/scheduled-thread-pool#9: runs longer than their period ran at the same time, or one
/// after the other at once.
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

fn long_lived(gate: &Gate) -> (Executor, AsyncRequest<()>) {
    let executor = executor(1);
    let request = occupy(&executor, gate);
    (executor, request)
}

struct Waking;

impl Wake for Waking {
    fn wake(self: Arc<Self>) {}
}

/// Borrows the request, as a `select!` does, and is dropped before it is ready.
struct Ready<'a>(&'a mut AsyncRequest<()>);

impl Future for Ready<'_> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut *self.0).poll(context)
    }
}

#[test]
fn a_cancelled_follower_is_gone_at_once() {
    let gate = Gate::new();
    let (executor, request) = long_lived(&gate);
    let kept = Arc::new(());
    for _ in 0..100 {
        let captured = kept.clone();
        let follower = request.then(move |()| {
            drop(captured);
            Ok::<_, Error>(())
        });
        let follower = follower.expect("accepted");
        assert!(follower.cancel());
        assert_eq!(Arc::strong_count(&kept), 1, "its closure is gone with it");
    }
    assert_eq!(executor.stats().deferred, 0);
    gate.open();
    request.wait(None).expect("it is still there");
}

#[test]
fn one_waker_is_kept_and_none_of_a_handle_that_is_gone() {
    let gate = Gate::new();
    let (_executor, mut request) = long_lived(&gate);
    let wakers: Vec<Arc<Waking>> = (0..100).map(|_| Arc::new(Waking)).collect();
    for waker in &wakers {
        let waker = Waker::from(waker.clone());
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut Ready(&mut request)).poll(&mut context).is_pending());
    }
    assert_eq!(wakers.iter().filter(|waker| Arc::strong_count(waker) > 1).count(), 1, "the last one that polled");
    drop(request);
    assert!(wakers.iter().all(|waker| Arc::strong_count(waker) == 1), "nobody is there to be woken");
    gate.open();
}

#[test]
fn a_waiter_that_gave_up_is_gone() {
    let gate = Gate::new();
    let (executor, request) = long_lived(&gate);
    let both = [request, executor.spawn(|| ()).expect("accepted")];
    for _ in 0..1_000 {
        let late = fulmar::as_completed(&both, Duration::ZERO).count();
        assert_eq!(late, 2);
        assert!(executor.wait_any_request(&both, Duration::ZERO).is_err());
    }
    gate.open();
    executor.wait_requests(&both, None).expect("both end");
}

#[test]
fn a_callback_that_is_taken_back_is_gone_at_once() {
    let gate = Gate::new();
    let (_executor, request) = long_lived(&gate);
    let (kept, (told, tell)) = (Arc::new(()), channel());
    let tell_of = |number| {
        let told = told.clone();
        request.on_complete(move |_| told.send(number).expect("the test listens"))
    };
    tell_of(0);
    for _ in 0..1_000 {
        let captured = kept.clone();
        let callback = request.on_complete(move |_| drop(captured));
        assert!(callback.cancel());
        assert_eq!(Arc::strong_count(&kept), 1, "what it captured is gone with it");
        assert!(!callback.cancel(), "it was taken back before");
    }
    let last = tell_of(1);
    gate.open();
    request.wait(HANG).expect("it ends");
    assert_eq!([tell.recv(), tell.recv()], [Ok(0), Ok(1)], "the others are called in their order");
    assert!(!last.cancel(), "it was called");
}

#[test]
fn a_series_that_captures_its_executor_goes_on_until_it_is_cancelled() {
    let executor = executor(1);
    let (captured, canary, (tick, ticks)) = (executor.clone(), Arc::new(()), channel());
    let kept = canary.clone();
    let run = move |_: &(), ()| {
        let (_kept, _captured) = (&kept, &captured);
        tick.send(())
    };
    let series = executor.submit_every(Duration::from_micros(100), &Arc::new(()), run, false, ()).expect("accepted");
    drop(executor);
    for _ in 0..10 {
        ticks.recv_timeout(HANG).expect("it goes on without another handle");
    }
    assert!(series.cancel());
    eventually("what it captured is dropped, although its handle is kept", || Arc::strong_count(&canary) == 1);
}

/// A cancel between the end of a run and the next alarm left what the series captured to its last
/// handle.
#[test]
fn a_series_cancelled_at_any_moment_keeps_nothing() {
    let executor = executor(2);
    let (store, canary) = (Arc::new(()), Arc::new(()));
    for round in 0..2_000_u64 {
        let kept = canary.clone();
        let run = move |_: &(), ()| {
            let _kept = &kept;
            Ok::<_, Error>(())
        };
        let series = executor.submit_every(Duration::from_nanos(1), &store, run, false, ()).expect("accepted");
        eventually("it runs", || series.runs() > round % 4);
        assert!(series.cancel());
        eventually("what it captured is dropped", || Arc::strong_count(&canary) == 1);
    }
    executor.shutdown(HANG).expect("it ends");
}
