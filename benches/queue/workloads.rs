//! The workloads: each makes a queue, measures one thing once, in seconds, and checks what came out.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::rivals::Rival;

/// How much of everything; figures are per value, so they compare across sizes.
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    /// Values a run, at capacity 1, 10 and more: a small queue switches threads all the time, and is slow.
    values: [u64; 3],
    ping_pongs: u64,
    wake_ups: usize,
    nap: Duration,
}

impl Scale {
    pub(crate) const FULL: Self = Self {
        rounds: 41,
        values: [20_000, 100_000, 400_000],
        ping_pongs: 5_000,
        wake_ups: 100,
        nap: Duration::from_micros(300),
    };

    /// Enough to see that everything works.
    pub(crate) const TEST: Self =
        Self { rounds: 1, values: [200, 1_000, 4_000], ping_pongs: 50, wake_ups: 3, nap: Duration::from_micros(100) };

    fn values(&self, capacity: usize) -> u64 {
        self.values[match capacity {
            0..=1 => 0,
            2..=10 => 1,
            _ => 2,
        }]
    }
}

/// As many producers as consumers, as fast as they can. Time a value, from the start of the first to the last get.
pub(crate) fn throughput<R: Rival>(scale: &Scale, capacity: usize, threads: usize) -> f64 {
    let (put, get) = R::bounded(capacity);
    let each = scale.values(capacity) / threads as u64;
    let barrier = Barrier::new(2 * threads);
    // Each thread looks at the clock when it starts: another one might get its turn only when all is over.
    let started: Vec<(Instant, u64)> = thread::scope(|scope| {
        let consumers: Vec<_> = (0..threads)
            .map(|_| {
                let (get, barrier) = (get.clone(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    (start, std::iter::from_fn(|| R::get(&get)).fold(0, u64::wrapping_add))
                })
            })
            .collect();
        let producers: Vec<_> = (0..threads)
            .map(|_| {
                let (put, barrier) = (put.clone(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    (1..=each).for_each(|value| R::put(&put, value));
                    (start, 0)
                })
            })
            .collect();
        drop((put, get));
        consumers.into_iter().chain(producers).map(|thread| thread.join().expect("no panic")).collect()
    });
    let first = started.iter().map(|(start, _)| start).min().expect("at least one thread");
    let elapsed = first.elapsed();
    let sum: u64 = started.iter().map(|(_, sum)| sum).sum();
    assert_eq!(sum, threads as u64 * each * (each + 1) / 2, "{}", R::NAME);
    elapsed.as_secs_f64() / (each * threads as u64) as f64
}

/// There and back through two queues, one value at a time. Time of one way.
pub(crate) fn ping_pong<R: Rival>(scale: &Scale, capacity: usize) -> f64 {
    let (there, echo) = R::bounded(capacity);
    let (back, answer) = R::bounded(capacity);
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Some(value) = R::get(&echo) {
                R::put(&back, value);
            }
        });
        let start = Instant::now();
        for value in 0..scale.ping_pongs {
            R::put(&there, value);
            assert_eq!(R::get(&answer), Some(value), "{}", R::NAME);
        }
        let elapsed = start.elapsed();
        drop(there);
        elapsed.as_secs_f64() / scale.ping_pongs as f64 / 2.0
    })
}

/// A put after a nap, when the consumer sleeps. Median time until its get returns.
pub(crate) fn wake_up<R: Rival>(scale: &Scale, capacity: usize) -> f64 {
    let origin = Instant::now();
    let (put, get) = R::bounded(capacity);
    let consumer = thread::spawn(move || {
        let mut times = Vec::new();
        while let Some(sent) = R::get(&get) {
            times.push(origin.elapsed().saturating_sub(Duration::from_nanos(sent)));
        }
        times
    });
    for _ in 0..scale.wake_ups {
        thread::sleep(scale.nap);
        R::put(&put, u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    drop(put);
    let mut times = consumer.join().expect("no panic");
    assert_eq!(times.len(), scale.wake_ups, "{}", R::NAME);
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}
