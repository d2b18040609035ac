//! What does a pipeline of three stages cost, beside threads and channels wired by hand?
//!
//! `cargo bench --bench pipeline` sends values through three stages, each of which adds 1, and sums
//! up what comes out: light values, for which a stage does nothing else, and values that each stage
//! waits for, for 500 us, as for a disk or a server. One thread a stage, and four. Queues hold 64
//! values, and rayon, which has none, uses as many threads. It prints microseconds a value; the
//! arms take turns, round after round. `-- --test` runs all once, quickly.
//!
//! The goal is at most twice the time of the bare channels.

use std::thread;
use std::time::{Duration, Instant};

use fulmar::pipeline::{Pipeline, Processor};
use fulmar::queue::bounded;
use fulmar::{Error, Executor};
use rayon::iter::{ParallelBridge, ParallelIterator};

const BUFFER: usize = 64;
const GOAL: f64 = 2.0;

/// What a stage does with a value.
type Work = fn(u64) -> u64;

fn light(value: u64) -> u64 {
    value + 1
}

fn waiting(value: u64) -> u64 {
    thread::sleep(Duration::from_micros(500));
    value + 1
}

/// Sends `count` values through three stages of `threads` each, and gives the sum of what came out.
type Arm = (&'static str, fn(u64, usize, Work) -> u64);

const ARMS: [Arm; 5] = [
    ("crossbeam", crossbeam),
    ("fulmar, map", mapped),
    ("fulmar, stage", staged),
    ("fulmar, processors", processors),
    ("rayon", rayon),
];

fn main() {
    let test = std::env::args().any(|argument| argument == "--test") || !std::env::args().any(|a| a == "--bench");
    let (share, rounds) = if test { (100, 1) } else { (1, 11) };
    print!("{:<34}", "us a value, median");
    for (name, _) in ARMS {
        print!(" {name:>20}");
    }
    println!("   map / crossbeam, goal <= {GOAL}");
    for (kind, work, count) in [("light", light as Work, 200_000), ("500 us", waiting as Work, 1_000)] {
        for threads in [1, 4] {
            row(&format!("{kind}, {threads} thread(s) a stage"), count / share, threads, work, rounds);
        }
    }
}

fn row(label: &str, count: u64, threads: usize, work: Work, rounds: usize) {
    let mut figures = vec![Vec::new(); ARMS.len()];
    for _ in 0..rounds {
        for ((name, run), figures) in ARMS.iter().zip(&mut figures) {
            let start = Instant::now();
            let sum = run(count, threads, work);
            figures.push(start.elapsed().as_secs_f64() * 1e6 / count as f64);
            assert_eq!(sum, (0..count).sum::<u64>() + 3 * count, "{name}");
        }
    }
    print!("{label:<34}");
    for figures in &mut figures {
        figures.sort_by(f64::total_cmp);
        print!(" {:>20.2}", figures[figures.len() / 2]);
    }
    let ratio = figures[1][figures[1].len() / 2] / figures[0][figures[0].len() / 2];
    println!("   {ratio:.2}  {}", if ratio <= GOAL { "yes" } else { "NO" });
}

fn mapped(count: u64, threads: usize, work: Work) -> u64 {
    let pipeline = Pipeline::builder(0..count).map("one", threads, work).map("two", threads, work);
    let outcomes = pipeline.map("three", threads, work).start().expect("threads");
    outcomes.map(|outcome| outcome.expect("no stage fails")).sum()
}

fn staged(count: u64, threads: usize, work: Work) -> u64 {
    let stage = move |value: &u64| Ok::<_, Error>(work(*value));
    let pipeline = Pipeline::builder(0..count).stage("one", threads, stage).stage("two", threads, stage);
    let outcomes = pipeline.stage("three", threads, stage).start().expect("threads");
    outcomes.map(|outcome| outcome.expect("no stage fails")).sum()
}

/// A processor for each stage, on one executor: each value is an operation of its own.
fn processors(count: u64, threads: usize, work: Work) -> u64 {
    let executor = Executor::builder().threads(3 * threads).build().expect("threads");
    let (source, mut input) = bounded(BUFFER).expect("holds something");
    let processors: Vec<Processor> = (0..3)
        .map(|_| {
            let (producer, output) = bounded(BUFFER).expect("holds something");
            let stage = Processor::builder(std::mem::replace(&mut input, output));
            let put = move |value| producer.put(work(value));
            stage.executor(&executor).max_concurrent(threads).handle(put).expect("a thread")
        })
        .collect();
    let feeder = thread::spawn(move || (0..count).try_for_each(|value| source.put(value)));
    let sum = input.iter().sum();
    feeder.join().expect("no panic").expect("the stages take all");
    drop(processors);
    sum
}

fn crossbeam(count: u64, threads: usize, work: Work) -> u64 {
    let (source, mut input) = crossbeam_channel::bounded(BUFFER);
    for _ in 0..3 {
        let (sender, output) = crossbeam_channel::bounded(BUFFER);
        let receiver = std::mem::replace(&mut input, output);
        for _ in 0..threads {
            let (receiver, sender) = (receiver.clone(), sender.clone());
            thread::spawn(move || receiver.iter().try_for_each(|value| sender.send(work(value))));
        }
    }
    let feeder = thread::spawn(move || (0..count).try_for_each(|value| source.send(value)));
    let sum = input.iter().sum();
    feeder.join().expect("no panic").expect("the stages take all");
    sum
}

/// It has no stages: as many threads as the others have take each value through all three.
fn rayon(count: u64, threads: usize, work: Work) -> u64 {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3 * threads).build().expect("threads");
    pool.install(|| (0..count).par_bridge().map(|value| work(work(work(value)))).sum())
}
