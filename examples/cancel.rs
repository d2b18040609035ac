//! Cancel what hasn't started, and ask what runs to stop: `cargo run --example cancel`.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fulmar::{Error, Executor, Status, is_cancelled};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let executor = Executor::builder().threads(1).build()?;

    let (started, has_started) = mpsc::channel();
    let running = executor.spawn(move || {
        let _ = started.send(());
        let mut rounds = 0;
        while !is_cancelled() {
            thread::sleep(Duration::from_millis(1)); // A piece of the work.
            rounds += 1;
        }
        rounds // It decides for itself what it returns.
    })?;
    let queued = executor.spawn(|| unreachable!("it is cancelled before it starts"))?;
    queued.on_complete(|status| println!("the queued one: {status:?}"));
    has_started.recv()?;

    // Queued: taken out for good.
    assert!(queued.cancel());
    assert!(matches!(queued.wait(None), Err(Error::Cancelled)));

    // Running: told, and it sees that as soon as it looks. What it returns is its result.
    running.cancel();
    println!("the running one stopped after {} rounds", running.wait(None)?);
    assert_eq!(running.status(), Status::Completed);
    Ok(())
}
