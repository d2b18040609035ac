//! A method of several arguments gets a tuple.

use std::sync::Arc;

use fulmar::{Result, async_submit};

#[derive(Clone, Default)]
struct Options {
    adjusted: bool,
}

struct Db;

impl Db {
    fn history(&self, symbol: &str, days: u32) -> std::io::Result<Vec<f64>> {
        Ok(vec![symbol.len() as f64; days as usize])
    }

    fn detail(&self, symbol: &str, days: u32, options: &Options) -> std::io::Result<bool> {
        Ok(symbol.len() == days as usize && options.adjusted)
    }

    fn symbols(&self) -> std::io::Result<Vec<String>> {
        Ok(vec![])
    }
}

fn main() -> Result<()> {
    let db = Arc::new(Db);
    async_submit(&db, Db::history, false, ("AAPL", 30))?.wait(None)?;
    async_submit(&db, Db::detail, false, (String::from("AAPL"), 30, Options::default()))?.wait(None)?;
    async_submit(&db, Db::symbols, false, ())?.wait(None)?;
    Ok(())
}
