//! A store that threads can't share, and one that needs `&mut self`.

use std::sync::Arc;

use fulmar::tasks::rusqlite::{self, Connection};
use fulmar::{PerThread, Result, async_submit};

struct Db(Connection);

impl Db {
    fn last(&self, symbol: &str) -> rusqlite::Result<f64> {
        self.0.query_row("SELECT length(?1)", [symbol], |row| row.get(0))
    }
}

struct Cache(u64);

impl Cache {
    fn refresh(&mut self, symbol: &str) -> u64 {
        self.0 += symbol.len() as u64;
        self.0
    }
}

fn main() -> Result<()> {
    let db = Arc::new(PerThread::new(|| Connection::open_in_memory().map(Db)));
    assert_eq!(async_submit(&db, Db::last, false, "AAPL")?.wait(None)?, 4.0);
    let cache = Arc::new(PerThread::new(|| Ok::<_, rusqlite::Error>(Cache(0))));
    async_submit(&cache, Cache::refresh, true, "AAPL")?.wait(None)?;
    Ok(())
}
