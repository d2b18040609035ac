//! How an executor is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Executor;
use super::core::Core;
use super::order::Closed;
use crate::error::{Error, Result};
use crate::panics;
use crate::pool::Pool;
use crate::sync::thread;

/// More threads than any machine bears: a larger number is a mistake.
const MOST_THREADS: usize = 65_536;

/// What a submission does when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// Returns [`Error::QueueFull`] at once.
    Reject,
    /// Waits for room, at most this long, and returns [`Error::QueueFull`] then. Inside an operation, of this executor or of
    /// another one, which might be waiting for itself, it does what [`CallerRuns`](OnFull::CallerRuns) does.
    Wait(Duration),
    /// Runs the operation, and what is ahead of it on its key, on the submitting thread before it returns: the submitter
    /// slows down to what the threads can bear.
    CallerRuns,
}

/// Settings of an [`Executor`].
///
/// ```
/// use fulmar::{Executor, OnFull};
///
/// let executor = Executor::builder().threads(8).queue_capacity(1_000).on_full(OnFull::CallerRuns).thread_name("loader").build()?;
/// assert_eq!(executor.spawn(|| std::thread::current().name().map(str::to_owned))?.wait(None)?.as_deref(), Some("loader-0"));
/// # Ok::<(), fulmar::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    threads: Option<usize>,
    capacity: Option<usize>,
    on_full: OnFull,
    thread_name: String,
    stack_size: Option<usize>,
    hooks: Hooks,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

/// What users want done on each thread.
#[derive(Clone, Default)]
pub(super) struct Hooks {
    start: Option<Hook>,
    stop: Option<Hook>,
}

impl Hooks {
    pub(super) fn start(&self) {
        run(self.start.as_ref());
    }

    pub(super) fn stop(&self) {
        run(self.stop.as_ref());
    }
}

/// A panic in a hook is reported by the panic hook, and the thread goes on.
fn run(hook: Option<&Hook>) {
    if let Some(hook) = hook {
        panics::contain(|| hook());
    }
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            threads: None,
            capacity: None,
            on_full: OnFull::Reject,
            thread_name: "fulmar".into(),
            stack_size: None,
            hooks: Hooks::default(),
        }
    }

    /// The number of threads, at least one. They start when they are needed. Defaults to the number of cores, but at
    /// least 4, because blocking operations wait more than they work.
    pub fn threads(mut self, threads: usize) -> Builder {
        self.threads = Some(threads);
        self
    }

    /// How many accepted requests may wait to be started, deferred ones included, and with them those that wait for their
    /// time. Defaults to no limit. What happens beyond it is [`on_full`](Builder::on_full)'s business. Continuations
    /// ([`then`](crate::AsyncRequest::then)) and delayed requests are never refused for it, but take up room.
    pub fn queue_capacity(mut self, requests: usize) -> Builder {
        self.capacity = Some(requests);
        self
    }

    /// What a submission does when the queue is full. Defaults to [`OnFull::Reject`].
    pub fn on_full(mut self, on_full: OnFull) -> Builder {
        self.on_full = on_full;
        self
    }

    /// What the threads are named: `name-0`, `name-1` and so on. Defaults to `fulmar`.
    pub fn thread_name(mut self, name: impl Into<String>) -> Builder {
        self.thread_name = name.into();
        self
    }

    /// The stack of the threads, and of the one that keeps the time, in bytes. Defaults to that of `std::thread`. Operations
    /// that wait for others run them on the same stack: a deep recursion of waits needs a deep stack.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// Called on each thread when it starts. A panic in it is reported and changes nothing.
    pub fn on_thread_start(mut self, hook: impl Fn() + Send + Sync + 'static) -> Builder {
        self.hooks.start = Some(Arc::new(hook));
        self
    }

    /// Called on each thread before it ends. A panic in it is reported and changes nothing.
    pub fn on_thread_stop(mut self, hook: impl Fn() + Send + Sync + 'static) -> Builder {
        self.hooks.stop = Some(Arc::new(hook));
        self
    }

    /// Makes the executor. No thread starts before the first submission.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the setting: no threads or more than 65,536; a queue of none; a thread name with a NUL.
    pub fn build(self) -> Result<Executor> {
        let threads = checked_threads(self.threads.unwrap_or_else(default_threads))?;
        self.build_with(threads, None)
    }

    /// The global executor: its size comes from the environment, and if that makes no sense, every submission says so,
    /// and so does whatever is built upon it.
    pub(super) fn build_global() -> Executor {
        let (threads, closed) = match global_threads() {
            Ok(threads) => (threads, None),
            Err(error) => (default_threads(), Some(Closed::Misconfigured(error.to_string()))),
        };
        let builder = Builder::new();
        Executor::new(Core::new(Pool::new(threads, builder.thread_name, None), None, builder.hooks, closed))
    }

    fn build_with(self, threads: usize, closed: Option<Closed>) -> Result<Executor> {
        if self.capacity == Some(0) {
            return Err(Error::Invalid("a queue capacity of 0 accepts nothing: use 1 or more, or leave it out".into()));
        }
        if self.thread_name.contains('\0') {
            let name = self.thread_name.escape_debug();
            return Err(Error::Invalid(format!("the thread name `{name}` contains a NUL, which no system takes")));
        }
        let pool = Pool::new(threads, self.thread_name, self.stack_size);
        let capacity = self.capacity.map(|capacity| (capacity as u64, self.on_full));
        Ok(Executor::new(Core::new(pool, capacity, self.hooks, closed)))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("threads", &self.threads)
            .field("queue_capacity", &self.capacity)
            .field("on_full", &self.on_full)
            .field("thread_name", &self.thread_name)
            .field("stack_size", &self.stack_size)
            .finish_non_exhaustive()
    }
}

/// `threads` if that many make sense.
pub(super) fn checked_threads(threads: usize) -> Result<usize> {
    match threads {
        1..=MOST_THREADS => Ok(threads),
        _ => Err(Error::Invalid(format!("{threads} threads make no executor: use 1 to {MOST_THREADS}"))),
    }
}

/// The number of cores, but at least 4.
pub(super) fn default_threads() -> usize {
    thread::cores().max(4)
}

/// `FULMAR_THREADS`, or the default where it is not set.
pub(super) fn global_threads() -> Result<usize> {
    let Some(text) = std::env::var_os("FULMAR_THREADS") else {
        return Ok(default_threads());
    };
    let number = text.to_str().and_then(|text| text.trim().parse().ok());
    number.ok_or(()).map_err(drop).and_then(|threads| checked_threads(threads).map_err(drop)).map_err(|()| {
        Error::Invalid(format!(
            "FULMAR_THREADS is `{}`: set it to a number from 1 to {MOST_THREADS}, or unset it",
            text.to_string_lossy().escape_debug()
        ))
    })
}
