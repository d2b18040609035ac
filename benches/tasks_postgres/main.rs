//! What does durability on a PostgreSQL server cost, beside its floor and other queues on the same server?
//!
//! `benches/peers/run postgres` brings up a server as `tests/run` does, installs the peers, and runs this with
//! `cargo bench --bench tasks_postgres --features postgres`. Tasks a second, with full durability: enqueued, worked
//! off (claimed, run, finished), and both at once, by one process, for 1, 4 and 8 at once and batches of 1 and 100. Then:
//! how long an idle worker takes to start what another process has enqueued, what durable functions cost, whether a million finished tasks slow
//! claims down, and what operators wait for beside a million waiting ones.
//! `-- --test` runs all once, quickly; without `FULMAR_POSTGRES_URL` nothing is measured, and it says so.

mod pressure;
#[path = "../tasks_common/mod.rs"]
mod tasks_common;

use std::time::Duration;

use fulmar::tasks::{TaskError, TaskQueue};

use tasks_common::{
    Arm, Goal, Load, Plan, Role, contest, durable, operators, ours, peers, tell_beside, tell_waits, types, waiters,
};

const GOALS: [Goal; 4] = [
    Goal { of: "claim, finish", load: (8, 100), peers: &[(8, 100)], times: 1.0 },
    Goal { of: "claim, finish", load: (8, 1), peers: &[(8, 1)], times: 1.0 },
    Goal { of: "enqueue", load: (8, 100), peers: &[(8, 100)], times: 1.0 },
    Goal { of: "enqueue", load: (8, 1), peers: &[(8, 1)], times: 1.0 },
];

fn main() {
    let plan = Plan::new();
    let Ok(url) = std::env::var("FULMAR_POSTGRES_URL") else {
        println!("NOT RUN: FULMAR_POSTGRES_URL names no server; benches/peers/run postgres brings one up");
        return;
    };
    if plan.has("rates") {
        let run = |load: Load| ours::run(&Bed::new(&url, load.threads).queue, load);
        let mut arms = vec![Arm { name: "fulmar".into(), role: Role::Ours, run: Box::new(run) }];
        arms.extend(peers::arms(|| (url.clone(), ())));
        contest(&plan, &arms, &GOALS);
    }
    if plan.has("wake-ups") {
        println!("\nFrom the commit of an enqueue to its handler's start, by an idle worker:");
        let (bed, count) = (Bed::new(&url, 4), if plan.test { 5 } else { 200 });
        let other = TaskQueue::connect(&bed.address).expect("as another process would");
        let goal = Some(Duration::from_millis(2));
        tell_waits("enqueued on connections of another queue's", ours::wake_ups(&bed.queue, &other, count), goal);
        tell_waits("in the same process", ours::wake_ups(&bed.queue, &bed.queue, count), goal);
    }
    if plan.has("million") {
        beside(&url, plan.test);
    }
    if plan.has("waiters") {
        let bed = Bed::new(&url, 8);
        let count = || {
            // What sessions have done is told to others after a second at most.
            std::thread::sleep(std::time::Duration::from_millis(1_200));
            let sql =
                "SELECT (xact_commit + xact_rollback)::text FROM pg_stat_database WHERE datname = current_database()";
            let rows = bed.around.postgres_transaction(|tx| tx.query(sql, &[])).ok()?;
            rows.first()?.first()?.as_deref()?.parse().ok()
        };
        waiters::tell(&bed.queue, plan.test, count);
    }
    if plan.has("types") {
        let beds: std::cell::RefCell<Vec<Bed>> = Default::default();
        let fresh = || {
            let bed = Bed::new(&url, 8);
            let queue = bed.queue.clone();
            beds.borrow_mut().push(bed);
            queue
        };
        types::tell(fresh, plan.test);
    }
    let fresh = || {
        let bed = Bed::new(&url, 8);
        (bed.queue.clone(), bed)
    };
    durable::tell(fresh, &plan, |load| bare_rows(&url, load));
    if plan.has("operators") {
        operators::tell(&Bed::new(&url, 4).queue, plan.test);
    }
    pressure::tell(&url, &plan);
}

/// Rows that are inserted one by one, in a transaction each; how many a second.
fn bare_rows(url: &str, load: Load) -> Option<f64> {
    let bed = Bed::new(url, load.threads);
    bed.sql("CREATE TABLE bare (id int8 PRIMARY KEY, body bytea)");
    let insert = |thread: usize, n: usize| format!("INSERT INTO bare VALUES ({}, 'body')", thread * load.tasks + n);
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..load.threads {
            let queue = &bed.queue;
            scope.spawn(move || {
                for n in 0..load.share() {
                    let row = |tx: &fulmar::tasks::PostgresTransaction<'_>| tx.execute(&insert(thread, n), &[]);
                    queue.postgres_transaction::<u64, TaskError>(row).expect("inserted");
                }
            });
        }
    });
    tasks_common::rate(load.whole(), start.elapsed())
}

/// Whether many finished tasks slow claims down.
fn beside(url: &str, test: bool) {
    let (finished, rounds, tasks) = if test { (1_000, 1, 200) } else { (1_000_000, 5, 4_000) };
    let (empty, full) = (Bed::new(url, 8), Bed::new(url, 8));
    // Written straight into the tables: to run a million would take its time.
    full.sql(&format!(
        "INSERT INTO fulmar_task (id, type_id, identifier, status, rank, run_at, created, ended, is_modifier)
         SELECT nextval('fulmar_task_number'), (SELECT id FROM fulmar_task_type WHERE name = 'noop'), 'old-' || n, 4, 0, 0, 0,
             floor(date_part('epoch', now()) * 1000)::int8, false FROM generate_series(1, {finished}) AS n"
    ));
    full.sql("ANALYZE fulmar_task");
    println!();
    for batch in [1, 100] {
        let load = Load { tasks, threads: 8, batch };
        let (alone, beside) = ours::beside(&empty.queue, &full.queue, load, rounds);
        tell_beside(load, finished, &alone, &beside);
    }
    ours::tell_depth(&full.queue, &format!("{finished} finished ones, goal < 1 ms"));
}

/// A queue with tables of its own, which go with it.
struct Bed {
    queue: TaskQueue,
    around: TaskQueue,
    schema: String,
    address: String,
}

impl Bed {
    fn new(url: &str, connections: usize) -> Bed {
        let schema = format!("fulmar_bench_{}", fulmar::tasks::WorkerId::new());
        let around = TaskQueue::connect(url).expect("the server is up");
        let create = format!("CREATE SCHEMA {schema}");
        around.postgres_transaction(|tx| tx.execute(&create, &[])).expect("a schema");
        let address = format!("{url}?options=-csearch_path%3D{schema}");
        let queue = TaskQueue::builder().connections(connections).connect(&address).expect("the queue opens");
        queue.register(ours::noop()).expect("registered");
        Bed { queue, around, schema, address }
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
