//! The codes of a query's state.
//!
//! Source: `ibmpairs` 3.1.17, `constants.py` (`QUERY_STATUS_*_CODES`) and the comments in
//! `query.py`'s `async_status`. The text beside a code differs between servers ("Succeeded",
//! "Succeeded(20)"), so only the number decides.

use std::fmt;

/// The state of a query, as the server's number. It may also be a number that isn't documented.
///
/// | code | name | phase |
/// |---|---|---|
/// | 0 | Queued | [`Phase::Running`] |
/// | 1 | Initializing | [`Phase::Running`] |
/// | 10 | Running | [`Phase::Running`] |
/// | 11 | Writing | [`Phase::Running`] |
/// | 12 | Packaging | [`Phase::Running`] |
/// | 20 | Succeeded | [`Phase::Succeeded`] |
/// | 21 | NoDataFound | [`Phase::Failed`] |
/// | 30 | Killed | [`Phase::Failed`] |
/// | 31 | Deleted | [`Phase::Failed`] |
/// | 40 | Failed | [`Phase::Failed`] |
/// | 41 | FailedConversion | [`Phase::Failed`] |
/// | 42 | FailedProcessor | [`Phase::Failed`] |
/// | 43 | MaxAllowedQuerySizeExceeded | [`Phase::Failed`] |
/// | any other | | [`Phase::Unknown`], which ends a query as failed |
///
/// ```
/// use fulmar::client::pairs::{Phase, StatusCode};
///
/// assert_eq!(StatusCode::new(12).phase(), Phase::Running);
/// assert_eq!(StatusCode::new(21).to_string(), "NoDataFound");
/// assert_eq!(StatusCode::new(77).phase(), Phase::Unknown);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusCode(i64);

/// What a [`StatusCode`] means for a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The query hasn't ended: poll again.
    Running,
    /// The result can be downloaded.
    Succeeded,
    /// The query has ended without a result.
    Failed,
    /// The server used a number that isn't documented. It counts as failed, because a wait might
    /// last for ever.
    Unknown,
}

const TABLE: &[(i64, &str, Phase)] = &[
    (0, "Queued", Phase::Running),
    (1, "Initializing", Phase::Running),
    (10, "Running", Phase::Running),
    (11, "Writing", Phase::Running),
    (12, "Packaging", Phase::Running),
    (20, "Succeeded", Phase::Succeeded),
    (21, "NoDataFound", Phase::Failed),
    (30, "Killed", Phase::Failed),
    (31, "Deleted", Phase::Failed),
    (40, "Failed", Phase::Failed),
    (41, "FailedConversion", Phase::Failed),
    (42, "FailedProcessor", Phase::Failed),
    (43, "MaxAllowedQuerySizeExceeded", Phase::Failed),
];

impl StatusCode {
    /// The code with this number.
    pub const fn new(code: i64) -> StatusCode {
        StatusCode(code)
    }

    /// The number.
    pub const fn code(self) -> i64 {
        self.0
    }

    /// The name in the table, if it has one.
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|&(_, name, _)| name)
    }

    /// What the code means for a wait.
    pub fn phase(self) -> Phase {
        self.row().map_or(Phase::Unknown, |&(_, _, phase)| phase)
    }

    fn row(self) -> Option<&'static (i64, &'static str, Phase)> {
        TABLE.iter().find(|(code, ..)| *code == self.0)
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "unknown status {}", self.0),
        }
    }
}

impl fmt::Debug for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({})", self.0)
    }
}
