//! `FULMAR_THREADS`, good and bad: each value in a process of its own, because it is read once.
#![cfg(not(loom))]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use fulmar::batch::BatchRunner;
use fulmar::pipeline::Processor;
use fulmar::{Error, Executor, async_reset_pool, async_submit, async_total_requests};

const HANG: Duration = Duration::from_secs(60);

/// Says to the process started by a test what it should find.
const EXPECTED: &str = "FULMAR_TEST_EXPECTED";

#[test]
fn a_number_is_the_size() {
    expect("3", "3");
    expect(" 65536\n", "65536");
}

#[test]
fn anything_else_is_told_at_the_first_submission() {
    for bad in ["0", "65537", "-1", "many", "", "2.5", "99999999999999999999"] {
        expect(bad, "invalid");
    }
}

#[test]
fn without_it_there_are_at_least_four() {
    let output = started_process().env_remove("FULMAR_THREADS").env(EXPECTED, "default").output();
    let output = output.expect("this very program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn started_process() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args(["--exact", "the_started_process", "--nocapture"]);
    command
}

fn expect(value: &str, expected: &str) {
    let output = started_process().env("FULMAR_THREADS", value).env(EXPECTED, expected).output();
    let output = output.expect("this very program starts");
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "FULMAR_THREADS={value:?}: {told}");
    assert!(told.contains("1 passed"), "it was not run: {told}");
}

#[test]
fn the_started_process() {
    let Ok(expected) = std::env::var(EXPECTED) else {
        return; // Not started by a test: there is nothing to find.
    };
    let submit = || async_submit(&Arc::new(()), |_: &(), ()| Ok::<_, Error>(7), false, ());
    match expected.as_str() {
        "default" => assert!(Executor::global().threads() >= 4),
        "invalid" => {
            for _ in 0..2 {
                let refused = submit().expect_err("it makes no sense");
                assert!(matches!(&refused, Error::Invalid(text) if text.contains("FULMAR_THREADS")), "{refused:?}");
            }
            let says_so = |refused: Error| {
                assert!(matches!(&refused, Error::Invalid(text) if text.contains("FULMAR_THREADS")), "{refused:?}");
            };
            let (executor, store) = (Executor::global(), Arc::new(()));
            let nothing = |_: &(), ()| Ok::<_, Error>(());
            says_so(executor.spawn(|| ()).expect_err("it makes no sense"));
            says_so(executor.submit_many(&store, nothing, false, [(), ()]).expect_err("it makes no sense"));
            says_so(executor.submit_after(HANG, &store, nothing, false, ()).expect_err("it makes no sense"));
            says_so(executor.submit_every(HANG, &store, nothing, false, ()).expect_err("it makes no sense"));
            says_so(BatchRunner::builder().build().expect_err("it makes no sense"));
            let (_producer, consumer) = fulmar::queue::bounded::<u8>(1).expect("holds something");
            says_so(Processor::builder(consumer).handle(drop).expect_err("it makes no sense"));
            #[cfg(feature = "sqlite")]
            says_so(worker_on_the_global_executor());
            says_so(executor.reset(None::<usize>, HANG).expect_err("as many as before make no sense"));
            assert_eq!(async_total_requests(), 0);
            let none: Option<usize> = None;
            assert!(matches!(async_reset_pool(none, HANG), Err(Error::Invalid(_))), "it still makes no sense");
            assert!(submit().is_err());
            async_reset_pool(2, HANG).expect("a size from the program");
            assert_eq!(Executor::global().threads(), 2);
        }
        threads => assert_eq!(Executor::global().threads().to_string(), threads),
    }
    assert_eq!(submit().expect("open").wait(HANG).expect("it runs"), 7);
}

/// Why a worker of durable tasks can't be started on it.
#[cfg(feature = "sqlite")]
fn worker_on_the_global_executor() -> Error {
    use fulmar::tasks::{TaskContext, TaskError, TaskQueue, Worker};
    let folder = std::env::temp_dir().join(format!("fulmar-threads-env-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the system's own folder");
    let queue = TaskQueue::open(folder.join("queue.db")).expect("opens");
    let worker = Worker::builder(&queue)
        .executor(Executor::global())
        .max_concurrent(1)
        .handle("t", |_: &TaskContext| Ok::<_, TaskError>(()))
        .start();
    drop(queue);
    std::fs::remove_dir_all(&folder).ok();
    match worker.map(drop) {
        Err(TaskError::Executor(error)) => *error,
        other => panic!("{other:?}"),
    }
}
