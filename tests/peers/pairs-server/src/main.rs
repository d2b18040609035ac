//! The server as a process of its own, so that a client's memory can be told from the server's:
//!
//! `cargo run --release --manifest-path tests/peers/pairs-server/Cargo.toml -- SECONDS`
//!
//! Each query takes so many seconds (default 2), as many at once as are asked for. It prints where it is, and ends with its
//! standard input.

use std::io::Read;
use std::time::Duration;

use pairs_server::{Config, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(2.0), |argument| argument.parse())?;
    let run = Duration::try_from_secs_f64(seconds)?;
    let server = Server::start(Config { run, slots: 1_000_000, ..Config::default() })?;
    println!("{}", server.url());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
