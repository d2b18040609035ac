//! The helpers for tests of users: what is due runs on this thread, and time passes at the test's word.

use std::time::Duration;

use fulmar::tasks::TaskStatus::{Accepted, Failed, Finished, Paused};
use fulmar::tasks::{NewTask, RetryPolicy, TaskContext, TaskError, TaskType, Worker};

use crate::support::{Bed, claim, put, task};

const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn what_is_due_runs_on_this_thread(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").retry(RetryPolicy::times(1).first(HOUR))).expect("registered");
    queue.register(TaskType::new("u")).expect("registered");
    let (here, own) = (std::thread::current().id(), queue.clone());
    let handlers = Worker::builder(&queue)
        .handle("t", move |task: &TaskContext| -> Result<(), TaskError> {
            assert_eq!(std::thread::current().id(), here);
            match task.identifier() {
                "fails" => Err(TaskError::Invalid("no luck".into())),
                "pauses" if task.attempt() == 1 => task.pause_with(HOUR, &7),
                "enqueues" => own.enqueue(NewTask::new("u", "child")).map(drop),
                _ => Ok(()),
            }
        })
        .handle("u", |_: &TaskContext| Ok::<_, TaskError>(()));
    let came_to = || -> Vec<_> {
        let attempted = handlers.run_due().expect("ran");
        attempted.into_iter().map(|attempt| (attempt.identifier, attempt.status)).collect()
    };
    let of = |name: &str, status| (name.to_owned(), status);
    assert!(came_to().is_empty());
    for name in ["fails", "pauses", "enqueues"] {
        put(&queue, name);
    }
    queue.enqueue(task("later").run_after(2 * HOUR)).expect("accepted");
    assert_eq!(
        came_to(),
        [of("fails", Accepted), of("pauses", Paused), of("enqueues", Finished), of("child", Finished)]
    );
    assert!(came_to().is_empty(), "nothing is due");
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(came_to(), [of("fails", Failed), of("pauses", Finished)]);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(came_to(), [of("later", Finished)]);
}

pub(crate) fn time_that_passes_ends_leases_and_retention(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").retention(HOUR)).expect("registered");
    put(&queue, "a");
    let lost = claim(&queue);
    lost.start().expect("ours");
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(queue.tidy().expect("tidied").returned, 1);
    assert!(lost.finish().expect_err("the lease is over").is_stale());
    let handlers = Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<_, TaskError>(()));
    assert_eq!(handlers.run_due().expect("ran").len(), 1);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(queue.tidy().expect("tidied").deleted, 1);
}

pub(crate) fn a_task_that_is_due_for_ever_is_told_of(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "again");
    let handlers = Worker::builder(&queue).handle("t", |task: &TaskContext| {
        task.pause(Duration::ZERO);
        Ok::<_, TaskError>(())
    });
    let told = handlers.run_due().expect_err("for ever");
    assert!(matches!(&told, TaskError::Invalid(text) if text.contains("task `again` of type `t`")), "{told}");
}
