//! A database connection for each thread: `cargo run --example connection_each --features sqlite`.
//!
//! A connection can't be used by two threads at once. Behind a mutex the queries would wait for each other; here each thread
//! opens its own with its first query, and closes it when it ends.

use std::sync::Arc;
use std::time::Duration;

use fulmar::tasks::rusqlite::{self, Connection};
use fulmar::{Executor, PerThread, wait_all};

/// What the program knows of its database: methods as they would be without threads.
struct Prices(Connection);

impl Prices {
    fn open(file: &std::path::Path) -> rusqlite::Result<Prices> {
        let db = Connection::open(file)?;
        db.busy_timeout(Duration::from_secs(10))?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS price (symbol TEXT PRIMARY KEY, last REAL)",
        )?;
        Ok(Prices(db))
    }

    fn write(&self, symbol: &str, last: f64) -> rusqlite::Result<usize> {
        self.0.execute("INSERT OR REPLACE INTO price VALUES (?1, ?2)", (symbol, last))
    }

    fn last(&self, symbol: &str) -> rusqlite::Result<f64> {
        self.0.query_row("SELECT last FROM price WHERE symbol = ?1", [symbol], |row| row.get(0))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("fulmar-prices-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("prices.db");

    let executor = Executor::builder().threads(4).build()?;
    let prices = Arc::new(PerThread::new(move || Prices::open(&file)));
    for (symbol, last) in [("AAPL", 210.0), ("IBM", 190.5), ("AAPL", 211.5)] {
        drop(executor.submit_write(&prices, Prices::write, (symbol, last))?); // In this order on each symbol.
    }
    let aapl = executor.submit_read(&prices, Prices::last, "AAPL")?; // After both of its writes.
    let ibm = executor.submit_read(&prices, Prices::last, String::from("IBM"))?;
    let unknown = executor.submit_read(&prices, Prices::last, "GONE")?;

    println!("AAPL and IBM: {:?}", wait_all([&aapl, &ibm], Duration::from_secs(30))?);
    println!("GONE: {}", unknown.wait(None).expect_err("it isn't there"));
    executor.shutdown(None)?; // Ends the threads, which close their connections.
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
