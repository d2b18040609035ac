//! Requests that end together: `cargo run --example group`.

use std::sync::Arc;
use std::time::Duration;

use fulmar::{Error, Executor, Policy, remaining};

struct Prices;

impl Prices {
    /// Slow and blocking, in real life. Its sleep ends when the request is cancelled.
    fn read(&self, symbol: &str, millis: u64) -> Result<f64, Error> {
        if symbol.is_empty() {
            return Err(Error::Invalid("there is no symbol".into()));
        }
        fulmar::sleep(Duration::from_millis(millis))?;
        Ok(symbol.len() as f64)
    }
}

const HOUR: u64 = 3_600_000;

fn main() -> Result<(), Error> {
    let executor = Executor::builder().threads(4).build()?;
    let prices = Arc::new(Prices);

    // All are to succeed: the failure ends the request that would take an hour.
    let all = executor.group(Policy::All);
    let slow = all.submit_read(&prices, Prices::read, ("AAPL", HOUR))?;
    drop(all.submit_read(&prices, Prices::read, ("", 5))?);
    println!("all: {}", all.wait(None).expect_err("one fails"));
    assert!(slow.is_done());

    // One is to succeed: the first answer ends the other one.
    let any = executor.group(Policy::Any);
    let mirrors = any.submit_many(&prices, Prices::read, false, [("IBM", HOUR), ("IBM", 5)])?;
    any.wait(None)?;
    println!("any: {:?}", mirrors.iter().find_map(|mirror| mirror.try_take()?.ok()));

    // As many as come in time. The limit holds for what the operations submit as well.
    let each = executor.within(Duration::from_millis(50)).group(Policy::Each);
    let in_time = each.submit_many(&prices, Prices::read, false, [("AMZN", 5), ("AAPL", HOUR), ("IBM", 5)])?;
    let (inner, store) = (executor.clone(), prices.clone());
    let parts = each.spawn(move || {
        println!("     {:?} are left", remaining());
        inner.submit_read(&store, Prices::read, ("MSFT", HOUR))?.wait(None)
    })?;
    let stats = each.wait(None)?;
    println!("each: {stats:?}, {:?}", in_time.iter().filter_map(|price| price.try_take()?.ok()).collect::<Vec<_>>());
    assert!(parts.wait(None).is_err());
    executor.shutdown(None)
}
