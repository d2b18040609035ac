//! A method of several arguments, which are passed one by one.

use std::sync::Arc;

use fulmar::{Result, async_submit};

struct Db;

impl Db {
    fn history(&self, symbol: &str, days: u32) -> std::io::Result<usize> {
        Ok(symbol.len() * days as usize)
    }
}

fn main() -> Result<()> {
    async_submit(&Arc::new(Db), Db::history, false, "AAPL")?.wait(None)?;
    Ok(())
}
