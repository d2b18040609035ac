//! What a queue says where something is wrong: the same words on every engine.

use fulmar::tasks::{NewTask, Schedule, TaskError, TaskFilter, TaskType};

use crate::support::{Bed, LEASE, put};

/// No task, type, key or schedule has a zero byte in its name, so a look for one finds nothing, and
/// the text says so.
pub(crate) fn a_zero_byte_is_in_no_name(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "a");
    for (task_type, name) in [("t", "a\0b"), ("t\0", "a")] {
        let said = [
            queue.status(task_type, name).map(drop),
            queue.log(task_type, name).map(drop),
            queue.response(task_type, name).map(drop),
            queue.wait(task_type, name, None).map(drop),
            queue.cancel(task_type, name).map(drop),
            queue.retry(task_type, name),
            queue.set_priority(task_type, name, 1),
            queue.delete(task_type, name),
        ];
        for said in said {
            let error = said.expect_err("there is no such task");
            assert!(matches!(error, TaskError::NotFound { .. }), "{error:?}");
            assert_eq!(error.to_string(), format!("there is no task `{name}` of type `{task_type}`"));
        }
    }
    for said in
        [queue.unregister("t\0"), queue.force_unregister("t\0"), queue.pause_type("t\0"), queue.resume_type("t\0")]
    {
        assert!(matches!(said, Err(TaskError::UnknownType(_))), "{said:?}");
    }
    assert!(!queue.remove_schedule("s\0").expect("done"));
    for said in [queue.pause_schedule("s\0"), queue.resume_schedule("s\0")] {
        assert!(matches!(said, Err(TaskError::UnknownSchedule(_))), "{said:?}");
    }
    let filters = [TaskFilter::new().of_type("t\0"), TaskFilter::new().key("k\0"), TaskFilter::new().saying("\0")];
    for filter in filters {
        assert_eq!(queue.list(&filter, 9).expect("read").tasks, []);
        assert_eq!(queue.count(&filter).expect("read"), 0);
        assert_eq!(queue.cancel_all(&filter, "").expect("done"), 0);
        assert_eq!(queue.delete_all(&filter).expect("done"), 0);
    }
    assert!(queue.dequeue(&fulmar::tasks::WorkerId::new(), &["t\0"], 9, LEASE).expect("claimed").is_empty());
    let invalid = [
        queue.register(TaskType::new("t\0")),
        queue.enqueue(NewTask::new("t", "b\0")).map(drop),
        queue.enqueue(NewTask::new("t", "b").ordered("k\0", true)).map(drop),
        queue.put_schedule(Schedule::every("s\0", LEASE, NewTask::new("t", "s"))),
    ];
    for said in invalid {
        let error = said.expect_err("no such name");
        assert!(matches!(error, TaskError::Invalid(_)), "{error:?}");
        assert!(error.to_string().contains("control character"), "{error}");
    }
}
