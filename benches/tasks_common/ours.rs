//! The queue itself: everything that a user gets, logs and fences included.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, TaskType, Worker};

use super::{Load, Rates, rate};

/// The three disciplines, one after the other on one queue that is new.
pub(crate) fn run(queue: &TaskQueue, load: Load) -> Rates {
    let start = Instant::now();
    fill(queue, load, "");
    let enqueue = start.elapsed();
    let work = work_off(queue, load);
    let start = Instant::now();
    // The worker is there from the start, so that both sides want the database at once.
    std::thread::scope(|scope| {
        scope.spawn(|| fill(queue, load, "through-"));
        work_off(queue, load);
    });
    let through = start.elapsed();
    let tasks = load.whole();
    Rates { enqueue: rate(tasks, enqueue), work: rate(tasks, work), through: rate(tasks, through) }
}

pub(crate) fn fill(queue: &TaskQueue, load: Load, prefix: &str) {
    std::thread::scope(|scope| {
        for thread in 0..load.threads {
            scope.spawn(move || {
                for first in (0..load.share()).step_by(load.batch) {
                    let numbers = first..load.share().min(first + load.batch);
                    let tasks = numbers.map(|n| NewTask::new("noop", format!("{prefix}{thread}-{n}")));
                    queue.enqueue_many(tasks).expect("accepted");
                }
            });
        }
    });
}

/// Calls `started` with how many handlers have started, this one included.
fn worker(queue: &TaskQueue, load: Load, started: impl Fn(usize) + Send + Sync + 'static) -> Worker {
    let count = AtomicUsize::new(0);
    Worker::builder(queue)
        .max_concurrent(load.threads)
        .batch(load.threads.max(2) * load.batch)
        .start_together(load.batch)
        .handle("noop", move |_: &TaskContext| {
            started(count.fetch_add(1, Ordering::Relaxed) + 1);
            Ok::<_, TaskError>(())
        })
        .start()
        .expect("started")
}

/// Works until all have ended, the last finish committed.
pub(crate) fn work_off(queue: &TaskQueue, load: Load) -> Duration {
    let (sender, all_started) = channel();
    let start = Instant::now();
    let worker = worker(queue, load, move |count| {
        if count == load.whole() {
            sender.send(()).expect("it is waited for");
        }
    });
    all_started.recv().expect("the worker lives");
    let stats = worker.drain(None).expect("it ends");
    let took = start.elapsed();
    assert_eq!(stats.finished, load.whole() as u64, "{stats}");
    took
}

/// From the commit of an enqueue on `there` to the start of its handler by an idle worker on
/// `here`, one at a time.
pub(crate) fn wake_ups(here: &TaskQueue, there: &TaskQueue, count: usize) -> Vec<Duration> {
    let (sender, started) = channel();
    let one = Load { tasks: count, threads: 1, batch: 1 };
    let worker = worker(here, one, move |_| sender.send(Instant::now()).expect("it is waited for"));
    let name = worker.id();
    let wake_up = |n: usize| {
        let handle = there.enqueue(NewTask::new("noop", format!("{name}-{n}"))).expect("accepted");
        // Counted from the commit: that is what was acknowledged.
        let committed = Instant::now();
        let began = started.recv().expect("the worker lives");
        handle.wait(None).expect("it ends");
        // An idle worker is one that has been without work for a while. No peer sends anything: it
        // is a pause.
        let _ = started.recv_timeout(Duration::from_millis(30));
        began.saturating_duration_since(committed)
    };
    let waits = (0..count).map(wake_up).collect();
    worker.drain(None).expect("it ends");
    waits
}

/// With a retention, for a tidying to look at.
pub(crate) fn noop() -> TaskType {
    TaskType::new("noop").retention(Duration::from_secs(86_400))
}

/// What it takes to ask how deep the queue is, beside what.
pub(crate) fn tell_depth(queue: &TaskQueue, beside: &str) {
    let time = |ask: &dyn Fn()| {
        let mut times: Vec<Duration> = (0..21)
            .map(|_| {
                let start = Instant::now();
                ask();
                start.elapsed()
            })
            .collect();
        times.sort();
        (times[10], times[20])
    };
    let (depth, slowest) = time(&|| drop(queue.depth().expect("counted")));
    let (stats, _) = time(&|| drop(queue.stats().expect("counted")));
    println!("depth and age beside {beside}: {depth:.2?} ({slowest:.2?}); stats {stats:.2?}");
}

/// The times to claim and finish the load on a queue that is all but empty, and on one that has
/// many finished tasks, in turns.
pub(crate) fn beside(empty: &TaskQueue, full: &TaskQueue, load: Load, rounds: usize) -> (Vec<Duration>, Vec<Duration>) {
    let time = |queue: &TaskQueue, round: usize| {
        fill(queue, Load { batch: 500, ..load }, &format!("{}-{round}-", load.batch));
        work_off(queue, load)
    };
    (0..rounds).map(|round| (time(empty, round), time(full, round))).unzip()
}
