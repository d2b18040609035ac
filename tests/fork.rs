//! What the child of a `fork` does with an executor of its parent, in a process of its own.
#![cfg(all(unix, not(any(loom, shuttle))))]
// Of the C library, because no safe crate has `fork`.
#![allow(unsafe_code)]

use std::sync::mpsc;
use std::time::Duration;

use fulmar::{Error, Executor};

const HANG: Duration = Duration::from_secs(60);

/// Runs `body` in a child of this process. Returns whether it returned true.
fn in_child(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the only other threads are the executor's. They hold no lock while they wait, as all of them do here, so the
    // child can allocate and submit. It ends without the destructors of its parent.
    unsafe {
        match libc::fork() {
            -1 => panic!("no child: {}", std::io::Error::last_os_error()),
            0 => {
                // Ends a child that hangs.
                libc::alarm(60);
                let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(false);
                libc::_exit(i32::from(!passed))
            }
            child => {
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
            }
        }
    }
}

#[test]
fn a_child_that_resets_the_executor_has_threads_of_its_own() {
    let executor = Executor::builder().threads(2).build().expect("sound");
    let (started, starts) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let busy = executor
        .spawn(move || {
            started.send(()).ok();
            gate.recv().ok();
        })
        .expect("accepted");
    starts.recv().expect("it runs");

    let ran = in_child(|| {
        // The thread with the parent's operation stays with the parent.
        let reset = executor.reset(2, Duration::ZERO);
        let told = matches!(reset, Err(Error::Timeout { left, .. }) if left >= 1);
        let request = executor.spawn(|| 7).expect("accepted");
        told && request.wait(HANG).expect("runs in the child") == 7
    });
    assert!(ran, "the child's request did not run");

    open.send(()).expect("it waits");
    busy.wait(HANG).expect("the parent's operation ends");
    assert_eq!(executor.spawn(|| 8).expect("accepted").wait(HANG).expect("runs in the parent"), 8);
    executor.shutdown(HANG).expect("ends");
}
