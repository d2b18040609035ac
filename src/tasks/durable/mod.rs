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
pub use self::step::StepOptions;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use self::step::StepTransaction;
pub use self::tree::{StepInfo, TaskTree};

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) use self::journal::{Child, Kept, Kind, State, Taken, place};
pub(super) use self::journal::{Entry, Holder, Journal};
