//! What PostgreSQL, the way to it, or its answers can have wrong.

/// Why a statement gave no answer. Never holds the connection string.
#[derive(Debug, thiserror::Error)]
pub(super) enum PgError {
    /// An argument or a setting that no server was asked about.
    #[error("{0}")]
    Invalid(String),

    /// No connection could be made. Nothing was asked.
    #[error("no connection to PostgreSQL at {place}: {message}")]
    Connect {
        place: String,
        message: String,
        /// It will be refused until an operator changes something: a password, a role, a database.
        for_good: bool,
    },

    /// The connection broke. What was asked last may have been done, or not.
    #[error("the connection to PostgreSQL at {place} broke: {message}")]
    Lost { place: String, message: String },

    /// The server said no.
    #[error("PostgreSQL refused: {message} (SQLSTATE {sqlstate})")]
    Refused { sqlstate: String, message: String },

    /// A number for a new row is taken: the table was restored or replicated, and its sequence was
    /// not.
    #[error(
        "the sequence {schema}.fulmar_task_number is behind its table, as after a restore or on a former replica; put it right: \
         SELECT setval('{schema}.fulmar_task_number', (SELECT max(id) FROM {schema}.fulmar_task))"
    )]
    SequenceBehind { schema: String },

    /// The answer isn't what the statement should give: another schema than this program's.
    #[error("PostgreSQL gave an unexpected answer: {0}")]
    Unexpected(String),
}

impl PgError {
    pub(super) fn invalid(message: impl Into<String>) -> PgError {
        PgError::Invalid(message.into())
    }

    /// Whether a new connection may help.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            PgError::Connect { .. } | PgError::Lost { .. } => true,
            PgError::Refused { sqlstate, .. } => ends_the_session(sqlstate),
            PgError::Invalid(_) | PgError::Unexpected(_) | PgError::SequenceBehind { .. } => false,
        }
    }

    /// Whether the server was reached, and refuses us until an operator changes something.
    pub(super) fn is_for_good(&self) -> bool {
        matches!(self, PgError::Connect { for_good: true, .. })
    }

    /// The same once more, of what was not asked again.
    pub(super) fn again(&self) -> PgError {
        match self {
            PgError::Connect { place, message, for_good } => {
                PgError::Connect { place: place.clone(), message: message.clone(), for_good: *for_good }
            }
            other => PgError::Invalid(other.to_string()),
        }
    }

    /// Whether the statement lost against another one, and would have another chance in a new
    /// transaction.
    pub(super) fn is_conflict(&self) -> bool {
        // Serialization failure, deadlock, lock not available.
        matches!(self, PgError::Refused { sqlstate, .. } if matches!(&**sqlstate, "40001" | "40P01" | "55P03"))
    }

    /// Whether the server is short of something, or was told to give up: later it may not be.
    pub(super) fn is_out_of_something(&self) -> bool {
        let is = |sqlstate: &str| sqlstate.starts_with("53") || matches!(sqlstate, "57014" | "55P03");
        self.sqlstate().is_some_and(is)
    }

    /// Whether the data of a row is to blame, which makes no sense: a number out of range, a
    /// constraint that does not hold. Never the connection, the server, or other sessions.
    pub(super) fn is_of_row(&self) -> bool {
        self.sqlstate().is_some_and(|sqlstate| matches!(sqlstate.get(..2), Some("22" | "23")))
    }

    /// The five characters by which PostgreSQL names what it refused.
    pub(super) fn sqlstate(&self) -> Option<&str> {
        match self {
            PgError::Refused { sqlstate, .. } => Some(sqlstate),
            _ => None,
        }
    }
}

/// Errors after which the session is gone, or is one that can't serve: shut down, or a standby by
/// now. Appendix A of PostgreSQL's manual.
fn ends_the_session(sqlstate: &str) -> bool {
    let class = sqlstate.get(..2).unwrap_or_default();
    matches!(class, "08") || matches!(sqlstate, "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" | "25006")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_asks_for_a_new_connection_and_a_refusal_does_not() {
        let refused = |sqlstate: &str| PgError::Refused { sqlstate: sqlstate.into(), message: String::new() };
        assert!(refused("57P01").is_lost() && refused("08006").is_lost() && refused("25006").is_lost());
        assert!(refused("25P03").is_lost() && refused("25P04").is_lost(), "a transaction's limits end the session");
        assert!(!refused("23505").is_lost() && !refused("").is_lost());
        assert!(refused("40P01").is_conflict() && !refused("23505").is_conflict());
    }

    #[test]
    fn a_row_is_to_blame_for_its_data_and_for_nothing_else() {
        let refused = |sqlstate: &str| PgError::Refused { sqlstate: sqlstate.into(), message: String::new() };
        assert!(["22003", "23505"].map(refused).iter().all(PgError::is_of_row));
        let others = ["", "2", "40001", "40P01", "55P03", "53100", "57014", "57P01", "08006", "25P02", "42P01"];
        assert!(!others.map(refused).iter().any(PgError::is_of_row));
        assert!(!PgError::Lost { place: String::new(), message: "22003".into() }.is_of_row());
    }
}
