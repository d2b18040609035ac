//! Processes with parameters: how a graph names them, how they are filled, and those that users
//! store.

pub(super) mod call;
pub(super) mod parameter;
pub(super) mod process;
pub(super) mod rows;
pub(super) mod user_defined;
