//! Handles: waits, futures, callbacks, followers and cancels, in every state that a request can be
//! in.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use fulmar::{AsyncRequest, Error, Executor, Kind, Status, as_completed};

use crate::support::{Gate, HANG, assert_adds_up, eventually, executor, occupy};

/// A request that runs until the gate opens, and then gives `value`.
fn held<T: Send + 'static>(executor: &Executor, gate: &Gate, value: T) -> AsyncRequest<T> {
    let (arrived, inside) = (gate.arrivals(), gate.clone());
    let request = executor.spawn(move || {
        inside.pass();
        value
    });
    gate.await_arrivals(arrived + 1);
    request.expect("accepted")
}

fn failed(executor: &Executor) -> AsyncRequest<u8> {
    let fail = |_: &(), ()| "x".parse::<u8>();
    executor.submit(&Arc::new(()), fail, false, ()).expect("accepted")
}

fn panicked(executor: &Executor) -> AsyncRequest<u8> {
    executor.spawn(|| panic!("a panic of a test, on purpose")).expect("accepted")
}

// Waits.

#[test]
fn a_limit_beyond_the_clock_is_no_limit_for_every_wait() {
    let executor = executor(1);
    for how in 0..6 {
        let (gate, parked) = (Gate::new(), Gate::new());
        let requests = [held(&executor, &gate, how)];
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                parked.open();
                match how {
                    0 => assert_eq!(requests[0].wait(Duration::MAX).expect("it ends"), how),
                    1 => assert_eq!(executor.wait_requests(&requests, Duration::MAX).expect("it ends"), [how]),
                    2 => assert_eq!(executor.wait_any_request(&requests, Duration::MAX).expect("it ends"), 0),
                    3 => assert!(as_completed(&requests, Duration::MAX).all(|(_, result)| result.is_ok())),
                    4 => executor.reset(1, Duration::MAX).expect("the old thread ends"),
                    _ => executor.shutdown(Duration::MAX).expect("all ends"),
                }
            });
            parked.pass();
            gate.open();
            waiter.join().expect("an endless limit neither overflows nor passes at once");
        });
    }
}

#[test]
fn zero_looks_once() {
    let (executor, gate) = (executor(1), Gate::new());
    let requests = [executor.spawn(|| 1).expect("accepted")];
    executor.wait_any_request(&requests, HANG).expect("it ends");
    let running = held(&executor, &gate, 2);
    let timeout = running.wait(Duration::ZERO).expect_err("it is held");
    assert!(matches!(timeout, Error::Timeout { limit: Duration::ZERO, left: 1 }), "{timeout:?}");
    assert!(timeout.is_timeout() && timeout.is_retryable());
    assert_eq!(requests[0].wait(Duration::ZERO).expect("what is there is given"), 1);
    assert!(running.try_take().is_none(), "nothing to take yet");
    gate.open();
    assert_eq!(running.wait(HANG).expect("the handle is still good"), 2);
}

#[test]
fn of_many_waiters_one_gets_the_result_and_all_return() {
    let (executor, gate, waiting) = (executor(1), Gate::new(), Gate::new());
    let request = held(&executor, &gate, 7);
    thread::scope(|scope| {
        let wait = || {
            waiting.pass();
            match request.wait(HANG) {
                Ok(7) => 1,
                Err(Error::ResultTaken) => 0,
                other => panic!("{other:?}"),
            }
        };
        let waiters: Vec<_> = (0..8).map(|_| scope.spawn(wait)).collect();
        waiting.await_arrivals(8);
        waiting.open();
        gate.open();
        let got: usize = waiters.into_iter().map(|waiter| waiter.join().expect("no panic")).sum();
        assert_eq!(got, 1, "a result is taken once");
    });
    assert!(matches!(request.try_take(), Some(Err(Error::ResultTaken))));
    assert_eq!(request.status(), Status::Completed, "taking changes no status");
}

#[test]
fn wait_requests_gives_all_back_when_one_was_taken_or_cancelled() {
    let (executor, gate) = (executor(1), Gate::new());
    let blocker = occupy(&executor, &gate);
    let requests = [1, 2, 3].map(|n| executor.spawn(move || n).expect("accepted"));
    assert!(requests[1].cancel());
    gate.open();
    blocker.wait(HANG).expect("it ends");
    assert!(matches!(executor.wait_requests(&requests, HANG), Err(Error::Cancelled)));
    assert_eq!([0, 2].map(|n| requests[n].try_take().expect("ended").expect("still there")), [1, 3]);

    let requests = [1, 2, 3].map(|n| executor.spawn(move || n).expect("accepted"));
    assert_eq!(requests[2].wait(HANG).expect("it ends"), 3);
    assert!(matches!(executor.wait_requests(&requests, HANG), Err(Error::ResultTaken)));
    assert_eq!(executor.wait_requests(&requests[..2], HANG).expect("given back"), [1, 2]);
}

#[test]
fn waits_over_none() {
    let executor = executor(1);
    let none: [AsyncRequest<u8>; 0] = [];
    assert_eq!(executor.wait_requests(&none, HANG).expect("all of none"), [0; 0]);
    assert!(matches!(executor.wait_any_request(&none, HANG), Err(Error::Invalid(_))), "none of none can end");
    assert_eq!(as_completed(&none, HANG).count(), 0);
}

#[test]
fn wait_any_takes_nothing_and_counts_every_kind_of_end() {
    let (executor, gate) = (executor(2), Gate::new());
    let running = held(&executor, &gate, 0_u8);
    let requests = [running, failed(&executor)];
    assert_eq!(executor.wait_any_request(&requests, HANG).expect("an error is an end"), 1);
    assert!(requests[1].try_take().expect("still there").is_err());
    assert_eq!(executor.wait_any_request(&requests, HANG).expect("a taken one counts as ended"), 1);
    let only = &requests[..1];
    let timeout = executor.wait_any_request(only, Duration::from_millis(1)).expect_err("it is held");
    assert!(matches!(timeout, Error::Timeout { left: 1, .. }), "{timeout:?}");
    gate.open();
    assert_eq!(executor.wait_any_request(only, HANG).expect("it ends"), 0);
    let panicked = [panicked(&executor)];
    assert_eq!(executor.wait_any_request(&panicked, HANG).expect("a panic is an end"), 0);
}

#[test]
fn as_completed_gives_each_once_and_what_is_late_as_a_timeout() {
    let (executor, gate) = (executor(2), Gate::new());
    let quick = [executor.spawn(|| 1).expect("accepted")];
    executor.wait_any_request(&quick, HANG).expect("it ends");
    let [quick] = quick;
    let taken = executor.spawn(|| 2).expect("accepted");
    taken.wait(HANG).expect("it ends");
    let requests = [held(&executor, &gate, 0), quick, taken];
    let mut completed = as_completed(&requests, Duration::from_millis(1));
    assert_eq!(completed.size_hint(), (3, Some(3)));
    assert!(matches!(completed.next(), Some((1, Ok(1)))));
    assert!(matches!(completed.next(), Some((2, Err(Error::ResultTaken)))));
    assert!(matches!(completed.next(), Some((0, Err(Error::Timeout { left: 1, .. })))), "late is late");
    assert!(completed.next().is_none(), "each once, also what was late");
    gate.open();
    assert_eq!(requests[0].wait(HANG).expect("its handle is still good"), 0);
    assert!(as_completed(&requests, Duration::ZERO).all(|(_, result)| matches!(result, Err(Error::ResultTaken))));
}

#[test]
fn as_completed_dropped_early_leaves_the_rest_in_the_handles() {
    let (executor, gate) = (executor(1), Gate::new());
    let blocker = occupy(&executor, &gate);
    let requests: Vec<_> = (0..4).map(|n| executor.spawn(move || n).expect("accepted")).collect();
    let mut completed = as_completed(&requests, None);
    gate.open();
    let (first, result) = completed.next().expect("four come");
    assert_eq!(result.expect("a number"), first);
    drop(completed);
    for (index, request) in requests.iter().enumerate().filter(|(index, _)| *index != first) {
        assert_eq!(request.wait(HANG).expect("left where it was"), index);
    }
    blocker.wait(HANG).expect("it ends");
}

#[test]
fn as_completed_inside_an_operation_runs_what_is_queued() {
    let executor = executor(1);
    let inner = executor.clone();
    let outer = executor.spawn(move || {
        let store = Arc::new(());
        let double = |_: &(), n: usize| Ok::<_, Error>(2 * n);
        let requests = inner.submit_many(&store, double, true, 0..50).expect("accepted");
        as_completed(&requests, HANG).map(|(index, result)| (index, result.expect("no deadlock"))).collect::<Vec<_>>()
    });
    let came = outer.expect("accepted").wait(HANG).expect("no deadlock on the one thread");
    assert_eq!(came, (0..50).map(|n| (n, 2 * n)).collect::<Vec<_>>());
}

#[test]
fn times_are_known_step_by_step() {
    let (executor, gate) = (executor(1), Gate::new());
    let running = held(&executor, &gate, ());
    let queued = executor.spawn(|| ()).expect("accepted");
    let cancelled = executor.spawn(|| ()).expect("accepted");
    assert!(cancelled.cancel());
    let known = |request: &AsyncRequest<()>| {
        [request.schedule_delay(), request.execution_duration(), request.total_time()].map(|time| time.is_some())
    };
    assert_eq!(known(&queued), [false; 3], "queued");
    assert_eq!(known(&running), [true, false, false], "running");
    assert_eq!(known(&cancelled), [false, false, true], "cancelled");
    gate.open();
    queued.wait(HANG).expect("it ends");
    assert_eq!((known(&queued), known(&running)), ([true; 3], [true; 3]), "taken or not");
    let sum = running.schedule_delay().and_then(|delay| Some(delay + running.execution_duration()?));
    assert_eq!(sum, running.total_time());
}

#[test]
fn ids_rise_and_kinds_stay() {
    struct NoDebug;
    let executor = executor(2);
    let requests: Vec<_> = (0..100).map(|_| executor.spawn(|| NoDebug).expect("accepted")).collect();
    assert!(requests.windows(2).all(|pair| pair[0].id() < pair[1].id()));
    let modifier = executor.submit(&Arc::new(()), |_: &(), ()| Ok::<_, Error>(()), true, ()).expect("accepted");
    assert_eq!((requests[0].kind(), modifier.kind()), (Kind::Accessor, Kind::Modifier));
    let shown = format!("{modifier:?} {:?}", requests[0]);
    assert!(shown.contains("Modifier") && shown.contains(&modifier.id().to_string()), "{shown}");
}

#[test]
fn no_request_is_charged_with_the_destructor_of_an_unclaimed_result() {
    let (executor, gate) = (executor(1), Gate::new());
    let unclaimed = Slow(gate.clone());
    drop(executor.spawn(move || unclaimed).expect("accepted"));
    gate.await_arrivals(1);
    let behind = executor.spawn(|| ()).expect("accepted");
    let held_from = Instant::now();
    while held_from.elapsed().is_zero() {}
    let held_for = held_from.elapsed();
    gate.open();
    behind.wait(HANG).expect("it ends");
    let delay = behind.schedule_delay().expect("it ran");
    assert!(delay >= held_for, "it waited for the thread for {held_for:?} at least, and says {delay:?}");
}

#[test]
fn no_time_of_a_request_is_from_before_its_submission() {
    let executor = executor(1);
    for round in 0..20_000 {
        // From right behind the one before to when the thread sleeps.
        (0..round % 40).for_each(|_| thread::yield_now());
        let submitted = Instant::now();
        let request = executor.spawn(|| ()).expect("accepted");
        request.wait(HANG).expect("it ends");
        let (total, most) = (request.total_time().expect("it has ended"), submitted.elapsed());
        assert!(total <= most, "round {round}: {total:?} of {most:?}");
    }
}

// Waits inside operations.

#[test]
fn executors_wait_for_each_other_without_a_thread_to_spare() {
    let (one, two) = (executor(1), executor(1));
    let pairs = [(one.clone(), two.clone()), (two.clone(), one.clone())];
    let crossed = pairs.map(|(here, there)| {
        here.spawn(move || {
            let nested = there.spawn(|| 20).expect("accepted");
            nested.wait(HANG).expect("run right here if nobody else does") + 1
        })
        .expect("accepted")
    });
    assert_eq!(one.wait_requests(&crossed, HANG).expect("no deadlock"), [21, 21]);
    for executor in [one, two] {
        executor.shutdown(HANG).expect("ends");
        assert_eq!(executor.stats().completed, 2, "counted where it was submitted");
    }
}

/// Two operations, each of which waits for the other one's request.
fn mutual(executors: [&Executor; 2], timeout: Option<Duration>) -> [Result<(), Error>; 2] {
    let both_run = Gate::new();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..2).map(|_| channel::<Arc<AsyncRequest<Result<(), Error>>>>()).unzip();
    let mut receivers = receivers.into_iter();
    let requests: Vec<_> = executors
        .iter()
        .map(|executor| {
            let (gate, other) = (both_run.clone(), receivers.next().expect("two"));
            let operation = move || {
                gate.pass();
                other.recv().expect("the other one's handle").wait(timeout).and_then(|result| result)
            };
            Arc::new(executor.spawn(operation).expect("accepted"))
        })
        .collect();
    both_run.await_arrivals(2);
    both_run.open();
    for (sender, request) in senders.iter().zip(requests.iter().rev()) {
        sender.send(request.clone()).expect("it listens");
    }
    // Each may have its result taken by the other one: the thread that was told says so, the other
    // one has it from there.
    [0, 1].map(|index| match requests[index].wait(HANG) {
        Ok(result) => result,
        Err(Error::ResultTaken) => Ok(()),
        Err(other) => panic!("{other:?}"),
    })
}

#[test]
fn two_that_wait_for_each_other_are_told_and_none_hangs() {
    let (one, two) = (executor(2), executor(1));
    for executors in [[&one, &one], [&one, &two]] {
        let told = mutual(executors, None);
        assert!(told.iter().any(|told| matches!(told, Err(Error::WouldDeadlock))), "{told:?}");
        // The one that was not told may find that the test took the other one's result before it
        // did.
        let fair = |told: &Result<(), Error>| matches!(told, Ok(()) | Err(Error::WouldDeadlock | Error::ResultTaken));
        assert!(told.iter().all(fair), "{told:?}");
    }
    let limited = mutual([&one, &one], Some(Duration::from_millis(1)));
    assert!(limited.iter().any(Result::is_err), "with a limit they time out: {limited:?}");
    one.shutdown(HANG).expect("nobody is left waiting");
}

#[test]
fn waiting_for_oneself_is_told() {
    let executor = executor(2);
    let (send, receive) = channel::<Arc<AsyncRequest<bool>>>();
    let inner = executor.clone();
    let request = executor.spawn(move || {
        let me = receive.recv().expect("one's own handle");
        let other = inner.spawn(|| false).expect("accepted");
        let requests = [other];
        assert_eq!(inner.wait_any_request(&requests, HANG).expect("any is enough"), 0);
        assert!(me.wait(Duration::ZERO).expect_err("it runs").is_timeout(), "a look isn't a wait");
        [None, Some(HANG)].into_iter().all(|limit| matches!(me.wait(limit), Err(Error::WouldDeadlock)))
    });
    let request = Arc::new(request.expect("accepted"));
    send.send(request.clone()).expect("it listens");
    assert!(request.wait(HANG).expect("it ends"));
}

#[test]
fn any_of_two_is_waited_for_although_one_of_them_would_be_a_deadlock() {
    let executor = executor(1);
    let (store, inner) = (Arc::new(()), executor.clone());
    let same = store.clone();
    let operation = move |_: &(), _key: &str| {
        let behind_me = inner.submit(&same, |_: &(), _key: &str| Ok::<_, Error>(0), true, "AAPL")?;
        let free = inner.submit(&same, |_: &(), _key: &str| Ok::<_, Error>(1), true, "IBM")?;
        let both = [behind_me, free];
        assert!(matches!(inner.wait_requests(&both, HANG), Err(Error::WouldDeadlock)), "all are not to be had");
        inner.wait_any_request(&both, HANG)
    };
    let outer = executor.submit(&store, operation, true, "AAPL").expect("accepted");
    assert_eq!(outer.wait(HANG).expect("one of them can end"), 1);
    executor.shutdown(HANG).expect("the refused one runs after all");
    assert_eq!(executor.stats().completed, 3);
}

// Futures.

struct Unparker(Thread);

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unparker(thread::current())));
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park_timeout(HANG);
    }
}

#[derive(Default)]
struct Count {
    wakes: AtomicUsize,
    panics: bool,
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics, "a panic of a test, on purpose");
    }
}

#[test]
fn a_future_gives_what_a_wait_gives() {
    let executor = executor(1);
    assert_eq!(block_on(executor.spawn(|| 5).expect("accepted")).expect("it ends"), 5);
    assert!(matches!(block_on(failed(&executor)), Err(Error::Operation(_))));
    assert!(matches!(block_on(panicked(&executor)), Err(Error::Panicked(_))));
    let gate = Gate::new();
    let blocker = occupy(&executor, &gate);
    let cancelled = executor.spawn(|| ()).expect("accepted");
    assert!(cancelled.cancel());
    assert!(matches!(block_on(cancelled), Err(Error::Cancelled)));
    gate.open();
    block_on(blocker).expect("it ends");
}

#[test]
fn the_latest_task_that_polled_is_woken_once_and_the_others_are_let_go() {
    let (executor, gate) = (executor(1), Gate::new());
    let mut request = held(&executor, &gate, 9);
    let counts: [Arc<Count>; 3] =
        [Arc::default(), Arc::default(), Arc::new(Count { panics: true, ..Count::default() })];
    for count in counts.iter().chain(&counts) {
        let waker = Waker::from(count.clone());
        assert!(Pin::new(&mut request).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(counts.each_ref().map(Arc::strong_count), [1, 1, 2], "one waker is kept, the latest");
    let woken = || counts.iter().map(|count| count.wakes.load(Ordering::SeqCst)).collect::<Vec<_>>();
    assert_eq!(woken(), [0; 3], "nothing has ended");
    gate.open();
    eventually("the latest is woken", || woken() == [0, 0, 1]);
    let waker = Waker::from(counts[0].clone());
    let mut context = Context::from_waker(&waker);
    assert!(matches!(Pin::new(&mut request).poll(&mut context), Poll::Ready(Ok(9))));
    assert!(matches!(Pin::new(&mut request).poll(&mut context), Poll::Ready(Err(Error::ResultTaken))));
    executor.shutdown(HANG).expect("a panicking waker costs no thread");
    assert_eq!(woken(), [0, 0, 1], "once");
}

#[test]
fn a_cancel_wakes_tasks_and_waiters() {
    let (executor, gate, waiting) = (executor(1), Gate::new(), Gate::new());
    let blocker = occupy(&executor, &gate);
    let mut request = executor.spawn(|| ()).expect("accepted");
    let count: Arc<Count> = Arc::default();
    let waker = Waker::from(count.clone());
    assert!(Pin::new(&mut request).poll(&mut Context::from_waker(&waker)).is_pending());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            waiting.pass();
            request.wait(HANG)
        });
        waiting.await_arrivals(1);
        waiting.open();
        assert!(request.cancel());
        assert!(matches!(waiter.join().expect("no panic"), Err(Error::Cancelled)));
    });
    assert_eq!(count.wakes.load(Ordering::SeqCst), 1);
    gate.open();
    blocker.wait(HANG).expect("it ends");
}

// Callbacks.

#[test]
fn callbacks_run_in_their_order_once_whatever_one_of_them_does() {
    let (executor, gate, log) = (executor(1), Gate::new(), Arc::new(Mutex::new(Vec::new())));
    let request = held(&executor, &gate, 4);
    for index in 0..4 {
        let log = log.clone();
        request.on_complete(move |status| {
            log.lock().expect("no panic under it").push((index, status));
            assert!(index != 1, "a panic of a test, on purpose");
        });
    }
    gate.open();
    let seen = || log.lock().expect("no panic under it").clone();
    eventually("all four are called", || seen().len() == 4);
    assert_eq!(seen(), [0, 1, 2, 3].map(|index| (index, Status::Completed)));
    assert_eq!(request.wait(HANG).expect("the result stays in the handle"), 4);
    // After the end it is called at once, here.
    let (here, called) = (thread::current().id(), Arc::new(AtomicBool::new(false)));
    let flag = called.clone();
    request.on_complete(move |status| {
        assert_eq!((status, thread::current().id()), (Status::Completed, here));
        flag.store(true, Ordering::Relaxed);
    });
    assert!(called.load(Ordering::Relaxed), "at once");
    request.on_complete(|_| panic!("a panic of a test, on purpose"));
    assert_eq!(executor.spawn(|| 1).expect("accepted").wait(HANG).expect("the thread lives"), 1);
}

#[test]
fn a_callback_is_told_how_it_ended() {
    let executor = executor(1);
    let (send, receive) = channel();
    let tell = |request: &AsyncRequest<u8>| {
        let send = send.clone();
        request.on_complete(move |status| send.send(status).expect("the test listens"));
    };
    let told = || receive.recv_timeout(HANG).expect("told");
    let gate = Gate::new();
    for (expected, make) in [(Status::Failed, failed as fn(&_) -> _), (Status::Panicked, panicked as fn(&_) -> _)] {
        let held = held(&executor, &gate, ());
        let request = make(&executor);
        tell(&request);
        gate.open();
        assert_eq!(told(), expected);
        held.wait(HANG).expect("it ends");
    }
    let gate = Gate::new();
    let blocker = occupy(&executor, &gate);
    let request = executor.spawn(|| 0).expect("accepted");
    tell(&request);
    assert!(request.cancel());
    assert_eq!(receive.try_recv(), Ok(Status::Cancelled), "before the cancel returns");
    gate.open();
    blocker.wait(HANG).expect("it ends");
}

#[test]
fn no_waiter_waits_for_a_callback_or_a_destructor() {
    let executor = executor(1);
    for cancelled in [false, true] {
        let (hold, slow) = (Gate::new(), Gate::new());
        let blocker = held(&executor, &hold, ());
        let slow_to_drop = Slow(slow.clone());
        let mut requests =
            [if cancelled { executor.spawn(move || drop(slow_to_drop)).expect("accepted") } else { blocker }];
        if !cancelled {
            let callback = slow.clone();
            requests[0].on_complete(move |_| callback.pass());
        }
        let count: Arc<Count> = Arc::default();
        let waker = Waker::from(count.clone());
        assert!(Pin::new(&mut requests[0]).poll(&mut Context::from_waker(&waker)).is_pending());
        let mut completed = as_completed(&requests, HANG);
        thread::scope(|scope| {
            scope.spawn(|| if cancelled { assert!(requests[0].cancel()) } else { hold.open() });
            // It holds up the thread that ended the request until the test has seen what it came
            // for.
            slow.await_arrivals(1);
            let woken = count.wakes.load(Ordering::SeqCst);
            let came = if woken == 1 { completed.next() } else { None };
            slow.open();
            assert_eq!(woken, 1, "the task came after the callback, or the destructor");
            assert_eq!(came.map(|(_, result)| result.is_ok()), Some(!cancelled));
        });
        hold.open();
    }
}

/// Takes its time when it is dropped: until the gate is open.
struct Slow(Gate);

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.pass();
    }
}

#[test]
fn a_callback_may_take_the_result_and_submit() {
    let (executor, gate) = (executor(1), Gate::new());
    let request = Arc::new(held(&executor, &gate, 3));
    let (send, receive) = channel();
    let (handle, inner) = (request.clone(), executor.clone());
    request.on_complete(move |_| {
        let value = handle.try_take().expect("ended").expect("a value");
        send.send(inner.spawn(move || value + 1).expect("accepted")).expect("the test listens");
    });
    gate.open();
    let next = receive.recv_timeout(HANG).expect("called");
    assert_eq!(next.wait(HANG).expect("it ends"), 4);
    assert!(matches!(request.wait(HANG), Err(Error::ResultTaken)));
}

// Followers.

#[test]
fn a_chain_hands_the_value_on() {
    let (executor, gate) = (executor(1), Gate::new());
    let first = held(&executor, &gate, 1);
    let second = first.then(|n| Ok::<_, Error>(n + 1)).expect("accepted");
    let third = second.then(|n| Ok::<_, Error>(n.to_string())).expect("accepted");
    assert_eq!((second.status(), third.status()), (Status::Deferred, Status::Deferred));
    assert_eq!(executor.stats().deferred, 2);
    gate.open();
    assert_eq!(third.wait(HANG).expect("it ends"), "2");
    assert!(matches!(first.wait(HANG), Err(Error::ResultTaken)), "it belongs to the next one");
    // Also after the end; and of two followers one gets the value, whichever is released first.
    let first = executor.spawn(|| 10).expect("accepted");
    let followers = [0, 1].map(|_| first.then(Ok::<_, Error>).expect("accepted"));
    let mut results = followers.map(|follower| follower.wait(HANG));
    results.sort_by_key(Result::is_err);
    assert!(matches!(results, [Ok(10), Err(Error::ResultTaken)]), "{results:?}");
    assert_adds_up(&executor.stats());
}

#[test]
fn a_follower_of_what_gave_no_value_fails_with_its_error_and_is_not_called() {
    let executor = executor(1);
    let called = Arc::new(AtomicBool::new(false));
    let follow = |request: AsyncRequest<u8>| {
        let called = called.clone();
        let call = move |_| {
            called.store(true, Ordering::Relaxed);
            Ok::<_, Error>(())
        };
        let next = request.then(call).expect("accepted");
        let result = next.wait(HANG);
        assert_eq!(next.status(), Status::Failed);
        result.expect_err("no value, no call")
    };
    let error = follow(failed(&executor));
    assert!(error.operation::<std::num::ParseIntError>().is_some(), "{error:?}");
    assert!(matches!(follow(panicked(&executor)), Error::Panicked(text) if text.contains("on purpose")));
    let gate = Gate::new();
    let blocker = occupy(&executor, &gate);
    let cancelled = executor.spawn(|| 1).expect("accepted");
    let before = cancelled.then(Ok::<_, Error>).expect("accepted");
    assert!(cancelled.cancel());
    gate.open();
    blocker.wait(HANG).expect("it ends");
    assert!(matches!(before.wait(HANG), Err(Error::Cancelled)), "hung on before the cancel");
    assert!(matches!(follow(cancelled), Error::Cancelled), "and after it");
    assert!(!called.load(Ordering::Relaxed));
    let stats = executor.stats();
    assert_eq!((stats.failed, stats.panicked, stats.cancelled), (5, 1, 1), "{stats}");
    let panics = executor.spawn(|| ()).expect("accepted").then(|()| -> Result<(), Error> { panic!("on purpose") });
    assert!(matches!(panics.expect("accepted").wait(HANG), Err(Error::Panicked(_))));
}

#[test]
fn a_shutdown_waits_for_followers_and_takes_no_new_ones() {
    let (executor, gate) = (executor(1), Gate::new());
    let first = held(&executor, &gate, 1);
    let second = first.then(|n| Ok::<_, Error>(n + 1)).expect("accepted");
    assert!(executor.shutdown(Duration::ZERO).expect_err("one is held").is_timeout());
    let refused = first.then(|_| -> Result<(), Error> { panic!("it was refused") });
    assert!(matches!(refused, Err(Error::ShutDown)), "{refused:?}");
    gate.open();
    executor.await_termination(HANG).expect("both end");
    assert_eq!(second.try_take().expect("ended").expect("the value came to it"), 2);
    let done = Executor::clone(&executor);
    drop(executor);
    assert_eq!(done.stats().completed, 2);
}

#[test]
fn a_cancelled_follower_leaves_the_result_where_it_is() {
    let (executor, gate) = (executor(1), Gate::new());
    let first = held(&executor, &gate, 1);
    let follower = first.then(|_| -> Result<(), Error> { panic!("it was cancelled") }).expect("accepted");
    let after = follower.then(|()| Ok::<_, Error>(())).expect("accepted");
    assert!(follower.cancel());
    assert_eq!(follower.status(), Status::Cancelled);
    gate.open();
    assert_eq!(first.wait(HANG).expect("nobody took it"), 1);
    assert!(matches!(after.wait(HANG), Err(Error::Cancelled)));
    executor.shutdown(HANG).expect("ends");
    let stats = executor.stats();
    assert_eq!((stats.completed, stats.cancelled, stats.failed), (1, 1, 1), "{stats}");
}

#[test]
fn a_follower_is_waited_for_inside_an_operation_on_one_thread() {
    let executor = executor(1);
    let inner = executor.clone();
    let outer = executor.spawn(move || {
        let mut last = inner.spawn(|| 0).expect("accepted");
        for _ in 0..20 {
            last = last.then(|n| Ok::<_, Error>(n + 1)).expect("accepted");
        }
        last.wait(HANG).expect("run right here, one after the other")
    });
    assert_eq!(outer.expect("accepted").wait(HANG).expect("no deadlock"), 20);
}

#[test]
fn waiting_for_ones_own_follower_is_told() {
    let executor = executor(2);
    let (send, receive) = channel::<AsyncRequest<()>>();
    let request = executor.spawn(move || {
        let follower = receive.recv().expect("one's own follower");
        [None, Some(HANG)].map(|limit| matches!(follower.wait(limit), Err(Error::WouldDeadlock)))
    });
    let request = request.expect("accepted");
    let follower = request.then(|told| if told == [true; 2] { Ok(()) } else { Err("it was not told") });
    let last = follower.as_ref().expect("accepted").then(|()| Ok::<_, Error>(())).expect("accepted");
    send.send(last).expect("it listens");
    // Its result went on to the last one.
    eventually("all three end", || executor.stats().unfinished() == 0);
    assert_eq!(executor.stats().completed, 3, "{}", executor.stats());
}

// Cancels.

#[test]
fn a_cancel_in_every_state() {
    let (executor, gate, store) = (executor(1), Gate::new(), Arc::new(()));
    let ended = [failed(&executor), panicked(&executor), executor.spawn(|| 1).expect("accepted")];
    ended.iter().for_each(|request| drop(executor.wait_any_request(std::slice::from_ref(request), HANG)));
    for (request, status) in ended.iter().zip([Status::Failed, Status::Panicked, Status::Completed]) {
        assert!(!request.cancel(), "{status:?} is final");
        assert_eq!(request.status(), status);
    }
    assert_eq!(ended[2].wait(HANG).expect("its result is not lost"), 1);

    let inside = gate.clone();
    let running = executor.spawn(move || {
        inside.pass();
        fulmar::is_cancelled()
    });
    let running = running.expect("accepted");
    gate.await_arrivals(1);
    let modify = |n: u8| executor.submit(&store, move |_: &(), ()| Ok::<_, Error>(n), true, ()).expect("accepted");
    let [queued, deferred, last] = [0, 1, 2].map(modify);
    assert_eq!((queued.status(), deferred.status()), (Status::Queued, Status::Deferred));
    assert!(deferred.cancel());
    assert_eq!(last.status(), Status::Deferred, "the one at the head still stands in its way");
    assert!(queued.cancel());
    assert_eq!(last.status(), Status::Queued);
    assert!(!queued.cancel() && !deferred.cancel(), "once");
    assert!(!running.cancel(), "it is told");
    assert_eq!(running.status(), Status::Running);
    assert_adds_up(&executor.stats());
    gate.open();
    assert!(running.wait(HANG).expect("its result comes as it does without the call"), "it was told");
    assert_eq!(last.wait(HANG).expect("it ran"), 2);
    for cancelled in [queued, deferred] {
        assert!((0..2).all(|_| matches!(cancelled.try_take(), Some(Err(Error::Cancelled)))), "as often as one asks");
    }
    assert_eq!(executor.stats().cancelled, 2);
}

#[test]
fn of_many_cancellers_one_is_told_that_it_did() {
    let (executor, gate) = (executor(1), Gate::new());
    let blocker = occupy(&executor, &gate);
    for _ in 0..50 {
        let (request, start) = (executor.spawn(|| ()).expect("accepted"), Gate::new());
        let cancel = || {
            start.pass();
            request.cancel()
        };
        let cancelled = thread::scope(|scope| {
            let cancellers: Vec<_> = (0..4).map(|_| scope.spawn(cancel)).collect();
            start.await_arrivals(4);
            start.open();
            cancellers.into_iter().map(|each| each.join().expect("no panic")).filter(|did| *did).count()
        });
        assert_eq!(cancelled, 1);
    }
    gate.open();
    blocker.wait(HANG).expect("it ends");
    assert_eq!(executor.stats().cancelled, 50);
}

#[test]
fn is_cancelled_is_about_the_innermost_request() {
    let executor = executor(1);
    let (send, receive) = channel::<Arc<AsyncRequest<(bool, bool, bool)>>>();
    let inner = executor.clone();
    let outer = executor.spawn(move || {
        let me = receive.recv().expect("one's own handle");
        let before = fulmar::is_cancelled();
        assert!(!me.cancel(), "it runs");
        let nested = inner.spawn(fulmar::is_cancelled).expect("accepted");
        // In a shield, because the cancel ends other waits of this operation.
        let nested = fulmar::shield(|| nested.wait(HANG)).expect("it ends");
        (before, nested, fulmar::is_cancelled())
    });
    let outer = Arc::new(outer.expect("accepted"));
    send.send(outer.clone()).expect("it listens");
    assert_eq!(outer.wait(HANG).expect("it ends"), (false, false, true));
    assert!(!fulmar::is_cancelled(), "nothing runs here");
}
