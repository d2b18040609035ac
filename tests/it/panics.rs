//! Code of users that panics: operations, destructors, callbacks, arguments, payloads. It harms no
//! other request.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use fulmar::{Args, AsyncRequest, Error, Executor, Stats, Status, queue};

use crate::support::{Gate, HANG, assert_adds_up, ends, eventually, executor, occupy};

/// Panics when it is dropped, with a payload that is dropped in peace.
struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("a panic of a test, on purpose");
    }
}

/// A payload that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a panic of a test, on purpose");
        }
    }
}

/// The executor's one thread is the one that it was, works, and ends.
fn assert_unharmed(executor: &Executor) {
    let name = executor.spawn(|| std::thread::current().name().map(str::to_owned)).expect("accepted");
    assert_eq!(name.wait(HANG).expect("the thread lives").as_deref(), Some("fulmar-0"));
    executor.shutdown(HANG).expect("the thread ends");
    let stats = executor.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.unfinished(), stats.threads), (0, 0), "{stats}");
}

struct Fails(#[allow(dead_code)] PanicsInDrop);

impl std::fmt::Debug for Fails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fails")
    }
}

impl std::fmt::Display for Fails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it fails")
    }
}

impl std::error::Error for Fails {}

#[test]
fn a_panic_is_told_in_its_words() {
    let executor = executor(1);
    let word = executor.spawn(|| panic!("in a word")).expect("accepted").wait(HANG);
    assert!(matches!(word, Err::<(), _>(Error::Panicked(text)) if text == "in a word"));
    let number = 7;
    let words = executor.spawn(move || panic!("number {number}")).expect("accepted").wait(HANG);
    assert!(matches!(words, Err::<(), _>(Error::Panicked(text)) if text == "number 7"));
    let other = executor.spawn(|| panic_any(7)).expect("accepted").wait(HANG);
    assert!(matches!(other, Err::<(), _>(Error::Panicked(text)) if !text.is_empty()));
    assert_eq!(executor.stats().panicked, 3);
    assert_unharmed(&executor);
}

#[test]
fn a_payload_that_panics_in_turn_harms_nobody() {
    let executor = executor(1);
    let request = executor.spawn(|| panic_any(Bomb)).expect("accepted");
    assert!(matches!(request.wait(HANG), Err::<(), _>(Error::Panicked(_))));
    assert_unharmed(&executor);
}

#[test]
fn a_captured_value_that_panics_in_its_destructor_harms_nobody() {
    let (executor, gate) = (executor(1), Gate::new());
    let value = PanicsInDrop;
    let ran = executor.spawn(move || drop(value)).expect("accepted");
    assert!(matches!(ran.wait(HANG), Err(Error::Panicked(_))), "part of its operation");
    // Dropped by the cancel: the canceller doesn't pay for it, whatever the payload.
    struct PanicsWithABomb;
    impl Drop for PanicsWithABomb {
        fn drop(&mut self) {
            panic_any(Bomb);
        }
    }
    let blocker = occupy(&executor, &gate);
    let (one, two) = (PanicsInDrop, PanicsWithABomb);
    let cancelled =
        [executor.spawn(move || drop(one)).expect("accepted"), executor.spawn(move || drop(two)).expect("accepted")];
    let seen = Arc::new(AtomicUsize::new(0));
    for request in &cancelled {
        let count = seen.clone();
        request.on_complete(move |status| {
            assert_eq!(status, Status::Cancelled);
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert!(request.cancel());
    }
    assert_eq!(seen.load(Ordering::Relaxed), 2, "those who asked are told all the same");
    gate.open();
    blocker.wait(HANG).expect("it ends");
    assert_unharmed(&executor);
}

#[test]
fn an_unclaimed_result_that_panics_in_its_destructor_harms_nobody() {
    let (executor, gate) = (executor(1), Gate::new());
    let blocker = occupy(&executor, &gate);
    drop(executor.spawn(|| PanicsInDrop).expect("accepted"));
    let fails = |_: &(), ()| Err::<(), _>(Box::new(Fails(PanicsInDrop)));
    drop(executor.submit(&Arc::new(()), fails, true, ()).expect("accepted"));
    gate.open();
    blocker.wait(HANG).expect("it ends");
    assert_unharmed(&executor);
}

#[test]
fn arguments_that_panic_when_asked_for_their_key_are_not_accepted() {
    struct NoKey;
    impl Args for NoKey {
        fn key(&self) -> Option<&str> {
            panic!("a panic of a test, on purpose")
        }
    }
    let (executor, store) = (executor(1), Arc::new(()));
    let one = || executor.submit(&store, |_: &(), _: NoKey| Ok::<_, Error>(()), true, NoKey).map(drop);
    let many = || {
        let args = (0..10).map(|n| if n == 5 { panic!("a panic of a test, on purpose") } else { n });
        executor.submit_many(&store, |_: &(), n: usize| Ok::<_, Error>(n), true, args).map(drop)
    };
    assert!(catch_unwind(AssertUnwindSafe(one)).is_err(), "it is the caller's own");
    assert!(catch_unwind(AssertUnwindSafe(many)).is_err(), "it is the caller's own");
    assert_eq!(executor.stats(), Stats::default(), "none of ten was accepted");
    assert_eq!(Arc::strong_count(&store), 1, "and nothing is held back");
    assert_unharmed(&executor);
}

/// A sweep drops unclaimed results of requests run out of turn on the thread that cancels or waits:
/// their panic reaches it.
struct PanicsOnPurpose;
impl Drop for PanicsOnPurpose {
    fn drop(&mut self) {
        panic!("the destructor of a result, on purpose");
    }
}

/// Drops a payload whose own destructor panics.
struct PayloadBomb;

impl Drop for PayloadBomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("the destructor of a payload");
        }
    }
}

struct PanicsWithAPayloadBomb;

impl Drop for PanicsWithAPayloadBomb {
    fn drop(&mut self) {
        std::panic::panic_any(PayloadBomb);
    }
}

#[test]
fn no_thread_is_lost_to_the_payload_of_a_destructors_panic() {
    let executor = executor(1);
    let gate = Gate::new();
    drop(occupy(&executor, &gate));
    drop(executor.spawn(|| PanicsWithAPayloadBomb).expect("accepted"));
    gate.open();
    eventually("it ended", || executor.stats().completed == 2);
    let next = executor.spawn(|| 1).expect("accepted");
    assert_eq!(next.wait(Duration::from_secs(5)).expect("the thread lives"), 1);
    executor.shutdown(Duration::from_secs(5)).expect("the thread ends");
}

#[test]
fn a_canceller_does_not_pay_for_the_destructor_of_a_result_in_the_queue() {
    let executor = executor(1);
    let inner = executor.clone();
    let outer = executor.spawn(move || {
        // Run out of turn by this wait; its queue entry stays behind, and is its last handle soon.
        let result = [inner.spawn(|| PanicsOnPurpose).expect("accepted")];
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

/// What a cancelled series captured: dropped on the timer's thread, whose panic ended the thread
/// for good.
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

/// Submits, and waits for it, when it is dropped.
struct Submits(Executor, std::sync::mpsc::Sender<bool>);

impl Drop for Submits {
    fn drop(&mut self) {
        let told = self.0.spawn(|| ()).map(|request| request.wait(HANG).is_ok());
        let _ = self.1.send(told.unwrap_or(false));
    }
}

/// tokio-rs/tokio#2082: what a dropped operation captured used the pool in its destructor, under
/// the pool's lock.
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

/// crossbeam-rs/crossbeam#196, rust-threadpool#13: where one side panicked, the other waited for
/// ever.
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
        last.on_complete(move |status| told.send(status).expect("the receiver lives"));
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
