//! Durable functions: plain blocking functions whose finished steps are never repeated.

mod children;
mod fork;
mod function;
mod journal;
mod step;
mod tree;

pub use self::children::{MOST_CHILDREN, MOST_DEPTH};
pub use self::function::{Durable, function};
#[cfg(debug_assertions)]
#[doc(hidden)]
pub use self::journal::fault;
pub use self::step::{StepOptions, StepTransaction};
pub use self::tree::{StepInfo, TaskTree};

pub(super) use self::journal::{Child, Entry, Holder, Journal, Kept, Kind, State, Taken, place};
