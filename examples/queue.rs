//! A bounded queue slows down who makes more than can be handled: `cargo run --example queue`.

use std::thread;
use std::time::Duration;

use fulmar::queue::bounded;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (producer, consumer) = bounded(3)?; // Clone either half as often as you like.

    let worker = thread::spawn(move || {
        let mut sum = 0;
        for value in consumer {
            thread::sleep(Duration::from_millis(10)); // Handling takes longer than making.
            sum += value;
        }
        sum // The queue was closed, and everything in it handled.
    });

    for value in 1..=5 {
        producer.put(value)?; // Waits while the queue is full.
        println!("put {value}; {} are waiting", producer.len());
    }
    // With a limit, or not at all. What didn't go in comes back in the error.
    if let Err(error) = producer.put_timeout(100, Duration::from_millis(1)) {
        println!("{error}");
    }
    producer.close(); // Nothing more goes in.
    println!("the sum: {}", worker.join().expect("it doesn't panic"));
    Ok(())
}
