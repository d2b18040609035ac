//! Submit a slow operation, go on working, wait for its result: `cargo run --example hello`.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fulmar::{async_submit, async_wait_request, async_wait_requests};

/// Anything that is `Send + Sync` can be a store: a database pool, an HTTP client, or, as here, a folder.
struct Folder(PathBuf);

impl Folder {
    /// Ordinary blocking code.
    fn size(&self, file: &str) -> io::Result<u64> {
        fs::metadata(self.0.join(file)).map(|metadata| metadata.len())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Arc::new(Folder(env!("CARGO_MANIFEST_DIR").into()));

    // The store, the operation, whether it modifies what it touches, and its argument. Returns at once.
    let one = async_submit(&folder, Folder::size, false, "hello.rs")?;
    let more = ["order.rs", "waits.rs", "cancel.rs"]
        .map(|file| async_submit(&folder, Folder::size, false, file))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;

    println!("other work, while threads look at the files");

    println!("hello.rs: {} bytes", async_wait_request(&one, Duration::from_secs(30))?);
    println!("the others: {:?} bytes", async_wait_requests(&more, None)?); // In the order of the requests.
    Ok(())
}
