//! Waits for tasks: who wakes them, and what they cost.

use std::time::Duration;

use fulmar::tasks::TaskStatus::{Cancelled, Failed, Finished};
use fulmar::tasks::{TaskContext, TaskError, TaskHandle, TaskQueue, TaskStatus, Worker};

use crate::support::{Bed, HANG, claim, put, task};

/// The second of a queue's threads to wait looks at nothing but what the first one finds.
pub(crate) fn many_threads_wait_and_each_is_told_of_its_task(bed: &dyn Bed) {
    let queue = bed.queue();
    let handles = queue.enqueue_many((0..40).map(|n| task(n.to_string()))).expect("accepted");
    let worker = Worker::builder(&bed.open())
        .max_concurrent(2)
        .handle("t", |task: &TaskContext| {
            if task.identifier().ends_with('7') {
                task.fail("seven");
            }
            Ok::<_, TaskError>(())
        })
        .start()
        .expect("started");
    std::thread::scope(|scope| {
        let threads: Vec<_> = handles.iter().map(|handle| scope.spawn(|| handle.wait(HANG))).collect();
        for (handle, thread) in handles.iter().zip(threads) {
            let expected = if handle.identifier().ends_with('7') { Failed } else { Finished };
            assert_eq!(thread.join().expect("no panic").expect("it ended"), expected, "{}", handle.identifier());
        }
    });
    worker.drain(HANG).expect("it ends");
}

/// Any and all, in one call each; after a timeout the handles are as good as before.
pub(crate) fn all_and_any_are_waited_for_in_one_call(bed: &dyn Bed) {
    let queue = bed.queue();
    let handles = queue.enqueue_many((0..3).map(|n| task(n.to_string()))).expect("accepted");
    let left = |error: TaskError| match error {
        TaskError::Timeout { left, .. } => left,
        other => panic!("{other:?}"),
    };
    assert_eq!(left(queue.wait_any(&handles, Duration::ZERO).expect_err("none has started")), 3);
    let end = |task: &TaskHandle| {
        let claim = claim(&queue);
        assert_eq!(claim.task().identifier(), task.identifier());
        claim.run(&|_: &TaskContext| Ok::<_, TaskError>(())).expect("ours");
    };
    handles[1].cancel().expect("cancelled");
    assert_eq!(queue.wait_any(&handles, HANG).expect("one has ended"), 1);
    assert_eq!(left(queue.wait_all(&handles, Duration::from_millis(1)).expect_err("two have not")), 2);
    std::thread::scope(|scope| {
        let all = scope.spawn(|| queue.wait_all(&handles, HANG));
        let any = scope.spawn(|| queue.wait_any(&handles[2..], HANG));
        end(&handles[0]);
        end(&handles[2]);
        assert_eq!(all.join().expect("no panic").expect("they ended"), [Finished, Cancelled, Finished]);
        assert_eq!(any.join().expect("no panic").expect("it ended"), 0);
    });
    assert_eq!(queue.wait_all(&[], Duration::ZERO).expect("none is left"), []);
    assert!(matches!(queue.wait_any(&[], None), Err(TaskError::Invalid(_))));
    let missing = [handles[0].clone(), queue.task("t", "nothing")];
    assert!(matches!(queue.wait_all(&missing, None), Err(TaskError::NotFound { .. })));
    assert_eq!(queue.wait_any(&missing, None).expect("the other one has ended"), 0);
}

/// A row that makes no sense is an error for the thread that waits for it, and for no other.
pub(crate) fn one_bad_row_keeps_no_other_from_being_waited_for(bed: &dyn Bed) {
    let queue = bed.queue();
    let handles = queue.enqueue_many((0..3).map(|n| task(n.to_string()))).expect("accepted");
    assert_eq!(bed.sql("UPDATE fulmar_task SET status = 99, gate = NULL WHERE identifier = '1'"), 1);
    handles[2].cancel().expect("cancelled");
    assert_eq!(queue.wait_any(&handles, HANG).expect("it has ended"), 2);
    assert!(matches!(handles[1].wait(HANG), Err(TaskError::Database { .. })));
}

/// No process looks by itself here: what is done elsewhere has to wake both sides.
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
