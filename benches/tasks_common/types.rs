//! Whether a worker of thousands of types is as fast as one of one type.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, TaskType, Worker};

use super::met;

/// Works the same number of tasks off with one type and with many, in turns; all are queued before
/// a worker starts.
pub(crate) fn tell(open: impl Fn() -> TaskQueue, test: bool) {
    let (types, tasks, rounds) = if test { (50, 100, 1) } else { (2_000, 6_000, 3) };
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        one.push(work_off(&open(), 1, tasks));
        many.push(work_off(&open(), types, tasks));
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    let (one, many) = (median(&mut one), median(&mut many));
    let ratio = many / one;
    let rate = |time: f64| tasks as f64 / time;
    println!(
        "\none type: {:.0} tasks a second; {types} types: {:.0}; {ratio:.2} times as long; goal: <= 1.5, {}",
        rate(one),
        rate(many),
        met(ratio <= 1.5)
    );
}

fn work_off(queue: &TaskQueue, types: usize, tasks: usize) -> Duration {
    let name = |n: usize| format!("type-{}", n % types);
    (0..types).for_each(|n| queue.register(TaskType::new(name(n))).expect("registered"));
    for from in (0..tasks).step_by(1_000) {
        let some = (from..tasks.min(from + 1_000)).map(|n| NewTask::new(name(n), n.to_string()));
        queue.enqueue_many(some).expect("accepted");
    }
    let (sender, ended) = channel();
    let mut worker = Worker::builder(queue).max_concurrent(8);
    for n in 0..types {
        let sender = sender.clone();
        worker = worker.handle(name(n), move |_: &TaskContext| {
            let _ = sender.send(());
            Ok::<_, TaskError>(())
        });
    }
    let start = Instant::now();
    let worker = worker.start().expect("started");
    (0..tasks).for_each(|_| ended.recv().expect("the worker lives"));
    worker.drain(None).expect("it ends");
    start.elapsed()
}
