//! A closure whose tuple has no types written.

use std::sync::Arc;

use fulmar::{Result, async_submit};

struct Db;

impl Db {
    fn history(&self, symbol: &str, days: u32) -> std::io::Result<Vec<f64>> {
        Ok(vec![symbol.len() as f64; days as usize])
    }
}

fn main() -> Result<()> {
    let db = Arc::new(Db);
    let rows = async_submit(&db, |db: &Db, (symbol, days)| db.history(symbol, days), false, ("AAPL", 30))?;
    assert_eq!(rows.wait(None)?.len(), 30);
    Ok(())
}
