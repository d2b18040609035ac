//! Durable functions: plain blocking functions whose finished steps are never repeated.
//!
//! A durable function is a task whose handler is written as one function. It does its work in
//! steps, and the worker stores the result of each step in the queue's database. If the process
//! dies, or the function waits for something, a worker later runs the function again from its first
//! line. Steps whose results are stored then return those, and their closures aren't run.
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
//! A function may run many times: after each pause, after a crash, and after each failure that its
//! task type retries. Each run begins at the first line of the function:
//!
//! | in the function | the first time | in every later run |
//! |---|---|---|
//! | code between the calls below | runs | runs again |
//! | the closure of a [`step`](Durable::step) | runs, and its result is stored | does not run: the stored result is returned |
//! | a closure that failed, panicked or died with its process | runs | runs again: nothing was stored |
//! | [`step_in`](Durable::step_in) | its writes and its result are one commit | does not run: the stored result is returned |
//! | [`sleep`](Durable::sleep) | its time begins with the pause | what is left of that time is waited for |
//! | [`event`](Durable::event) | the next event of that name is taken | the same event is returned, or the same time-out |
//! | [`all`](Durable::all) | the children are enqueued | the same results are returned, or the same failure |
//!
//! So put into a step whatever must not happen twice (a request, a payment), and whatever may come
//! out otherwise the next time (a random number, the time of day, what a file says). The code
//! between the steps has to ask for the same steps each time; it may only depend on the input and
//! on what steps have returned.
//!
//! # Pauses
//!
//! `sleep`, `event` and `all` end the run with [`TaskError::Paused`](super::TaskError::Paused) if
//! they have to wait. Let `?` carry that error out of the function: the thread then goes back to
//! the worker, the task is paused, and a worker runs the function again when the wait is over. If a
//! function swallows the error, every later call fails with it, too; the task is paused all the
//! same, and its log says so.
//!
//! # Names
//!
//! A step is known by its name and by how often this run has used that name before. So a loop may
//! use one name for all its rounds. Two steps that may change places need two names.
//!
//! # Changing the code
//!
//! A function that is paused goes on with the code of the worker that runs it next. If that code no
//! longer asks for a step that is stored, or asks for one of another kind or type under its name,
//! the task fails with [`TaskError::CodeChanged`](super::TaskError::CodeChanged), which says what
//! is stored and what was asked for.
//!
//! Before a step that you add, ask [`patch`](Durable::patch): it returns false in a function that
//! has stored steps beyond that place already, and true in all others, in every run. So old runs
//! end with the old code. If much has changed, register the new code as a new task type, and keep a
//! handler for the old one until its last task has ended.
//!
//! # Exactly once, and its limits
//!
//! If the process dies after a closure has ended and before its result is committed, the closure
//! runs again. [`step_in`](Durable::step_in) has no such gap: what it writes into the queue's own
//! database and its result are one commit. For everything else, make the closure repeatable, or
//! give the other side a key by which it recognises the second request, such as the task's
//! identifier.
//!
//! # Failures
//!
//! If a step fails, the error is the function's to return, and the task type's retry policy says
//! whether the function runs again; that failure isn't stored. With a policy of its own
//! ([`StepOptions::retry`]) a step is tried again by that, and its last failure is stored: every
//! later run gets the same error, so that the function may catch it and go on. Don't catch an error
//! of a step without a policy of its own: in the next run the step may succeed.
//!
//! What is stored stays stored. If a task has failed because of a step's last failure, or of a
//! child's, [`retry`](super::TaskQueue::retry) gives it the same error again: once the cause is
//! mended, [`fork`](super::TaskQueue::fork) it from that step.
//!
//! # Costs
//!
//! A step is one small commit, and steps that many threads make at the same time share one. A sleep,
//! and what a failed attempt of a step came to, is stored in the commit of the pause itself. A
//! function that waits holds no thread and no memory of the worker's: it is rows in the database.
//! Each run reads all stored steps of its function once. So a function of thousands of steps that
//! pauses thousands of times reads millions of rows: make children of its parts.

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

pub(super) use self::journal::{Carried, Entry, Event, Holder, Journal, Kind, Past, State};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) use self::journal::{Child, Kept, Standing, Taken, place};
