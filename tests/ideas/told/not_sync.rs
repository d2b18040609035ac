//! A store that threads can't share, handed over as it is. `PerThread` is for it: see `works/connection_each.rs`.

use std::cell::RefCell;
use std::sync::Arc;

use fulmar::{Result, async_submit};

struct Db(RefCell<u64>);

impl Db {
    fn last(&self, symbol: &str) -> u64 {
        *self.0.borrow() + symbol.len() as u64
    }
}

fn main() -> Result<()> {
    let db = Arc::new(Db(RefCell::new(0)));
    async_submit(&db, Db::last, false, "AAPL")?.wait(None)?;
    Ok(())
}
