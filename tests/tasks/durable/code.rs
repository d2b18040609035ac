//! Functions whose code changes while they run.

use std::time::Duration;

use fulmar::tasks::TaskStatus::{Failed, Finished, Paused};

use super::{Did, HOUR, last, ok, queue, result, run, start, worker};
use crate::support::Bed;

/// Has a function store the step `one` and sleep.
fn begun(bed: &dyn Bed) -> fulmar::tasks::TaskQueue {
    let queue = queue(bed);
    let old = worker(&queue, |cx| {
        cx.step("one", || ok(1))?;
        cx.sleep("settle", HOUR)
    });
    start(&queue, "a");
    assert_eq!(run(&old), [Paused]);
    queue.pass_time(HOUR).expect("passed");
    queue
}

pub(crate) fn a_renamed_step_is_an_error_that_names_both(bed: &dyn Bed) {
    let (queue, did) = (begun(bed), Did::default());
    let notes = did.clone();
    let new = worker(&queue, move |cx| {
        let renamed = cx.step("uno", || {
            notes.note("uno");
            ok(1)
        });
        // Swallowed or not, it gets no further.
        assert!(renamed.is_err() && cx.sleep("settle", HOUR).is_err());
        ok(())
    });
    assert_eq!(run(&new), [Failed]);
    did.assert(&[]);
    let said = last(&queue.task("t", "a"));
    assert!(said.contains("the step `one` is stored") && said.contains("the step `uno`"), "{said}");
}

pub(crate) fn a_step_that_was_left_out_is_an_error(bed: &dyn Bed) {
    let queue = begun(bed);
    let new = worker(&queue, |cx| cx.step("one", || ok(1)));
    assert_eq!(run(&new), [Failed]);
    let said = last(&queue.task("t", "a"));
    assert!(said.contains("the sleep `settle` is stored") && said.contains("came to its end"), "{said}");
    // With the old code it may go on.
    queue.retry("t", "a").expect("retried");
    let old = worker(&queue, |cx| {
        cx.step("one", || ok(1))?;
        cx.sleep("settle", HOUR)
    });
    assert_eq!(run(&old), [Finished]);
}

pub(crate) fn a_value_that_no_longer_fits_is_an_error_that_names_both(bed: &dyn Bed) {
    let queue = begun(bed);
    let new = worker(&queue, |cx| cx.step("one", || ok("one".to_owned())));
    assert_eq!(run(&new), [Failed]);
    let said = last(&queue.task("t", "a"));
    assert!(said.contains("`one`") && said.contains("String"), "{said}");
}

pub(crate) fn a_step_of_another_kind_is_an_error(bed: &dyn Bed) {
    let queue = begun(bed);
    let new = worker(&queue, |cx| cx.sleep("one", HOUR));
    assert_eq!(run(&new), [Failed]);
    assert!(last(&queue.task("t", "a")).contains("asks for a sleep"), "{}", last(&queue.task("t", "a")));
}

pub(crate) fn steps_may_change_places(bed: &dyn Bed) {
    let queue = queue(bed);
    let old = worker(&queue, |cx| {
        cx.step("one", || ok(1))?;
        cx.step("two", || ok(2))?;
        cx.sleep("settle", HOUR)
    });
    start(&queue, "a");
    assert_eq!(run(&old), [Paused]);
    queue.pass_time(HOUR).expect("passed");
    let new = worker(&queue, |cx| {
        let two: i32 = cx.step("two", || ok(20))?;
        cx.sleep("settle", HOUR)?;
        ok(two + cx.step("one", || ok(10))?)
    });
    assert_eq!(run(&new), [Finished]);
    assert_eq!(result::<i32>(&queue.task("t", "a")), 3);
}

pub(crate) fn a_patch_lets_old_runs_end_with_old_code(bed: &dyn Bed) {
    let (queue, did) = (begun(bed), Did::default());
    let notes = did.clone();
    let new = worker(&queue, move |cx| {
        if cx.patch("check first")? {
            cx.step("check", || {
                notes.note("check");
                ok(())
            })?;
        }
        cx.step("one", || ok(1))?;
        cx.sleep("settle", HOUR)?;
        ok(cx.patch("check first")?)
    });
    assert_eq!(run(&new), [Finished]);
    assert!(!result::<bool>(&queue.task("t", "a")), "it had gone past that place");
    let fresh = start(&queue, "b");
    assert_eq!(run(&new), [Paused]);
    did.assert(&["check"]);
    queue.pass_time(HOUR + Duration::from_secs(1)).expect("passed");
    assert_eq!(run(&new), [Finished]);
    assert!(result::<bool>(&fresh));
    did.assert(&["check"]);
}
