//! What a thousand threads that wait for a task each cost the work on those tasks.

use std::time::Instant;

use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, TaskStatus, Worker};

/// The time from the worker's start until all have ended, without threads that wait, and with one
/// for each task. `count` is how many transactions the database has seen, if it tells.
pub(crate) fn tell(queue: &TaskQueue, test: bool, count: impl Fn() -> Option<i64>) {
    let tasks = if test { 50 } else { 1_000 };
    let names = |prefix: &str| (0..tasks).map(|n| format!("{prefix}-{n}")).collect::<Vec<_>>();
    let run = |prefix: &str, waits: bool| {
        let names = names(prefix);
        let handles = queue.enqueue_many(names.iter().map(|name| NewTask::new("noop", name))).expect("accepted");
        let before = count();
        let took = std::thread::scope(|scope| {
            for handle in handles.iter().filter(|_| waits) {
                let thread = std::thread::Builder::new().stack_size(256 << 10);
                let wait = move || assert_eq!(handle.wait(None).expect("it ends"), TaskStatus::Finished);
                thread.spawn_scoped(scope, wait).expect("a thread");
            }
            let start = Instant::now();
            let handler = |_: &TaskContext| Ok::<_, TaskError>(());
            let worker = Worker::builder(queue).max_concurrent(8).handle("noop", handler).start().expect("started");
            queue.wait_all(&handles, None).expect("they end");
            let took = start.elapsed();
            worker.drain(None).expect("it ends");
            took
        });
        (took, count().zip(before).map(|(after, before)| after - before))
    };
    println!("\n{tasks} tasks of a worker with 8 threads, until one wait for all has ended:");
    for (what, waits) in [("no other thread waits", false), ("a thread waits for each", true)] {
        let (took, transactions) = run(what, waits);
        let transactions = transactions.map_or(String::new(), |count| format!(", {count} transactions"));
        println!("  {what}: {took:.2?}{transactions}");
    }
}
