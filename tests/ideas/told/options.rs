//! Options of one's own, without a key.

use std::sync::Arc;

use fulmar::{Result, async_submit};

struct Options {
    days: u32,
}

struct Db;

impl Db {
    fn history(&self, options: Options) -> std::io::Result<u32> {
        Ok(options.days)
    }
}

fn main() -> Result<()> {
    async_submit(&Arc::new(Db), Db::history, false, Options { days: 3 })?.wait(None)?;
    Ok(())
}
