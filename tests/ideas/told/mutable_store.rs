//! A method that needs `&mut self`.

use std::sync::Arc;

use fulmar::{Result, async_submit};

struct Cache(u64);

impl Cache {
    fn refresh(&mut self, symbol: &str) -> std::io::Result<u64> {
        self.0 += symbol.len() as u64;
        Ok(self.0)
    }
}

fn main() -> Result<()> {
    async_submit(&Arc::new(Cache(0)), Cache::refresh, true, "AAPL")?.wait(None)?;
    Ok(())
}
