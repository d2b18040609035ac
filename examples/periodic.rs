//! Later, and again and again: `cargo run --example periodic`.

use std::convert::Infallible;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use fulmar::Executor;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let executor = Executor::builder().threads(2).build()?;
    let store = Arc::new(());
    let start = Instant::now();

    // Once, after a delay. Until then it holds no thread.
    let greet = |_: &(), name: &'static str| Ok::<_, Infallible>(format!("hello {name}"));
    let later = executor.submit_after(Duration::from_millis(50), &store, greet, false, "you")?;

    // On a fixed schedule: runs of one series never overlap, and don't drift.
    let (tick, ticks) = mpsc::channel();
    let series =
        executor.submit_every(Duration::from_millis(20), &store, move |_: &(), n: u32| tick.send(n), false, 7)?;
    for _ in 0..5 {
        let n = ticks.recv()?;
        println!("{:3} ms: tick {n}", start.elapsed().as_millis());
    }
    series.cancel();
    println!("{:3} ms: the series ends; it missed {} runs", start.elapsed().as_millis(), series.missed());

    println!("{}", later.wait(None)?);
    Ok(())
}
