//! When a group is done, and its account.

/// When a [`Group`](super::Group) is done before all of its requests have ended by themselves.
///
/// It looks at what is submitted to the group itself. What its operations submit belongs to the
/// group as well, and ends with it, but what comes of a failure there is the operation's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// All are to succeed: the first failure cancels the rest. Then the group has failed with that
    /// error.
    All,
    /// One is to succeed: the first success cancels the rest. The group fails if none succeeds.
    Any,
    /// Each ends by itself. If a time limit passes, the group is done with as many as have come in
    /// time.
    Each,
}

/// The account of a [`Group`](super::Group): what was submitted to it, or by its operations. What
/// belongs to a group inside is in that one's account.
///
/// Once nothing is [`unfinished`](GroupStats::unfinished), `submitted = succeeded + failed +
/// cancelled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// How many requests.
    pub submitted: u64,
    /// How many have ended with a value.
    pub succeeded: u64,
    /// How many have ended with an error or a panic.
    pub failed: u64,
    /// How many were cancelled, or their time limit passed, before they started.
    pub cancelled: u64,
}

impl GroupStats {
    /// How many have not ended.
    pub fn unfinished(&self) -> u64 {
        self.submitted - self.succeeded - self.failed - self.cancelled
    }
}
