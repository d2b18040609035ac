//! What can go wrong with a campaign as a whole. What goes wrong with one row is told in its
//! report.

use std::path::PathBuf;

use crate::batch::JobError;
use crate::error::BoxError;

/// Why a campaign couldn't be opened, filled or run. One row's failure isn't such an error: the
/// [report](super::CampaignReport) has it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CampaignError {
    /// An argument or a setting makes no sense; the text names it and the remedy.
    #[error("{0}")]
    Invalid(String),

    /// The ledger on the disk can't be read or written. Nothing was done that it doesn't have.
    #[error("the ledger {path} failed while {doing}", path = .path.display())]
    Ledger {
        /// The ledger's file, or the place of its database.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the database or the operating system said.
        source: BoxError,
    },

    /// The client of the remote service refused: its own error, to be downcast.
    #[error("{0}")]
    Client(#[source] BoxError),
}

impl From<CampaignError> for JobError {
    /// The disk may have room again, or another process be done with the ledger.
    fn from(error: CampaignError) -> JobError {
        match error {
            CampaignError::Ledger { .. } => JobError::retry(error),
            CampaignError::Client(_) | CampaignError::Invalid(_) => JobError::fatal(error),
        }
    }
}
