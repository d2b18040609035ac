//! A tour of fulmar on a store of share prices: `cargo run --release --example market_data [-- --data FILE.csv]`.
//!
//! `store.rs` is ordinary blocking code in which each call takes 40 ms. Here each function does one thing that programs do
//! with such a store: many reads at once, other work meanwhile, writes, names, time limits, errors, order, shutdown.

mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fulmar::{
    BoxError, Error, Executor, as_completed, async_await_termination, async_reset_pool, async_shutdown, async_submit,
    async_total_requests, async_wait_request, async_wait_requests,
};
use serde_json::json;

use store::{LATENCY, Price, PriceStore, StoreError, parse};

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let csv = match arguments.as_slice() {
        [] => include_str!("../data/stocks.csv").to_owned(),
        [option, file] if option == "--data" => std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?,
        _ => return Err("usage: market_data [--data FILE.csv], with lines `symbol,date,price`".into()),
    };
    let history = parse(&csv)?;
    let symbols: Vec<String> = history.keys().take(5).cloned().collect();
    let prices = Arc::new(PriceStore::default());

    // A pool of 8 threads for the whole process. They start with the first request.
    async_reset_pool(8, PATIENCE)?;
    let written = Executor::global().submit_many(&prices, PriceStore::write, true, history)?;
    async_wait_requests(&written, PATIENCE)?;

    many_reads_at_once(&prices, &symbols)?;
    one_request_and_other_work(&prices, &symbols[0])?;
    a_read_sees_the_write_before_it(&prices)?;
    operations_by_name(&prices, &symbols)?;
    errors_keep_their_type(&prices, &symbols[0])?;
    a_time_limit_loses_nothing(&prices)?;
    a_hundred_requests(&prices, &symbols)?;
    callbacks_and_cancelling(&prices)?;
    shutdown_finishes_what_was_accepted(&prices, &symbols[0])
}

fn many_reads_at_once(prices: &Arc<PriceStore>, symbols: &[String]) -> Result<(), BoxError> {
    println!("Many reads at once");
    let start = Instant::now();
    let mut reads = Vec::new();
    for symbol in symbols {
        reads.push(async_submit(prices, PriceStore::read, false, symbol.clone())?); // Returns at once.
    }
    let results = async_wait_requests(&reads, PATIENCE)?; // In the order of the requests.
    let apart = LATENCY * reads.len() as u32;
    println!("  {} reads in {:.0?}; one after the other they take {apart:.0?}", reads.len(), start.elapsed());
    for (symbol, series) in symbols.iter().zip(&results) {
        if let [first, .., last] = &series.prices[..] {
            println!("  {symbol:5} {:>12} {:>8.2} -> {:>12} {:>8.2}", first.date, first.price, last.date, last.price);
        }
    }
    Ok(())
}

fn one_request_and_other_work(prices: &Arc<PriceStore>, symbol: &str) -> Result<(), BoxError> {
    println!("One request, and other work meanwhile");
    let request = async_submit(prices, PriceStore::read, false, symbol.to_owned())?;
    let mut steps = 0_u64;
    while !request.is_done() {
        steps += 1;
    }
    let series = async_wait_request(&request, PATIENCE)?;
    let waited = request.execution_duration().unwrap_or_default();
    println!("  {} prices after {waited:.0?}; we looked {steps} times", series.prices.len());
    Ok(())
}

fn a_read_sees_the_write_before_it(prices: &Arc<PriceStore>) -> Result<(), BoxError> {
    println!("Order: requests on one symbol run as if one after the other");
    let mut pairs = Vec::new();
    for version in 1..=10 {
        let day = Price { date: format!("day {version}"), price: 100.0 };
        // `true`: a write modifies what it touches, so nothing else on "NEW" runs beside it.
        let write = async_submit(prices, PriceStore::write, true, ("NEW".to_owned(), vec![day]))?;
        let read = async_submit(prices, PriceStore::read, false, "NEW".to_owned())?;
        pairs.push((write, read));
    }
    for (write, read) in &pairs {
        let (written, seen) = (async_wait_request(write, PATIENCE)?, async_wait_request(read, PATIENCE)?.version);
        assert_eq!(seen, written);
    }
    println!("  {} times a write and a read: each read saw the version before it", pairs.len());
    Ok(())
}

fn operations_by_name(prices: &Arc<PriceStore>, symbols: &[String]) -> Result<(), BoxError> {
    println!("Operations by name take and give JSON, so different ones fit into one list");
    let mut requests = vec![async_submit(prices, "list_symbols", false, json!({}))?];
    for symbol in symbols {
        requests.push(async_submit(prices, "read_metadata", false, json!({"symbol": symbol}))?);
    }
    for answer in async_wait_requests(&requests, PATIENCE)? {
        println!("  {answer}");
    }
    Ok(())
}

fn errors_keep_their_type(prices: &Arc<PriceStore>, known: &str) -> Result<(), BoxError> {
    println!("Errors");
    for symbol in [known, "INVALID_SYMBOL"] {
        let request = async_submit(prices, PriceStore::read, false, symbol.to_owned())?;
        match async_wait_request(&request, PATIENCE) {
            Ok(series) => println!("  {symbol}: {} prices", series.prices.len()),
            Err(error) => match error.operation::<StoreError>() {
                Some(StoreError::UnknownSymbol(name)) => println!("  {symbol}: the store knows no `{name}`"),
                _ => return Err(error.into()),
            },
        }
    }
    Ok(())
}

fn a_time_limit_loses_nothing(prices: &Arc<PriceStore>) -> Result<(), BoxError> {
    println!("Time limits");
    let request = async_submit(prices, PriceStore::list_symbols, false, ())?;
    if let Err(Error::Timeout { .. }) = async_wait_request(&request, Duration::from_millis(5)) {
        println!("  not done after 5 ms, it is {:?}; waiting again ...", request.status());
    }
    println!("  {} symbols", async_wait_request(&request, PATIENCE)?.len());
    Ok(())
}

fn a_hundred_requests(prices: &Arc<PriceStore>, symbols: &[String]) -> Result<(), BoxError> {
    println!("As they complete");
    let start = Instant::now();
    let hundred = symbols.iter().cycle().take(100).cloned();
    let requests = Executor::global().submit_many(prices, PriceStore::read, false, hundred)?;
    let mut rows = 0;
    for (_index, result) in as_completed(&requests, PATIENCE) {
        rows += result?.prices.len();
    }
    println!(
        "  100 reads of {rows} rows in {:.0?}, on {} threads",
        start.elapsed(),
        Executor::global().stats().threads
    );
    Ok(())
}

fn callbacks_and_cancelling(prices: &Arc<PriceStore>) -> Result<(), BoxError> {
    println!("Callbacks and cancelling");
    let write = async_submit(prices, PriceStore::write, true, ("NEW".to_owned(), Vec::new()))?;
    write.on_complete(|status| println!("  the write: {status:?}"));
    let read = async_submit(prices, PriceStore::read, false, "NEW".to_owned())?; // Behind the write.
    println!("  the read is cancelled before it starts: {}", read.cancel());
    async_wait_request(&write, PATIENCE)?;
    Ok(())
}

fn shutdown_finishes_what_was_accepted(prices: &Arc<PriceStore>, symbol: &str) -> Result<(), BoxError> {
    println!("Shutdown");
    let last = async_submit(prices, PriceStore::read, false, symbol.to_owned())?;
    async_shutdown(PATIENCE)?;
    async_await_termination(PATIENCE)?;
    assert!(last.is_done());
    if let Err(error) = async_submit(prices, PriceStore::read, false, symbol.to_owned()) {
        println!("  one more: {error}");
    }
    let stats = Executor::global().stats();
    println!("  {} completed, {} failed, {} cancelled", stats.completed, stats.failed, stats.cancelled);
    assert_eq!(stats.completed + stats.failed + stats.cancelled, async_total_requests());
    Ok(())
}
