//! The other processes of the fault tests: this very binary, asked for the one test that is none.
//!
//! They say what they do in lines that begin with `@`, and do what they are told in lines on their
//! input.

use std::io::{BufRead, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use fulmar::BoxError;
use fulmar::tasks::{TaskContext, TaskError, TaskQueue, Worker};

use crate::support::{number, open_at, task};

/// Says something to the test.
macro_rules! say {
    ($($text:tt)*) => {{
        // In one call, so that lines of several threads don't mix. A test that is gone needs no
        // answer.
        let _ = std::io::stdout().write_all(format!("@ {}\n", format_args!($($text)*)).as_bytes());
        let _ = std::io::stdout().flush();
    }};
}

#[test]
#[ignore = "it is a process of other tests, which start it"]
fn child() {
    let Ok(part) = std::env::var("FULMAR_CHILD") else {
        return;
    };
    let address = std::env::var("FULMAR_CHILD_QUEUE").expect("an address");
    match part.as_str() {
        "work" => work(&open(&address)),
        #[cfg(debug_assertions)]
        "function" => crate::killed::run_until_killed(&open(&address)),
        "produce" => produce(&open(&address)),
        "open" => {
            say!("here");
            next_line();
            let _queue = open(&address);
            say!("opened");
        }
        #[cfg(unix)]
        "hold" => crate::sqlite_faults::hold(&address),
        other => panic!("no part `{other}`"),
    }
    // The harness's own account of this test is nobody's business.
    std::process::exit(0);
}

fn open(address: &str) -> TaskQueue {
    let mut builder = TaskQueue::builder().poll_interval(Duration::from_millis(10));
    if let Ok(offset) = std::env::var("FULMAR_CHILD_CLOCK") {
        builder = builder.clock_offset(offset.parse().expect("milliseconds"));
    }
    open_at(address, builder).expect("the queue opens")
}

fn next_line() -> String {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("a line");
    line.trim().to_owned()
}

/// Acknowledges each task that was accepted, until it is killed.
fn produce(queue: &TaskQueue) {
    for n in 0.. {
        match queue.enqueue(task(format!("p{n}"))) {
            // A server may still do what a producer asked for that was killed before: the round
            // before this one's last.
            Ok(_) | Err(TaskError::Duplicate { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        say!("accepted p{n}");
    }
}

/// Handlers wait here for the word to go on.
#[derive(Default)]
struct Word {
    given: Mutex<bool>,
    changed: Condvar,
}

impl Word {
    fn give(&self) {
        *self.given.lock().expect("nobody panics under it") = true;
        self.changed.notify_all();
    }

    fn wait(&self, limit: Duration) {
        let given = self.given.lock().expect("nobody panics under it");
        drop(self.changed.wait_timeout_while(given, limit, |given| !*given));
    }
}

/// A worker whose tasks do what they are named after, until it gets SIGTERM, or its input ends.
fn work(queue: &TaskQueue) {
    let word = Arc::new(Word::default());
    let heard = word.clone();
    let worker = Worker::builder(queue)
        .max_concurrent(number("FULMAR_CHILD_THREADS", 2))
        .batch(number("FULMAR_CHILD_BATCH", 2))
        .start_together(number("FULMAR_CHILD_TOGETHER", 1))
        .lease(Duration::from_millis(number("FULMAR_CHILD_LEASE", 500) as u64))
        .maintenance_interval(Duration::from_millis(50))
        .handle("t", move |task: &TaskContext| -> Result<(), BoxError> {
            let name = task.identifier();
            say!("start {name} {}", task.attempt());
            if name.starts_with("poison") {
                std::process::abort();
            }
            if name.starts_with("wait") {
                heard.wait(crate::support::HANG);
            } else {
                // Long enough that faults find it at work.
                heard.wait(Duration::from_millis(task.id() as u64 * 7 % 20));
            }
            task.store_response(name, "text/plain")?;
            Ok(())
        })
        .start()
        .expect("started");
    say!("worker {}", worker.id());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                match next_line().as_str() {
                    "go" => word.give(),
                    "stats" => say!("stats {}", worker.stats()),
                    _ => std::process::exit(0),
                }
            }
        });
        #[cfg(unix)]
        drain_when_told(&worker);
    });
}

#[cfg(unix)]
fn drain_when_told(worker: &Worker) {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM]).expect("a handler");
    let mut signals = signals.forever();
    signals.next();
    say!("draining");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            worker.drain(None).expect("it ends some time");
            say!("drained {}", worker.stats());
            std::process::exit(0);
        });
        signals.next();
        std::process::exit(1);
    });
}
