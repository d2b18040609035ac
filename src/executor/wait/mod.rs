//! Waits over one request and over many, on any thread.
//!
//! A thread of its own spins for a moment, then parks (`park`). A thread that is running a request
//! first makes sure that the wait can end at all (`graph`), and lets another thread of its pool
//! work in its place (`block`). Neither runs anything of others. A wait inside an operation ends
//! with that operation's cancel, and changes nothing about what it was for.

pub(super) mod block;
pub(super) mod completed;
mod full;
pub(super) mod graph;
pub(super) mod park;
pub(super) mod together;
