//! Waits for tasks: who wakes them, and what they cost.

use std::time::Duration;

use fulmar::tasks::{TaskContext, TaskError, TaskQueue, TaskStatus, Worker};

use crate::support::{Bed, HANG, put};

/// Nobody looks by himself here: what is done elsewhere has to wake both sides.
pub(crate) fn another_process_wakes_workers_and_waiters(bed: &dyn Bed) {
    let day = || TaskQueue::builder().poll_interval(Duration::from_secs(86_400));
    let here = bed.queue();
    let there = bed.open_with(day());
    let worker =
        Worker::builder(&there).handle("t", |_: &TaskContext| Ok::<_, TaskError>(())).start().expect("started");
    let asks = bed.open_with(day());
    for n in 0..20 {
        let name = n.to_string();
        put(&here, &name);
        assert_eq!(asks.wait("t", &name, HANG).expect("it ends"), TaskStatus::Finished);
    }
    worker.drain(HANG).expect("it ends");
}
