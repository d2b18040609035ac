//! How fast is the executor, beside everybody else who runs closures on threads?
//!
//! `cargo bench --bench executor` measures every workload with criterion, one group each with all rivals,
//! and prints the table of the goals at the end. `-- summary` prints the table alone, `-- summary wait_done spin_5us`
//! its lines for these, `-- submit_wait` runs the criterion group of that name, and `-- --test` runs all once, quickly.

mod contest;
mod ours;
mod rivals;
mod summary;
mod workloads;

use std::process::{Command, ExitCode};
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};

use contest::Workload;
use workloads::{Scale, THREADS};

// For the memory workload alone; switched off it costs nothing that one could measure.
#[global_allocator]
static ALLOC: counting_alloc::CountingAlloc = counting_alloc::CountingAlloc;

/// What limits the global pool of the crate `blocking`.
pub(crate) const BLOCKING_THREADS: &str = "BLOCKING_MAX_THREADS";

fn main() -> ExitCode {
    // Setting a variable of the running process is unsafe, so this starts itself again with it set.
    if std::env::var(BLOCKING_THREADS).ok() != Some(THREADS.to_string()) {
        return run_with_blocking_threads();
    }
    // As criterion has it: `cargo bench` passes `--bench`, `cargo test` doesn't and wants to see that it works.
    let flag = |name: &str| std::env::args().any(|argument| argument == name);
    let test = flag("--test") || !flag("--bench");
    let words: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let summary = words.first().is_some_and(|word| word == "summary");
    let scale = if test { Scale::TEST } else { Scale::FULL };

    let mut workloads = contest::workloads();
    if !summary {
        let mut criterion = Criterion::default().configure_from_args();
        for workload in &workloads {
            bench(&mut criterion, workload, &scale);
        }
        criterion.final_summary();
    }
    if summary || (words.is_empty() && !flag("--list")) {
        workloads.retain(|workload| words.len() < 2 || words.iter().any(|word| word == workload.name));
        summary::print(&workloads, &scale, test);
    }
    ExitCode::SUCCESS
}

/// One criterion group: a run is measured whole, whatever it prepares and cleans up left out.
fn bench(criterion: &mut Criterion, workload: &Workload, scale: &Scale) {
    let Some(timing) = &workload.group else { return };
    let elements = (timing.elements)(scale);
    let mut group = criterion.benchmark_group(workload.name);
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(timing.millis / 10))
        .measurement_time(Duration::from_millis(timing.millis))
        .throughput(Throughput::Elements(elements as u64));
    for arm in &workload.arms {
        group.bench_function(arm.name, |bencher| {
            bencher.iter_custom(|runs| {
                (0..runs).map(|_| Duration::from_secs_f64((arm.run)(scale)[0] * elements as f64)).sum()
            });
        });
    }
    group.finish();
}

fn run_with_blocking_threads() -> ExitCode {
    let program = std::env::current_exe().expect("a running program has a file");
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(BLOCKING_THREADS, THREADS.to_string())
        .status()
        .expect("the same program starts again");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
