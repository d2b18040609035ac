//! A tour of fulmar on a small store of share prices: `cargo run --release --example market_data`.
//!
//! `store.rs` is an ordinary blocking store in a SQLite file, which knows nothing of threads. Every operation on it is
//! as slow as if the database were far away. Here each chapter does one thing that a program does with such a store:
//! many reads at once, other work meanwhile, writes, time limits, errors, throughput, order, shutdown.
//!
//! What a chapter says it also checks, so the tour fails if fulmar breaks a promise.

mod csv;
mod store;

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use fulmar::{
    Args, AsyncRequest, BoxError, Error, Executor, Operation, Status, as_completed, async_await_termination,
    async_reset_pool, async_shutdown, async_submit, async_total_requests, async_wait_request, async_wait_requests,
};
use serde_json::{Value, json};

use store::{Point, PriceStore, Series, StoreError, Time, Versioned};

/// What a request to a database in another country costs, roughly.
const LATENCY: Duration = Duration::from_millis(40);

/// The pool's size from chapter 5 on.
const THREADS: usize = 8;

const HELP: &str = "\
A tour of fulmar on a small store of share prices.

Usage: cargo run --release --example market_data [-- OPTIONS]

  --data FILE.csv  show your own prices: lines `symbol,date,price`, with dates
                   like 2000-01-31 or Jan 31 2000; one symbol is enough
  --threads N      the size of the thread pool, 1 to 256
                   (without it: fulmar's choice, and 8 from chapter 5 on)
  --help           this text

The store is a SQLite file in a temporary folder, which is removed at the end.
Every operation on it first sleeps for 40 ms, to stand for a database far away:
so the times shown are those of a remote store, on any machine.
";

type Outcome<T = ()> = Result<T, BoxError>;

/// `println!`, except that a closed output is an error and not a panic, so that `| head` is fine.
macro_rules! say {
    ($($text:tt)*) => { writeln!(io::stdout(), $($text)*)? };
}

fn main() -> ExitCode {
    let options = match Options::parse(env::args_os().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("error: {problem}; --help tells what there is");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_output(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome {
    if options.help {
        say!("{}", HELP.trim_end());
        return Ok(());
    }
    let (source, history) = match &options.data {
        Some(path) => (path.display().to_string(), csv::read_file(path)?),
        None => {
            let built_in = include_bytes!("../data/stocks.csv");
            ("stocks.csv".to_owned(), csv::parse("stocks.csv", built_in)?)
        }
    };
    let folder = TempFolder::create()?;
    let prices = Arc::new(PriceStore::open(folder.path().join("prices.sqlite"))?);
    let outcome = tour(&prices, &source, history, options.threads);

    // A chapter that failed may have left requests behind. They end before the folder goes.
    let ended = async_shutdown(Duration::from_secs(30));
    drop(prices);
    let removed = folder.remove();
    outcome?;
    ended?;
    removed?;
    Ok(())
}

fn tour(prices: &Arc<PriceStore>, source: &str, history: Vec<(String, Series)>, threads: Option<usize>) -> Outcome {
    let started = Instant::now();
    if threads.is_some() {
        async_reset_pool(threads, Duration::from_secs(10))?;
    }
    let mut tour = Tour::new(prices, history, threads);
    tour.introduction(source)?;

    tour.many_reads_at_once()?;
    tour.one_request_and_other_work()?;
    tour.batch_of_writes()?;
    tour.mixed_operations()?;
    tour.thread_pool()?;
    tour.errors_and_time_limits()?;
    tour.throughput()?;
    tour.order()?;
    tour.callbacks_and_cancelling()?;
    tour.shutdown()?;

    let requests = async_total_requests();
    say!("");
    say!("{} requests in {}, and every one kept its promise.", grouped(requests), human(started.elapsed()));
    Ok(())
}

struct Tour {
    prices: Arc<PriceStore>,
    /// What was read from the file, in the file's order.
    history: Vec<(String, Series)>,
    /// The symbols to show: the file's first few.
    symbols: Vec<String>,
    threads: Option<usize>,
    dice: Dice,
    /// How many requests ended badly on purpose. The last chapter compares them with fulmar's own counts.
    failed: u64,
    cancelled: u64,
}

impl Tour {
    fn new(prices: &Arc<PriceStore>, history: Vec<(String, Series)>, threads: Option<usize>) -> Tour {
        let symbols = history.iter().map(|(symbol, _)| symbol.clone());
        Tour {
            prices: Arc::clone(prices),
            symbols: symbols.take(5).collect(),
            history,
            threads,
            dice: Dice(0x9e37_79b9_7f4a_7c15),
            failed: 0,
            cancelled: 0,
        }
    }

    fn introduction(&self, source: &str) -> Outcome {
        let rows: usize = self.history.iter().map(|(_, series)| series.points().len()).sum();
        say!("fulmar: blocking operations, run concurrently");
        say!("");
        say!("{} from {source}, now in a SQLite file.", plural(rows, "price"));
        // Still without latency: the data is on its way in.
        let requests =
            Executor::global().submit_many(&self.prices, PriceStore::write, true, self.history.iter().cloned())?;
        async_wait_requests(&requests, None)?; // however large the file is

        self.prices.set_latency(LATENCY);
        say!("Each operation on it sleeps for {} first, as if the database were far away.", human(LATENCY));
        Ok(())
    }

    fn many_reads_at_once(&self) -> Outcome {
        chapter(1, "Many reads at once")?;
        let symbols = self.five_symbols();
        if self.symbols.len() < symbols.len() {
            say!(
                "  fewer than five symbols, so some are read more than once: reads of one symbol go side by side, too"
            );
        }

        let started = Instant::now();
        let mut requests = Vec::new();
        for symbol in &symbols {
            requests.push(async_submit(&self.prices, PriceStore::read, false, symbol.clone())?);
        }
        say!("  submitted {} reads in {}", requests.len(), human(started.elapsed()));

        let results = async_wait_requests(&requests, Duration::from_secs(60))?;
        let together = started.elapsed();
        // Threads start when there is work for them, so only now is there something to count.
        let threads = Executor::global().stats().threads;
        say!("  completed them in {}, on {}", human(together), plural(threads, "thread"));

        let started = Instant::now();
        for symbol in &symbols {
            self.prices.read(symbol)?;
        }
        let apart = started.elapsed();
        say!(
            "  one after another they take {}, {:.1} times as long",
            human(apart),
            apart.as_secs_f64() / together.as_secs_f64()
        );

        say!("");
        let width = self.symbol_width();
        let ends = results
            .iter()
            .flat_map(|result| result.series.points().first().into_iter().chain(result.series.points().last()));
        let dates = ends.map(|point| point.time.to_string().len()).max().unwrap_or(0);
        let heading = format!("{:width$}  {:>6}  {:dates$}  {:>10}", "symbol", "prices", "from", "price");
        say!("  {heading}  {:dates$}  {:>10}  {:>8}", "to", "price", "change");
        for (symbol, result) in symbols.iter().zip(&results) {
            let points = result.series.points();
            if let (Some(first), Some(last)) = (points.first(), points.last()) {
                let count = grouped(points.len() as u64);
                let from = format!("{symbol:width$}  {count:>6}  {:dates$}  {:>10}", first.time, amount(first.price));
                let change = percent(first.price, last.price);
                say!("  {from}  {:dates$}  {:>10}  {change:>8}", last.time, amount(last.price));
            }
            check(result.symbol == *symbol, "results come in the order of the requests")?;
            check(Some(&result.series) == self.series(symbol), "a read gives what was written")?;
        }
        Ok(())
    }

    fn one_request_and_other_work(&mut self) -> Outcome {
        chapter(2, "One request, and other work meanwhile")?;
        let symbol = self.symbols[0].clone();
        let series = self.series(&symbol).cloned().unwrap_or_default();
        let steps: Vec<f64> = series.points().windows(2).map(|pair| pair[1].price - pair[0].price).collect();

        let request = async_submit(&self.prices, PriceStore::read, false, symbol.clone())?;
        say!("  request {} submitted; rolling dice meanwhile ...", request.id());

        let (mut rolled, mut higher) = (0u64, 0u64);
        loop {
            let change: f64 = (0..12).filter_map(|_| self.dice.pick(&steps)).sum();
            rolled += 1;
            higher += u64::from(change > 0.0);
            if request.is_done() {
                break;
            }
        }
        match async_wait_request(&request, Duration::from_secs(30)) {
            Ok(result) => say!(
                "  {symbol}: {} after {}, of which {} were spent waiting for the store",
                plural(result.series.points().len(), "price"),
                human(request.total_time().unwrap_or_default()),
                human(request.execution_duration().unwrap_or_default()),
            ),
            Err(error) if error.is_timeout() => return Err("the read timed out".into()),
            Err(error) => return Err(error.into()),
        }
        say!(
            "  meanwhile {} futures of {symbol} were drawn from its past: 12 prices on, it is higher in {:.0}%",
            grouped(rolled),
            100.0 * higher as f64 / rolled as f64
        );
        Ok(())
    }

    fn batch_of_writes(&mut self) -> Outcome {
        chapter(3, "A batch of writes")?;
        let started = Instant::now();
        let mut requests = Vec::new();
        for index in 0..self.symbols.len().min(3) {
            let symbol = self.unused(&format!("{}.1min", self.symbols[index]));
            let series = self.random_minutes(1000);
            let args = (symbol.clone(), series);
            let request = async_submit(&self.prices, PriceStore::write, true, args)?;
            requests.push((symbol, request));
        }
        let mut written = Vec::new();
        for (symbol, request) in &requests {
            match async_wait_request(request, Duration::from_secs(60)) {
                Ok(version) => {
                    say!("  wrote 1,000 random minutes of {symbol} as version {version}");
                    written.push(symbol.clone());
                }
                Err(error) => say!("  failed to write {symbol}: {}", explain(&error)),
            }
        }
        say!("  all in {}", human(started.elapsed()));
        check(written.len() == requests.len(), "every write succeeds")?;

        // A write never changes what is there: it adds a version. These three need no wait in between.
        let symbol = &written[0];
        let longer = (symbol.clone(), self.random_minutes(1500));
        let second = async_submit(&self.prices, PriceStore::write, true, longer)?;
        let old = async_submit(&self.prices, PriceStore::read_version, false, (symbol.clone(), 1))?;
        let new = async_submit(&self.prices, PriceStore::read, false, symbol.clone())?;
        let reads = async_wait_requests(&[new, old], Duration::from_secs(60))?;
        let version = async_wait_request(&second, Duration::from_secs(60))?;
        say!("  wrote 1,500 as version {version}; then version 2 and version 1 were read back:");
        for read in &reads {
            let rows = read.series.points().len();
            say!("    {} version {}: {}", read.symbol, read.version, plural(rows, "price"));
        }
        let rows = |index: usize| reads[index].series.points().len();
        check(version == 2 && reads[0].version == 2 && rows(0) == 1500, "a read sees the write before it")?;
        check(reads[1].version == 1 && rows(1) == 1000, "an old version stays as it was")
    }

    fn mixed_operations(&self) -> Outcome {
        chapter(4, "Mixed operations, by name")?;
        // Named operations take and give JSON, so requests of all kinds fit into one list.
        let mut operations: Vec<(&str, String, AsyncRequest<Value>)> = Vec::new();
        let mut expected = Vec::new();
        for symbol in [self.symbol(0), self.symbol(1)] {
            let (from, to) = self.middle_year(symbol);
            let args = json!({"symbol": symbol, "from": from.to_string(), "to": to.to_string()});
            let request = async_submit(&self.prices, "read", false, args)?;
            operations.push(("read", symbol.to_owned(), request));
            expected.push(self.rows_between(symbol, from, to));
        }
        for symbol in [self.symbol(2), self.symbol(3)] {
            let args = json!({"symbol": symbol});
            let request = async_submit(&self.prices, "read_metadata", false, args)?;
            operations.push(("read_metadata", symbol.to_owned(), request));
            expected.push(self.series(symbol).map_or(0, |series| series.points().len()));
        }
        let request = async_submit(&self.prices, "list_symbols", false, json!({}))?;
        operations.push(("list_symbols", "all".to_owned(), request));
        expected.push(self.history.len() + self.symbols.len().min(3));

        let width = self.symbol_width();
        for ((operation, symbol, request), expected) in operations.iter().zip(expected) {
            let answer = match async_wait_request(request, Duration::from_secs(30)) {
                Ok(answer) => answer,
                Err(error) => {
                    return Err(format!("{operation} for {symbol}: {}", explain(&error)).into());
                }
            };
            let (found, text) = match *operation {
                "read" => {
                    let points = answer["points"].as_array().map_or(&[][..], Vec::as_slice);
                    let prices = points.iter().filter_map(|point| point[1].as_f64());
                    let (low, high) = prices.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), price| {
                        (low.min(price), high.max(price))
                    });
                    let year = points.first().and_then(|point| point[0].as_str()).and_then(|date| date.get(..4));
                    let year = year.unwrap_or("?");
                    (
                        points.len(),
                        format!("{} in {year}, {} to {}", plural(points.len(), "price"), amount(low), amount(high)),
                    )
                }
                "read_metadata" => {
                    let rows = answer["rows"].as_u64().unwrap_or(0) as usize;
                    (rows, answer.to_string())
                }
                _ => {
                    let names: Vec<_> = answer.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                    (names.len(), shortened(&names))
                }
            };
            say!("  {operation:13}  {symbol:width$}  {text}");
            check(found == expected, "a named operation gives what the store has")?;
        }

        // By method path the same read has a type.
        let symbol = self.symbol(0);
        let (from, to) = self.middle_year(symbol);
        let args = (symbol.to_owned(), from..=to);
        let request = async_submit(&self.prices, PriceStore::read_between, false, args)?;
        let typed: Versioned = async_wait_request(&request, Duration::from_secs(30))?;
        let rows = typed.series.points().len();
        check(rows == self.rows_between(symbol, from, to), "both ways to call the store agree")
    }

    fn thread_pool(&self) -> Outcome {
        chapter(5, "The thread pool")?;
        let before = async_total_requests();
        say!("  {} requests so far", grouped(before));

        let threads = self.threads.unwrap_or(THREADS);
        async_reset_pool(threads, Duration::from_secs(10))?;
        say!("  pool reset to {}", plural(threads, "thread"));

        let started = Instant::now();
        let names: Vec<String> = (0..50).map(|number| format!("SYM{number:03}")).collect();
        let mut requests = Vec::new();
        for name in &names {
            requests.push(async_submit(&self.prices, PriceStore::has_symbol, false, name.clone())?);
        }
        let answers = async_wait_requests(&requests, Duration::from_secs(120))?;
        let known = answers.iter().filter(|&&known| known).count();
        say!(
            "  {} small requests in {}: {known} of the symbols SYM000 to SYM049 are there",
            answers.len(),
            human(started.elapsed())
        );
        check(known == self.count_known(&names), "50 answers are right")?;
        check(Executor::global().stats().threads <= threads, "no more threads run than were asked for")?;
        check(async_total_requests() == before + 50, "every accepted request is counted once")?;

        async_shutdown(Duration::from_secs(30))?;
        async_await_termination(Duration::from_secs(60))?;
        let refused = async_submit(&self.prices, PriceStore::has_symbol, false, "AAPL");
        match refused {
            Err(error @ Error::ShutDown) => say!("  shut down; a submit now: \"{error}\""),
            _ => return Err(broken("after a shutdown nothing is accepted")),
        }
        async_reset_pool(threads, Duration::from_secs(10))?;
        say!("  and open again");
        Ok(())
    }

    fn errors_and_time_limits(&mut self) -> Outcome {
        chapter(6, "Errors and time limits")?;
        let unknown = self.unused("INVALID_SYMBOL");
        let symbols = [self.symbol(0).to_owned(), unknown.clone(), self.symbol(1).to_owned()];
        let width = self.symbol_width().max(unknown.len());

        for symbol in &symbols {
            let limit = Duration::from_secs(30);
            match safely(&self.prices, PriceStore::read, symbol.clone(), limit) {
                Ok(result) => {
                    let rows = result.series.points().len();
                    say!("  {symbol:width$}  success, {}", plural(rows, "row"));
                }
                Err(problem) => {
                    say!("  {symbol:width$}  {problem}");
                    self.failed += 1;
                }
            }
        }

        // Too slow for its limit; the request goes on, and its result is there for whoever waits again.
        self.prices.set_latency(6 * LATENCY);
        let limit = Duration::from_millis(50);
        let started = Instant::now();
        let symbol = self.symbol(0).to_owned();
        let request = async_submit(&self.prices, PriceStore::read, false, symbol.clone())?;
        let first = async_wait_request(&request, limit);
        self.prices.set_latency(LATENCY);
        say!("");
        let result = match first {
            Err(error) if error.is_timeout() => {
                check(started.elapsed() >= limit, "a wait lasts as long as its limit")?;
                say!("  a slow read of {symbol}, limit {}:", human(limit));
                say!("    \"{error}\"");
                say!("    meanwhile it is {:?}; waiting again ...", request.status());
                async_wait_request(&request, Duration::from_secs(30))?
            }
            // Only if this machine stopped us for longer than the store is slow.
            other => other?,
        };
        let rows = result.series.points().len();
        say!("    here it is after {}: {}", human(started.elapsed()), plural(rows, "row"));
        check(Some(&result.series) == self.series(&symbol), "a timeout loses no result")?;

        // A batch: each request ends for itself.
        say!("");
        let mut requests = Vec::new();
        for symbol in &symbols {
            let request = async_submit(&self.prices, PriceStore::read, false, symbol.clone())?;
            requests.push((symbol, request));
        }
        let (mut successes, mut errors) = (0, 0);
        for (symbol, request) in &requests {
            match async_wait_request(request, Duration::from_secs(10)) {
                Ok(_) => successes += 1,
                Err(error) => {
                    errors += 1;
                    // The store's own error comes back whole, type and all.
                    match error.operation::<StoreError>() {
                        Some(StoreError::UnknownSymbol(name)) => {
                            say!("  the store knows no {name:?}: a StoreError::UnknownSymbol");
                            check(name == *symbol, "an error belongs to its request")?;
                        }
                        _ => return Err(error.into()),
                    }
                }
            }
        }
        self.failed += errors;
        say!("  a batch of {}: {successes} successes, {errors} error", requests.len());
        check(successes == 2 && errors == 1, "one failure does not touch the others")?;

        for (operation, args) in [("raed", json!({})), ("read", json!({"symbol": 7}))] {
            let request = async_submit(&self.prices, operation, false, args)?;
            match async_wait_request(&request, Duration::from_secs(30)) {
                Err(error @ Error::Operation(_)) => say!("  {}", explain(&error)),
                _ => return Err(broken("a wrong name or argument is an error")),
            }
            self.failed += 1;
        }
        Ok(())
    }

    fn throughput(&mut self) -> Outcome {
        chapter(7, "Throughput, and large reads")?;
        let names: Vec<String> = (0..100).map(|number| format!("SYMBOL_{number:04}")).collect();
        let started = Instant::now();
        let requests =
            Executor::global().submit_many(&self.prices, PriceStore::has_symbol, false, names.iter().cloned())?;
        let mut known = 0;
        for (number, batch) in requests.chunks(20).enumerate() {
            let answers = async_wait_requests(batch, Duration::from_secs(30))?;
            known += answers.iter().filter(|&&known| known).count();
            say!("  batch {}: {} answers, {:>6} after the start", number + 1, answers.len(), human(started.elapsed()));
        }
        let elapsed = started.elapsed();
        check(known == self.count_known(&names), "100 answers are right")?;
        say!(
            "  {} symbols in {}: {:.0} a second; one at a time the store answers {:.0}",
            names.len(),
            human(elapsed),
            names.len() as f64 / elapsed.as_secs_f64(),
            1.0 / LATENCY.as_secs_f64()
        );

        say!("");
        let started = Instant::now();
        let large = self.write_large_series()?;
        say!("  wrote {} large series side by side in {}", large.len(), human(started.elapsed()));
        let mut largest = 0;
        for (symbol, rows) in &large {
            // One at a time, so that only one is in memory.
            let request = async_submit(&self.prices, PriceStore::read, false, symbol.clone())?;
            let result = async_wait_request(&request, Duration::from_secs(300))?;
            let bytes = result.series.memory();
            largest = largest.max(bytes);
            say!(
                "  {symbol}: {:>7} rows, {:.1} MB, read in {}",
                grouped(result.series.points().len() as u64),
                megabytes(bytes),
                human(request.total_time().unwrap_or_default())
            );
            check(result.series.points().len() == *rows, "a large read is complete")?;
        }
        say!("  never more than {:.1} MB at once", megabytes(largest));
        Ok(())
    }

    fn order(&self) -> Outcome {
        chapter(8, "Order")?;
        const ROUNDS: usize = 100;
        // The nearer the store, the closer the race.
        self.prices.set_latency(Duration::ZERO);
        let symbols: Vec<_> = (1..=5).map(|n| self.unused(&format!("RACE_{n}"))).collect();
        let (right, pairs, elapsed) = self.race(&symbols, ROUNDS, true)?;
        say!(
            "  {} times a write and a read of one symbol, back to back, in {}, with no latency:",
            pairs,
            human(elapsed)
        );
        say!("    {right:>3} of {pairs} reads saw exactly the write before them");
        check(right == pairs, "a read never overtakes the write before it")?;

        let (lucky, pairs, _) = self.race(&symbols, ROUNDS, false)?;
        say!("    {lucky:>3} of {pairs} when the writes are not declared as modifiers: that is luck");
        self.prices.set_latency(LATENCY);
        Ok(())
    }

    /// Counts the reads that saw exactly the write that was submitted before them.
    fn race(&self, symbols: &[String], rounds: usize, is_modifier: bool) -> Outcome<(usize, usize, Duration)> {
        let started = Instant::now();
        for symbol in symbols {
            // So that a read which is too early sees something.
            self.prices.write((symbol, Series::default()))?;
        }
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for symbol in symbols {
                let args = (symbol.clone(), Series::default());
                writes.push(async_submit(&self.prices, PriceStore::write, is_modifier, args)?);
                reads.push(async_submit(&self.prices, PriceStore::read, false, symbol.clone())?);
            }
        }
        let written = async_wait_requests(&writes, Duration::from_secs(60))?;
        let read = async_wait_requests(&reads, Duration::from_secs(60))?;
        let right = written.iter().zip(&read).filter(|(version, read)| **version == read.version).count();
        let elapsed = started.elapsed();
        let deletes = Executor::global().submit_many(&self.prices, PriceStore::delete, true, symbols.to_vec())?;
        for versions in async_wait_requests(&deletes, Duration::from_secs(60))? {
            check(versions == rounds + 1, "every write happened once")?;
        }
        Ok((right, read.len(), elapsed))
    }

    fn callbacks_and_cancelling(&mut self) -> Outcome {
        chapter(9, "As they finish, callbacks, cancelling")?;
        // The largest first, but nobody has to wait for it.
        let mut symbols = vec![self.unused("LARGE_DATASET_3")];
        symbols.extend(self.five_symbols());
        let mut requests = Vec::new();
        for symbol in &symbols {
            requests.push(async_submit(&self.prices, PriceStore::read, false, symbol.clone())?);
        }
        let mut arrived = BTreeSet::new();
        for (index, result) in as_completed(&requests, Duration::from_secs(30)) {
            let rows = result?.series.points().len();
            let time = requests[index].total_time().unwrap_or_default();
            say!("  {:>8}  {}, {}", human(time), symbols[index], plural(rows, "row"));
            arrived.insert(index);
        }
        check(arrived.len() == requests.len(), "each request arrives once")?;

        // A modifier that waits for us holds back everything behind it on its key.
        say!("");
        let symbol = self.symbol(0).to_owned();
        let (open, gate) = mpsc::channel::<()>();
        let modifier = async_submit(&self.prices, move |_: &PriceStore, _: String| gate.recv(), true, symbol.clone())?;
        let (done, finished) = mpsc::channel();
        let mut behind = Vec::new();
        for number in 1..=3 {
            let request = async_submit(&self.prices, PriceStore::read, false, symbol.clone())?;
            let done = done.clone();
            request.on_complete(move |status| {
                // Nobody listens any more only if the tour has failed before.
                let _ = done.send((number, status));
            });
            behind.push(request);
        }
        say!("  three reads behind a busy modifier: {:?}", statuses(&behind));
        check(behind[1].cancel(), "a request that has not started can be cancelled")?;
        open.send(())?;
        async_wait_request(&modifier, Duration::from_secs(30))?;
        for _ in 0..3 {
            let (number, status) = finished.recv_timeout(Duration::from_secs(30))?;
            say!("    callback of read {number}: {status:?}");
            let right = if number == 2 { Status::Cancelled } else { Status::Completed };
            check(status == right, "a callback tells how its request ended")?;
        }
        check(
            matches!(async_wait_request(&behind[1], Duration::ZERO), Err(Error::Cancelled)),
            "a cancelled request gives no result",
        )?;
        self.cancelled += 1;

        // What runs already is asked to stop, and decides for itself.
        let steps: Vec<f64> = vec![-1.0, 1.0];
        let mut dice = Dice(7);
        let (running, has_started) = mpsc::channel();
        let request = Executor::global().spawn(move || {
            let mut rolls = 0u64;
            let _ = running.send(()); // see above
            while !fulmar::is_cancelled() {
                rolls += u64::from(dice.pick(&steps).is_some());
            }
            rolls
        })?;
        has_started.recv_timeout(Duration::from_secs(30))?;
        request.cancel();
        let rolls = async_wait_request(&request, Duration::from_secs(30))?;
        say!("  a running request, told to stop, ended by itself after {} dice", grouped(rolls));
        Ok(())
    }

    fn shutdown(&self) -> Outcome {
        chapter(10, "Graceful shutdown, and the books")?;
        let mut requests = Vec::new();
        for _ in 0..24 {
            let symbol = self.symbol(0).to_owned();
            requests.push(async_submit(&self.prices, PriceStore::read_metadata, false, symbol)?);
        }
        let stats = Executor::global().stats();
        let open = stats.deferred + stats.queued + stats.running;
        say!("  shutting down with {open} requests under way ...");
        let started = Instant::now();
        async_shutdown(Duration::from_secs(30))?;
        async_await_termination(Duration::from_secs(60))?;
        say!("  done in {}; what was accepted was finished:", human(started.elapsed()));
        check(requests.iter().all(AsyncRequest::is_done), "a shutdown finishes what was accepted")?;
        let answers = async_wait_requests(&requests, Duration::ZERO)?;
        check(answers.iter().all(|answer| answer.version == 1), "its results can still be taken")?;

        let stats = Executor::global().stats();
        say!("");
        for (name, count) in [
            ("completed", stats.completed),
            ("failed", stats.failed),
            ("panicked", stats.panicked),
            ("cancelled", stats.cancelled),
            ("submitted", stats.submitted),
        ] {
            let line = if name == "submitted" { "=" } else { " " };
            say!("  {line} {name:9}  {:>6}", grouped(count));
        }
        let open = stats.deferred + stats.queued + stats.running;
        let ended = stats.completed + stats.failed + stats.panicked + stats.cancelled;
        check(open == 0 && stats.submitted == ended, "every request ended exactly once")?;
        check(stats.submitted == async_total_requests(), "the counters agree")?;
        check(stats.failed == self.failed, "only what should fail failed")?;
        check(stats.cancelled == self.cancelled, "only what was cancelled is cancelled")?;
        check(stats.panicked == 0, "nothing panicked")
    }

    /// Three series that are large enough to see in memory, written side by side, without latency.
    fn write_large_series(&mut self) -> Outcome<Vec<(String, usize)>> {
        self.prices.set_latency(Duration::ZERO);
        let mut sizes = Vec::new();
        let mut requests = Vec::new();
        for number in 1..=3 {
            let symbol = self.unused(&format!("LARGE_DATASET_{number}"));
            let rows = number * 60_000;
            let args = (symbol.clone(), self.random_minutes(rows));
            requests.push(async_submit(&self.prices, PriceStore::write, true, args)?);
            sizes.push((symbol, rows));
        }
        async_wait_requests(&requests, Duration::from_secs(60))?;
        self.prices.set_latency(LATENCY);
        Ok(sizes)
    }

    /// A random walk with a price and a volume for every minute from 2020 on.
    fn random_minutes(&mut self, rows: usize) -> Series {
        let start = Time::from_date(2020, 1, 1);
        let mut price = 100.0;
        let point = |minute| {
            price += self.dice.roll() - 0.5;
            let volume = 100 + (self.dice.roll() * 900.0) as u32;
            Some(Point { time: start?.plus_minutes(minute), price, volume: Some(volume) })
        };
        Series::new((0..).take(rows).filter_map(point).collect())
    }

    fn symbol(&self, index: usize) -> &str {
        &self.symbols[index % self.symbols.len()]
    }

    /// Five even if the file has fewer, then some more than once: reads of one symbol go side by side, too.
    fn five_symbols(&self) -> Vec<String> {
        self.symbols.iter().cycle().take(5).cloned().collect()
    }

    fn symbol_width(&self) -> usize {
        let widths = self.symbols.iter().map(|symbol| symbol.chars().count());
        widths.max().unwrap_or(0).max("symbol".len())
    }

    fn series(&self, symbol: &str) -> Option<&Series> {
        let found = self.history.iter().find(|(name, _)| name == symbol);
        found.map(|(_, series)| series)
    }

    /// The name, changed if need be so that the file has no such symbol.
    fn unused(&self, name: &str) -> String {
        let mut name = name.to_owned();
        while self.series(&name).is_some() {
            name.push('_');
        }
        name
    }

    fn count_known(&self, names: &[String]) -> usize {
        names.iter().filter(|name| self.series(name).is_some()).count()
    }

    /// The first and the last day of the year in the middle of a symbol's prices.
    fn middle_year(&self, symbol: &str) -> (Time, Time) {
        let points = self.series(symbol).map_or(&[][..], Series::points);
        let year = points.get(points.len() / 2).map_or(2000, |point| point.time.date().0);
        let day = |month, day| Time::from_date(year, month, day).unwrap_or(Time::EPOCH);
        (day(1, 1), day(12, 31))
    }

    fn rows_between(&self, symbol: &str, from: Time, to: Time) -> usize {
        let points = self.series(symbol).map_or(&[][..], Series::points);
        points.iter().filter(|point| (from..=to).contains(&point.time)).count()
    }
}

/// Runs one operation and gives its result, or what to tell the user.
fn safely<A, O>(prices: &Arc<PriceStore>, operation: O, args: A, limit: Duration) -> Result<O::Output, String>
where
    A: Args + Send + 'static,
    O: Operation<PriceStore, A> + Send + 'static,
    O::Output: Send + 'static,
{
    let request = async_submit(prices, operation, false, args).map_err(|error| explain(&error))?;
    match async_wait_request(&request, limit) {
        Ok(result) => Ok(result),
        Err(error) if error.is_timeout() => Err("operation timed out".to_owned()),
        Err(error) => Err(explain(&error)),
    }
}

fn statuses<T>(requests: &[AsyncRequest<T>]) -> Vec<Status> {
    requests.iter().map(AsyncRequest::status).collect()
}

/// An error with all its causes in one line.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn check(holds: bool, promise: &str) -> Outcome {
    if holds { Ok(()) } else { Err(broken(promise)) }
}

fn broken(promise: &str) -> BoxError {
    format!("a promise was broken: {promise}").into()
}

fn chapter(number: u32, title: &str) -> Outcome {
    say!("");
    say!("{number}. {title}");
    say!("");
    Ok(())
}

fn human(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        1.0.. => format!("{seconds:.2} s"),
        0.001.. => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{:.0} us", seconds * 1e6),
    }
}

/// A price to the cent, a tiny one in more detail.
fn amount(price: f64) -> String {
    match price.abs() {
        1e9.. => format!("{price:.3e}"),
        0.1.. | 0.0 => format!("{price:.2}"),
        _ => format!("{price:.3e}"),
    }
}

/// A change has a percentage only if there was something to change.
fn percent(from: f64, to: f64) -> String {
    if from > 0.0 { format!("{:+.0}%", (to / from - 1.0) * 100.0) } else { "-".to_owned() }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn plural(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", grouped(count as u64))
}

fn shortened(names: &[&str]) -> String {
    const MOST: usize = 10;
    let shown = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(MOST) {
        Some(more @ 1..) => format!("{}: {shown}, and {more} more", names.len()),
        _ => format!("{}: {shown}", names.len()),
    }
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn is_closed_output(error: &BoxError) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Random enough for made-up prices, and the same on every run: Marsaglia, "Xorshift RNGs", 2003.
struct Dice(u64);

impl Dice {
    /// From 0 up to, not including, 1.
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn pick(&mut self, values: &[f64]) -> Option<f64> {
        let index = (self.roll() * values.len() as f64) as usize;
        values.get(index).copied()
    }
}

/// A folder of our own, removed at the end, also after an error or a panic.
struct TempFolder(PathBuf);

impl TempFolder {
    fn create() -> Outcome<TempFolder> {
        let parent = env::temp_dir();
        let mut number = 0u32;
        loop {
            let name = format!("fulmar-market-data-{}-{number}", std::process::id());
            let path = parent.join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(TempFolder(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => {
                    let path = path.display();
                    return Err(format!("can't make the temporary folder {path}: {error}").into());
                }
            }
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn remove(self) -> Outcome {
        let path = self.0.display();
        fs::remove_dir_all(&self.0).map_err(|error| format!("can't remove the temporary folder {path}: {error}").into())
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // Nothing to do about a failure here; after `remove` there is nothing left anyway.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug, Default, PartialEq)]
struct Options {
    help: bool,
    data: Option<PathBuf>,
    threads: Option<usize>,
}

impl Options {
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, String> {
        let mut options = Options::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--help" | "-h") => options.help = true,
                Some("--data") => {
                    let file = args.next().ok_or("--data needs the name of a file")?;
                    options.data = Some(file.into());
                }
                Some("--threads") => {
                    let number = args.next().unwrap_or_default();
                    let threads = number.to_str().and_then(|text| text.parse().ok());
                    match threads {
                        Some(1..=256) => options.threads = threads,
                        _ => return Err(format!("--threads needs a number from 1 to 256, not {number:?}")),
                    }
                }
                _ => return Err(format!("unknown option {arg:?}")),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        Options::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn options_are_read() {
        let expected = Options { help: false, data: Some("a.csv".into()), threads: Some(3) };
        assert_eq!(parse(&["--threads", "3", "--data", "a.csv"]), Ok(expected));
        assert_eq!(parse(&[]), Ok(Options::default()));
    }

    #[test]
    fn wrong_options_are_named() {
        for (args, name) in [
            (&["--thread", "3"][..], "unknown option \"--thread\""),
            (&["prices.csv"], "unknown option \"prices.csv\""),
            (&["--threads", "0"], "not \"0\""),
            (&["--threads", "many"], "not \"many\""),
            (&["--threads"], "--threads needs"),
            (&["--data"], "--data needs"),
        ] {
            let message = parse(args).expect_err("these options are wrong");
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn numbers_are_grouped() {
        let shown = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
