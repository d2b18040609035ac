//! A wait of ours inside an operation lends the thread's place, whatever it is for: a pool never
//! starves itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fulmar::Executor;
use fulmar::pipeline::{PeriodicSubmitter, Processor};
use fulmar::queue::bounded;

use crate::support::{HANG, executor};

#[test]
fn two_processors_of_the_global_executor_feed_each_other_with_the_defaults() {
    let (files, file_consumer) = bounded(10).expect("holds something");
    let (rows, row_consumer) = bounded(10).expect("holds something");
    let sum = Arc::new(AtomicU64::new(0));
    let total = sum.clone();
    let second = Processor::builder(row_consumer)
        .handle(move |row: u64| {
            total.fetch_add(row, Ordering::Relaxed);
        })
        .expect("starts");
    let first = Processor::builder(file_consumer)
        .handle(move |file: u64| (0..100).try_for_each(|row| rows.put(file * 100 + row)))
        .expect("starts");
    (0..40).for_each(|file| files.put(file).expect("open"));
    files.close();
    assert_eq!(first.wait(HANG).expect("no deadlock").handled, 40);
    assert_eq!(second.wait(HANG).expect("its producers are gone").handled, 4_000);
    assert_eq!(sum.load(Ordering::Relaxed), 7_998_000);
}

/// rayon issue 835: the thread that puts is the one that the consumer waits for.
#[test]
fn a_put_on_a_pool_of_one_thread_has_its_consumer_run_that_is_queued_behind() {
    let executor = executor(1);
    let (producer, consumer) = bounded(1).expect("holds something");
    let put = executor.spawn(move || (0..1_000).try_for_each(|n| producer.put(n))).expect("accepted");
    let got = executor.spawn(move || consumer.iter().sum::<u64>()).expect("accepted");
    assert!(put.wait(HANG).expect("ended").is_ok());
    assert_eq!(got.wait(HANG).expect("ended"), 499_500);
    executor.shutdown(HANG).expect("ended");
    assert_eq!(executor.stats().completed, 2);
}

#[test]
fn a_get_on_a_pool_of_one_thread_has_its_producer_run_that_is_queued_behind() {
    let executor = executor(1);
    let (producer, consumer) = bounded(1).expect("holds something");
    let got = executor.spawn(move || consumer.get_timeout(HANG)).expect("accepted");
    let put = executor.spawn(move || producer.put_timeout(7, HANG).is_ok()).expect("accepted");
    assert_eq!(got.wait(HANG).expect("ended"), Ok(7));
    assert!(put.wait(HANG).expect("ended"));
}

#[test]
fn ten_thousand_puts_into_a_full_queue_from_operations_do_not_outnumber_the_ones_that_wait() {
    let executor = executor(2);
    let (producer, consumer) = bounded(4).expect("holds something");
    let got = executor.spawn(move || consumer.iter().count()).expect("accepted");
    for n in 0..10_000_u32 {
        let producer = producer.clone();
        drop(executor.spawn(move || producer.put(n).is_ok()).expect("accepted"));
    }
    drop(producer);
    assert_eq!(got.wait(HANG).expect("ended"), 10_000);
    executor.shutdown(HANG).expect("ended");
}

#[test]
fn an_operation_may_wait_for_a_processor_and_a_submitter_that_need_its_thread() {
    let executor = executor(1);
    let inner = executor.clone();
    let ended = executor.spawn(move || wait_for_both(&inner)).expect("accepted");
    assert_eq!(ended.wait(HANG).expect("ended"), (5, 5));
}

fn wait_for_both(executor: &Executor) -> (u64, u64) {
    let (producer, consumer) = bounded(1).expect("holds something");
    let processor = Processor::builder(consumer).executor(executor).handle(|_: u8| ()).expect("starts");
    let submitter =
        PeriodicSubmitter::builder(producer).every(std::time::Duration::ZERO).times(5).submit(1).expect("starts");
    let submitted = submitter.wait(HANG).expect("room comes").submitted;
    (submitted, processor.wait(HANG).expect("a thread works in our place").handled)
}
