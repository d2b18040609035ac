//! A store that isn't in an `Arc`.

use fulmar::{Result, async_submit};

struct Db;

impl Db {
    fn last(&self, symbol: &str) -> usize {
        symbol.len()
    }
}

fn main() -> Result<()> {
    async_submit(&Db, Db::last, false, "AAPL")?.wait(None)?;
    Ok(())
}
