//! What does a remote job cost, beside what the service takes?
//!
//! `cargo bench --bench batch` prints tables, every arm in turn, round after round, so that noise hits all alike:
//!
//! - *window*: microseconds a job of a service in this process that answers at once, so that only the window's own work is
//!   left: submit, one poll, fetch, the report. Beside it, what holds a thread a job (the bare loop on eight threads), and
//!   futures in a window on one thread, which do no more than call the steps.
//! - *memory*: bytes on the heap for each job in flight, asleep between two polls.
//!
//! A word chooses a table (`-- window`), `-- --test` runs all once, quickly.

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
    if is_chosen("window") {
        window::overhead(test);
    }
    if is_chosen("memory") {
        window::memory(test);
    }
}

/// What one arm measures.
type Measure<'a> = &'a dyn Fn() -> f64;

/// One line of a table: the arms in turn, round after round; the ratio is that of the first to the second.
fn row(label: &str, rounds: usize, arms: &[(&str, Measure<'_>)]) {
    let mut figures = vec![Vec::new(); arms.len()];
    for round in 0..rounds {
        let mut turns: Vec<usize> = (0..arms.len()).collect();
        // Whoever follows a noisy neighbour follows another one in the next round.
        if round % 2 == 1 {
            turns.reverse();
        }
        for turn in turns {
            figures[turn].push(arms[turn].1());
        }
    }
    print!("{label:<28}");
    let mut medians = Vec::new();
    for ((name, _), figures) in arms.iter().zip(&mut figures) {
        figures.sort_by(f64::total_cmp);
        let median = figures[figures.len() / 2];
        print!("  {name} {median:.2} ({:.2} .. {:.2})", figures[0], figures[figures.len() - 1]);
        medians.push(median);
    }
    match medians[..] {
        [ours, base, ..] => println!("  ratio {:.2}", ours / base),
        _ => println!(),
    }
}
