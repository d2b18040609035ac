//! A campaign that survives `kill -9`: a back-end of its own, sixty rows, and a process that is
//! killed twice on the way. The third run of the same program finds what is left to do, and does
//! it.
//!
//! cargo run --release --example campaign

use std::error::Error;

#[cfg(feature = "sqlite")]
mod killed_twice;

#[cfg(feature = "sqlite")]
fn main() -> Result<(), Box<dyn Error>> {
    killed_twice::run()
}

/// The campaign's memory is an SQLite file, and the library's default features are without SQLite:
/// so that the command above is enough, this builds the example once more, with it.
#[cfg(not(feature = "sqlite"))]
fn main() -> Result<(), Box<dyn Error>> {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["run", "--features", "sqlite", "--example", "campaign"]);
    cargo.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    println!("building it once more, with the feature `sqlite`");
    match cargo.status()?.success() {
        true => Ok(()),
        false => Err("the example failed: see above".into()),
    }
}
