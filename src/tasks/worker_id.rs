//! Who a worker is.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

/// A worker: random, new for each, and never a host's name, which two may share and one may have
/// again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(String);

impl WorkerId {
    /// A new one, which no other worker has.
    #[allow(clippy::new_without_default)]
    pub fn new() -> WorkerId {
        WorkerId(random_name())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// 32 digits of chance. The standard library seeds its hash tables from the operating system's
/// source of it.
pub(super) fn random_name() -> String {
    let salt = (std::process::id(), std::time::SystemTime::now());
    let half = || RandomState::new().hash_one(salt);
    format!("{:016x}{:016x}", half(), half())
}

/// A number of chance.
pub(super) fn random_number() -> u64 {
    RandomState::new().hash_one(0)
}
