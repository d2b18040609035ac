//! How many threads an executor may have, and has if no number is given.

use crate::error::{Error, Result};
use crate::sync::thread;

/// More threads than any machine bears: a larger number is a mistake.
const MOST_THREADS: usize = 65_536;

/// `threads` if that many make sense.
pub(super) fn checked(threads: usize) -> Result<usize> {
    match threads {
        1..=MOST_THREADS => Ok(threads),
        _ => Err(Error::Invalid(format!("an executor can't have {threads} threads: use 1 to {MOST_THREADS}"))),
    }
}

/// The number of cores, but at least 4.
pub(super) fn by_default() -> usize {
    thread::cores().max(4)
}

/// `FULMAR_THREADS`, or the default where it is not set.
pub(super) fn from_environment() -> Result<usize> {
    let Some(text) = std::env::var_os("FULMAR_THREADS") else {
        return Ok(by_default());
    };
    let number = text.to_str().and_then(|text| text.trim().parse().ok());
    number.ok_or(()).map_err(drop).and_then(|threads| checked(threads).map_err(drop)).map_err(|()| {
        Error::Invalid(format!(
            "FULMAR_THREADS is `{}`: set it to a number from 1 to {MOST_THREADS}, or unset it",
            text.to_string_lossy().escape_debug()
        ))
    })
}
