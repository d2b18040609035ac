//! The crate's own sleep, which a cancel ends.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use fulmar::Error;

use crate::support::{HANG, executor};

#[test]
fn a_sleep_ends_with_the_cancel_and_not_before_its_time_without() {
    let executor = executor(1);
    let (asleep, sleeps) = mpsc::channel();
    let request = executor.spawn(move || {
        asleep.send(()).expect("the test listens");
        let first = fulmar::sleep(Duration::from_secs(3_600));
        // The second comes after the cancel.
        (first, fulmar::sleep(Duration::MAX))
    });
    let request = request.expect("accepted");
    sleeps.recv_timeout(HANG).expect("it runs");
    assert!(!request.cancel(), "it runs");
    let ends = request.wait(HANG).expect("it wakes up");
    assert!(matches!(ends, (Err(Error::Interrupted), Err(Error::Interrupted))), "{ends:?}");

    let slept = || {
        let (start, limit) = (Instant::now(), Duration::from_millis(5));
        std::thread::current().unpark();
        fulmar::sleep(limit).expect("no cancel");
        start.elapsed() >= limit
    };
    assert!(slept(), "outside of an operation");
    assert!(executor.spawn(slept).expect("accepted").wait(HANG).expect("it ends"), "and inside");
}
