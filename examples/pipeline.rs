//! Three stages, each on threads of its own, over more input than fits into memory:
//! `cargo run --example pipeline`.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use fulmar::pipeline::Pipeline;

struct Reading {
    station: String,
    celsius: f64,
}

fn parse(line: &str) -> Result<Reading, String> {
    let (station, celsius) = line.split_once(',').ok_or("there is no comma")?;
    let celsius = celsius.trim().parse().map_err(|error| format!("`{celsius}` isn't a temperature: {error}"))?;
    Ok(Reading { station: station.to_owned(), celsius })
}

/// As a request to a server would: slow, and so worth more threads than there are cores.
fn add_height(reading: Reading) -> (Reading, u32) {
    thread::sleep(Duration::from_millis(2));
    let height = if reading.station == "Summit" { 2_962 } else { 11 };
    (reading, height)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Lines as a file would give them. The source runs only as far ahead as the queues between the
    // stages hold.
    let lines = (0..500).map(|n| match n {
        123 => "Harbour, cold".to_owned(),
        _ if n % 2 == 0 => format!("Harbour, {}", n % 30),
        _ => format!("Summit, {}", n % 20 - 15),
    });

    let pipeline = Pipeline::builder(lines)
        .stage("parse", 1, |line| parse(line)) // May fail: it borrows the line, which the failure then has.
        .map("height", 8, add_height)
        .start()?;

    let mut stations: HashMap<String, (f64, u32)> = HashMap::new();
    for outcome in pipeline {
        match outcome {
            Ok((reading, height)) => {
                let warmest = stations.entry(reading.station).or_insert((f64::MIN, height));
                warmest.0 = warmest.0.max(reading.celsius);
            }
            // `collect::<Result<Vec<_>, _>>()` would stop here instead.
            Err(failure) => println!("left out: {:?}: {}", failure.take_value::<String>(), failure.error()),
        }
    }
    for (station, (warmest, height)) in stations {
        println!("{station}, at {height} m: {warmest} degrees at most");
    }
    Ok(())
}
