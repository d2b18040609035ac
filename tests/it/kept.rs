//! What a request keeps while it lives long: nothing of what others gave up. And small things about panics.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use fulmar::{AsyncRequest, Error, Executor, Status};

use crate::support::{Gate, HANG, ends, eventually, executor, occupy};

fn long_lived(gate: &Gate) -> (Executor, AsyncRequest<()>) {
    let executor = executor(1);
    let request = occupy(&executor, gate);
    (executor, request)
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
    request.wait(None).expect("nobody has taken it");
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
fn a_thread_that_unwinds_lends_nothing_of_it_to_others() {
    /// Waits in its destructor, while its thread unwinds.
    struct Waits(Executor, std::sync::mpsc::Sender<bool>);

    impl Drop for Waits {
        fn drop(&mut self) {
            let below = self.0.spawn(thread::panicking).expect("accepted");
            let _ = self.1.send(below.wait(None).expect("it ends"));
        }
    }

    ends("a wait while unwinding", || {
        for threads in [1, 2] {
            let executor = executor(threads);
            let (told, tell) = channel();
            let waits = Waits(executor.clone(), told);
            let outer = executor.spawn(move || {
                let _waits = waits;
                panic!("a panic of a test, on purpose");
            });
            let outer: AsyncRequest<()> = outer.expect("accepted");
            assert!(matches!(outer.wait(None), Err(Error::Panicked(_))));
            assert!(!tell.recv().expect("it was told"), "the awaited operation believes that it unwinds");
        }
    });
}

#[test]
fn a_panic_in_any_place_of_the_users_harms_nobody() {
    ends("panics everywhere", || {
        let executor = executor(1);
        let request = executor.spawn(|| ()).expect("accepted");
        request.on_complete(|_| panic!("a panic of a test, on purpose"));
        request.wait(None).expect("it ended");
        let follower = executor.spawn(|| 1).expect("accepted").then(|_| -> Result<(), Error> {
            panic!("a panic of a test, on purpose");
        });
        assert!(matches!(follower.expect("accepted").wait(HANG), Err(Error::Panicked(_))));
        let (told, tell) = channel();
        let last = executor.spawn(|| ()).expect("accepted");
        last.on_complete(move |status| told.send(status).expect("somebody listens"));
        assert_eq!(tell.recv().expect("it is called"), Status::Completed);
        executor.shutdown(None).expect("ends");
    });
}

#[test]
fn a_payload_that_is_no_text_is_given_once() {
    let executor = executor(1);
    let request = executor.spawn(|| std::panic::panic_any(vec![7_u8])).expect("accepted");
    assert!(matches!(request.wait(HANG), Err(Error::Panicked(_))));
    let payload = request.panic_payload().expect("it is kept beside the error");
    assert_eq!(payload.downcast_ref::<Vec<u8>>(), Some(&vec![7]));
    assert!(request.panic_payload().is_none(), "it was given");
    let resumed = thread::spawn(|| std::panic::resume_unwind(payload)).join().expect_err("it goes on");
    assert_eq!(resumed.downcast_ref::<Vec<u8>>(), Some(&vec![7]));

    let gate = Gate::new();
    let running = occupy(&executor, &gate);
    assert!(running.panic_payload().is_none(), "it has not ended");
    gate.open();
    running.wait(HANG).expect("no panic");
    assert!(running.panic_payload().is_none(), "it didn't panic");
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

/// A cancel between the end of a run and the next alarm left what the series captured to its last handle.
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
