//! What does durability on a PostgreSQL server cost, beside its floor and other queues on the same database?
//!
//! `benches/peers/run` brings up a server as `tests/run` does, installs the peers, and runs this with
//! `cargo bench --bench tasks_postgres --features postgres,sqlite`. Tasks a second, with full durability: enqueued and worked
//! off (claimed, run, finished) by one process, for 1, 4 and 8 at once and batches of 1 and 100. The contenders take turns,
//! round after round. `FULMAR_BENCH_LOAD=8x100` takes one load alone. `-- --test` runs all once, quickly; without `FULMAR_POSTGRES_URL` nothing is measured, and it says so.

mod ours;
mod peers;

use std::time::Duration;

/// How much, and how.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) tasks: usize,
    /// Connections, threads, or what the contender has of that kind.
    pub(crate) threads: usize,
    /// Tasks a call.
    pub(crate) batch: usize,
}

/// How long it took.
pub(crate) struct Took {
    pub(crate) tasks: usize,
    pub(crate) enqueue: Duration,
    pub(crate) work: Duration,
}

fn main() {
    let test = std::env::args().any(|argument| argument == "--test") || !std::env::args().any(|a| a == "--bench");
    let Ok(url) = std::env::var("FULMAR_POSTGRES_URL") else {
        println!("NOT RUN: FULMAR_POSTGRES_URL names no server; benches/peers/run brings one up");
        return;
    };
    let size = std::env::var("FULMAR_BENCH_TASKS").ok().and_then(|text| text.parse().ok());
    let (tasks, rounds) = if test { (800, 1) } else { (size.unwrap_or(10_000), 3) };
    if test {
        println!("A test: sizes are a fraction of the real ones, and figures mean nothing.");
    }
    println!("{tasks} no-op tasks, full durability; tasks a second, median of {rounds} rounds in which all take turns");
    println!("{:<24} {:>7} {:>6} {:>26} {:>26}", "", "at once", "batch", "enqueue (low-high)", "work off (low-high)");
    let loads = [(1, 1), (4, 1), (1, 100), (4, 100), (8, 1), (8, 100)];
    let only = std::env::var("FULMAR_BENCH_LOAD").ok();
    let chosen = |load: &&(usize, usize)| only.as_ref().is_none_or(|only| *only == format!("{}x{}", load.0, load.1));
    for &(threads, batch) in if test { &loads[4..] } else { &loads[..] }.iter().filter(chosen) {
        let load = Load { tasks, threads, batch };
        let mut arms: Vec<(String, Vec<f64>, Vec<f64>)> = Vec::new();
        for _ in 0..rounds {
            let ours = [("fulmar".to_owned(), Some(ours::run(&url, load)))];
            for (name, took) in ours.into_iter().chain(peers::run(&url, load)) {
                let at = arms.iter().position(|arm| arm.0 == name).unwrap_or_else(|| {
                    arms.push((name, Vec::new(), Vec::new()));
                    arms.len() - 1
                });
                if let Some(took) = took {
                    arms[at].1.push(took.tasks as f64 / took.enqueue.as_secs_f64());
                    arms[at].2.push(took.tasks as f64 / took.work.as_secs_f64());
                }
            }
        }
        for (name, enqueue, work) in arms {
            println!("{name:<24} {threads:>7} {batch:>6} {:>26} {:>26}", spread(enqueue), spread(work));
        }
    }
    let count = if test { 5 } else { 200 };
    let mut waits = ours::wake_ups(&url, count);
    waits.sort();
    println!(
        "\n{count} wake-ups of an idle worker, from an enqueue's commit on another connection to its handler's start:"
    );
    println!("p50 {:.2?}, p99 {:.2?}", waits[count / 2], waits[count * 99 / 100]);

    let finished = if test { 1_000 } else { 1_000_000 };
    let load = Load { tasks, threads: 8, batch: 100 };
    let (alone, beside) = ours::beside(&url, load, finished);
    let rate = |took: Duration| tasks as f64 / took.as_secs_f64();
    println!("\n{tasks} tasks worked off by 8 threads, batch 100:");
    println!("{:.0} a second alone, {:.0} beside {finished} finished ones", rate(alone), rate(beside));
}

fn spread(mut rates: Vec<f64>) -> String {
    if rates.is_empty() {
        return "-".into();
    }
    rates.sort_by(f64::total_cmp);
    format!("{:.0} ({:.0}-{:.0})", rates[rates.len() / 2], rates[0], rates[rates.len() - 1])
}
