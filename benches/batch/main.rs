//! What does a remote job cost, beside what the service takes?
//!
//! `cargo bench --bench batch` prints four tables, every arm in turn, round after round, so that noise hits all alike:
//!
//! - *window*: microseconds a job of a service in this process that answers at once, so that only the window's own work is
//!   left: submit, one poll, fetch, the report. Beside it, futures in a window on one thread, which do no more than call the
//!   steps, and what holds a thread a job (the bare loop on eight threads);
//! - *memory*: heap for each job in flight, asleep between two polls;
//! - *request*: microseconds of a small GET on a kept connection, and beside bare `ureq`;
//! - *download*: MiB/s of 256 MiB into a file that is synced, against a copy of `ureq`'s reader. The goal is at least 0.9.
//!
//! A word chooses a table (`-- window`), `-- --test` runs all once, quickly.

mod http;
mod window;

#[global_allocator]
static ALLOCATOR: counting_alloc::CountingAlloc = counting_alloc::CountingAlloc;

fn main() {
    let flag = |name: &str| std::env::args().any(|argument| argument == name);
    // `cargo bench` passes `--bench`; `cargo test` doesn't, and wants to see that it works.
    let test = flag("--test") || !flag("--bench");
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|word| word == name);
    if test {
        println!("A test: sizes are small, and figures mean nothing.");
    }
    println!("Each figure: median (lowest .. highest) of the rounds in which all take turns.");
    type Table = (&'static str, fn(bool));
    let tables: [Table; 4] = [
        ("window", window::overhead),
        ("memory", window::memory),
        ("request", http::requests),
        ("download", http::downloads),
    ];
    for (name, table) in tables {
        if is_chosen(name) {
            table(test);
        }
    }
}

/// Every arm in turn, round after round; prints a line for each and gives the medians.
fn in_turn<'a, F: Fn() -> f64>(rounds: usize, arms: impl Iterator<Item = (&'a str, F)>) -> Vec<f64> {
    let arms: Vec<(&str, F)> = arms.collect();
    let mut figures = vec![Vec::new(); arms.len()];
    for round in 0..rounds {
        let mut turns: Vec<usize> = (0..arms.len()).collect();
        // Whoever follows a noisy neighbour follows another one in the next round.
        if round % 2 == 1 {
            turns.reverse();
        }
        for turn in turns {
            figures[turn].push((arms[turn].1)());
        }
    }
    let mut medians = Vec::new();
    for (figures, (name, _)) in figures.iter_mut().zip(&arms) {
        figures.sort_by(f64::total_cmp);
        let (lowest, median, highest) = (figures[0], figures[figures.len() / 2], figures[figures.len() - 1]);
        println!("{name:<28} {median:.2} ({lowest:.2} .. {highest:.2})");
        medians.push(median);
    }
    medians
}
