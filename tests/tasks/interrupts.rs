//! Handlers that are blocked when their task is cancelled, their worker stops or their lease is
//! lost. Their calls end, and it is decided as ever what becomes of the task.

use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use fulmar::queue::bounded;
use fulmar::tasks::durable::{StepOptions, function};
use fulmar::tasks::{RetryPolicy, TaskContext, TaskError, TaskHandle, TaskQueue, TaskStatus, Worker};
use fulmar::{AsyncRequest, BoxError, Error, Executor, Policy, as_completed, is_cancelled, on_cancel, sleep, wait_all};

use crate::support::{Bed, HANG, LEASE, claim, eventually, last_message, put, task};
use crate::workers::assert_put_back;

/// Short, so that heartbeats are seen; long enough for a machine that is busy.
const SHORT: Duration = Duration::from_millis(900);

/// Blocks until a cancel of the attempt reaches its hook.
fn until_interrupted() -> BoxError {
    let (told, tells) = channel();
    let _hook = on_cancel(move || {
        let _ = told.send(());
    });
    match tells.recv() {
        Ok(()) => "interrupted".into(),
        Err(_) => "there is no operation to be cancelled".into(),
    }
}

/// A worker with the one task `a`, whose handler is blocked.
fn blocked(queue: &TaskQueue, lease: Duration) -> (Worker, TaskHandle) {
    let (arrived, arrives) = channel();
    let worker = Worker::builder(queue)
        .lease(lease)
        // Only the handler's own end puts the task back.
        .maintenance_interval(HANG * 10)
        .max_concurrent(1)
        .handle("t", move |_: &TaskContext| -> Result<(), BoxError> {
            arrived.send(())?;
            Err(until_interrupted())
        })
        .start()
        .expect("started");
    let handle = put(queue, "a");
    arrives.recv_timeout(HANG).expect("it starts");
    (worker, handle)
}

pub(crate) fn a_cancel_interrupts_a_handler_and_ends_its_task(bed: &dyn Bed) {
    let queue = bed.queue();
    let (worker, handle) = blocked(&queue, HANG * 10);
    assert_eq!(bed.open().cancel("t", "a").expect("known"), TaskStatus::Running, "by another process");
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Cancelled);
    assert_eq!(last_message(&queue, "a"), "interrupted");
    assert_eq!(worker.drain(HANG).expect("idle").cancelled, 1);
}

pub(crate) fn a_drain_interrupts_a_handler_once_its_time_is_over(bed: &dyn Bed) {
    let queue = bed.queue();
    let (worker, handle) = blocked(&queue, HANG * 10);
    let left = worker.drain(Duration::from_millis(10)).expect_err("it is blocked");
    assert!(matches!(left, TaskError::Timeout { left: 1, .. }), "{left}");
    let stats = worker.drain(HANG).expect("it was interrupted");
    assert_eq!((stats.retried, stats.failed, stats.cancelled), (1, 0, 0), "{stats}");
    assert_put_back(&queue, &handle, "its worker stopped: interrupted");

    // A drain that has time to wait interrupts nothing.
    let (arrived, arrives) = channel();
    let worker = Worker::builder(&queue)
        .handle("t", move |task: &TaskContext| -> Result<(), BoxError> {
            arrived.send(())?;
            eventually("the worker drains", || task.is_stopping());
            if on_cancel(|| ()).take_back() { Ok(()) } else { Err("interrupted".into()) }
        })
        .start()
        .expect("started");
    let handle = put(&queue, "b");
    arrives.recv_timeout(HANG).expect("it starts");
    worker.drain(HANG).expect("it ends");
    assert_eq!(handle.status().expect("known"), TaskStatus::Finished);
}

pub(crate) fn a_dropped_worker_interrupts_its_handlers(bed: &dyn Bed) {
    let queue = bed.queue();
    let (worker, handle) = blocked(&queue, HANG * 10);
    drop(worker);
    assert_put_back(&queue, &handle, "its worker stopped: interrupted");
}

pub(crate) fn a_lost_lease_interrupts_a_handler(bed: &dyn Bed) {
    let queue = bed.queue();
    let (worker, handle) = blocked(&queue, SHORT);
    queue.force_unregister("t").expect("forced");
    eventually("what it came to is discarded", || worker.stats().stale == 1);
    assert!(matches!(handle.status(), Err(TaskError::NotFound { .. })));
    worker.drain(HANG).expect("idle");
}

pub(crate) fn a_claim_of_ones_own_is_interrupted_wherever_it_runs(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = put(&queue, "a");
    let claim = claim(&queue);
    let (arrived, arrives) = channel();
    let handler = move |_: &TaskContext| -> Result<(), BoxError> {
        arrived.send(())?;
        Err(until_interrupted())
    };
    std::thread::scope(|scope| {
        let run = scope.spawn(|| claim.run(&handler));
        arrives.recv_timeout(HANG).expect("it starts");
        handle.cancel().expect("known");
        claim.renew(LEASE).expect("held");
        assert_eq!(run.join().expect("no panic").expect("ours"), TaskStatus::Cancelled);
    });
}

pub(crate) fn a_claim_whose_operation_is_cancelled_goes_back(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = put(&queue, "a");
    let claim = claim(&queue);
    let executor = Executor::builder().threads(1).build().expect("sound");
    let (arrived, arrives) = channel();
    let handler = move |_: &TaskContext| -> Result<(), BoxError> {
        arrived.send(())?;
        Err(until_interrupted())
    };
    let request = executor.spawn(move || claim.run(&handler)).expect("accepted");
    arrives.recv_timeout(HANG).expect("it starts");
    assert!(!request.cancel(), "it runs");
    assert_eq!(request.wait(HANG).expect("it ends").expect("ours"), TaskStatus::Accepted);
    assert_put_back(&queue, &handle, "its worker stopped: interrupted");
}

pub(crate) fn an_interrupted_step_has_not_failed(bed: &dyn Bed) {
    let queue = bed.queue();
    let (arrived, arrives): (_, Receiver<()>) = channel();
    /// It has no attempt but the first.
    fn options() -> StepOptions {
        StepOptions::new().retry(RetryPolicy::never())
    }
    let first = function(move |cx, ()| {
        cx.step_with("call", options(), || {
            arrived.send(())?;
            Err::<u32, _>(until_interrupted())
        })
    });
    let worker = Worker::builder(&queue).max_concurrent(1).handle("t", first).start().expect("started");
    let handle = queue.enqueue(task("a").input(&())).expect("accepted");
    arrives.recv_timeout(HANG).expect("it starts");
    drop(worker);
    let second = function(move |cx, ()| cx.step_with("call", options(), || Ok::<u32, BoxError>(7)));
    let worker = Worker::builder(&queue).max_concurrent(1).handle("t", second).start().expect("started");
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Finished);
    assert_eq!(handle.response().expect("known").expect("stored").json::<u32>().expect("a number"), 7);
    worker.drain(HANG).expect("idle");
}

/// A request that ends when the sender is dropped, at the latest with the test.
fn held(executor: &Executor) -> (AsyncRequest<()>, Sender<()>) {
    let (open, gate) = channel::<()>();
    let request = executor.spawn(move || gate.recv().map_or((), |()| ())).expect("accepted");
    (request, open)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on(mut request: AsyncRequest<()>) -> Result<(), Error> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match Pin::new(&mut request).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => std::thread::park(),
        }
    }
}

type Waits = (&'static str, fn(AsyncRequest<()>) -> Result<(), Error>);

/// The ways to wait for a request.
const WAITS: [Waits; 8] = [
    ("wait", |request| request.wait(None)),
    ("any", |request| Executor::global().wait_any_request(&[request], HANG * 10).map(drop)),
    ("all", |request| Executor::global().wait_requests(&[request], None).map(drop)),
    ("all of a tuple", |request| wait_all((&request, &request), None).map(drop)),
    ("completed", |request| as_completed(&[request], None).next().expect("one").1),
    ("poll", block_on),
    ("group", |request| {
        let group = Executor::global().group(Policy::Each);
        let (inner, mut outer) = (Arc::new(request), None);
        let waits = inner.clone();
        outer.get_or_insert(group.spawn(move || waits.wait(None))?);
        // Its drop cancels, so that the inner wait ends, too.
        group.wait(None).map(drop)
    }),
    ("shutdown", |request| {
        let other = Executor::builder().threads(1).build()?;
        drop(other.spawn(move || request.wait(None))?);
        let waited = other.shutdown(None);
        other.shutdown_now();
        waited
    }),
];

pub(crate) fn each_wait_of_a_handler_ends_with_its_cancel_on_any_thread(bed: &dyn Bed) {
    let queue = bed.queue();
    let executor = Executor::builder().threads(WAITS.len()).build().expect("sound");
    for (kind, wait) in WAITS {
        let handle = put(&queue, kind);
        let claim = Arc::new(claim(&queue));
        let (request, _open) = held(&executor);
        let request = std::sync::Mutex::new(Some(request));
        let ((arrived, arrives), (told, tells)) = (channel(), channel());
        let handler = move |_: &TaskContext| -> Result<(), Error> {
            let request = request.lock().expect("no panic").take().expect("called once");
            arrived.send(()).expect("the test listens");
            wait(request)
        };
        let runs = claim.clone();
        // A thread that no executor knows; it is left behind if it doesn't end.
        std::thread::spawn(move || told.send(runs.run(&handler)));
        arrives.recv_timeout(HANG).expect("it starts");
        handle.cancel().expect("known");
        claim.renew(LEASE).expect("held");
        let status = tells.recv_timeout(HANG).unwrap_or_else(|_| panic!("hang: {kind}"));
        assert_eq!(status.expect("ours"), TaskStatus::Cancelled, "{kind}");
        assert_eq!(last_message(&queue, kind), Error::Interrupted.to_string(), "{kind}");
    }
}

/// A limit that passes while something blocks; of a step that must end in time it is doubled.
const BRIEF: Duration = Duration::from_millis(10);

fn brief() -> StepOptions {
    StepOptions::new().time_limit(BRIEF).retry(RetryPolicy::never())
}

/// The error of a step, with all its sources.
fn why(error: TaskError) -> Vec<String> {
    let mut whys = vec![error.to_string()];
    let mut next = error.source();
    while let Some(source) = next {
        whys.push(source.to_string());
        next = source.source();
    }
    whys
}

type Blocks = (&'static str, fn(&Executor) -> BoxError);

/// In what a step may be blocked.
const BLOCKS: [Blocks; 4] = [
    ("hook", |_| until_interrupted()),
    ("sleep", |_| sleep(HANG * 10).expect_err("an endless one").into()),
    ("wait", |executor| {
        let (request, _open) = held(executor);
        request.wait(None).expect_err("it is held").into()
    }),
    ("get", |_| {
        let (_producer, consumer) = bounded::<u8>(1).expect("holds something");
        consumer.get().expect_err("it is empty").into()
    }),
];

pub(crate) fn the_time_limit_of_a_step_interrupts_it_and_nothing_else(bed: &dyn Bed) {
    let queue = bed.queue();
    let executor = Executor::builder().threads(1).build().expect("sound");
    let handler = || {
        let executor = executor.clone();
        function(move |cx, ()| {
            let (called, calls) = channel();
            let outside = on_cancel(move || called.send(()).unwrap_or(()));
            let mut whys = Vec::new();
            for (name, block) in BLOCKS {
                let failed = cx.step_with(name, brief(), || Err::<(), _>(block(&executor)));
                whys.push(why(failed.expect_err("it took too long")));
                assert!(!is_cancelled() && !cx.task().is_cancelled(), "the attempt goes on");
            }
            assert!(outside.take_back() && calls.try_recv().is_err(), "of the attempt, not of a step");
            sleep(Duration::from_millis(1))?;
            cx.step("after", || Ok::<_, TaskError>(whys))
        })
    };
    // On a thread of the caller's, and on one of an executor.
    let first = queue.enqueue(task("a").input(&())).expect("accepted");
    assert_eq!(Worker::builder(&queue).handle("t", handler()).run_due().expect("run").len(), 1);
    let worker = Worker::builder(&queue).handle("t", handler()).start().expect("started");
    let second = queue.enqueue(task("b").input(&())).expect("accepted");
    for handle in [first, second] {
        assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Finished, "{:?}", handle.log());
        let whys: Vec<Vec<String>> = handle.response().expect("read").expect("a result").json().expect("texts");
        let expected = BLOCKS.map(|(name, _)| {
            let last = match name {
                "hook" => "interrupted".to_owned(),
                "get" => fulmar::queue::GetError::Interrupted.to_string(),
                _ => Error::Interrupted.to_string(),
            };
            vec![format!("the step `{name}` failed"), format!("it took longer than its limit of {BRIEF:?}"), last]
        });
        assert_eq!(whys, expected);
    }
    worker.drain(HANG).expect("idle");
}

pub(crate) fn a_hook_of_a_step_is_not_called_after_its_end(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = queue.enqueue(task("a").input(&())).expect("accepted");
    let handler = function(move |cx, ()| {
        let is_called = Arc::new(AtomicBool::new(false));
        // A machine that takes longer gets more time.
        let limit = (0..10).find_map(|doubled| {
            let (limit, calls) = (BRIEF * (1 << doubled), is_called.clone());
            let armed = cx.step_with("in time", StepOptions::new().time_limit(limit), || {
                drop(on_cancel(move || calls.store(true, Ordering::SeqCst)));
                Ok::<_, TaskError>(())
            });
            if armed.is_err() {
                is_called.store(false, Ordering::SeqCst);
            }
            armed.ok().map(|()| limit)
        });
        let options = StepOptions::new().time_limit(limit.expect("it ends in time")).retry(RetryPolicy::never());
        // Its limit passes after that of the first one.
        let late = cx.step_with("late", options, || Err::<(), _>(until_interrupted()));
        late.expect_err("it took too long");
        cx.step("after", || Ok::<_, TaskError>(is_called.load(Ordering::SeqCst)))
    });
    Worker::builder(&queue).handle("t", handler).run_due().expect("run");
    let is_called: bool = handle.response().expect("read").expect("a result").json().expect("an answer");
    assert!(!is_called);
}

pub(crate) fn a_cancel_reaches_into_a_step_with_a_time_limit(bed: &dyn Bed) {
    let queue = bed.queue();
    let (arrived, arrives) = channel();
    let (told, tells) = channel();
    let handler = function(move |cx, ()| {
        let (arrived, told) = (arrived.clone(), told.clone());
        let _outside = on_cancel(move || told.send(()).unwrap_or(()));
        cx.step_with("call", StepOptions::new().time_limit(HANG * 10), || {
            arrived.send(())?;
            let error = until_interrupted();
            // A cancel lasts, in the step and behind it.
            assert!(is_cancelled() && sleep(HANG * 10).is_err());
            Err::<(), _>(error)
        })
        .inspect_err(|_| assert!(is_cancelled() && sleep(HANG * 10).is_err()))
    });
    let worker = Worker::builder(&queue).max_concurrent(1).handle("t", handler).start().expect("started");
    let handle = queue.enqueue(task("a").input(&())).expect("accepted");
    arrives.recv_timeout(HANG).expect("it starts");
    handle.cancel().expect("known");
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Cancelled);
    assert_eq!(last_message(&queue, "a"), "the step `call` failed: interrupted");
    tells.recv_timeout(HANG).expect("the hook around the step is called, too");
    worker.drain(HANG).expect("idle");
}

pub(crate) fn a_step_in_a_cancelled_operation_has_not_failed(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = queue.enqueue(task("a").input(&())).expect("accepted");
    let executor = Executor::builder().threads(1).build().expect("sound");
    for limit in [HANG * 10, HANG * 20] {
        let (claim, (arrived, arrives)) = (claim(&queue), channel());
        let blocked = function(move |cx, ()| {
            cx.step_with("call", StepOptions::new().time_limit(limit).retry(RetryPolicy::never()), || {
                arrived.send(())?;
                Err::<u32, _>(until_interrupted())
            })
        });
        let request = executor.spawn(move || claim.run(&blocked)).expect("accepted");
        arrives.recv_timeout(HANG).expect("it starts");
        assert!(!request.cancel(), "it runs");
        assert_eq!(request.wait(HANG).expect("it ends").expect("ours"), TaskStatus::Accepted);
    }
    let patient = StepOptions::new().time_limit(HANG).retry(RetryPolicy::never());
    let sound = function(move |cx, ()| cx.step_with("call", patient, || Ok::<u32, BoxError>(7)));
    assert_eq!(claim(&queue).run(&sound).expect("ours"), TaskStatus::Finished);
    assert_eq!(handle.response().expect("read").expect("stored").json::<u32>().expect("a number"), 7);
}

/// Both engines understand it, and come to no end.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n)";

pub(crate) fn a_statement_of_a_step_is_given_up_and_nothing_of_it_is_left(bed: &dyn Bed) {
    bed.sql("CREATE TABLE numbers (i BIGINT)");
    let queue = bed.queue();
    let handle = queue.enqueue(task("a").input(&())).expect("accepted");
    let handler = function(move |cx, ()| {
        let read = cx.step_in_with("read", brief(), |tx| tx.query(&format!("{ENDLESS} SELECT count(*) FROM n"), &[]));
        let write = cx.step_in_with("write", brief(), |tx| {
            tx.execute("INSERT INTO numbers VALUES (1)", &[])?;
            let given_up = tx.execute(&format!("INSERT INTO numbers {ENDLESS} SELECT i FROM n"), &[]);
            // One that goes on all the same writes nothing more.
            tx.execute("INSERT INTO numbers VALUES (2)", &[]).expect_err("the transaction is over");
            given_up
        });
        let whys = [why(read.expect_err("endless")), why(write.expect_err("endless"))];
        cx.step_in("after", |tx| {
            tx.execute("INSERT INTO numbers VALUES (3)", &[])?;
            Ok::<_, TaskError>(whys)
        })
    });
    let worker = Worker::builder(&queue).max_concurrent(1).handle("t", handler).start().expect("started");
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Finished, "{:?}", handle.log());
    let whys: [Vec<String>; 2] = handle.response().expect("read").expect("a result").json().expect("texts");
    for (why, name) in whys.iter().zip(["read", "write"]) {
        assert_eq!(
            why[..2],
            [format!("the step `{name}` failed"), format!("it took longer than its limit of {BRIEF:?}")]
        );
        assert!(why.len() > 2, "the database's word: {why:?}");
    }
    assert_eq!(bed.count("SELECT sum(i) FROM numbers"), 3);
    worker.drain(HANG).expect("idle");
}

/// The task's cancel, and one that comes while a write is at work.
pub(crate) fn a_cancel_gives_up_a_statement_of_a_step(bed: &dyn Bed) {
    bed.sql("CREATE TABLE numbers (i BIGINT)");
    let queue = bed.queue();
    let (arrived, arrives) = channel();
    let handler = function(move |cx, ()| {
        cx.step_in("write", |tx| {
            tx.execute("INSERT INTO numbers VALUES (1)", &[])?;
            arrived.send(()).map_err(|error| TaskError::Invalid(error.to_string()))?;
            tx.query(&format!("{ENDLESS} SELECT count(*) FROM n"), &[])
        })
    });
    let handle = queue.enqueue(task("a").input(&())).expect("accepted");
    let executor = Executor::builder().threads(1).build().expect("sound");
    let claim = claim(&queue);
    // On SQLite the step's transaction keeps all others from writing, a cancel of the task as well.
    let request = executor.spawn(move || claim.run(&handler)).expect("accepted");
    arrives.recv_timeout(HANG).expect("it starts");
    assert!(!request.cancel(), "it runs");
    assert_eq!(request.wait(HANG).expect("it ends").expect("ours"), TaskStatus::Accepted);
    assert_eq!(handle.status().expect("known"), TaskStatus::Accepted);
    assert_eq!(bed.count("SELECT count(*) FROM numbers"), 0);
}
