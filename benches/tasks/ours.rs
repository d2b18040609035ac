//! The queue itself: everything that a user gets, logs and fences included.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, TaskType, Worker};

use crate::Load;

fn open(folder: &Path) -> TaskQueue {
    let queue = TaskQueue::open(folder.join("queue.db")).expect("the queue opens");
    queue.register(TaskType::new("noop")).expect("registered");
    queue
}

fn fill(queue: &TaskQueue, load: Load) {
    std::thread::scope(|scope| {
        for thread in 0..load.threads {
            scope.spawn(move || {
                let share = load.tasks / load.threads;
                for first in (0..share).step_by(load.batch) {
                    let numbers = first..share.min(first + load.batch);
                    let tasks = numbers.map(|n| NewTask::new("noop", format!("{thread}-{n}")));
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

pub(crate) fn enqueue(load: Load, folder: PathBuf) -> Duration {
    let queue = open(&folder);
    let start = Instant::now();
    fill(&queue, load);
    start.elapsed()
}

pub(crate) fn work(load: Load, folder: PathBuf) -> Duration {
    let queue = open(&folder);
    fill(&queue, Load { batch: 1_000, ..load });
    work_off(&queue, load)
}

/// The worker is there from the start, so that both sides want the database at once.
pub(crate) fn end_to_end(load: Load, folder: PathBuf) -> Duration {
    let queue = open(&folder);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| fill(&queue, load));
        work_off(&queue, load);
    });
    start.elapsed()
}

/// From before an enqueue to the start of its handler, one at a time.
pub(crate) fn wake_ups(count: usize, folder: PathBuf) -> Vec<Duration> {
    let queue = open(&folder);
    let (done, started) = channel();
    let worker = worker(&queue, Load { tasks: 0, threads: 1, batch: 1 }, done);
    let wake_up = |n: usize| {
        let before = Instant::now();
        let handle = queue.enqueue(NewTask::new("noop", n.to_string())).expect("accepted");
        started.recv().expect("the worker lives");
        let took = before.elapsed();
        handle.wait(None).expect("it ends");
        took
    };
    let waits = (0..count).map(wake_up).collect();
    worker.drain(None).expect("it ends");
    waits
}

/// The time to claim and finish the load alone, and beside so many tasks that have finished; and that of a tidying.
pub(crate) fn beside(load: Load, finished: usize, folder: PathBuf) -> (Duration, Duration, Duration) {
    let queue = open(&folder);
    // With all that a claim and a tidying have to look at.
    let settings = TaskType::new("noop").retention(Duration::from_secs(86_400)).at_once(10_000);
    queue.register(settings).expect("registered");
    fill(&queue, Load { batch: 1_000, ..load });
    let alone = work_off(&queue, load);
    // Written straight into the file: to run a million would take its time.
    let db = fulmar::tasks::rusqlite::Connection::open(folder.join("queue.db")).expect("the file opens");
    db.busy_timeout(Duration::from_secs(600)).expect("a timeout");
    db.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {finished})
         INSERT INTO fulmar_task (type_id, identifier, status, priority, run_at, created, ended, is_modifier)
             SELECT (SELECT id FROM fulmar_task_type WHERE name = 'noop'), 'old-' || n, 4, 0, 0, 0, 1000 * unixepoch(), 0
             FROM n;
         INSERT INTO fulmar_task_input (task_id, body) SELECT id, x'00' FROM fulmar_task WHERE identifier LIKE 'old-%';
         INSERT INTO fulmar_task_log (task_id, entry, time, status, message)
             SELECT id, 0, 0, 4, '' FROM fulmar_task WHERE identifier LIKE 'old-%';
         COMMIT;"
    ))
    .expect("sound SQL");
    drop(db);
    for name in 0..load.threads {
        let share = load.tasks / load.threads;
        let tasks = (0..share).map(|n| NewTask::new("noop", format!("later-{name}-{n}")));
        queue.enqueue_many(tasks).expect("accepted");
    }
    let beside = work_off(&queue, load);
    let start = Instant::now();
    queue.tidy().expect("nothing to do");
    (alone, beside, start.elapsed())
}
