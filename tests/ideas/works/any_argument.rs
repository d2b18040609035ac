//! A date, and options of one's own.

use std::sync::Arc;
use std::time::SystemTime;

use fulmar::{Result, async_submit, keyed, keyless};

#[derive(Default)]
struct Options {
    days: u32,
}

struct Db;

impl Db {
    fn since(&self, time: SystemTime) -> std::io::Result<bool> {
        Ok(time < SystemTime::now())
    }

    fn history(&self, options: Options) -> std::io::Result<u32> {
        Ok(options.days)
    }

    fn any_text(&self, text: impl AsRef<str>) -> usize {
        text.as_ref().len()
    }
}

fn main() -> Result<()> {
    let db = Arc::new(Db);
    async_submit(&db, Db::since, false, SystemTime::now())?.wait(None)?;
    async_submit(&db, Db::history, false, keyless(Options::default()))?.wait(None)?;
    async_submit(&db, Db::history, false, keyed("AAPL", Options::default()))?.wait(None)?;
    async_submit(&db, Db::any_text, false, String::from("AAPL"))?.wait(None)?;
    async_submit(&db, |_: &Db, (_, days): ((), u32)| days, false, ((), 3))?.wait(None)?;
    Ok(())
}
