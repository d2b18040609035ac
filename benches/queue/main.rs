//! How fast is the bounded queue, beside channels with a limit?
//!
//! `cargo bench --bench queue` prints two tables, every arm in turn, round after round, so that noise hits all alike:
//!
//! - *throughput*: nanoseconds from put to put, when producers and consumers do nothing else. All rounds together, because
//!   some of these have two speeds, ten times apart, and keep to one of them for a whole round, as the scheduler happens to
//!   place their threads: a median is then one of the two by luck, where the sum is what a user waits for;
//! - *hand-over*: microseconds from a put to the return of the get that waited for it. In the first line the other side
//!   answers at once, and its answer is waited for; in the second everybody has been asleep for a while.
//!
//! `-- throughput` and `-- hand-over` print one of them, `-- --test` runs all once, quickly. The goal is at most 1.2 times
//! the time of a bare `crossbeam-channel`; `std`'s channel shares its receiver through a mutex where it has to.

mod rivals;
mod workloads;

use rivals::{Crossbeam, Flume, Fulmar, Rival, Std};
use workloads::Scale;

/// Who is compared: ours first, then the baseline.
struct Arm {
    name: &'static str,
    throughput: fn(&Scale, usize, usize) -> f64,
    ping_pong: fn(&Scale, usize) -> f64,
    wake_up: fn(&Scale, usize) -> f64,
}

fn arm<R: Rival>() -> Arm {
    Arm {
        name: R::NAME,
        throughput: workloads::throughput::<R>,
        ping_pong: workloads::ping_pong::<R>,
        wake_up: workloads::wake_up::<R>,
    }
}

const GOAL: f64 = 1.2;

fn main() {
    let flag = |name: &str| std::env::args().any(|argument| argument == name);
    // `cargo bench` passes `--bench`; `cargo test` doesn't, and wants to see that it works.
    let test = flag("--test") || !flag("--bench");
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|word| word == name);
    let scale = if test { Scale::TEST } else { Scale::FULL };
    let arms = [arm::<Fulmar>(), arm::<Crossbeam>(), arm::<Std>(), arm::<Flume>()];

    if test {
        println!("A test: sizes are a hundredth of the real ones, and figures mean nothing.");
    }
    println!("Each figure is of {} rounds in which all take turns: (lowest .. highest).", scale.rounds);
    if is_chosen("throughput") {
        heading("throughput, mean [ns]", &arms);
        for capacity in [1, 10, 1_000] {
            for threads in [1, 4] {
                let label = format!("capacity {capacity}, {threads}x{threads}");
                row(&label, &arms, &scale, mean, |arm| (arm.throughput)(&scale, capacity, threads) * 1e9);
            }
        }
    }
    if is_chosen("hand-over") {
        heading("hand-over, median [us]", &arms);
        for capacity in [1, 10, 1_000] {
            let (busy, asleep) = (format!("capacity {capacity}, busy"), format!("capacity {capacity}, asleep"));
            row(&busy, &arms, &scale, median, |arm| (arm.ping_pong)(&scale, capacity) * 1e6);
            row(&asleep, &arms, &scale, median, |arm| (arm.wake_up)(&scale, capacity) * 1e6);
        }
    }
}

fn heading(what: &str, arms: &[Arm]) {
    print!("\n{what:<26}");
    for arm in arms {
        print!(" {:>28}", arm.name);
    }
    println!(" {:>10}  goal <= {GOAL}", "/ base");
}

/// One line of a table: every arm in turn, round after round.
fn row(label: &str, arms: &[Arm], scale: &Scale, sum_up: fn(&[f64]) -> f64, measure: impl Fn(&Arm) -> f64) {
    let mut figures = vec![Vec::new(); arms.len()];
    for round in 0..scale.rounds {
        let mut turns: Vec<usize> = (0..arms.len()).collect();
        // Whoever follows a noisy neighbour follows another one in the next round.
        if round % 2 == 1 {
            turns.reverse();
        }
        for turn in turns {
            figures[turn].push(measure(&arms[turn]));
        }
    }
    print!("{label:<26}");
    for figures in &mut figures {
        figures.sort_by(f64::total_cmp);
        let (lowest, highest) = (figures[0], figures[figures.len() - 1]);
        print!(" {:>28}", format!("{} ({} .. {})", show(sum_up(figures)), show(lowest), show(highest)));
    }
    let ratio = sum_up(&figures[0]) / sum_up(&figures[1]);
    println!(" {ratio:>10.2}  {}", if ratio <= GOAL { "yes" } else { "NO" });
}

fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figures.len() as f64
}

/// Of sorted figures.
fn median(figures: &[f64]) -> f64 {
    figures[figures.len() / 2]
}

fn show(figure: f64) -> String {
    if figure < 10.0 { format!("{figure:.2}") } else { format!("{figure:.0}") }
}
