//! What can go wrong between here and a PAIRS server, said so that the reader knows which query, what was tried and why.

use crate::client::pairs::StatusCode;

/// Why a call, or a query, came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairsError {
    /// What was given as a query isn't one; the text names the field.
    #[error("this is no PAIRS query: {0}")]
    Query(String),

    /// A setting, an option or an id makes no sense; the text names it and the remedy.
    #[error("{0}")]
    Invalid(String),

    /// The server's answer isn't what the protocol promises; the text says what was expected and what came.
    #[error("the PAIRS server's answer makes no sense: {0}")]
    Reply(String),

    /// The query ended on the server without a result.
    #[error("query {id} ended as {status} ({code}){message}", code = .code.code(), message = after(.message))]
    Failed {
        /// The query's id.
        id: String,
        /// How it ended.
        code: StatusCode,
        /// The server's word for it, as it came.
        status: String,
        /// What the server said besides; empty if it said nothing.
        message: String,
    },
}

/// `: message`, or nothing.
fn after(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl PairsError {
    pub(crate) fn reply(text: impl Into<String>) -> PairsError {
        PairsError::Reply(text.into())
    }
}
