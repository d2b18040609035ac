//! The queue itself: everything that a user gets, logs and fences included.

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, TaskType, Worker};

use crate::{Load, Took};

/// A queue with tables of its own, which go with it.
struct Bed {
    queue: TaskQueue,
    around: TaskQueue,
    schema: String,
}

impl Bed {
    fn new(url: &str, connections: usize) -> Bed {
        let schema = format!("fulmar_bench_{}", fulmar::tasks::WorkerId::new());
        let around = TaskQueue::connect(url).expect("the server is up");
        let create = format!("CREATE SCHEMA {schema}");
        around.postgres_transaction(|tx| tx.execute(&create, &[])).expect("a schema");
        let address = format!("{url}?options=-csearch_path%3D{schema}");
        let queue = TaskQueue::builder().connections(connections).connect(&address).expect("the queue opens");
        queue.register(TaskType::new("noop")).expect("registered");
        Bed { queue, around, schema }
    }

    fn sql(&self, sql: &str) {
        let path = format!("SET LOCAL search_path = {}", self.schema);
        let run = |tx: &fulmar::tasks::PostgresTransaction<'_>| {
            tx.execute(&path, &[])?;
            tx.execute(sql, &[]).map(drop)
        };
        self.around.postgres_transaction::<(), TaskError>(run).expect("sound SQL");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let drop_it = format!("DROP SCHEMA {} CASCADE", self.schema);
        let _ = self.around.postgres_transaction(|tx| tx.execute(&drop_it, &[]));
    }
}

fn fill(queue: &TaskQueue, load: Load, prefix: &str) {
    std::thread::scope(|scope| {
        for thread in 0..load.threads {
            scope.spawn(move || {
                let share = load.tasks / load.threads;
                for first in (0..share).step_by(load.batch) {
                    let numbers = first..share.min(first + load.batch);
                    let tasks = numbers.map(|n| NewTask::new("noop", format!("{prefix}{thread}-{n}")));
                    queue.enqueue_many(tasks).expect("accepted");
                }
            });
        }
    });
}

fn worker(queue: &TaskQueue, load: Load, done: Sender<()>) -> Worker {
    Worker::builder(queue)
        .at_once(load.threads)
        .batch((2 * load.batch).max(load.threads))
        .start_together(load.batch)
        .handle("noop", move |_: &TaskContext| {
            let _ = done.send(());
            Ok::<_, TaskError>(())
        })
        .start()
        .expect("started")
}

/// Works until all have ended, the last finish committed.
fn work_off(queue: &TaskQueue, load: Load) -> Duration {
    let (done, ended) = channel();
    let start = Instant::now();
    let worker = worker(queue, load, done);
    let tasks = load.tasks / load.threads * load.threads;
    for _ in 0..tasks {
        ended.recv().expect("the worker lives");
    }
    let stats = worker.drain(None).expect("it ends");
    let took = start.elapsed();
    assert_eq!(stats.finished, tasks as u64, "{stats}");
    took
}

pub(crate) fn run(url: &str, load: Load) -> Took {
    let bed = Bed::new(url, load.threads);
    let start = Instant::now();
    fill(&bed.queue, load, "");
    let enqueue = start.elapsed();
    let work = work_off(&bed.queue, load);
    Took { tasks: load.tasks / load.threads * load.threads, enqueue, work }
}

/// From before an enqueue, on another connection, to the start of its handler, one at a time.
pub(crate) fn wake_ups(url: &str, count: usize) -> Vec<Duration> {
    let bed = Bed::new(url, 4);
    let other =
        TaskQueue::connect(&format!("{url}?options=-csearch_path%3D{}", bed.schema)).expect("another process's");
    let (done, started) = channel();
    let worker = worker(&bed.queue, Load { tasks: 0, threads: 1, batch: 1 }, done);
    let wake_up = |n: usize| {
        let handle = other.enqueue(NewTask::new("noop", n.to_string())).expect("accepted");
        // Counted from the commit: that is what was acknowledged.
        let committed = Instant::now();
        started.recv().expect("the worker lives");
        let took = committed.elapsed();
        handle.wait(None).expect("it ends");
        // An idle worker is one that has been without work for a while. Nobody sends anything: it is a pause.
        let _ = started.recv_timeout(Duration::from_millis(30));
        took
    };
    let waits = (0..count).map(wake_up).collect();
    worker.drain(None).expect("it ends");
    waits
}

/// The time to claim and finish the load alone, and beside so many tasks that have finished.
pub(crate) fn beside(url: &str, load: Load, finished: usize) -> (Duration, Duration) {
    let bed = Bed::new(url, load.threads);
    fill(&bed.queue, Load { batch: 1_000, ..load }, "");
    let alone = work_off(&bed.queue, load);
    // Written straight into the tables: to run a million would take its time.
    bed.sql(&format!(
        "INSERT INTO fulmar_task (id, type_id, identifier, status, rank, run_at, created, ended, is_modifier)
         SELECT nextval('fulmar_task_number'), (SELECT id FROM fulmar_task_type WHERE name = 'noop'), 'old-' || n, 4, 0, 0, 0,
             1, false FROM generate_series(1, {finished}) AS n"
    ));
    bed.sql("ANALYZE fulmar_task");
    fill(&bed.queue, Load { batch: 1_000, ..load }, "later-");
    (alone, work_off(&bed.queue, load))
}
