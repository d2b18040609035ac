//! Parents and children on PostgreSQL: in what order their rows are taken. If two transactions took
//! them in different orders, they would wait for each other until the server aborts one, a second
//! later.

use fulmar::tasks::durable::{Durable, function};
use fulmar::tasks::{
    Claim, NewTask, TaskContext, TaskError, TaskFilter, TaskQueue, TaskStatus, TaskType, Worker, WorkerId,
};

use crate::postgres::Schema;
use crate::support::{Bed, HANG, LEASE, eventually, number};

/// Functions that wait for children, `0/0`, `0/1` and so on.
fn families(queue: &TaskQueue, parents: usize, children: usize) {
    queue.register(TaskType::new("c").restart_limit(0)).expect("registered");
    let parent = parents_worker(queue, children);
    let tasks = (0..parents).map(|n| NewTask::new("t", n.to_string()).input(&()));
    queue.enqueue_many(tasks).expect("accepted");
    assert_eq!(parent.run_due().expect("run").len(), parents, "they wait");
}

fn parents_worker(queue: &TaskQueue, children: usize) -> fulmar::tasks::WorkerBuilder {
    let below = move |cx: &Durable<'_>, ()| {
        cx.all_ended::<()>("below", (0..children).map(|n| cx.child("c", &n.to_string(), &()))).map(drop)
    };
    Worker::builder(queue).handle("t", function(below))
}

fn at_work(queue: &TaskQueue) -> Vec<Claim> {
    let claims = queue.dequeue(&WorkerId::new(), &["c"], 99, LEASE).expect("claimed");
    claims.iter().for_each(|claim| claim.start().expect("ours"));
    claims
}

/// Does `act` while another transaction holds the count of the first parent's children: what waits
/// for that holds nothing that another transaction may want first.
fn waits_for_the_count_and_holds_nothing(bed: &Schema, queue: &TaskQueue, what: &str, act: &(dyn Fn() + Sync)) {
    std::thread::scope(|scope| {
        let acting = queue.postgres_transaction(|tx| {
            let first = format!("SELECT 1 FROM {}.fulmar_task_family ORDER BY task_id LIMIT 1 FOR UPDATE", bed.name());
            assert_eq!(tx.query(&first, &[])?.len(), 1, "{what}: a parent waits");
            let session = tx.query("SELECT pg_backend_pid()::text", &[])?[0][0].clone().expect("a number");
            let acting = scope.spawn(act);
            let waits = format!("SELECT count(*) FROM pg_stat_activity WHERE {session} = ANY(pg_blocking_pids(pid))");
            eventually(what, || {
                assert!(!acting.is_finished(), "{what}: it needs no count");
                bed.count(&waits) > 0
            });
            for rows in
                ["fulmar_task_family WHERE task_id > (SELECT min(task_id) FROM fulmar_task_family)", "fulmar_task"]
            {
                let free = format!("SELECT count(*) FROM (SELECT 1 FROM {rows} FOR UPDATE SKIP LOCKED) AS f");
                let all = format!("SELECT count(*) FROM {rows}");
                assert_eq!(bed.count(&free), bed.count(&all), "{what}: it holds rows of {rows}");
            }
            Ok::<_, TaskError>(acting)
        });
        acting.expect("committed").join().expect("no panic");
    });
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn whatever_ends_children_takes_their_parents_counts_before_any_task() {
    let of_children = || TaskFilter::new().of_type("c");
    let round = |what: &str, prepare: &dyn Fn(&TaskQueue), act: &(dyn Fn(&TaskQueue) + Sync)| {
        let bed = Schema::new();
        let queue = bed.queue();
        families(&queue, 2, 2);
        prepare(&queue);
        waits_for_the_count_and_holds_nothing(&bed, &queue, what, &|| act(&queue));
    };
    let nothing = |_: &TaskQueue| {};
    round("a cancel", &nothing, &|queue| {
        assert_eq!(queue.cancel("c", "0/1").expect("it waits"), TaskStatus::Cancelled);
    });
    round("a cancel of all", &nothing, &|queue| {
        assert_eq!(queue.cancel_all(&of_children(), "").expect("cancelled"), 4);
    });
    round("a deletion", &nothing, &|queue| queue.delete("c", "0/1").expect("it waits"));
    round("a deletion of all", &nothing, &|queue| {
        assert_eq!(queue.delete_all(&of_children()).expect("deleted"), 4);
    });
    round("the end of a type", &nothing, &|queue| queue.force_unregister("c").expect("registered"));
    let cancelled = |queue: &TaskQueue| assert_eq!(queue.cancel_all(&of_children(), "").expect("cancelled"), 4);
    round("a retry", &cancelled, &|queue| queue.retry("c", "0/1").expect("cancelled"));
    round("a retry of all", &cancelled, &|queue| {
        assert_eq!(queue.retry_all(&of_children()).expect("retried"), 4);
    });
    let lost = |queue: &TaskQueue| {
        at_work(queue);
        queue.pass_time(2 * LEASE).expect("it passes");
    };
    round("a rescue", &lost, &|queue| {
        // Of the first parent's children; those of the second are rescued at the next look.
        while queue.tidy().expect("tidied").failed == 0 {}
    });
    let bed = Schema::new();
    let queue = bed.queue();
    families(&queue, 2, 2);
    let claims = at_work(&queue);
    let child = |name: &str| claims.iter().find(|claim| claim.task().identifier() == name).expect("claimed");
    waits_for_the_count_and_holds_nothing(&bed, &queue, "an end", &|| {
        assert_eq!(child("0/0").finish().expect("ours"), TaskStatus::Finished);
    });
    waits_for_the_count_and_holds_nothing(&bed, &queue, "an end in a transaction", &|| {
        queue.postgres_transaction(|tx| child("0/1").task().finish_in(tx)).expect("ours");
    });
}

/// A function is unique, so that who enqueues another of its key waits for its row, with the lock
/// of the capacity: the function enqueues its children in that order, too.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn children_wait_for_room_before_their_parent_is_locked() {
    let bed = Schema::new();
    let queue = bed.queue();
    queue.register(TaskType::new("c")).expect("registered");
    queue.set_capacity(1_000).expect("set");
    let parent = queue.enqueue(NewTask::new("t", "0").input(&())).expect("accepted");
    std::thread::scope(|scope| {
        let spawning = queue.postgres_transaction(|tx| {
            queue.enqueue_in(tx, [NewTask::new("c", "it has the lock of the capacity")])?;
            let session = tx.query("SELECT pg_backend_pid()::text", &[])?[0][0].clone().expect("a number");
            let spawning = scope.spawn(|| parents_worker(&queue, 2).run_due().expect("run").len());
            let waits = format!("SELECT count(*) FROM pg_stat_activity WHERE {session} = ANY(pg_blocking_pids(pid))");
            eventually("the children wait for room", || bed.count(&waits) > 0);
            let free = "SELECT count(*) FROM (SELECT 1 FROM fulmar_task FOR UPDATE SKIP LOCKED) AS f";
            assert_eq!(bed.count(free), 1, "the parent's row is free");
            Ok::<_, TaskError>(spawning)
        });
        assert_eq!(spawning.expect("committed").join().expect("no panic"), 1);
    });
    assert_eq!(parent.status().expect("there"), TaskStatus::Paused);
}

/// How often the server aborted a statement of this schema because two waited for each other, by
/// its log.
fn deadlocks(bed: &Schema) -> usize {
    let server = std::env::var("FULMAR_POSTGRES_SERVER").expect("tests/run sets it");
    let log = std::path::Path::new(&server).with_file_name("data").join("log");
    let log = String::from_utf8_lossy(&std::fs::read(log).expect("the server's log")).into_owned();
    log.split("deadlock detected")
        .skip(1)
        .filter(|told| {
            let end = told.find("\n2").and_then(|first| told[first + 1..].find("ERROR: ").map(|next| first + 1 + next));
            told[..end.unwrap_or(told.len())].contains(bed.name())
        })
        .count()
}

/// JobService 94, jobrunr 1366, kestra 9096: ends, cancels and the rescue of jobs that others
/// depend on waited for each other, and were aborted.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_storm_of_ends_cancels_retries_and_rescues_is_no_deadlock() {
    const CHILDREN: usize = 6;
    let bed = Schema::new();
    let queue = bed.queue();
    families(&queue, 40, CHILDREN);
    let rounds = number("FULMAR_TASK_RACES", 200) / 10;
    let workers: Vec<Worker> = (0..2)
        .map(|_| {
            let queue = bed.open();
            let ends = |_: &TaskContext| Ok::<_, TaskError>(());
            Worker::builder(&queue).max_concurrent(8).handle("c", ends).start().expect("started")
        })
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let queue = bed.open();
                for _ in 0..rounds {
                    queue.cancel_all(&TaskFilter::new().of_type("c"), "").expect("cancelled");
                    queue.retry_all(&TaskFilter::new().of_type("c")).expect("retried");
                }
            });
            scope.spawn(|| {
                let (queue, worker) = (bed.open(), WorkerId::new());
                for _ in 0..rounds {
                    let lost = std::time::Duration::from_millis(20);
                    for claim in queue.dequeue(&worker, &["c"], 20, lost).expect("claimed") {
                        // Its lease may be over.
                        let _ = claim.start();
                    }
                    queue.tidy().expect("tidied");
                }
            });
        }
    });
    let parents = parents_worker(&queue, CHILDREN).start().expect("started");
    for n in 0..40 {
        assert_eq!(queue.wait("t", &n.to_string(), HANG).expect("it ends"), TaskStatus::Finished, "{n}");
    }
    parents.drain(HANG).expect("idle");
    for worker in workers {
        worker.drain(HANG).expect("idle");
    }
    assert_eq!(deadlocks(&bed), 0);
}
