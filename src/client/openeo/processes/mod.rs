//! Processes with parameters: naming them in a graph, filling them, and storing processes on a
//! back-end.

pub(super) mod call;
pub(super) mod parameter;
pub(super) mod process;
pub(super) mod rows;
pub(super) mod user_defined;
