//! What does durability cost, and how near to the database's own floor is the queue?
//!
//! `cargo bench --bench tasks --features sqlite` prints tasks a second, with full durability: enqueued one by one and a hundred at
//! once, claimed and finished by a worker, and end to end from the first enqueue to the last finish, for 1, 4 and 8 threads
//! and batches of 1 and 100. Beside them stands the floor: bare statements on the same kind of connection, without types, fences,
//! logs, order or handlers. The arms take turns, round after round, on new files. `-- --test` runs all once, quickly, and `FULMAR_BENCH_TASKS` sets another number of tasks.
//!
//! Other queues join as arms in `arms()`: a name, and a function from a load to tasks a second.

mod floor;
mod ours;

use std::path::PathBuf;
use std::time::Duration;

/// How much, and how.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) tasks: usize,
    pub(crate) threads: usize,
    /// Tasks a call.
    pub(crate) batch: usize,
}

/// A contender in one discipline: from a load and a folder to the time that it took.
type Arm = (&'static str, fn(Load, PathBuf) -> Duration);

fn disciplines() -> [(&'static str, Vec<Arm>); 3] {
    [
        ("enqueue", vec![("floor, a commit each", floor::insert), ("fulmar", ours::enqueue)]),
        ("claim and finish", vec![("floor, a commit each", floor::take), ("fulmar", ours::work)]),
        ("end to end", vec![("floor, a commit each", floor::end_to_end), ("fulmar", ours::end_to_end)]),
    ]
}

fn main() {
    let test = std::env::args().any(|argument| argument == "--test") || !std::env::args().any(|a| a == "--bench");
    let size = std::env::var("FULMAR_BENCH_TASKS").ok().and_then(|text| text.parse().ok());
    let (tasks, rounds) = if test { (100, 1) } else { (size.unwrap_or(10_000), 3) };
    if test {
        println!("A test: sizes are a hundredth of the real ones, and figures mean nothing.");
    }
    println!("{tasks} no-op tasks, full durability; tasks a second, median of {rounds} rounds in which all take turns");
    println!("{:<18} {:<22} {:>7} {:>6} {:>9} {:>9} {:>9}", "", "", "threads", "batch", "median", "lowest", "highest");
    for (discipline, arms) in disciplines() {
        for (threads, batch) in [(1, 1), (4, 1), (8, 1), (1, 100), (4, 100), (8, 100)] {
            let load = Load { tasks, threads, batch };
            let mut rates = vec![Vec::new(); arms.len()];
            for _ in 0..rounds {
                for (arm, rates) in arms.iter().zip(&mut rates) {
                    let folder = Folder::new();
                    let took = (arm.1)(load, folder.0.clone());
                    rates.push(tasks as f64 / took.as_secs_f64());
                }
            }
            for (arm, mut rates) in arms.iter().zip(rates) {
                rates.sort_by(f64::total_cmp);
                let (median, lowest, highest) = (rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
                println!(
                    "{discipline:<18} {:<22} {threads:>7} {batch:>6} {median:>9.0} {lowest:>9.0} {highest:>9.0}",
                    arm.0
                );
            }
        }
    }
    let count = if test { 5 } else { 200 };
    let mut waits = ours::wake_ups(count, Folder::new().0.clone());
    waits.sort();
    println!("\n{count} wake-ups of an idle worker, from before the enqueue to the handler's start:");
    println!("p50 {:.1?}, p99 {:.1?}", waits[count / 2], waits[count * 99 / 100]);
    claims_beside_the_finished(test);
}

/// Whether many finished tasks slow claims down.
fn claims_beside_the_finished(test: bool) {
    let finished = if test { 1_000 } else { 1_000_000 };
    let load = Load { tasks: if test { 100 } else { 10_000 }, threads: 8, batch: 100 };
    let (alone, beside, tidying) = ours::beside(load, finished, Folder::new().0.clone());
    let rate = |took: Duration| load.tasks as f64 / took.as_secs_f64();
    println!("\n{} tasks claimed and finished by 8 threads, batch 100:", load.tasks);
    println!("{:>9.0} a second alone, {:>9.0} beside {finished} finished ones", rate(alone), rate(beside));
    println!("{tidying:.1?} for a look at what is to be tidied");
}

/// A folder for a database, on the disk that temporary files are on; it goes with this.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    fn new() -> Folder {
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
