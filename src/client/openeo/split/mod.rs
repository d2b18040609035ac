//! Splits areas and periods into pieces, one for each job. Pure.

pub(super) mod area;
pub(super) mod period;
