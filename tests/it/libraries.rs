//! Two libraries on one executor: what one of them ends is its own.

use fulmar::{Error, Policy, Status, detached};

use crate::support::{Gate, HANG, executor, occupy};

#[test]
fn a_library_that_ends_harms_no_other() {
    let (executor, gate) = (executor(1), Gate::new());
    let held = occupy(&executor, &gate);
    let [one, other] = [(); 2].map(|()| executor.group(Policy::Each));
    let (ended, kept) = (one.spawn(|| 1).expect("accepted"), other.spawn(|| 2).expect("accepted"));
    one.cancel();
    assert!(matches!(ended.wait(HANG), Err(Error::Cancelled)));
    assert_eq!(kept.status(), Status::Queued);
    drop(one);
    gate.open();
    assert_eq!(kept.wait(HANG).expect("it was left alone"), 2);
    assert_eq!(other.spawn(|| 3).expect("still open").wait(HANG).expect("it runs"), 3);
    held.wait(HANG).expect("let go");
}

/// A library that starts at its first use, which may be inside of an operation of the program's.
#[test]
fn a_group_that_is_made_detached_outlives_the_operation_that_made_it() {
    let executor = executor(2);
    let program = executor.group(Policy::All);
    let inner = executor.clone();
    let groups = program.spawn(move || [inner.group(Policy::Each), detached(|| inner.group(Policy::Each))]);
    let [bound, own] = groups.expect("accepted").wait(HANG).expect("it runs");
    program.cancel();
    let refused = bound.spawn(|| 1).expect("accepted, and cancelled from the start");
    assert!(matches!(refused.wait(HANG), Err(Error::Cancelled)));
    assert_eq!(own.spawn(|| 2).expect("accepted").wait(HANG).expect("it runs"), 2);
    drop((bound, own));
    drop(program);
}
