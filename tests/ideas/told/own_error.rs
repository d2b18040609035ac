//! An error of one's own that isn't `std::error::Error` yet.

use std::sync::Arc;

use fulmar::{Result, async_submit};

#[derive(Debug)]
enum Missing {
    Symbol,
}

struct Db;

impl Db {
    fn last(&self, symbol: &str) -> std::result::Result<f64, Missing> {
        if symbol.is_empty() { Err(Missing::Symbol) } else { Ok(1.0) }
    }
}

fn main() -> Result<()> {
    let db = Arc::new(Db);
    async_submit(&db, Db::last, false, "AAPL")?.wait(None)?;
    Ok(())
}
