//! Durable functions, on every engine.

mod children;
mod code;
mod events;
#[cfg(debug_assertions)]
pub(crate) mod killed;
mod reports;
mod steps;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fulmar::tasks::durable::{Durable, function};
use fulmar::tasks::{Handler, NewTask, TaskError, TaskHandle, TaskQueue, TaskStatus, Worker, WorkerBuilder};

pub(crate) use self::children::*;
pub(crate) use self::code::*;
pub(crate) use self::events::*;
pub(crate) use self::reports::*;
pub(crate) use self::steps::*;
use crate::support::Bed;

const HOUR: Duration = Duration::from_secs(3_600);

/// What closures did, in order.
#[derive(Clone, Default)]
struct Did(Arc<Mutex<Vec<String>>>);

impl Did {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().expect("no thread panics under it").push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no thread panics under it").clone()
    }

    fn assert(&self, expected: &[&str]) {
        assert_eq!(self.all(), expected);
    }
}

/// A worker of one function of type `t`, which gets no input.
fn worker<R: serde::Serialize + 'static>(
    queue: &TaskQueue,
    work: impl Fn(&Durable<'_>) -> Result<R, TaskError> + Send + Sync + 'static,
) -> WorkerBuilder {
    handling(queue, function(move |cx: &Durable<'_>, ()| work(cx)))
}

fn handling(queue: &TaskQueue, handler: impl Handler) -> WorkerBuilder {
    Worker::builder(queue).handle("t", handler)
}

fn start(queue: &TaskQueue, identifier: &str) -> TaskHandle {
    queue.enqueue(NewTask::new("t", identifier).input(&())).expect("accepted")
}

/// Runs what is due; where each attempt led.
fn run(worker: &WorkerBuilder) -> Vec<TaskStatus> {
    worker.run_due().expect("run").into_iter().map(|attempt| attempt.status).collect()
}

fn last(task: &TaskHandle) -> String {
    task.log().expect("a log").pop().expect("an entry").message
}

fn result<T: serde::de::DeserializeOwned>(task: &TaskHandle) -> T {
    task.response().expect("read").expect("a result").json().expect("of that type")
}

fn ok<T>(value: T) -> Result<T, TaskError> {
    Ok(value)
}

fn no() -> TaskError {
    TaskError::Invalid("no".into())
}

fn queue(bed: &dyn Bed) -> TaskQueue {
    bed.queue()
}
