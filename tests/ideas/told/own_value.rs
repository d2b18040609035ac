//! A method that returns a type of one's own, and can't fail.

use std::sync::Arc;

use fulmar::{Result, async_submit};

struct Price;

struct Db;

impl Db {
    fn last(&self, _: &str) -> Price {
        Price
    }
}

fn main() -> Result<()> {
    async_submit(&Arc::new(Db), Db::last, false, "AAPL")?.wait(None)?;
    Ok(())
}
