//! What does a steady flow of small tasks do under the conditions that operators report: fewer
//! threads than tasks could use, a database that was never analysed, a snapshot that is held,
//! readers of long snapshots; and what does it cost the server?
//!
//! Tasks take 1 ms; the worker has the defaults; a producer keeps the queue filled. The durations
//! are for 2 cores: `FULMAR_BENCH_SECONDS` is another number of seconds than 30 for the longest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, Worker};

use super::Bed;
use super::tasks_common::Plan;

/// How many tasks wait, at least, as long as the producer keeps up.
const READY: u64 = 2_000;

pub(crate) fn tell(url: &str, plan: &Plan) {
    let seconds = std::env::var("FULMAR_BENCH_SECONDS").ok().and_then(|text| text.parse().ok());
    let longest = Duration::from_secs(seconds.unwrap_or(if plan.test { 2 } else { 30 }));
    if plan.has("steady") {
        println!("\nTasks of 1 ms, the queue never empty; tasks a second, and what one costs the server:");
        for at_once in [16, 64, 256] {
            let bed = Bed::new(url, 8);
            let before = Cost::of(&bed);
            let rates = flow(&bed.queue, at_once, longest / 3, 1, || {});
            println!("  {at_once:>3} at once: {:>6.0} a second; {}", rates[0], Cost::of(&bed).since(before));
        }
    }
    if plan.has("unanalysed") {
        println!("\n64 at once, tasks of 1 ms, from an empty database on; tasks a second, window by window:");
        for autovacuum in [false, true] {
            let bed = Bed::new(url, 8);
            if !autovacuum {
                for table in ["task", "task_type", "task_input", "task_log", "task_response", "task_checkpoint"] {
                    bed.sql(&format!("ALTER TABLE fulmar_{table} SET (autovacuum_enabled = false)"));
                }
            }
            let never = flow(&bed.queue, 64, longest, 6, || {});
            bed.sql("ANALYZE fulmar_task");
            let analysed = flow(&bed.queue, 64, longest / 3, 2, || {});
            let name = if autovacuum { "autovacuum on" } else { "autovacuum off" };
            println!("  {name:<15} never analysed {}; analysed {}", shown(&never), shown(&analysed));
        }
    }
    if plan.has("held") {
        println!(
            "\n64 at once, tasks of 1 ms; tasks a second, window by window, and the last to that before; goal: >= 0.85:"
        );
        for readers in [0, 4] {
            let bed = Bed::new(url, 8);
            let before = flow(&bed.queue, 64, longest / 3, 1, || {});
            let done = AtomicBool::new(false);
            let during = std::thread::scope(|scope| {
                if readers == 0 {
                    scope.spawn(|| hold(&bed, &done, None));
                }
                for _ in 0..readers {
                    scope.spawn(|| hold(&bed, &done, Some(longest / 3)));
                }
                let during = flow(&bed.queue, 64, longest, 6, || {});
                done.store(true, Ordering::Relaxed);
                during
            });
            let name = if readers == 0 { "a held snapshot" } else { "four long readers" };
            let ratio = during.last().copied().unwrap_or(f64::NAN) / before[0];
            println!("  {name:<18} before {:.0}; then {}: {ratio:.2}", before[0], shown(&during));
        }
    }
}

/// Holds a snapshot, until it is done; a reader takes a new one now and then, and reads a little
/// all the time.
fn hold(bed: &Bed, done: &AtomicBool, reader: Option<Duration>) {
    while !done.load(Ordering::Relaxed) {
        let run = |tx: &fulmar::tasks::PostgresTransaction<'_>| {
            tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", &[])?;
            tx.execute("SET LOCAL idle_in_transaction_session_timeout = 0", &[])?;
            tx.execute(&format!("SET LOCAL search_path = {}", bed.schema), &[])?;
            let start = Instant::now();
            while !done.load(Ordering::Relaxed) && reader.is_none_or(|time| start.elapsed() < time) {
                tx.execute("SELECT count(*) FROM (SELECT FROM fulmar_task ORDER BY id LIMIT 1000) AS few", &[])?;
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        };
        bed.around.postgres_transaction::<(), TaskError>(run).expect("a snapshot");
    }
}

/// How many tasks a second end, in each of so many windows.
fn flow(queue: &TaskQueue, at_once: usize, time: Duration, windows: u32, mut each: impl FnMut()) -> Vec<f64> {
    let ended = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let worker = Worker::builder(queue)
        .max_concurrent(at_once)
        .handle("noop", |_: &TaskContext| {
            std::thread::sleep(Duration::from_millis(1));
            Ok::<_, TaskError>(())
        })
        .start()
        .expect("started");
    let name = worker.id().to_string();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut put = 0;
            while !done.load(Ordering::Relaxed) {
                if put < ended.load(Ordering::Relaxed) + READY {
                    let task = |n: u64| NewTask::new("noop", format!("{name}-{n}"));
                    queue.enqueue_many((put..put + READY / 4).map(task)).expect("accepted");
                    put += READY / 4;
                } else {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let count = || {
            let finished = worker.stats().finished;
            ended.store(finished, Ordering::Relaxed);
            finished
        };
        let until = |until: Instant| {
            while Instant::now() < until {
                count();
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        // Not counted: until the first have ended, and the average of their time is known.
        until(Instant::now() + time / windows / 5);
        let rates = (0..windows)
            .map(|_| {
                let (start, before) = (Instant::now(), count());
                until(start + time / windows);
                let rate = (count() - before) as f64 / start.elapsed().as_secs_f64();
                each();
                rate
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        worker.drain(None).expect("it ends");
        rates
    })
}

fn shown(rates: &[f64]) -> String {
    rates.iter().map(|rate| format!("{rate:.0}")).collect::<Vec<_>>().join(" ")
}

/// What the server counts of the queue's tables.
struct Cost {
    ended: f64,
    inserted: f64,
    updated: f64,
    in_place: f64,
    dead: f64,
    commits: f64,
    log: f64,
}

impl Cost {
    fn of(bed: &Bed) -> Cost {
        // The server's sessions hand in what they have counted, but not more than once a second.
        std::thread::sleep(Duration::from_millis(1_500));
        let sql = format!(
            "SELECT (SELECT count(*) FROM {0}.fulmar_task WHERE ended IS NOT NULL), sum(n_tup_ins), sum(n_tup_upd),
                 sum(n_tup_hot_upd), sum(n_dead_tup),
                 (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()),
                 pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')
             FROM pg_stat_user_tables WHERE schemaname = '{0}'",
            bed.schema
        );
        let read = |tx: &fulmar::tasks::PostgresTransaction<'_>| tx.query(&sql, &[]);
        let rows = bed.around.postgres_transaction::<_, TaskError>(read).expect("counted");
        let number = |at: usize| rows[0][at].as_deref().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
        Cost {
            ended: number(0),
            inserted: number(1),
            updated: number(2),
            in_place: number(3),
            dead: number(4),
            commits: number(5),
            log: number(6),
        }
    }

    fn since(&self, before: Cost) -> String {
        let each = |of: fn(&Cost) -> f64| (of(self) - of(&before)) / (self.ended - before.ended);
        format!(
            "a task: {:.2} row versions, {:.0} % of the updates in place, {:.2} commits, {:.0} bytes of log; {:.0} dead rows",
            each(|cost| cost.inserted + cost.updated),
            100.0 * (self.in_place - before.in_place) / (self.updated - before.updated),
            each(|cost| cost.commits),
            each(|cost| cost.log),
            self.dead
        )
    }
}
