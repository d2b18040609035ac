//! What does durability cost in a SQLite file, and how near to the database's own floor is the
//! queue?
//!
//! `cargo bench --bench tasks --features sqlite` prints tasks a second, with full durability:
//! enqueued one by one and a hundred at once, claimed and finished by a worker, and end to end, for
//! 1, 4 and 8 threads and batches of 1 and 100. Beside them stand the floor, bare statements on the
//! same kind of connection, without types, fences, logs, order or handlers, and, if
//! `benches/peers/run sqlite` started it, other queues on files of their own. Then: how long an
//! idle worker takes to start what was just enqueued, what durable functions cost, whether a
//! million finished tasks slow claims down, and what operators wait for beside a million waiting
//! ones. `-- --test` runs all once, quickly.

mod floor;
#[path = "../tasks_common/mod.rs"]
mod tasks_common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fulmar::tasks::rusqlite::Connection;
use fulmar::tasks::{TaskContext, TaskError, TaskQueue, Worker};

use tasks_common::{
    Arm, Goal, Load, Plan, Role, contest, durable, met, operators, ours, peers, tell_beside, tell_waits, types, waiters,
};

const GOALS: [Goal; 2] = [
    Goal { of: "claim, finish", load: (8, 1), peers: &[(8, 1)], times: 3.0 },
    Goal { of: "claim, finish", load: (8, 100), peers: &[(8, 100)], times: 3.0 },
];

fn main() {
    let plan = Plan::new();
    if plan.has("rates") {
        let mut arms = vec![
            Arm {
                name: "fulmar".into(),
                role: Role::Ours,
                run: Box::new(|load| ours::run(&open(&Folder::new().0), load)),
            },
            Arm {
                name: "floor, a commit each".into(),
                role: Role::Floor,
                run: Box::new(|load| floor::run(load, &Folder::new().0)),
            },
        ];
        arms.extend(peers::arms(|| {
            let folder = Folder::new();
            (folder.0.join("peer.db").display().to_string(), Some(folder))
        }));
        contest(&plan, &arms, &GOALS);
    }
    if plan.has("wake-ups") {
        println!("\nFrom the commit of an enqueue to its handler's start, by an idle worker:");
        let (folder, count) = (Folder::new(), if plan.test { 5 } else { 200 });
        let queue = open(&folder.0);
        tell_waits("in the same process", ours::wake_ups(&queue, &queue, count), None);
        // A queue that was opened by itself hears as much of the other as one in another process.
        let other = TaskQueue::open(folder.0.join("queue.db")).expect("the queue opens");
        let goal = Some(Duration::from_millis(5));
        tell_waits("in another process, by a look at the file", ours::wake_ups(&queue, &other, count), goal);
        tell_idle(&queue, Duration::from_secs(if plan.test { 0 } else { 10 }));
    }
    if plan.has("million") {
        beside(plan.test);
    }
    if plan.has("waiters") {
        let folder = Folder::new();
        waiters::tell(&open(&folder.0), plan.test, || None);
    }
    if plan.has("types") {
        let folders: std::cell::RefCell<Vec<Folder>> = Default::default();
        let fresh = || {
            let folder = Folder::new();
            let queue = open(&folder.0);
            folders.borrow_mut().push(folder);
            queue
        };
        types::tell(fresh, plan.test);
    }
    let fresh = || {
        let folder = Folder::new();
        (open(&folder.0), folder)
    };
    durable::tell(fresh, &plan, |load| floor::run(load, &Folder::new().0).enqueue);
    if plan.has("operators") {
        let folder = Folder::new();
        operators::tell(&open(&folder.0), plan.test);
    }
}

/// How much of a core a worker takes that has nothing to do.
fn tell_idle(queue: &TaskQueue, time: Duration) {
    // In hundredths of a second, of all threads; fields 14 and 15, of which the second field may
    // hold spaces.
    let used = || -> Option<u64> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    let worker =
        Worker::builder(queue).handle("noop", |_: &TaskContext| Ok::<_, TaskError>(())).start().expect("started");
    let (start, before) = (Instant::now(), used());
    std::thread::sleep(time);
    let share = (used().zip(before)).map(|(after, before)| (after - before) as f64 / start.elapsed().as_secs_f64());
    match share {
        Some(share) => println!("an idle worker takes {share:.2} % of a core; goal: <= 1, {}", met(share <= 1.0)),
        None => println!("an idle worker takes an unknown part of a core: NOT RUN, /proc is not there"),
    }
    worker.drain(None).expect("it ends");
}

fn open(folder: &Path) -> TaskQueue {
    let queue = TaskQueue::open(folder.join("queue.db")).expect("the queue opens");
    queue.register(ours::noop()).expect("registered");
    queue
}

/// Whether many finished tasks slow claims down.
fn beside(test: bool) {
    let (finished, rounds, tasks) = if test { (1_000, 1, 200) } else { (1_000_000, 5, 4_000) };
    let (bare, laden) = (Folder::new(), Folder::new());
    let (empty, full) = (open(&bare.0), open(&laden.0));
    for queue in [&empty, &full] {
        // A claim has to count what is at work then.
        queue.register(ours::noop().max_concurrent(10_000)).expect("registered");
    }
    // Written straight into the file: to run a million would take its time.
    let db = Connection::open(laden.0.join("queue.db")).expect("the file opens");
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
    println!();
    for batch in [1, 100] {
        let load = Load { tasks, threads: 8, batch };
        let (alone, beside) = ours::beside(&empty, &full, load, rounds);
        tell_beside(load, finished, &alone, &beside);
    }
    ours::tell_depth(&full, &format!("{finished} finished ones, goal < 1 ms"));
    let start = Instant::now();
    full.tidy().expect("nothing to do");
    println!("a look at what is to be tidied, beside them: {:.1?}", start.elapsed());
}

/// A folder for a database, on the disk that temporary files are on; it goes with this.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("fulmar-bench-{}", fulmar::tasks::WorkerId::new()));
        std::fs::create_dir(&path).expect("a new folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
