//! Requests on one key run in order, those on different keys side by side: `cargo run --example order`.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fulmar::Executor;

/// What happened, in order.
type Log = Mutex<Vec<String>>;

fn note(log: &Log, text: String) -> Result<(), Infallible> {
    thread::sleep(Duration::from_millis(20)); // Slow, in real life.
    log.lock().expect("no request panics").push(text);
    Ok(())
}

fn main() -> fulmar::Result<()> {
    let executor = Executor::builder().threads(4).build()?;
    let log = Arc::new(Log::default());

    // The first element of a tuple is its key: here the account. A deposit modifies it, a balance reads it.
    let deposit = |log: &Log, (account, amount): (&'static str, u32)| note(log, format!("{account}: deposit {amount}"));
    let balance = |log: &Log, account: &'static str| note(log, format!("{account}: balance"));

    let requests = [
        executor.submit_write(&log, deposit, ("alice", 10))?,
        executor.submit_read(&log, balance, "alice")?, // After the deposit of 10.
        executor.submit_read(&log, balance, "alice")?, // Beside the first balance: readers share.
        executor.submit_write(&log, deposit, ("alice", 20))?, // After both.
        executor.submit_write(&log, deposit, ("bob", 30))?, // Waits for none of them.
    ];
    executor.wait_requests(&requests, None)?;

    let log = log.lock().expect("no request panics");
    println!("{}", log.join("\n"));

    let alice: Vec<_> = log.iter().filter(|line| line.starts_with("alice")).collect();
    assert_eq!(alice, ["alice: deposit 10", "alice: balance", "alice: balance", "alice: deposit 20"]);
    Ok(())
}
