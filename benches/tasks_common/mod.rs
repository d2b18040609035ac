//! What the benches of durable tasks have in common: loads, contenders that take turns, and the table of the goals.
//!
//! `benches/peers/run` installs the other queues and runs a bench with them; without it, `cargo bench` measures ours and the
//! floor alone. Everything that a run is told besides comes from the environment: `FULMAR_BENCH_TASKS`, `FULMAR_BENCH_ROUNDS`,
//! `FULMAR_BENCH_LOADS` (`8x1,8x100`), `FULMAR_BENCH_SLEEPERS`, and `FULMAR_BENCH_ARM`,
//! the one contender there is to be. Words name parts of it:
//! `rates`, `wake-ups`, `million`, `operators`, `durable`, and of that `steps`, `sleepers`,
//! `children`; none means all.

pub(crate) mod durable;
pub(crate) mod operators;
pub(crate) mod ours;
pub(crate) mod peers;
pub(crate) mod types;
pub(crate) mod waiters;

use std::time::Duration;

/// How much, and how.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub(crate) tasks: usize,
    /// Connections, threads, or what the contender has of that kind.
    pub(crate) threads: usize,
    /// Tasks a call.
    pub(crate) batch: usize,
}

impl Load {
    /// Those that each thread does, of the same number each.
    pub(crate) fn share(self) -> usize {
        self.tasks / self.threads
    }

    /// All that is done.
    pub(crate) fn whole(self) -> usize {
        self.share() * self.threads
    }
}

/// Tasks a second; `None` where a contender has no such way to work.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rates {
    pub(crate) enqueue: Option<f64>,
    /// Claimed, run and finished.
    pub(crate) work: Option<f64>,
    /// From the first enqueue to the last finish, with the workers there from the start.
    pub(crate) through: Option<f64>,
}

pub(crate) fn rate(tasks: usize, took: Duration) -> Option<f64> {
    Some(tasks as f64 / took.as_secs_f64())
}

/// A contender: its name, what it is, and what it does of a load.
pub(crate) struct Arm<'a> {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) run: Box<dyn Fn(Load) -> Rates + 'a>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Role {
    Ours,
    Floor,
    Peer,
}

/// What a run was told.
pub(crate) struct Plan {
    pub(crate) test: bool,
    parts: Vec<String>,
    rounds: usize,
    loads: Vec<Load>,
    /// Functions that are to sleep at once.
    pub(crate) sleepers: usize,
}

impl Plan {
    pub(crate) fn new() -> Plan {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let test = words.iter().any(|word| word == "--test") || !words.iter().any(|word| word == "--bench");
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let tasks = number("FULMAR_BENCH_TASKS").unwrap_or(if test { 400 } else { 10_000 });
        let rounds = number("FULMAR_BENCH_ROUNDS").unwrap_or(if test { 1 } else { 3 });
        let only = std::env::var("FULMAR_BENCH_LOADS").ok();
        let all = [(8, 1), (8, 100), (4, 1), (4, 100), (1, 1), (1, 100)];
        let chosen = |&(threads, batch): &(usize, usize)| match &only {
            Some(only) => only.split(',').any(|load| load == format!("{threads}x{batch}")),
            None => !test || threads == 8,
        };
        let sleepers = number("FULMAR_BENCH_SLEEPERS").unwrap_or(100_000);
        // One by one takes longer: fewer will do.
        let size = |batch| if batch == 1 { tasks / 4 } else { tasks };
        let load = |(threads, batch)| Load { tasks: size(batch), threads, batch };
        let loads = all.into_iter().filter(chosen).map(load).collect();
        let parts = words.into_iter().filter(|word| !word.starts_with('-')).collect();
        if test {
            println!("A test: sizes are a fraction of the real ones, and figures mean nothing.");
        }
        Plan { test, parts, rounds, loads, sleepers }
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|asked| asked == part)
    }
}

/// What is asked of a rate: at least so many times that of the best peer under any of `peers`,
/// loads.
pub(crate) struct Goal {
    pub(crate) of: &'static str,
    pub(crate) load: (usize, usize),
    pub(crate) peers: &'static [(usize, usize)],
    pub(crate) times: f64,
}

/// Has the arms take turns, round after round, prints what each came to, and then how that is to the goals.
pub(crate) fn contest(plan: &Plan, arms: &[Arm<'_>], goals: &[Goal]) {
    println!("\nNo-op tasks, full durability; tasks a second, median (lowest-highest) of {} rounds", plan.rounds);
    println!(
        "{:<26} {:>7} {:>5}  {:>21} {:>21} {:>21}",
        "", "at once", "batch", "enqueue", "claim, finish", "end to end"
    );
    let only = std::env::var("FULMAR_BENCH_ARM").ok();
    let arms: Vec<&Arm<'_>> = arms.iter().filter(|arm| only.as_ref().is_none_or(|only| arm.name == *only)).collect();
    let mut results: Vec<(usize, Load, [Vec<f64>; 3])> = Vec::new();
    for load in &plan.loads {
        let mut found: Vec<[Vec<f64>; 3]> = arms.iter().map(|_| Default::default()).collect();
        for round in 0..plan.rounds {
            // Nobody always comes after the same one.
            for turn in 0..arms.len() {
                let at = (turn + round) % arms.len();
                let rates = (arms[at].run)(*load);
                for (all, rate) in found[at].iter_mut().zip([rates.enqueue, rates.work, rates.through]) {
                    all.extend(rate);
                }
            }
        }
        for (at, mut rates) in found.into_iter().enumerate() {
            rates.iter_mut().for_each(|rates| rates.sort_by(f64::total_cmp));
            let [enqueue, work, through] = rates.each_ref().map(|rates| spread(rates));
            let (threads, batch) = (load.threads, load.batch);
            println!("{:<26} {threads:>7} {batch:>5}  {enqueue:>21} {work:>21} {through:>21}", arms[at].name);
            results.push((at, *load, rates));
        }
    }
    let of = |what: &str, role, loads: &[(usize, usize)]| -> Option<(f64, &str)> {
        let column = ["enqueue", "claim, finish", "end to end"].iter().position(|name| *name == what)?;
        let fitting = results
            .iter()
            .filter(|(at, load, _)| arms[*at].role == role && loads.contains(&(load.threads, load.batch)));
        let medians = fitting.filter_map(|(at, _, rates)| Some((median(&rates[column])?, &*arms[*at].name)));
        medians.max_by(|one, other| one.0.total_cmp(&other.0))
    };
    println!(
        "\n{:<30} {:>8} {:>10} {:>10} {:<24} {:>7} {:>9} {:>4}",
        "", "fulmar", "floor", "best peer", "", "ratio", "goal", "met"
    );
    for goal in goals {
        let line = format!("{}, {} at once, batch {}", goal.of, goal.load.0, goal.load.1);
        let (ours, floor) = (of(goal.of, Role::Ours, &[goal.load]), of(goal.of, Role::Floor, &[goal.load]));
        let Some((ours, _)) = ours else { continue };
        let floor = floor.map_or("-".into(), |(rate, _)| format!("{rate:.0}"));
        match of(goal.of, Role::Peer, goal.peers) {
            Some((peer, name)) => {
                let ratio = ours / peer;
                let asked = format!(">= {}", goal.times);
                println!(
                    "{line:<30} {ours:>8.0} {floor:>10} {peer:>10.0} {name:<24} {ratio:>7.2} {asked:>9} {:>4}",
                    met(ratio >= goal.times)
                );
            }
            None => println!("{line:<30} {ours:>8.0} {floor:>10} {:>10}", "NOT RUN"),
        }
    }
}

pub(crate) fn met(is_met: bool) -> &'static str {
    if is_met { "yes" } else { "NO" }
}

/// Waits of an idle worker: what is asked is a median of at most `goal`.
pub(crate) fn tell_waits(what: &str, mut waits: Vec<Duration>, goal: Option<Duration>) {
    waits.sort();
    let (count, median) = (waits.len(), waits[waits.len() / 2]);
    print!("{what}: p50 {median:.2?}, p99 {:.2?} of {count}", waits[count * 99 / 100]);
    match goal {
        Some(goal) => println!("; goal: p50 <= {goal:?}, {}", met(median <= goal)),
        None => println!(),
    }
}

/// Claims alone and beside many finished tasks took so long, round after round; the goal is at most a fifth more.
pub(crate) fn tell_beside(load: Load, finished: usize, alone: &[Duration], beside: &[Duration]) {
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort();
        times[times.len() / 2]
    };
    let (alone, beside) = (median(alone), median(beside));
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    let shown = |took| rate(load.whole(), took).unwrap_or_default();
    println!(
        "claim, finish, {} at once, batch {}: {:.0} a second alone, {:.0} beside {finished} finished ones: {ratio:.2} times \
         as long; goal: <= 1.2, {}",
        load.threads,
        load.batch,
        shown(alone),
        shown(beside),
        met(ratio <= 1.2)
    );
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

fn spread(sorted: &[f64]) -> String {
    match (sorted.first(), median(sorted), sorted.last()) {
        (Some(low), Some(median), Some(high)) => format!("{median:.0} ({low:.0}-{high:.0})"),
        _ => "-".into(),
    }
}
