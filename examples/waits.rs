//! Waits with and without time limits, for one, for any, for each as it comes:
//! `cargo run --example waits`.

use std::thread;
use std::time::Duration;

use fulmar::{Error, Executor, as_completed};

fn main() -> fulmar::Result<()> {
    let executor = Executor::builder().threads(4).build()?;
    let slow = |millis: u64| {
        executor.spawn(move || {
            thread::sleep(Duration::from_millis(millis));
            millis
        })
    };

    // A time limit bounds the wait, not the work: after it the handle is as good as before.
    let request = slow(100)?;
    match request.wait(Duration::from_millis(10)) {
        Err(error @ Error::Timeout { .. }) => println!("{error}"),
        other => println!("this machine is slow: {other:?}"),
    }
    println!("waited again: {} ms", request.wait(None)?); // `None` means no limit.

    // All or nothing, in the order of the requests.
    println!("all: {:?}", executor.wait_requests(&[slow(30)?, slow(10)?], Duration::from_secs(30))?);

    // The index of one that is done; its result is still in its handle.
    let several = [slow(500)?, slow(1)?];
    let first = executor.wait_any_request(&several, None)?;
    println!("any: number {first}, {} ms", several[first].wait(Duration::ZERO)?); // Zero only looks.

    for (index, result) in as_completed(&[slow(60)?, slow(20)?, slow(40)?], None) {
        println!("as completed: number {index}, {} ms", result?);
    }
    Ok(())
}
