//! Events: sent before or after they are awaited, once or many times, in time or not.

use fulmar::tasks::TaskError;
use fulmar::tasks::TaskStatus::{Cancelled, Finished, Paused};

use super::{HOUR, last, ok, queue, result, run, start, worker};
use crate::support::Bed;

pub(crate) fn an_event_is_kept_until_it_is_awaited(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| {
        let first: String = cx.event("word", None)?;
        let second: String = cx.event("word", None)?;
        let third: String = cx.event("word", HOUR)?;
        ok(format!("{first} {second} {third}"))
    });
    let task = start(&queue, "a");
    queue.send_event("t", "a", "word", "one").expect("kept");
    queue.send_event("t", "a", "other", "none").expect("kept");
    queue.send_event("t", "a", "word", "two").expect("kept");
    assert_eq!(run(&worker), [Paused]);
    assert_eq!(last(&task), "waits for the event `word`");
    assert!(run(&worker).is_empty());
    queue.send_event("t", "a", "other", "none").expect("kept");
    assert!(run(&worker).is_empty(), "another event doesn't wake it");
    queue.send_event("t", "a", "word", "three").expect("kept");
    assert_eq!(run(&worker), [Finished]);
    assert_eq!(result::<String>(&task), "one two three");
}

pub(crate) fn an_event_that_comes_while_the_function_runs_wakes_it(bed: &dyn Bed) {
    let queue = queue(bed);
    let other = queue.clone();
    let worker = worker(&queue, move |cx| {
        let word: Result<i32, TaskError> = cx.event("word", None);
        if matches!(word, Err(TaskError::Paused)) {
            // Between the look for it and the pause.
            other.send_event("t", "a", "word", &5).expect("kept");
        }
        word
    });
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Paused, Finished]);
    assert_eq!(result::<i32>(&task), 5);
}

pub(crate) fn an_event_that_does_not_come_in_time_is_an_error_for_ever(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| {
        let word: Result<i32, TaskError> = cx.event("word", HOUR);
        match word {
            Err(TaskError::Timeout { .. }) => {}
            Err(error) => return Err(error),
            Ok(_) => return ok("it came"),
        }
        cx.sleep("rest", HOUR)?;
        ok("too late")
    });
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Paused]);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Paused]);
    queue.send_event("t", "a", "word", &1).expect("kept");
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
    assert_eq!(result::<String>(&task), "too late", "what it was told once holds");
}

pub(crate) fn an_event_with_a_key_is_sent_once(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| {
        let first: i32 = cx.event("paid", None)?;
        let second: i32 = cx.event("paid", None)?;
        ok(first + second)
    });
    let task = start(&queue, "a");
    assert!(queue.send_event_once("t", "a", "paid", "one", &1).expect("kept"));
    assert!(!queue.send_event_once("t", "a", "paid", "one", &1).expect("known"));
    assert_eq!(run(&worker), [Paused]);
    assert!(!queue.send_event_once("t", "a", "paid", "one", &1).expect("known"), "though it was taken");
    assert!(queue.send_event_once("t", "a", "paid", "two", &10).expect("kept"));
    assert_eq!(run(&worker), [Finished]);
    assert_eq!(result::<i32>(&task), 11);
}

pub(crate) fn an_event_for_a_task_that_is_not_there_is_refused(bed: &dyn Bed) {
    let queue = queue(bed);
    assert!(matches!(queue.send_event("t", "a", "word", &1), Err(TaskError::NotFound { .. })));
    let task = start(&queue, "a");
    assert!(matches!(queue.send_event("t", "a", "", &1), Err(TaskError::Invalid(_))));
    assert_eq!(task.cancel().expect("cancelled"), Cancelled);
    let refused = queue.send_event("t", "a", "word", &1);
    assert!(matches!(refused, Err(TaskError::WrongStatus { status: Cancelled, .. })), "{refused:?}");
}
