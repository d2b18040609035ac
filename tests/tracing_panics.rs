//! Feature `tracing`, in a process of its own because it sets the global subscriber: one that panics harms nobody.
#![cfg(all(feature = "tracing", not(loom)))]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use fulmar::{Error, Executor};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const HANG: Duration = Duration::from_secs(20);

/// Panics once in the call that is armed.
struct Bad;

static ARMED: AtomicUsize = AtomicUsize::new(0);
static SPANS: AtomicU64 = AtomicU64::new(1);

const CALLS: [&str; 12] = [
    "none",
    "new_span(request)",
    "new_span(deferred)",
    "new_span(queued)",
    "new_span(running)",
    "record",
    "enter",
    "exit",
    "try_close",
    "event",
    "enabled",
    "clone_span",
];

fn call(number: usize) {
    if ARMED.compare_exchange(number, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        panic!("a panic of a test, on purpose: {}", CALLS[number]);
    }
}

impl Subscriber for Bad {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        call(10);
        true
    }

    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        tracing::subscriber::Interest::sometimes()
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let name = format!("new_span({})", span.metadata().name());
        if let Some(number) = CALLS.iter().position(|call| **call == name) {
            call(number);
        }
        Id::from_u64(SPANS.fetch_add(1, Ordering::SeqCst))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {
        call(5);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        call(9);
    }

    fn enter(&self, _: &Id) {
        call(6);
    }

    fn exit(&self, _: &Id) {
        call(7);
    }

    fn clone_span(&self, id: &Id) -> Id {
        call(11);
        id.clone()
    }

    fn try_close(&self, _: Id) -> bool {
        call(8);
        true
    }
}

#[test]
fn a_subscriber_that_panics_harms_nobody() {
    tracing::subscriber::set_global_default(Bad).expect("the only test of this binary");
    let mut broken = Vec::new();
    for (number, call) in CALLS.iter().enumerate().skip(1) {
        for keyed in [false, true] {
            if let Err(error) = one_panic(number, keyed) {
                broken.push(format!("{call}, {}: {error}", if keyed { "on a key" } else { "without a key" }));
            }
        }
    }
    assert!(broken.is_empty(), "\n  {}", broken.join("\n  "));
}

fn one_panic(number: usize, keyed: bool) -> Result<(), String> {
    let executor = Executor::builder().threads(1).build().map_err(|error| error.to_string())?;
    let store = Arc::new(());
    let value = |_: &(), _key: &'static str| Ok::<_, Error>(7);
    let submit = || executor.submit(&store, value, true, "a key").and_then(|request| request.wait(HANG));
    let told = |what: &str, error: Error| format!("{what}: {error}, {}", executor.stats());
    submit().map_err(|error| told("before", error))?;

    ARMED.store(number, Ordering::SeqCst);
    let submission = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        if !keyed {
            return executor.spawn(|| 7);
        }
        // The first one holds the key until the second is deferred.
        let (open, gate) = channel::<()>();
        let hold = move |_: &(), _key: &'static str| {
            let _ = gate.recv();
            Ok::<_, Error>(())
        };
        let first = executor.submit(&store, hold, true, "a key")?;
        let second = executor.submit(&store, value, true, "a key");
        drop(open);
        drop(first);
        second
    }));
    let request = submission.map_err(|_| "the submission panicked".to_owned())?;
    let result = request.map_err(|error| told("refused", error))?.wait(HANG);
    ARMED.store(0, Ordering::SeqCst);
    match result {
        Ok(7) => {}
        Ok(other) => return Err(format!("{other} where 7 was due")),
        Err(error) => return Err(told("the request itself", error)),
    }
    // Everything after it: the same key, no key, the end.
    submit().map_err(|error| told("the same key", error))?;
    executor.spawn(|| ()).and_then(|request| request.wait(HANG)).map_err(|error| told("without a key", error))?;
    executor.shutdown(HANG).map_err(|error| told("the shutdown", error))
}
