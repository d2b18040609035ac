//! Three submitters on their cadences, two processors, a queue of ten:
//! `cargo run --release --example job_queue`.
//!
//! For a while the processors are slow. The queue fills, and the submitter with the short time
//! limit has to drop values, while the patient ones wait. At the end the account has to add up:
//! offered = put + dropped, and put = taken + left.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fulmar::pipeline::{PeriodicSubmitter, Processor};
use fulmar::queue::bounded;
use fulmar::{BoxError, Executor};

const QUEUE: usize = 10;
/// What handling a value takes, but for the slow phase.
const QUICK: Duration = Duration::from_millis(2);
const SLOW: Duration = Duration::from_millis(150);

/// `println!`, except that a closed output isn't a panic, so that `| head` is fine.
macro_rules! say {
    ($($text:tt)*) => {{ let _ = writeln!(io::stdout(), $($text)*); }};
}

fn main() -> Result<ExitCode, BoxError> {
    let start = Instant::now();
    let now = move || format!("{:5.2} s", start.elapsed().as_secs_f64());
    let pace = Arc::new(AtomicU64::new(QUICK.as_millis() as u64));
    let set_pace = |to: Duration| pace.store(to.as_millis() as u64, Ordering::Relaxed);

    let executor = Executor::builder().threads(4).thread_name("handler").build()?;
    let (producer, consumer) = bounded(QUEUE)?;

    // What a handler does: it prints, and takes its time.
    let processors = [1, 2].map(|_| {
        let pace = pace.clone();
        let at_hand = consumer.clone();
        Processor::builder(consumer.clone()).executor(&executor).max_concurrent(1).handle(move |value: u32| {
            thread::sleep(Duration::from_millis(pace.load(Ordering::Relaxed)));
            say!("{}  {:>12}  took {value:<3}  {}", now(), thread_name(), bar(at_hand.len()));
        })
    });

    // The cadence, the value, and how long it may wait for room.
    let submitters = [
        (Duration::from_millis(60), 100, None),
        (Duration::from_millis(90), 200, Some(Duration::from_secs(10))),
        (Duration::from_millis(40), 300, Some(Duration::from_millis(30))),
    ]
    .map(|(cadence, value, limit)| {
        let queue = producer.clone();
        let builder = PeriodicSubmitter::builder(producer.clone()).every(cadence).time_limit(limit);
        let dropped = move |value, why| {
            say!("{}  {:>12}  DROPPED {value}: {why:?}  {}", now(), thread_name(), bar(queue.len()));
        };
        builder.on_drop(dropped).submit_with(move || {
            say!("{}  {:>12}  offers {value}", now(), thread_name());
            value
        })
    });
    let processors = processors.into_iter().collect::<Result<Vec<_>, _>>()?;
    let submitters = submitters.into_iter().collect::<Result<Vec<_>, _>>()?;

    say!("{}  -- all quick --", now());
    thread::sleep(Duration::from_millis(600));
    set_pace(SLOW);
    say!("{}  -- the processors are slow --", now());
    thread::sleep(Duration::from_millis(1_200));
    set_pace(QUICK);
    say!("{}  -- all quick again --", now());
    thread::sleep(Duration::from_millis(400));

    // In the wrong order on purpose: the submitters fill the queue once more, and no thread takes
    // that out.
    say!("{}  -- the processors stop, then the submitters --", now());
    processors.iter().for_each(Processor::stop);
    let taken = processors.iter().map(|processor| processor.wait(None)).collect::<Result<Vec<_>, _>>()?;
    thread::sleep(Duration::from_millis(200));
    submitters.iter().for_each(PeriodicSubmitter::stop);
    let put = submitters.iter().map(|submitter| submitter.wait(None)).collect::<Result<Vec<_>, _>>()?;
    let left = consumer.drain();

    say!("\nthe account, after {}", now().trim_start());
    for (submitter, stats) in submitters.iter().zip(&put) {
        say!("  submitter-{}: {stats}", submitter.id());
    }
    for (processor, stats) in processors.iter().zip(&taken) {
        say!("  processor-{}: {stats}", processor.id());
    }
    say!("  left in the queue: {left:?}");

    let offered: u64 = put.iter().map(|stats| stats.offered()).sum();
    let dropped: u64 = put.iter().map(|stats| stats.dropped).sum();
    let put: u64 = put.iter().map(|stats| stats.submitted).sum();
    let taken: u64 = taken.iter().map(|stats| stats.taken).sum();
    let left = left.len() as u64;
    let adds_up = [
        check(&format!("offered = put + dropped    {offered} = {put} + {dropped}"), offered == put + dropped),
        check(&format!("put = taken + left         {put} = {taken} + {left}"), put == taken + left),
        check(&format!("someone had to drop        {dropped} > 0"), dropped > 0),
    ];
    Ok(if adds_up == [true; 3] { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(what: &str, is_so: bool) -> bool {
    say!("  {} {what}", if is_so { "ok    " } else { "WRONG " });
    is_so
}

fn thread_name() -> String {
    thread::current().name().unwrap_or("a thread").to_owned()
}

/// How full the queue is.
fn bar(len: usize) -> String {
    format!("[{}{}]", "#".repeat(len), ".".repeat(QUEUE.saturating_sub(len)))
}
