//! A method that can't fail.

use std::sync::Arc;

use fulmar::{Result, async_submit, infallible};

struct Price(f64);

struct Db;

impl Db {
    fn count(&self, symbol: &str) -> usize {
        symbol.len()
    }

    fn price(&self, symbol: &str) -> Price {
        Price(symbol.len() as f64)
    }
}

fn main() -> Result<()> {
    let db = Arc::new(Db);
    async_submit(&db, Db::count, false, "AAPL")?.wait(None)?;
    let price = async_submit(&db, infallible(Db::price), false, "AAPL")?.wait(None)?;
    assert_eq!(price.0, 4.0);
    Ok(())
}
