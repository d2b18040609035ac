//! The process-wide executor from its first request to its end and back, in a process of its own.
#![cfg(not(loom))]

use std::sync::Arc;
use std::time::Duration;

use fulmar::{
    Error, Executor, async_await_termination, async_reset_pool, async_shutdown, async_submit, async_total_requests,
    async_wait_any_request, async_wait_request, async_wait_requests,
};

const HANG: Duration = Duration::from_secs(60);

#[test]
fn the_global_executor_ends_and_opens_again() {
    let store = Arc::new(());
    let submit = |n: u64| async_submit(&store, |_: &(), n: u64| Ok::<_, Error>(n), true, n);
    assert_eq!(async_total_requests(), 0);
    assert!(matches!(async_await_termination(HANG), Err(Error::Invalid(_))), "it is open");

    let requests = [1, 2, 3].map(|n| submit(n).expect("accepted"));
    assert!(async_wait_any_request(&requests, HANG).expect("one ends") < 3);
    assert_eq!(async_wait_requests(&requests, HANG).expect("all end"), [1, 2, 3]);
    assert_eq!(async_total_requests(), 3);

    let last = submit(4).expect("accepted");
    async_shutdown(HANG).expect("it ends");
    assert_eq!(async_wait_request(&last, Duration::ZERO).expect("finished before that"), 4);
    async_await_termination(Duration::ZERO).expect("it has ended");
    async_shutdown(Duration::ZERO).expect("again");
    assert!(matches!(submit(5), Err(Error::ShutDown)));
    assert_eq!(Executor::global().stats().threads, 0);
    assert_eq!(async_total_requests(), 4, "a refused one doesn't count");
    #[cfg(feature = "sqlite")]
    a_step_with_a_time_limit_needs_no_global_executor();
    assert_eq!(Executor::global().stats().threads, 0);

    async_reset_pool(2, HANG).expect("open again");
    assert_eq!(async_wait_request(&submit(6).expect("accepted"), HANG).expect("it runs"), 6);
    assert_eq!(Executor::global().threads(), 2);
    assert_eq!(async_total_requests(), 5, "since the process started");

    assert!(matches!(async_reset_pool(0, HANG), Err(Error::Invalid(_))));
    assert_eq!(Executor::global().threads(), 2, "nothing was changed");
    let limit: Option<usize> = None;
    async_reset_pool(limit, HANG).expect("the default");
    assert!(Executor::global().threads() >= 4, "at least 4, because blocking operations wait");

    let refused = async_submit(&store, |_: &(), ()| async_shutdown(None), false, ()).expect("accepted");
    let refused = async_wait_request(&refused, HANG).expect_err("it would wait for itself");
    assert!(matches!(refused.operation(), Some(Error::WouldDeadlock)), "{refused:?}");
}

/// A durable function on a thread that no executor has: the time limit of its step concerns no executor.
#[cfg(feature = "sqlite")]
fn a_step_with_a_time_limit_needs_no_global_executor() {
    use fulmar::backoff::RetryPolicy;
    use fulmar::tasks::durable::{Durable, StepOptions, function};
    use fulmar::tasks::{NewTask, TaskQueue, TaskStatus, Worker};

    let folder = std::env::temp_dir().join(format!("fulmar-global-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let queue = TaskQueue::open(folder.join("tasks.db")).expect("made");
    queue.register(fulmar::tasks::TaskType::new("t")).expect("registered");
    let task = queue.enqueue(NewTask::new("t", "a").input(&())).expect("accepted");
    let handler = function(|cx: &Durable<'_>, ()| {
        let limits = |limit| StepOptions::new().time_limit(limit).retry(RetryPolicy::never());
        let brief = limits(Duration::from_millis(10));
        let (_open, empty) = fulmar::queue::bounded::<u8>(1).expect("holds something");
        let told = cx.step_with("told", brief, || empty.get()).expect_err("it takes too long");
        assert!(format!("{told:?}").contains("Interrupted"), "{told:?}");
        // Nor does a shutdown wait for such a step.
        cx.step_with("in time", limits(HANG * 10), || async_await_termination(HANG))
    });
    assert_eq!(Worker::builder(&queue).handle("t", handler).run_due().expect("run").len(), 1);
    assert_eq!(task.status().expect("known"), TaskStatus::Finished);
    drop((task, queue));
    std::fs::remove_dir_all(&folder).expect("removed");
}
