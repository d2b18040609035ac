//! What does a timer cost, beside a plain binary heap?
//!
//! `cargo bench --bench timer` puts 100,000 entries in, in random order, and takes all of them out again, and prints
//! nanoseconds an entry: fulmar's `submit_after` on one thread of the pool, from the first submission to the last result,
//! and a cancel of each; a `std` binary heap that only pops; and a heap with a thread that sends a boxed closure on when it
//! is due, with a channel a result. The arms take turns, round after round. `-- --test` runs all once, quickly.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use fulmar::{Error, Executor};

/// Far enough that all are in before the first is due.
const AHEAD: Duration = Duration::from_millis(400);
const HOUR: Duration = Duration::from_secs(3_600);

/// The position of entry `n` among `count`, in no order: 7919 is prime, and divides none of the counts used.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |n| n * 7919 % count)
}

type Arm = (&'static str, fn(u64) -> Cost);

fn main() {
    let test = std::env::args().any(|argument| argument == "--test") || !std::env::args().any(|a| a == "--bench");
    let (count, rounds) = if test { (1_000, 1) } else { (100_000, 7) };
    let arms: [Arm; 4] = [
        ("fulmar, submit_after", submit_after),
        ("fulmar, cancel", cancel),
        ("binary heap alone", heap_alone),
        ("heap, thread, boxed closures", heap_with_thread),
    ];
    let mut costs = vec![Vec::new(); arms.len()];
    for _ in 0..rounds {
        for (arm, costs) in arms.iter().zip(&mut costs) {
            costs.push((arm.1)(count));
        }
    }
    if test {
        println!("A test: sizes are a hundredth of the real ones, and figures mean nothing.");
    }
    println!("{count} entries, ns each, median of {rounds} rounds in which all take turns");
    println!("{:<30} {:>10} {:>10}", "", "insert", "take out");
    for (arm, costs) in arms.iter().zip(costs) {
        let median = |of: fn(&Cost) -> Duration| {
            let mut figures: Vec<Duration> = costs.iter().map(of).collect();
            figures.sort();
            figures[figures.len() / 2].as_nanos() as f64 / count as f64
        };
        println!("{:<30} {:>10.0} {:>10.0}", arm.0, median(|cost| cost.insert), median(|cost| cost.take));
    }
}

/// What the whole of the entries took.
#[derive(Clone, Copy)]
struct Cost {
    insert: Duration,
    /// From when the first is due, or from the first pop or cancel, until all are out.
    take: Duration,
}

fn submit_after(count: u64) -> Cost {
    let executor = Executor::builder().threads(1).build().expect("sound");
    let store = Arc::new(());
    let start = Instant::now();
    let requests: Vec<_> = shuffled(count)
        .map(|place| {
            // All of them at one moment, near enough: what counts is the way out, not the waiting.
            let delay = (start + AHEAD + Duration::from_nanos(place)).saturating_duration_since(Instant::now());
            executor.submit_after(delay, &store, |_: &(), n: u64| Ok::<_, Error>(n), false, place).expect("accepted")
        })
        .collect();
    let insert = start.elapsed();
    let sum: u64 = executor.wait_requests(&requests, None).expect("all end").iter().sum();
    let take = start.elapsed().saturating_sub(AHEAD.max(insert));
    assert_eq!(sum, count * (count - 1) / 2);
    Cost { insert, take }
}

fn cancel(count: u64) -> Cost {
    let executor = Executor::builder().threads(1).build().expect("sound");
    let store = Arc::new(());
    let start = Instant::now();
    let requests: Vec<_> = shuffled(count)
        .map(|place| {
            let delay = HOUR + Duration::from_nanos(place);
            executor.submit_after(delay, &store, |_: &(), n: u64| Ok::<_, Error>(n), false, place).expect("accepted")
        })
        .collect();
    let insert = start.elapsed();
    let start = Instant::now();
    assert!(requests.iter().all(fulmar::AsyncRequest::cancel));
    Cost { insert, take: start.elapsed() }
}

fn heap_alone(count: u64) -> Cost {
    let mut heap = BinaryHeap::new();
    let start = Instant::now();
    for place in shuffled(count) {
        heap.push(Reverse((start + Duration::from_nanos(place), place)));
    }
    let insert = start.elapsed();
    let start = Instant::now();
    let mut sum = 0;
    while let Some(Reverse((_, place))) = heap.pop() {
        sum += place;
    }
    assert_eq!(sum, count * (count - 1) / 2);
    Cost { insert, take: start.elapsed() }
}

type Entry = (Reverse<(Instant, u64)>, Work);

struct Work(Box<dyn FnOnce() + Send>);

// The heap orders by time; closures have no order.
impl PartialEq for Work {
    fn eq(&self, _: &Work) -> bool {
        true
    }
}
impl Eq for Work {}
impl PartialOrd for Work {
    fn partial_cmp(&self, other: &Work) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Work {
    fn cmp(&self, _: &Work) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

fn heap_with_thread(count: u64) -> Cost {
    let shared: Arc<(Mutex<BinaryHeap<Entry>>, Condvar)> = Arc::default();
    let timer = shared.clone();
    let thread = std::thread::spawn(move || {
        let mut left = count;
        let mut heap = timer.0.lock().expect("no panic");
        while left > 0 {
            let now = Instant::now();
            match heap.peek() {
                Some((Reverse((at, _)), _)) if *at <= now => {
                    let (_, work) = heap.pop().expect("peeked");
                    drop(heap);
                    (work.0)();
                    left -= 1;
                    heap = timer.0.lock().expect("no panic");
                }
                Some((Reverse((at, _)), _)) => {
                    let pause = at.saturating_duration_since(now);
                    heap = timer.1.wait_timeout(heap, pause).expect("no panic").0;
                }
                None => heap = timer.1.wait(heap).expect("no panic"),
            }
        }
    });
    let start = Instant::now();
    let results: Vec<mpsc::Receiver<u64>> = shuffled(count)
        .map(|place| {
            let (tell, told) = mpsc::channel();
            let at = start + AHEAD + Duration::from_nanos(place);
            let work = Work(Box::new(move || tell.send(place).expect("the receiver lives")));
            let mut heap = shared.0.lock().expect("no panic");
            heap.push((Reverse((at, place)), work));
            drop(heap);
            shared.1.notify_one();
            told
        })
        .collect();
    let insert = start.elapsed();
    let sum: u64 = results.iter().map(|told| told.recv().expect("it is sent")).sum();
    let take = start.elapsed().saturating_sub(AHEAD.max(insert));
    thread.join().expect("no panic");
    assert_eq!(sum, count * (count - 1) / 2);
    Cost { insert, take }
}
