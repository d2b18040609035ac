//! One submitted request: its state machine, and what waits for its end.
//!
//! Promises: a request ends exactly once; its result is taken once; what the operation did is seen
//! by each thread that sees its end. Left to others: when it runs (`worker`, `pool`), in which
//! order (`lanes`), its handle (`handle`), and how a thread waits for it (`wait`).

mod cell;
mod observers;
mod status;
mod trace;

pub(super) use cell::{Call, Head, Host, Job, NO_TICKET, Outcome, Request, Terms};
pub(super) use observers::{AtWork, Belongs, Callback, Inbox, Observer, Observers};
pub use status::{Kind, Status};
