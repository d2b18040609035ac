//! The window's own work, for a service that answers at once.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use counting_alloc::live_after;
use fulmar::Executor;
use fulmar::batch::{BatchRunner, BatchRunnerBuilder, Context, EventKind, JobError, Poll, RemoteJob, Submitted};
use futures::StreamExt;

use crate::in_turn;

struct Instantly(u64);

impl RemoteJob for Instantly {
    type Output = u64;

    fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
        Ok(Submitted::Accepted { id: self.0.to_string() })
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
        Ok(Poll::Ready)
    }

    fn fetch(&mut self, _: &mut Context<'_>) -> Result<u64, JobError> {
        Ok(black_box(self.0))
    }
}

/// The same three steps, without a window: `n` is the job.
fn bare_steps(n: u64) -> u64 {
    let id = black_box(n.to_string());
    black_box(&id);
    black_box(n)
}

pub(crate) fn overhead(test: bool) {
    let (jobs, rounds) = if test { (100, 1) } else { (100_000, 9) };
    for window in [8, 10_000] {
        println!("\nwindow of {window} [us a job that the service answers at once, of {jobs}]");
        let ours = || {
            let executor = Executor::builder().threads(8).build().expect("sound");
            let runner = settings(&executor, window).build().expect("sound");
            each(jobs, || {
                let report = runner.run((0..jobs).map(Instantly)).expect("runs");
                assert!(report.is_success(), "{report}");
            })
        };
        let threads = || {
            each(jobs, || {
                let next = AtomicUsize::new(0);
                std::thread::scope(|scope| {
                    for _ in 0..8 {
                        scope.spawn(|| while bare_steps(next.fetch_add(1, Ordering::Relaxed) as u64) < jobs {});
                    }
                });
            })
        };
        let futures = || {
            each(jobs, || {
                let jobs = futures::stream::iter(0..jobs).map(|n| async move { bare_steps(n) });
                let count = futures::executor::block_on(jobs.buffer_unordered(window).count());
                black_box(count);
            })
        };
        type Arm<'a> = (&'a str, &'a dyn Fn() -> f64);
        let arms: [Arm<'_>; 3] =
            [("fulmar", &ours), ("futures in a window", &futures), ("a loop on 8 threads", &threads)];
        in_turn(rounds, arms.into_iter());
    }
}

pub(crate) fn memory(test: bool) {
    let jobs = if test { 100 } else { 10_000 };
    let executor = Executor::builder().threads(8).build().expect("sound");
    let (submitted, all) = mpsc::channel();
    let hour = Duration::from_secs(3_600);
    let runner = settings(&executor, jobs).poll_every(hour).on_event(move |event| {
        if let EventKind::Submitted = event.kind {
            let _ = submitted.send(());
        }
    });
    let runner = runner.build().expect("sound");
    let (batch, live) = live_after(|| {
        let batch = runner.start((0..jobs as u64).map(Instantly));
        all.iter().take(jobs).for_each(drop);
        // The last ones are on their way to sleep: a request on each thread comes after them.
        let idle: Vec<_> = (0..8).map(|_| executor.spawn(|| {}).expect("accepted")).collect();
        idle.iter().for_each(|request| request.wait(None).expect("ends"));
        batch
    });
    let each = |n: i64| n as f64 / jobs as f64;
    println!(
        "\nmemory, {jobs} jobs in flight on 8 threads, a job: {:.0} bytes in {:.1} blocks",
        each(live.bytes),
        each(live.blocks)
    );
    batch.cancel();
    batch.wait(None).expect("ends");
}

fn settings(executor: &Executor, window: usize) -> BatchRunnerBuilder {
    BatchRunner::builder().executor(executor).window(window).poll_every(Duration::ZERO)
}

/// Microseconds a job.
fn each(jobs: u64, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64() * 1e6 / jobs as f64
}
