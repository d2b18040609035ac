//! The symbols come from a file: what is at hand is a `String`, and the method borrows.

use std::sync::Arc;

use fulmar::{Result, async_submit};

struct Db;

impl Db {
    fn last(&self, symbol: &str) -> std::io::Result<f64> {
        Ok(symbol.len() as f64)
    }
}

fn main() -> Result<()> {
    let db = Arc::new(Db);
    let lines = String::from("AAPL\nIBM");
    for symbol in lines.lines() {
        async_submit(&db, Db::last, false, symbol.to_string())?.wait(None)?;
    }
    Ok(())
}
