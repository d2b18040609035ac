//! Areas and times cut into pieces, one for each job. Pure.

pub(super) mod area;
pub(super) mod period;
