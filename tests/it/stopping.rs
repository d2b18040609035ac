//! `shutdown_now`: what has not started is cancelled, wherever it waits; what runs is told; and who
//! waits is told as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use fulmar::batch::{BatchRunner, Context, JobError, Poll, RemoteJob, Submitted};
use fulmar::pipeline::Processor;
use fulmar::queue::bounded;
use fulmar::{Error, Status};

use crate::support::{Gate, HANG, assert_adds_up, ends, executor, occupy};

#[test]
fn it_takes_out_what_waits_wherever_it_waits() {
    let executor = executor(1);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let runs = Arc::new(AtomicUsize::new(0));
    let count = |runs: &AtomicUsize, _: &str| runs.fetch_add(1, Ordering::SeqCst);
    let queued = executor.spawn(|| unreachable!("queued")).expect("accepted");
    let mut waiting = vec![queued.then(|()| 0usize).expect("accepted"), busy.then(|()| 0usize).expect("accepted")];
    for _ in 0..100 {
        waiting.push(executor.submit(&runs, count, true, "A").expect("accepted"));
        waiting.push(executor.submit(&runs, count, false, "A").expect("accepted"));
    }
    waiting.push(executor.submit_after(HANG, &runs, count, true, "A").expect("accepted"));
    let series = executor.submit_every(HANG, &runs, count, true, "B").expect("accepted");

    assert_eq!(executor.shutdown_now(), 204, "{}", executor.stats());
    assert!(matches!(executor.spawn(|| 1), Err(Error::ShutDown)));
    assert!(waiting.iter().all(|request| request.status() == Status::Cancelled), "and at once");
    assert!(waiting.iter().all(|request| matches!(request.wait(HANG), Err(Error::Cancelled))));
    assert!(matches!(queued.wait(HANG), Err(Error::Cancelled)));
    assert!(series.is_done());
    assert_eq!(busy.status(), Status::Running);
    assert_eq!(executor.shutdown_now(), 0, "once more changes nothing");
    gate.open();
    executor.await_termination(HANG).expect("ends");
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    let stats = executor.stats();
    assert_eq!((stats.completed, stats.cancelled), (1, 204), "{stats}");
    assert_adds_up(&stats);
}

#[test]
fn what_runs_is_told_and_what_comes_after_a_reset_is_not() {
    let executor = executor(3);
    let gate = Gate::new();
    let (pass, hooked) = (gate.clone(), gate.clone());
    let asks = executor
        .spawn(move || {
            pass.pass();
            while !fulmar::is_cancelled() {
                std::thread::yield_now();
            }
        })
        .expect("accepted");
    let waits = executor
        .spawn(move || {
            hooked.pass();
            let (told, tell) = channel::<()>();
            let hook = fulmar::on_cancel(move || drop(told));
            let ended = tell.recv_timeout(HANG);
            hook.take_back();
            ended
        })
        .expect("accepted");
    let itself = executor.clone();
    let inside = executor.spawn(move || {
        gate.await_arrivals(2);
        gate.open();
        let number = itself.shutdown_now();
        (number, fulmar::is_cancelled())
    });
    assert_eq!(inside.expect("accepted").wait(HANG).expect("ends"), (0, true));
    asks.wait(HANG).expect("ends");
    assert_eq!(waits.wait(HANG).expect("ends"), Err(RecvTimeoutError::Disconnected), "by its hook");
    executor.reset(None, HANG).expect("the old threads end");
    assert!(!executor.spawn(fulmar::is_cancelled).expect("open again").wait(HANG).expect("ends"));
}

/// Python's executor left futures that `shutdown` cancelled out of `as_completed` (cpython 87893),
/// and Java's tasks that `shutdownNow` handed back were never done for those who waited.
#[test]
fn all_who_wait_are_told_of_the_cancel() {
    let executor = executor(1);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let requests = [executor.spawn(|| 1).expect("accepted"), executor.spawn(|| 2).expect("accepted")];
    let squares = executor.map(0.., 3, |n: u32| n * n).expect("sound");
    let (told, tell) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let completed = fulmar::as_completed(&requests, None);
            completed.for_each(|(_, result)| told.send(result.is_err()).expect("the test listens"));
        });
        let mapping = scope.spawn(|| squares.map(|result| result.err()).collect::<Vec<_>>());
        while executor.stats().queued < 5 {
            std::thread::yield_now();
        }
        assert_eq!(executor.shutdown_now(), 5);
        let results = mapping.join().expect("no panic");
        assert!(
            matches!(
                results[..],
                [Some(Error::Cancelled), Some(Error::Cancelled), Some(Error::Cancelled), Some(Error::ShutDown)]
                    | [Some(Error::Cancelled), Some(Error::ShutDown), Some(Error::Cancelled), Some(Error::Cancelled)]
            ),
            "{results:?}"
        );
        gate.open();
    });
    assert!([tell.recv(), tell.recv()].iter().all(|told| *told == Ok(true)));
    busy.wait(HANG).expect("it ran");
}

#[test]
fn a_cancelled_lane_starts_nothing_on_its_way() {
    // The first of a lane waits for a thread: its cancel must not let the second start.
    for _ in 0..100 {
        let executor = executor(2);
        let gate = Gate::new();
        let busy = [occupy(&executor, &gate), occupy(&executor, &gate)];
        let store = Arc::new(());
        let requests = executor.submit_many(&store, |_: &(), _: &str| (), true, ["A"; 20]).expect("accepted");
        let opener = std::thread::spawn(move || gate.open());
        let cancelled = executor.shutdown_now();
        opener.join().expect("no panic");
        executor.await_termination(HANG).expect("ends");
        let ran = requests.iter().filter(|request| request.status() == Status::Completed).count();
        assert_eq!(cancelled + ran, 20, "each is one or the other");
        assert!(requests[ran..].iter().all(|request| request.status() == Status::Cancelled), "the first ones ran");
        assert!(busy.iter().all(fulmar::AsyncRequest::is_done));
    }
}

struct Step;

impl RemoteJob for Step {
    type Output = bool;

    fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
        Ok(Submitted::Accepted { id: "one".into() })
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
        Ok(Poll::Ready)
    }

    fn fetch(&mut self, _: &mut Context<'_>) -> Result<bool, JobError> {
        Ok(fulmar::is_cancelled())
    }
}

#[test]
fn what_jobs_and_batches_have_begun_with_is_finished() {
    let executor = executor(1);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let (producer, consumer) = bounded(10).expect("sound");
    let (tell, told) = channel();
    let processor = Processor::builder(consumer)
        .executor(&executor)
        .max_concurrent(2)
        .handle(move |n: u32| tell.send(n))
        .expect("sound");
    (0..5).try_for_each(|n| producer.put(n)).expect("there is room");
    let batch = BatchRunner::builder().executor(&executor).build().expect("sound").start([Step]);
    // Two values, and the first step of the batch.
    while executor.stats().queued < 3 {
        std::thread::yield_now();
    }
    assert_eq!(executor.shutdown_now(), 0);
    gate.open();
    busy.wait(HANG).expect("ends");
    // What it has begun with ends, and so does the batch, which can begin with nothing more.
    drop(ends("the batch", move || batch.wait(None)));
    executor.await_termination(HANG).expect("ends");
    producer.close();
    let stats = processor.wait(HANG).expect("ends");
    assert_eq!((stats.taken, stats.handled), (5, 5), "{stats:?}");
    let mut values: Vec<u32> = told.iter().collect();
    values.sort_unstable();
    assert_eq!(values, [0, 1, 2, 3, 4]);
}

#[test]
fn requests_that_move_are_stopped_all_the_same() {
    // Their time comes, and those before them end, while the executor is being shut down.
    for round in 0..200u64 {
        let executor = executor(2);
        let store = Arc::new(AtomicUsize::new(0));
        let count = |runs: &AtomicUsize, _: &str| runs.fetch_add(1, Ordering::SeqCst);
        let mut requests = Vec::new();
        for n in 0..10 {
            let delay = Duration::from_micros(20 * (n + round % 10));
            requests.push(executor.submit_after(delay, &store, count, true, "A").expect("accepted"));
            requests.push(executor.submit(&store, count, true, "A").expect("accepted"));
            requests.push(requests[requests.len() - 1].then(|n| n).expect("accepted"));
        }
        let taken = executor.shutdown_now();
        executor.await_termination(HANG).expect("ends");
        let stats = executor.stats();
        assert_eq!(stats.unfinished(), 0, "{stats}");
        assert!(taken as u64 <= stats.cancelled, "{stats}");
        assert!(requests.iter().all(fulmar::AsyncRequest::is_done));
        assert_adds_up(&stats);
    }
}
