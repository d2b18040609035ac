//! honker on SQLite under the load of benches/tasks: TASKS AT_ONCE BATCH, with `DATABASE_URL`, a
//! file.
//!
//! Every commit waits for the disk: synchronous=FULL, where it sets NORMAL. All threads share one
//! `Database`, which is one connection; the wait for each is its own. With a batch above 1 that
//! many are enqueued in one transaction, claimed by `claim_batch` and acknowledged by `ack_batch`.
//! Prints how many tasks, and the seconds of enqueuing, of working off, and of both at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use std::{env, thread};

use honker::{Database, EnqueueOpts, Queue, QueueOpts};

fn main() {
    let numbers: Vec<usize> = env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let [tasks, at_once, batch] = numbers[..] else { panic!("TASKS AT_ONCE BATCH") };
    let database = Database::open(env::var("DATABASE_URL").expect("a file")).expect("opened");
    database.with_conn(|connection| connection.execute_batch("PRAGMA synchronous = FULL")).expect("set");
    let queue = database.queue("bench", QueueOpts::default());
    let share = tasks / at_once / batch * batch;
    let (done, whole) = (AtomicUsize::new(0), share * at_once);
    let produce = || enqueue(&database, &queue, share, batch);
    let consume = |until: usize| {
        let worker = format!("{:?}", thread::current().id());
        let waker = queue.claim_waker();
        while done.load(Ordering::SeqCst) < until {
            let ended = if batch == 1 {
                let Some(job) = waker.try_next(&worker).expect("claimed") else {
                    thread::yield_now();
                    continue;
                };
                usize::from(job.ack().expect("acknowledged"))
            } else {
                let ids: Vec<i64> =
                    queue.claim_batch(&worker, batch as i64).expect("claimed").iter().map(|job| job.id).collect();
                if ids.is_empty() {
                    thread::yield_now();
                    continue;
                }
                queue.ack_batch(&ids, &worker).expect("acknowledged") as usize
            };
            done.fetch_add(ended, Ordering::SeqCst);
        }
    };
    let timed = |producers: bool, until: usize| {
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..at_once {
                if producers {
                    scope.spawn(produce);
                }
                if until > 0 {
                    scope.spawn(|| consume(until));
                }
            }
        });
        start.elapsed().as_secs_f64()
    };
    let (enqueued, worked, through) = (timed(true, 0), timed(false, whole), timed(true, 2 * whole));
    assert_eq!(done.into_inner(), 2 * whole);
    println!("{whole} {enqueued} {worked} {through}");
}

fn enqueue(database: &Database, queue: &Queue, share: usize, batch: usize) {
    for _ in 0..share / batch {
        if batch == 1 {
            queue.enqueue(&(), EnqueueOpts::default()).expect("enqueued");
            continue;
        }
        let transaction = database.transaction().expect("begun");
        for _ in 0..batch {
            queue.enqueue_tx(&transaction, &(), EnqueueOpts::default()).expect("enqueued");
        }
        transaction.commit().expect("committed");
    }
}
