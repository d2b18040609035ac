//! One loop over results, ticks, a queue and signals: `cargo run --example select_loop`.
//!
//! It reads the symbols that come in a queue, five at once. Ctrl-C, or the signal that it sends itself, has it finish those and end.

// Its sleeps stand for work.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fulmar::crossbeam_channel::{Receiver, bounded, never, select, tick};
use fulmar::{Executor, RequestSet, queue};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{iterator::Signals, low_level::raise};

fn signals() -> std::io::Result<Receiver<i32>> {
    let (sender, receiver) = bounded(8);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || signals.forever().try_for_each(|signal| sender.send(signal)));
    Ok(receiver)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let executor = Executor::builder().threads(5).build()?;
    let (producer, symbols) = queue::bounded::<String>(10)?;
    let source = thread::spawn(move || (0..).try_for_each(|n| producer.put(format!("SYM{n}"))));

    let (signals, ticks) = (signals()?, tick(Duration::from_millis(20)));
    let (set, readable, idle) = (RequestSet::new(), symbols.ready(), never());
    let (mut stopping, mut read, mut ticked) = (false, 0, 0);
    while !stopping || !set.is_empty() {
        let has_room = !stopping && set.len() < 5;
        select! {
            recv(set.receiver()) -> result => {
                let (symbol, price) = result?;
                println!("{symbol}: {}", price?);
                read += 1;
            }
            recv(if has_room { &readable } else { &idle }) -> _ => {
                let Ok(symbol) = symbols.try_get() else { continue };
                let length = |_: &(), symbol: String| {
                    thread::sleep(Duration::from_millis(10)); // Slow and blocking, in real life.
                    symbol.len()
                };
                set.add(symbol.clone(), executor.submit_read(&Arc::new(()), length, symbol)?);
            }
            recv(ticks) -> _ => {
                ticked += 1;
                println!("-- tick {ticked}: {read} read, {} under way", set.len());
                if ticked == 5 { raise(SIGTERM)? } // In real life others do.
            }
            recv(signals) -> signal => {
                println!("-- signal {}: finishing {} requests", signal?, set.len());
                stopping = true;
                symbols.close();
            }
        }
    }
    assert!(source.join().expect("no panic").is_err(), "it was told that the queue is closed");
    Ok(())
}
