//! Waits of ours that end with the cancel of the operation that waits: what it waits for goes on.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use fulmar::pipeline::{PeriodicSubmitter, Pipeline, Processor};
use fulmar::queue::{Consumer, GetError, GetTimeoutError, Producer, PutError, PutTimeoutError, bounded};
use fulmar::{
    AsyncRequest, Error, Executor, OnFull, Policy, Status, as_completed, is_cancelled, shield, wait_all, wait_each,
};

use crate::support::{Gate, HANG, ends, eventually, executor, occupy};

type Requests = Arc<Vec<AsyncRequest<u8>>>;

/// Requests on threads of their own that end when the gate opens, after one that has ended.
struct Held {
    gate: Gate,
    requests: Requests,
}

impl Held {
    fn new() -> Held {
        let (others, gate) = (executor(2), Gate::new());
        let done = others.spawn(|| 0).expect("accepted");
        eventually("the first ends", || done.is_done());
        let held = [1, 2].map(|value| {
            let gate = gate.clone();
            let pass = move || {
                gate.pass();
                value
            };
            others.spawn(pass).expect("accepted")
        });
        gate.await_arrivals(2);
        Held { gate, requests: Arc::new([done].into_iter().chain(held).collect()) }
    }

    fn held(requests: &Requests) -> &[AsyncRequest<u8>] {
        &requests[1..]
    }

    /// None was cancelled, and each still has its result.
    fn assert_untouched(&self) {
        let statuses: Vec<Status> = self.requests.iter().map(AsyncRequest::status).collect();
        assert_eq!(statuses, [Status::Completed, Status::Running, Status::Running]);
        self.gate.open();
        let values: Vec<u8> = self.requests.iter().map(|held| held.wait(HANG).expect("its value")).collect();
        assert_eq!(values, [0, 1, 2]);
    }
}

/// Runs `wait` in an operation of an executor with one thread, which is cancelled once it is
/// blocked: then, and not before, the executor starts another one in its place.
fn cancelled_while_blocked<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static) -> T {
    let executor = executor(1);
    let request = executor.spawn(wait).expect("accepted");
    executor.spawn(|| ()).expect("accepted").wait(HANG).expect("a thread works in its place");
    assert!(!request.cancel(), "it runs");
    let waited = request.wait(HANG).expect("the wait ends");
    assert_eq!(executor.spawn(|| 7).expect("accepted").wait(HANG).expect("the thread is free"), 7);
    executor.shutdown(HANG).expect("all threads end");
    waited
}

/// Runs `body` in an operation that was cancelled before.
fn in_a_cancelled_operation<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (executor, gate) = (executor(1), Gate::new());
    let hold = gate.clone();
    let passed = move || {
        hold.pass();
        body()
    };
    let request = executor.spawn(passed).expect("accepted");
    gate.await_arrivals(1);
    assert!(!request.cancel(), "it runs");
    gate.open();
    request.wait(HANG).expect("it ends")
}

/// When an operation is cancelled.
#[derive(Clone, Copy)]
enum When {
    WhileBlocked,
    Before,
}

impl When {
    const ALL: [When; 2] = [When::WhileBlocked, When::Before];

    fn run<T: Send + 'static>(self, wait: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            When::WhileBlocked => cancelled_while_blocked(wait),
            When::Before => in_a_cancelled_operation(wait),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Calls `pending` after the first poll, if that gave nothing.
fn block_on<T>(request: &mut AsyncRequest<T>, pending: impl FnOnce()) -> Result<T, Error> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut pending = Some(pending);
    loop {
        match Pin::new(&mut *request).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => match pending.take() {
                Some(pending) => pending(),
                None => std::thread::park(),
            },
        }
    }
}

type WaitKind = (&'static str, fn(&Requests) -> Result<(), Error>);

/// Each waits for requests that are held.
fn kinds() -> Vec<WaitKind> {
    vec![
        ("wait", |all| Held::held(all)[0].wait(None).map(drop)),
        ("wait with a limit", |all| Held::held(all)[1].wait(HANG).map(drop)),
        ("any", |all| Executor::global().wait_any_request(Held::held(all), None).map(drop)),
        ("all in order", |all| Executor::global().wait_requests(all, None).map(drop)),
        ("all with a limit", |all| Executor::global().wait_requests(all, HANG).map(drop)),
        ("all of a slice", |all| wait_all(&all[..], None).map(drop)),
        ("all of a tuple", |all| wait_all((&all[0], &all[2]), None).map(drop)),
    ]
}

#[test]
fn each_wait_ends_with_the_cancel_and_what_it_waits_for_goes_on() {
    for (kind, wait) in kinds() {
        for when in When::ALL {
            let held = Held::new();
            let requests = held.requests.clone();
            let waited = when.run(move || wait(&requests));
            assert!(matches!(waited, Err(Error::Interrupted)), "{kind}: {waited:?}");
            held.assert_untouched();
        }
    }
}

#[test]
fn a_wait_after_the_cancel_returns_what_is_there() {
    let others = executor(1);
    let requests: Vec<_> = (0..6).map(|value| others.spawn(move || value).expect("accepted")).collect();
    others.shutdown(HANG).expect("all end");
    let there = move || {
        let any = Executor::global().wait_any_request(&requests, None)?;
        let one = requests[0].wait(None)?;
        let two = wait_all((&requests[1], &requests[2]), HANG)?;
        let three = Executor::global().wait_requests(&requests[3..], None)?;
        Ok::<_, Error>((any, one, two, three, is_cancelled()))
    };
    let values = in_a_cancelled_operation(there).expect("all are there");
    assert_eq!(values, (0, 0, (1, 2), vec![3, 4, 5], true));
}

#[test]
fn a_wait_for_each_returns_what_is_there_and_why_the_others_are_not() {
    for when in When::ALL {
        let held = Held::new();
        let requests = held.requests.clone();
        let each = when.run(move || wait_each(&*requests, None));
        assert!(matches!(each[..], [Ok(0), Err(Error::Interrupted), Err(Error::Interrupted)]), "{each:?}");
        held.gate.open();
        assert_eq!(held.requests[1].wait(HANG).expect("it goes on"), 1);
    }
}

#[test]
fn an_iteration_over_results_ends_with_the_cancel() {
    for when in When::ALL {
        let held = Held::new();
        let requests = held.requests.clone();
        let completed = move || as_completed(&requests, HANG).collect::<Vec<_>>();
        let came = when.run(completed);
        let interrupted = [(0, Ok(0)), (1, Err(())), (2, Err(()))];
        assert!(came[1..].iter().all(|(_, result)| matches!(result, Err(Error::Interrupted))), "{came:?}");
        let came: Vec<_> = came.into_iter().map(|(index, result)| (index, result.map_err(drop))).collect();
        assert_eq!(came, interrupted);
        held.gate.open();
        assert_eq!(held.requests[2].wait(HANG).expect("it goes on"), 2);
    }
}

/// The source neither gives a value nor ends, and a loop that passes over failures must end all the
/// same.
#[test]
fn a_loop_over_a_pipeline_ends_with_the_cancel() {
    for when in When::ALL {
        let (held, source) = channel::<u8>();
        let pipeline = Pipeline::builder(source).map("same", 1, |value| value).start().expect("starts");
        let failures = when.run(move || pipeline.filter_map(Result::err).collect::<Vec<_>>());
        assert_eq!(failures.len(), 1);
        assert!(matches!(failures[0].error(), Error::Interrupted), "{failures:?}");
        drop(held);
    }
}

#[test]
fn a_future_that_an_operation_polls_is_ready_with_the_cancel_and_again_later() {
    let (others, gate) = (executor(1), Gate::new());
    let hold = gate.clone();
    let mut held = others.spawn(move || hold.pass()).expect("accepted");
    let (polled, polls) = channel();
    let request = executor(1).spawn(move || {
        let waited = block_on(&mut held, || polled.send(()).expect("the test listens"));
        (waited, held)
    });
    let request = request.expect("accepted");
    polls.recv_timeout(HANG).expect("it polls");
    assert!(!request.cancel(), "it runs");
    let (interrupted, mut held) = request.wait(HANG).expect("it ends");
    assert!(matches!(interrupted, Err(Error::Interrupted)), "{interrupted:?}");
    let (interrupted, mut held) = in_a_cancelled_operation(move || {
        let waited = block_on(&mut held, || unreachable!("it is ready at once"));
        (waited, held)
    });
    assert!(matches!(interrupted, Err(Error::Interrupted)), "{interrupted:?}");
    gate.open();
    block_on(&mut held, || ()).expect("outside of the operation it has its result");
}

/// A waker that is dropped with what it belongs to.
#[test]
fn an_operation_keeps_no_waker_of_a_poll_that_is_over() {
    struct Idle;
    impl Wake for Idle {
        fn wake(self: Arc<Self>) {}
    }
    let (others, gate) = (executor(1), Gate::new());
    let hold = gate.clone();
    let mut held = others.spawn(move || hold.pass()).expect("accepted");
    let idle = Arc::new(Idle);
    let count = executor(1).spawn(move || {
        let waker = Waker::from(idle.clone());
        let poll = |held: &mut AsyncRequest<()>| Pin::new(held).poll(&mut Context::from_waker(&waker)).is_ready();
        assert!(!poll(&mut held) && !poll(&mut held));
        gate.open();
        eventually("it ends", || held.is_done());
        assert!(poll(&mut held));
        drop(waker);
        drop(held);
        // The executor of the request may still be about to drop the one that it has woken.
        eventually("no waker is left", || Arc::strong_count(&idle) == 1);
    });
    count.expect("accepted").wait(HANG).expect("none is left");
}

#[test]
fn a_cancel_that_races_with_the_end_gives_the_result_once() {
    let (others, waiters) = (executor(1), executor(1));
    for round in 0..2_000 {
        let awaited = Arc::new(others.spawn(move || round).expect("accepted"));
        let inner = awaited.clone();
        let waiting = waiters.spawn(move || inner.wait(None)).expect("accepted");
        if waiting.cancel() {
            // It never began.
            assert_eq!(awaited.wait(HANG).expect("its value"), round);
            continue;
        }
        let first = waiting.wait(HANG).expect("it ends");
        let second = awaited.wait(HANG);
        match (first, second) {
            (Ok(value), Err(Error::ResultTaken)) | (Err(Error::Interrupted), Ok(value)) => assert_eq!(value, round),
            both => panic!("the result is had once: {both:?}"),
        }
    }
    for executor in [others, waiters] {
        executor.shutdown(HANG).expect("all threads end");
    }
}

#[test]
fn a_wait_in_a_shield_goes_on() {
    let held = Held::new();
    let (requests, gate) = (held.requests.clone(), held.gate.clone());
    let (waits, cancelled) = (executor(1), Gate::new());
    let (told, tell) = channel();
    let hold = cancelled.clone();
    let request = waits.spawn(move || {
        let shielded = shield(|| {
            told.send(()).expect("the test listens");
            hold.pass();
            requests[1].wait(None)
        });
        (shielded, requests[2].wait(HANG))
    });
    let request = request.expect("accepted");
    tell.recv_timeout(HANG).expect("it runs");
    cancelled.await_arrivals(1);
    assert!(!request.cancel(), "it runs");
    cancelled.open();
    waits.spawn(|| ()).expect("accepted").wait(HANG).expect("it is blocked in the wait");
    assert!(!request.cancel(), "once more, while it waits");
    gate.open();
    let (shielded, behind) = request.wait(HANG).expect("it ends");
    assert_eq!(shielded.expect("not interrupted"), 1);
    // The other one may have ended by then, and what is there is returned.
    let two = behind.or_else(|error| match error {
        Error::Interrupted => held.requests[2].wait(HANG),
        error => Err(error),
    });
    assert_eq!(two.expect("its value"), 2);
}

/// The operation returned what its wait did.
fn assert_interrupted<T: std::fmt::Debug>(waited: Result<T, Error>) {
    let error = waited.expect_err("interrupted");
    assert!(matches!(error.operation(), Some(Error::Interrupted)), "{error:?}");
}

#[test]
fn a_time_limit_ends_a_wait() {
    let held = Held::new();
    let requests = held.requests.clone();
    let (waits, started) = (executor(1), Gate::new());
    started.open();
    // Once more if the machine took longer than the limit to start it.
    let waited = loop {
        let (requests, started) = (requests.clone(), started.clone());
        let limited = waits.within(Duration::from_millis(20)).spawn(move || {
            started.pass();
            requests[1].wait(None)
        });
        match limited.expect("accepted").wait(HANG) {
            Err(Error::Expired) => {}
            waited => break waited,
        }
    };
    assert_interrupted(waited);
    assert_eq!(waits.spawn(|| 7).expect("accepted").wait(HANG).expect("the thread is free"), 7);
    held.assert_untouched();
}

#[test]
fn a_group_s_cancel_ends_the_waits_in_it() {
    let held = Held::new();
    let waits = executor(1);
    let group = waits.group(Policy::Each);
    let waiting: Vec<_> = [1, 2]
        .map(|index: usize| {
            let requests = held.requests.clone();
            group.spawn(move || requests[index].wait(None)).expect("accepted")
        })
        .into();
    waits.spawn(|| ()).expect("accepted").wait(HANG).expect("both are blocked");
    assert!(group.cancel());
    for waiting in waiting {
        assert_interrupted(waiting.wait(HANG));
    }
    held.assert_untouched();
}

#[test]
fn a_wait_for_a_group_ends_with_the_cancel_and_the_group_goes_on() {
    let (others, gate) = (executor(1), Gate::new());
    let group = Arc::new(others.group(Policy::All));
    let hold = gate.clone();
    let held = group.spawn(move || hold.pass()).expect("accepted");
    gate.await_arrivals(1);
    for limit in [None, Some(HANG)] {
        let inner = group.clone();
        let waited = cancelled_while_blocked(move || inner.wait(limit));
        assert!(matches!(waited, Err(Error::Interrupted)), "{waited:?}");
    }
    assert_eq!((held.status(), group.stats().unfinished()), (Status::Running, 1));
    gate.open();
    assert_eq!(group.wait(HANG).expect("it was not cancelled").succeeded, 1);
}

#[test]
fn the_drop_of_a_group_waits_in_a_cancelled_operation_too() {
    let (others, gate) = (executor(1), Gate::new());
    let (inner, hold) = (others.clone(), gate.clone());
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    let waits = executor(1);
    let request = waits.spawn(move || {
        let group = inner.group(Policy::Each);
        let over = end.clone();
        let member = move || {
            hold.pass();
            over.store(true, Ordering::Release);
        };
        drop(group.spawn(member).expect("accepted"));
        hold_until_cancelled();
        drop(group);
        end.load(Ordering::Acquire)
    });
    let request = request.expect("accepted");
    gate.await_arrivals(1);
    assert!(!request.cancel(), "it runs");
    waits.spawn(|| ()).expect("accepted").wait(HANG).expect("it is blocked in the drop");
    gate.open();
    assert!(request.wait(HANG).expect("it ends"), "nothing of the group outlives it");
    assert!(ended.load(Ordering::Acquire));
}

fn hold_until_cancelled() {
    while !is_cancelled() {
        std::thread::yield_now();
    }
}

#[test]
fn only_the_wait_of_the_cancelled_one_of_a_chain_ends() {
    let held = Held::new();
    let (waits, requests) = (executor(1), held.requests.clone());
    let inner = waits.clone();
    let (told, tell) = channel();
    let outer = waits.spawn(move || {
        let middle = Arc::new(inner.spawn(move || requests[1].wait(None)).expect("accepted"));
        told.send(middle.clone()).expect("the test listens");
        middle.wait(None).map(drop)
    });
    let outer = outer.expect("accepted");
    let middle = tell.recv_timeout(HANG).expect("it runs");
    waits.spawn(|| ()).expect("accepted").wait(HANG).expect("both are blocked");
    assert!(!outer.cancel(), "it runs");
    let waited = outer.wait(HANG).expect("it ends");
    assert!(matches!(waited, Err(Error::Interrupted)), "{waited:?}");
    assert_eq!(middle.status(), Status::Running);
    held.gate.open();
    assert_eq!(middle.wait(HANG).expect("it ends").expect("not interrupted"), 1);
}

#[test]
fn a_shutdown_now_ends_waits() {
    let held = Held::new();
    let (waits, requests) = (executor(1), held.requests.clone());
    let waiting = waits.spawn(move || requests[1].wait(None)).expect("accepted");
    waits.spawn(|| ()).expect("accepted").wait(HANG).expect("it is blocked");
    let other = waits.clone();
    assert_eq!(ends("shutdown_now", move || other.shutdown_now()), 0, "it runs");
    let waited = waiting.wait(HANG).expect("it ran");
    assert!(matches!(waited, Err(Error::Interrupted)), "{waited:?}");
    held.assert_untouched();
}

#[test]
fn a_submission_that_waits_for_room_ends_with_the_cancel_and_accepts_nothing() {
    let full = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::Wait(HANG)).build();
    let (full, gate) = (full.expect("an executor"), Gate::new());
    let busy = occupy(&full, &gate);
    let queued = full.spawn(|| ()).expect("there is room for one");
    for when in When::ALL {
        let inner = full.clone();
        let refused = move || inner.spawn(|| unreachable!("it was not accepted")).map(drop);
        let refused = when.run(refused);
        assert!(matches!(refused, Err(Error::Interrupted)), "{refused:?}");
    }
    gate.open();
    executor(1).wait_requests(&[busy, queued], HANG).expect("both end");
    full.shutdown(HANG).expect("all threads end");
    assert_eq!(full.stats().submitted, 2);
}

#[test]
fn a_put_ends_with_the_cancel_and_hands_its_value_back() {
    for when in When::ALL {
        let (producer, consumer) = bounded(1).expect("holds something");
        producer.put("first".to_owned()).expect("there is room");
        let putter = producer.clone();
        let put = move || (putter.put("second".to_owned()), putter.put_timeout("third".to_owned(), HANG));
        let put = when.run(put);
        let second = PutError::Interrupted("second".to_owned());
        assert_eq!(put, (Err(second), Err(PutTimeoutError::Interrupted("third".to_owned()))));
        assert_eq!(consumer.drain(), ["first"]);
        producer.put("fourth".to_owned()).expect("there is room");
        assert_eq!(consumer.get().as_deref(), Ok("fourth"));
    }
}

#[test]
fn a_get_ends_with_the_cancel_and_takes_nothing() {
    for when in When::ALL {
        let (producer, consumer) = bounded::<u8>(1).expect("holds something");
        let getter = consumer.clone();
        let get = move || (getter.get(), getter.get_timeout(HANG), getter.iter().count());
        let got = when.run(get);
        assert_eq!(got, (Err(GetError::Interrupted), Err(GetTimeoutError::Interrupted), 0));
        producer.put(1).expect("open");
        assert_eq!(consumer.get(), Ok(1));
    }
}

#[test]
fn a_cancelled_operation_puts_where_there_is_room_and_gets_what_is_there() {
    let (producer, consumer) = bounded(1).expect("holds something");
    let both = in_a_cancelled_operation(move || (producer.put(1), consumer.get(), is_cancelled()));
    assert_eq!(both, (Ok(()), Ok(1), true));
}

fn queued(producer: &Producer<u32>, consumer: &Consumer<u32>) -> Vec<u32> {
    producer.close();
    consumer.drain()
}

#[test]
fn a_cancel_that_races_with_a_get_or_a_put_loses_no_value() {
    let executor = executor(2);
    for round in 0..2_000 {
        let (producer, consumer) = bounded(1).expect("holds something");
        let getter = consumer.clone();
        let request = executor.spawn(move || getter.get()).expect("accepted");
        let canceller = producer.clone();
        let put = executor.spawn(move || canceller.put(round)).expect("accepted");
        let never_ran = request.cancel();
        put.wait(HANG).expect("it ends").expect("there is room");
        let got = if never_ran { Err(GetError::Interrupted) } else { request.wait(HANG).expect("it ran") };
        let left = queued(&producer, &consumer);
        let values: Vec<u32> = got.into_iter().chain(left).collect();
        assert_eq!(values, [round], "once, here or there");

        let (producer, consumer) = bounded(1).expect("holds something");
        producer.put(0).expect("there is room");
        let putter = producer.clone();
        let request = executor.spawn(move || putter.put(round)).expect("accepted");
        let getter = consumer.clone();
        let get = executor.spawn(move || getter.get()).expect("accepted");
        if request.cancel() {
            continue;
        }
        assert_eq!(get.wait(HANG).expect("it ends"), Ok(0));
        let refused = request.wait(HANG).expect("it ran").err().map(PutError::into_inner);
        let values: Vec<u32> = refused.into_iter().chain(queued(&producer, &consumer)).collect();
        assert_eq!(values, [round], "once, here or there");
    }
    executor.shutdown(HANG).expect("all threads end");
}

/// The one that gave up was first in the line.
#[test]
fn a_value_goes_to_the_next_in_the_line_behind_one_that_was_interrupted() {
    let (producer, consumer) = bounded::<u8>(1).expect("holds something");
    let (first, second) = (consumer.clone(), consumer);
    let waits = executor(1);
    let interrupted = waits.spawn(move || first.get()).expect("accepted");
    waits.spawn(|| ()).expect("accepted").wait(HANG).expect("the first is blocked");
    let goes_on = waits.spawn(move || second.get()).expect("accepted");
    waits.spawn(|| ()).expect("accepted").wait(HANG).expect("the second is blocked");
    assert!(!interrupted.cancel(), "it runs");
    assert_eq!(interrupted.wait(HANG).expect("it ends"), Err(GetError::Interrupted));
    producer.put(7).expect("open");
    assert_eq!(goes_on.wait(HANG).expect("it ends"), Ok(7));
}

#[test]
fn a_pipeline_s_next_tells_of_the_cancel_and_goes_on_elsewhere() {
    let gate = Gate::new();
    let hold = gate.clone();
    let pass = move |value: u8| {
        hold.pass();
        value
    };
    let mut pipeline = Pipeline::builder([1, 2]).map("hold", 1, pass).start().expect("starts");
    let (next, pipeline) = cancelled_while_blocked(move || {
        let next = pipeline.next();
        (next, pipeline)
    });
    let failure = next.expect("not the end").expect_err("no value");
    assert!(matches!((failure.stage(), failure.error()), ("output", Error::Interrupted)), "{failure:?}");
    gate.open();
    let values: Vec<u8> = pipeline.map(|outcome| outcome.expect("no failure")).collect();
    assert_eq!(values, [1, 2]);
}

#[test]
fn a_wait_for_a_processor_or_a_submitter_ends_with_the_cancel_and_they_go_on() {
    for when in When::ALL {
        let (producer, consumer) = bounded::<u8>(1).expect("holds something");
        let processor = Processor::builder(consumer).executor(&executor(1)).handle(|_| ()).expect("starts");
        let hourly = PeriodicSubmitter::builder(producer.clone()).every(Duration::from_secs(3_600));
        let submitter = hourly.submit(1).expect("starts");
        let (waited, processor, submitter) = when.run(move || {
            let waited = (processor.wait(None), submitter.wait(HANG));
            (waited, processor, submitter)
        });
        assert!(matches!(waited, (Err(Error::Interrupted), Err(Error::Interrupted))), "{waited:?}");
        producer.put(2).expect("it goes on");
        submitter.stop();
        let submitted = submitter.wait(HANG).expect("it ends").submitted;
        producer.close();
        assert_eq!(processor.wait(HANG).expect("it ends").handled, submitted + 1);
    }
}

#[test]
fn a_wait_in_a_callback_is_no_part_of_the_operation_that_was_cancelled() {
    let (waits, others, gate) = (executor(1), executor(1), Gate::new());
    let hold = gate.clone();
    let held = others.spawn(move || hold.pass()).expect("accepted");
    let (told, tell) = channel();
    let request = waits.spawn(hold_until_cancelled).expect("accepted");
    // On the thread that runs the operation, but behind its end.
    drop(request.on_complete(move |_| {
        told.send(()).expect("the test listens");
        held.wait(None).expect("not interrupted");
        told.send(()).expect("the test listens");
    }));
    eventually("it runs", || request.status() == Status::Running);
    assert!(!request.cancel(), "it runs");
    tell.recv_timeout(HANG).expect("the callback is called");
    assert!(!request.cancel(), "it has ended");
    gate.open();
    tell.recv_timeout(HANG).expect("the wait in the callback ends");
}

/// Another executor, at work until the gate opens, with nothing accepted beside.
fn at_work(gate: &Gate) -> Executor {
    let others = executor(1);
    drop(occupy(&others, gate));
    others
}

type EndKind = (&'static str, fn(&Executor) -> Result<(), Error>);

#[test]
fn a_wait_for_another_executor_s_end_ends_with_the_cancel_and_what_it_began_goes_on() {
    let kinds: [EndKind; 8] = [
        ("shutdown", |others| others.shutdown(None)),
        ("shutdown with a limit", |others| others.shutdown(HANG)),
        ("await", |others| others.await_termination(None)),
        ("await with a limit", |others| others.await_termination(HANG)),
        ("reset", |others| others.reset(2, None)),
        ("reset with a limit", |others| others.reset(2, HANG)),
        ("idle", |others| others.wait_idle(None)),
        ("idle with a limit", |others| others.wait_idle(HANG)),
    ];
    for (kind, wait) in kinds {
        for when in When::ALL {
            let gate = Gate::new();
            let others = at_work(&gate);
            if kind.starts_with("await") {
                assert!(others.shutdown(Duration::ZERO).is_err(), "it is at work");
            }
            let waits = others.clone();
            let waited = when.run(move || wait(&waits));
            assert!(matches!(waited, Err(Error::Interrupted)), "{kind}: {waited:?}");
            let is_open = others.spawn(|| ());
            assert_eq!(is_open.is_ok(), matches!(&kind[..4], "rese" | "idle"), "{kind}: what was begun goes on");
            if kind.starts_with("reset") {
                assert_eq!(others.threads(), 2, "it is done");
                is_open.expect("open").wait(HANG).expect("a new thread works");
            }
            gate.open();
            others.shutdown(HANG).expect("it ends");
            assert_eq!(others.stats().threads, 0);
        }
    }
}

#[test]
fn a_wait_for_an_end_after_the_cancel_returns_what_is_there() {
    let (ended, idle) = (executor(1), executor(1));
    ended.spawn(|| ()).expect("accepted").wait(HANG).expect("ends");
    ended.shutdown(HANG).expect("it ends");
    let there = in_a_cancelled_operation(move || {
        idle.wait_idle(None)?;
        idle.reset(1, None)?;
        idle.shutdown(None)?;
        ended.await_termination(None)?;
        ended.shutdown(HANG)
    });
    there.expect("nothing is waited for");
}

/// A scope's end is no wait to be given up: what it runs may borrow.
#[test]
fn a_scope_s_end_is_not_interrupted() {
    let gate = Gate::new();
    let (hold, pass) = (gate.clone(), gate.clone());
    let waits = executor(1);
    let request = waits.spawn(move || {
        let borrowed = 7;
        let (borrowed, pass) = (&borrowed, &pass);
        fulmar::scope(1, |scope| {
            drop(scope.spawn(move || {
                pass.pass();
                *borrowed
            })?);
            Ok::<_, Error>(())
        })
    });
    let request = request.expect("accepted");
    hold.await_arrivals(1);
    assert!(!request.cancel(), "it runs");
    // A thread works in its place, also after the cancel.
    waits.spawn(|| ()).expect("accepted").wait(HANG).expect("its place is lent");
    assert!(!request.is_done(), "it waits for what it runs");
    hold.open();
    request.wait(HANG).expect("it ends").expect("well").expect("well");
}

/// The threads that call hooks at time limits end with the executor.
#[test]
fn a_shutdown_that_waits_for_a_hook_ends_with_the_cancel() {
    for when in When::ALL {
        let (others, gate) = (executor(1), Gate::new());
        let hold = gate.clone();
        // A machine that takes longer to start it gets more time.
        let request = (0..8).find_map(|doubled| {
            let (hold, called, (started, starts)) = (hold.clone(), hold.clone(), channel());
            let until_told = move || {
                let _hook = fulmar::on_cancel(move || hold.pass());
                started.send(()).expect("the test listens");
                // One that ended as soon as it is cancelled would take its hook back.
                called.await_arrivals(1);
            };
            let request = others.within(Duration::from_millis(20 << doubled)).spawn(until_told).expect("accepted");
            starts.recv().ok().map(|()| request)
        });
        drop(request.expect("it starts within seconds"));
        eventually("a hook is called", || gate.arrivals() > 0);
        let waits = others.clone();
        let waited = when.run(move || waits.shutdown(None));
        assert!(matches!(waited, Err(Error::Interrupted)), "{waited:?}");
        gate.open();
        others.await_termination(HANG).expect("it ends");
    }
}

/// An operation that was cancelled waits no longer, even before its thread has run again: nothing
/// that needs its end is stuck.
#[test]
fn a_wait_for_what_was_cancelled_in_a_wait_for_the_caller_is_no_deadlock() {
    for _ in 0..50 {
        let executor = executor(2);
        let (store, inner) = (Arc::new(()), executor.clone());
        let same = store.clone();
        let cancels = move |_: &(), _: &str| {
            let behind = inner.submit_write(&same, |_: &(), _: &str| (), "k")?;
            let waits = inner.spawn(move || behind.wait(None))?;
            until_the_other_thread_is_blocked(&inner);
            waits.cancel();
            waits.wait(None)
        };
        let told = executor.submit_write(&store, cancels, "k").expect("accepted");
        let told = ends("a wait for what was cancelled", move || told.wait(None)).expect("ends");
        assert!(matches!(told, Err(Error::Interrupted)), "{told:?}");
    }
}

#[test]
fn a_group_is_dropped_only_when_what_waits_for_its_owner_has_ended() {
    for _ in 0..50 {
        let executor = executor(2);
        let (store, inner) = (Arc::new(()), executor.clone());
        let (same, ended) = (store.clone(), Arc::new(AtomicBool::new(false)));
        let owner = move |_: &(), _: &str| {
            let behind = inner.submit_write(&same, |_: &(), _: &str| (), "k")?;
            let (group, set) = (inner.group(Policy::Each), ended.clone());
            drop(group.spawn(move || {
                let told = behind.wait(None);
                std::thread::yield_now();
                set.store(true, Ordering::SeqCst);
                told
            })?);
            until_the_other_thread_is_blocked(&inner);
            drop(group);
            Ok::<_, Error>(ended.load(Ordering::SeqCst))
        };
        let told = executor.submit_write(&store, owner, "k").expect("accepted");
        assert!(ends("the end of a group", move || told.wait(None)).expect("ends"), "none outlives its group");
    }
}

/// The operation with a time limit ends, and so does what needs its end: the caller is told of that
/// end, and not of a deadlock.
#[test]
fn a_wait_for_what_has_a_time_limit_and_waits_for_the_caller_is_no_deadlock() {
    let executor = executor(2);
    let (store, inner) = (Arc::new(()), executor.clone());
    let same = store.clone();
    let waits = move |_: &(), _: &str| {
        let behind = inner.submit_write(&same, |_: &(), _: &str| (), "k")?;
        let limited = inner.within(Duration::from_millis(300)).spawn(move || behind.wait(None))?;
        until_the_other_thread_is_blocked(&inner);
        limited.wait(None)
    };
    let told = executor.submit_write(&store, waits, "k").expect("accepted");
    let told = ends("a wait for what has a time limit", move || told.wait(None)).expect_err("its time is over");
    assert!(matches!(told.operation(), Some(Error::Operation(_))), "{told:?}");
}

/// Of an executor with two threads, one of which runs the caller: then, and not before, a third
/// thread starts in its place.
fn until_the_other_thread_is_blocked(executor: &Executor) {
    let next = executor.spawn(|| ()).expect("accepted");
    eventually("another thread takes the next one", || next.is_done());
}
