//! An argument that borrows what won't be there any more.

use std::sync::Arc;

use fulmar::{Result, async_submit};

struct Db;

impl Db {
    fn last(&self, symbol: &str) -> usize {
        symbol.len()
    }
}

fn main() -> Result<()> {
    let lines = String::from("AAPL\nIBM");
    for symbol in lines.lines() {
        async_submit(&Arc::new(Db), Db::last, false, symbol)?.wait(None)?;
    }
    Ok(())
}
