//! A closure over a store behind a trait.

use std::sync::Arc;

use fulmar::{Result, async_submit};

trait Prices: Send + Sync {
    fn last(&self, symbol: &str) -> usize;
}

struct Db;

impl Prices for Db {
    fn last(&self, symbol: &str) -> usize {
        symbol.len()
    }
}

fn main() -> Result<()> {
    let db: Arc<dyn Prices> = Arc::new(Db);
    async_submit(&db, |prices: &dyn Prices, symbol| prices.last(symbol), false, "AAPL")?.wait(None)?;
    Ok(())
}
