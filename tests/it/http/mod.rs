//! `client::http` from outside: against real sockets, and servers that do what no good server does.

mod archives;
mod auth;
mod cancel;
mod child;
mod downloads;
mod ends;
mod limits;
mod proxies;
mod redirects;
mod reports;
mod requests;
mod retries;
mod secrets;
mod server;
mod strangers;
mod streams;
mod tls;
mod tls_server;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fulmar::backoff::Backoff;
use fulmar::client::http::{HttpClient, HttpClientBuilder, RetryPolicy};

/// A client that retries soon, and takes no proxy from its surroundings.
fn quick() -> HttpClientBuilder {
    HttpClient::builder().environment_proxy(false).retry(soon(4))
}

fn soon(attempts: u32) -> RetryPolicy {
    RetryPolicy::attempts(attempts).backoff(Backoff::new(Duration::from_millis(1)))
}

fn client() -> HttpClient {
    quick().build().expect("sound settings")
}

/// A folder of this test's own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fulmar-http-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// What is in it, in order.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).expect("written");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
