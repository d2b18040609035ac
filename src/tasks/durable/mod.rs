//! Durable functions: plain blocking functions whose finished steps are never repeated.
//!
//! A durable function is a task whose handler is written as one function. What it does, it does in
//! steps, and the result of each step is stored in the queue's database. If the process dies, or
//! the function waits for something, a worker later runs the function again from its first line:
//! a step that is stored gives its stored result, and its closure isn't run.
//!
//! ```no_run
//! use fulmar::tasks::TaskError;
//! use fulmar::tasks::durable::Durable;
//! # fn split(_: &str) -> Result<Vec<String>, TaskError> { Ok(Vec::new()) }
//! # fn book(_: &[u64]) -> Result<(), TaskError> { Ok(()) }
//! # const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);
//!
//! fn campaign(cx: &Durable<'_>, area: String) -> Result<usize, TaskError> {
//!     let tiles: Vec<String> = cx.step("split", || split(&area))?; // Once; afterwards its stored result.
//!     let sizes: Vec<u64> = cx.all("tiles", tiles.iter().map(|tile| cx.child("tile", tile, tile)))?; // Rows, not threads.
//!     cx.sleep("settle", HOUR)?; // The thread goes back; a crash changes nothing.
//!     let is_approved: bool = cx.event("approved", 48 * HOUR)?; // Sent from anywhere, by `TaskQueue::send_event`.
//!     if is_approved {
//!         cx.step("book", || book(&sizes))?;
//!     }
//!     Ok(tiles.len())
//! }
//! ```
//!
//! # What is repeated, and what isn't
//!
//! All code between the steps runs in every run of the function; a step's closure runs until its
//! result was stored, and never after. So whatever must not happen again, or may come out otherwise
//! the next time (a request, a random number, the time of day), belongs into a step.
//! [`sleep`](Durable::sleep), [`event`](Durable::event) and [`all`](Durable::all) end the run with
//! [`TaskError::Paused`](super::TaskError::Paused), which `?` carries out; the thread goes back to the
//! worker. Code that swallows that error gets no further: each later call fails with it, too.
//!
//! # Names
//!
//! A step is known by its name and by how often the function has used that name. So a loop may use
//! one name, and two steps that run in another order from run to run need two names. A stored step
//! that the code no longer asks for, or asks for as another kind or type, ends the task with
//! [`TaskError::CodeChanged`](super::TaskError::CodeChanged), which names both.
//!
//! # Changing the code
//!
//! Functions that are under way meet the new code. Ask [`patch`](Durable::patch) before a step that is
//! new: it is false for a run that has gone past that place, and true for all others, each time.
//! Code that may end otherwise altogether is better a new task type.
//!
//! # Exactly once, and its limits
//!
//! Between the end of a closure and the commit of its result a crash may come: then the closure runs
//! again. [`step_in`](Durable::step_in) has no such gap: what it writes in the queue's own database and
//! its result are one commit. For anything else, make the closure repeatable, or give the
//! other side a key by which it knows the repetition.
//!
//! A step that fails is the task's failure, whose type has a retry policy; its failure isn't stored.
//! Give the step a policy of its own ([`StepOptions::retry`]) to have its last failure stored, so that the
//! function may go on with it. A function that catches an error of a step without a policy, and goes on, may meet another outcome of
//! that step in the next run.
//!
//! # Costs
//!
//! A step is one small commit, and those that many threads make at the same time are one commit. A run of a function reads its stored
//! steps once, all of them: so a function of thousands of steps that pauses thousands of times reads millions. Make
//! children of its parts.

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

pub(super) use self::journal::{Carried, Entry, Event, Holder, Journal, Kind, State};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) use self::journal::{Child, Kept, Taken, place};
