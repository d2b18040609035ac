//! A store behind a trait.

use std::sync::Arc;

use fulmar::{Result, async_submit};

trait Prices: Send + Sync {
    fn last(&self, symbol: &str) -> std::io::Result<f64>;
}

struct Db;

impl Prices for Db {
    fn last(&self, symbol: &str) -> std::io::Result<f64> {
        Ok(symbol.len() as f64)
    }
}

fn main() -> Result<()> {
    let db: Arc<dyn Prices> = Arc::new(Db);
    async_submit(&db, Prices::last, false, "AAPL")?.wait(None)?;
    async_submit(&db, |prices: &(dyn Prices + 'static), symbol| prices.last(symbol), false, "AAPL")?.wait(None)?;
    Ok(())
}
