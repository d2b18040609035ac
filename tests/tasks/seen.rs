//! What is seen of a queue: numbers, events, and the context of the program that enqueued.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fulmar::tasks::TaskStatus::{Accepted, Failed, Finished};
use fulmar::tasks::{
    NewTask, RetryPolicy, Schedule, TaskContext, TaskError, TaskEvent, TaskQueue, TaskStatus, TaskType, Unique, Worker,
};

use crate::support::{Bed, HANG, claim, eventually, put, task, transaction_at};

/// The value of a line of OpenMetrics text.
fn value(page: &str, sample: &str) -> f64 {
    let line = page.lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no `{sample}` in\n{page}"));
    line[sample.len() + 1..].parse().unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Works until all have ended.
fn work(queue: &TaskQueue, ends: u64) {
    let worker = Worker::builder(queue)
        .handle("t", |task: &TaskContext| match (task.identifier(), task.attempt()) {
            ("bad", _) | ("retried", 1) => Err("no luck"),
            _ => Ok(()),
        })
        .start()
        .expect("a worker");
    eventually("all end", || {
        queue.stats().expect("counted").count(Finished) + queue.stats().expect("counted").count(Failed) == ends
    });
    worker.drain(HANG).expect("drained");
}

pub(crate) fn the_page_for_prometheus_tells_what_happened(bed: &dyn Bed) {
    let queue = bed.open();
    queue.register(TaskType::new("t").retry(RetryPolicy::times(1).first(Duration::ZERO))).expect("registered");
    queue.register(TaskType::new("a \"name\"\\")).expect("registered");
    queue.set_capacity(100).expect("set");
    for identifier in ["good", "bad", "retried"] {
        put(&queue, identifier);
    }
    queue.enqueue(task("later").run_after(HANG * 100).unique(Unique::by_key("k"))).expect("accepted");
    queue.enqueue(task("once more").unique(Unique::by_key("k"))).expect("accepted");
    queue.pass_time(Duration::from_secs(30)).expect("it passes");
    let page = queue.open_metrics().expect("a page");
    assert!(value(&page, "fulmar_oldest_ready_seconds{type=\"t\"}") >= 30.0);
    work(&queue, 3);
    queue.pause_type("t").expect("paused");
    let page = queue.open_metrics().expect("a page");
    for (sample, expected) in [
        ("fulmar_tasks{type=\"t\",status=\"finished\"}", 2.0),
        ("fulmar_tasks{type=\"t\",status=\"failed\"}", 1.0),
        ("fulmar_tasks{type=\"t\",status=\"accepted\"}", 1.0),
        ("fulmar_tasks{type=\"a \\\"name\\\"\\\\\",status=\"accepted\"}", 0.0),
        ("fulmar_paused{type=\"t\"}", 1.0),
        ("fulmar_capacity", 100.0),
        ("fulmar_enqueued_total{type=\"t\"}", 4.0),
        ("fulmar_attempts_total{type=\"t\",outcome=\"finished\"}", 2.0),
        ("fulmar_attempts_total{type=\"t\",outcome=\"retried\"}", 2.0),
        ("fulmar_attempts_total{type=\"t\",outcome=\"failed\"}", 1.0),
        ("fulmar_attempts_total{type=\"t\",outcome=\"lost\"}", 0.0),
        ("fulmar_running_seconds_count{type=\"t\"}", 5.0),
        ("fulmar_waiting_seconds_count{type=\"t\"}", 5.0),
        ("fulmar_waiting_seconds_bucket{type=\"t\",le=\"10.0\"}", 2.0),
        ("fulmar_enqueue_seconds_count", 5.0),
    ] {
        assert_eq!(value(&page, sample), expected, "{sample} in\n{page}");
    }
    assert!(value(&page, "fulmar_waiting_seconds_sum{type=\"t\"}") >= 90.0, "three waited for half a minute");
    assert!(value(&page, "fulmar_claim_seconds_count") >= 1.0 && value(&page, "fulmar_commit_seconds_sum") > 0.0);
    assert!(page.ends_with("# EOF\n"));
    // Each family is named once, before its samples, and each line is one of these.
    let mut families: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), count);
}

pub(crate) fn events_tell_of_starts_and_ends(bed: &dyn Bed) {
    let queue = bed.queue();
    type Told = Vec<(String, Option<TaskStatus>)>;
    let told: Arc<Mutex<Told>> = Arc::default();
    let listener = told.clone();
    for identifier in ["good", "bad"] {
        put(&queue, identifier);
    }
    let worker = Worker::builder(&queue)
        .max_concurrent(1)
        .handle("t", |task: &TaskContext| if task.identifier() == "bad" { Err("no luck") } else { Ok(()) })
        .on_event(move |event| {
            let line = match event {
                TaskEvent::Started(task) => (task.identifier().to_owned(), None),
                TaskEvent::Ended { task, status, .. } => (task.identifier().to_owned(), *status),
                other => panic!("{other:?}"),
            };
            listener.lock().expect("nobody panics under it").push(line);
            panic!("in a test, on purpose: it goes no further");
        })
        .start()
        .expect("a worker");
    eventually("both end", || told.lock().expect("nobody panics under it").len() == 4);
    worker.drain(HANG).expect("drained");
    let line = |identifier: &str, status| (identifier.to_owned(), status);
    let mut told = told.lock().expect("nobody panics under it").clone();
    told.sort();
    let expected = [line("bad", None), line("bad", Some(Failed)), line("good", None), line("good", Some(Finished))];
    assert_eq!(told, expected);
}

pub(crate) fn the_submitters_context_comes_to_the_handler(bed: &dyn Bed) {
    bed.queue();
    let current: Arc<Mutex<Option<String>>> = Arc::default();
    let source = current.clone();
    let producer = bed.open_with(TaskQueue::builder().trace_context(move || source.lock().expect("sound").clone()));
    let context = |identifier: &str| {
        let claim = claim(&producer);
        assert_eq!(claim.task().identifier(), identifier);
        let context = claim.task().trace_context().map(str::to_owned);
        claim.start().expect("ours");
        assert_eq!(claim.fail("no luck").expect("ours"), Failed);
        context
    };
    put(&producer, "none");
    assert_eq!(context("none"), None);
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    *current.lock().expect("sound") = Some(PARENT.into());
    producer.enqueue(task("given").ordered("k", true)).expect("accepted");
    assert_eq!(context("given").as_deref(), Some(PARENT));
    producer.retry("t", "given").expect("retried, with another number");
    assert_eq!(context("given").as_deref(), Some(PARENT), "it stays with the task");
    producer.enqueue(task("own").trace_context("mine")).expect("accepted");
    assert_eq!(context("own").as_deref(), Some("mine"));
    transaction_at(&bed.address(), &producer, &|tx, _| producer.enqueue_in(tx, [task("tx")]).map(drop)).expect("done");
    assert_eq!(context("tx").as_deref(), Some(PARENT));
    // What makes no sense is left out where it came by itself, and refused where it was asked for.
    *current.lock().expect("sound") = Some("a\nb".into());
    put(&producer, "bad");
    assert_eq!(context("bad"), None);
    assert!(matches!(producer.enqueue(task("x").trace_context("")), Err(TaskError::Invalid(_))));
    for identifier in ["given", "own", "tx"] {
        producer.delete("t", identifier).expect("it ended");
    }
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_context"), 0);
    // A schedule has no submitter; its tasks have no context.
    let hourly = Schedule::every("s", Duration::from_secs(3_600), NewTask::new("t", "s"));
    producer.put_schedule(hourly).expect("sound");
    assert_eq!(producer.count(&fulmar::tasks::TaskFilter::new().status([Accepted])).expect("counted"), 0);
}
