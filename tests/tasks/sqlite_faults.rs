//! Faults that only a file can show.

use std::time::Duration;

use fulmar::tasks::rusqlite::{Connection, TransactionBehavior};
use fulmar::tasks::{
    Limits, NewTask, Rate, TaskContext, TaskError, TaskFilter, TaskHandle, TaskQueue, TaskStatus, TaskType, Worker,
    WorkerId,
};
use rustix::process::Signal;

use crate::faults::{Process, assert_account, patient_queue, violations, wait_for_all};
use crate::sqlite::File;
use crate::support::{Bed, Gate, HANG, claim, claims, eventually, is_unfenced, put, task};

/// The part of a process that takes the writer's lock and keeps it.
pub(crate) fn hold(address: &str) {
    let mut db = Connection::open(address).expect("the file opens");
    let held = db.transaction_with_behavior(TransactionBehavior::Immediate).expect("the lock is free");
    held.execute("UPDATE fulmar_task SET priority = 99", []).expect("sound SQL");
    println!("@ holding");
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}

#[test]
fn a_backup_is_of_one_moment_while_others_write() {
    let file = File::new();
    let queue = file.queue();
    queue.enqueue_many((0..500).map(|n| task(n.to_string()))).expect("accepted");
    let copy = file.path().with_file_name("copy.db");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Two at a time: a copy of a moment has both of them or none.
            for n in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                queue.enqueue_many([task(format!("x{n}")), task(format!("y{n}"))]).expect("accepted");
            }
        });
        let done = queue.backup(&copy);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        done.expect("backed up");
    });
    let restored = TaskQueue::builder().existing_only().open(&copy).expect("it is a queue");
    let tasks: Vec<String> =
        restored.list_all(&TaskFilter::new()).map(|task| task.expect("a sound row").identifier).collect();
    assert!(tasks.len() >= 500 && tasks.len() % 2 == 0, "{}", tasks.len());
    assert_eq!(claims(&restored, &WorkerId::new(), 1).len(), 1);
    assert!(matches!(queue.backup(&copy), Err(TaskError::Invalid(_))), "nothing is replaced");
    let reader = TaskQueue::builder().read_only().open(file.path()).expect("it is there");
    let second = file.path().with_file_name("second.db");
    reader.backup(&second).expect("a backup reads");
    assert!(second.exists() && !second.with_file_name("second.db.part").exists());
    assert!(queue.backup(file.path().with_file_name("no folder").join("x")).is_err());
}

#[test]
fn a_writer_stopped_inside_a_transaction_is_a_typed_error_and_then_it_goes_on() {
    let file = File::new();
    let queue = file.queue();
    put(&queue, "a");
    let holder = Process::start(&file, "hold", &[]);
    holder.until("holding");
    holder.signal(Signal::STOP);
    let hasty = file.open_with(TaskQueue::builder().busy_timeout(Duration::from_millis(50)));
    let busy = hasty.enqueue(task("b")).expect_err("nobody can write");
    assert!(matches!(busy, TaskError::Busy { waited } if waited >= Duration::from_millis(50)), "{busy}");
    assert!(busy.is_retryable() && !busy.to_string().contains("locked"), "{busy}");
    assert_eq!(hasty.info("t", "a").expect("readers wait for nobody").priority, 0);
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| put(&queue, "b"));
        holder.signal(Signal::KILL);
        patient.join().expect("it was accepted in the end");
    });
    assert_eq!(queue.info("t", "a").expect("known").priority, 0, "what was not committed is gone");
    assert_eq!(queue.stats().expect("read").count(TaskStatus::Accepted), 2);
}

#[test]
fn what_else_forbids_a_row_is_no_duplicate() {
    let file = File::new();
    let queue = file.queue();
    file.connect()
        .execute_batch(
            "CREATE TRIGGER no BEFORE INSERT ON fulmar_task WHEN NEW.identifier = 'no'
                 BEGIN SELECT RAISE(ABORT, 'not in this house'); END;
             CREATE TABLE names (name TEXT UNIQUE);
             CREATE TRIGGER names AFTER INSERT ON fulmar_task BEGIN INSERT INTO names VALUES ('the one'); END",
        )
        .expect("sound SQL");
    let why = |name: &str| match queue.enqueue(task(name)).expect_err("refused") {
        TaskError::Database { source, .. } => source.to_string(),
        other => panic!("{name}: {other}"),
    };
    assert!(why("no").contains("not in this house"));
    put(&queue, "a");
    assert!(why("b").contains("names.name"));
    assert!(matches!(queue.enqueue(task("a")), Err(TaskError::Duplicate { .. })));
}

#[test]
fn a_full_disk_is_a_typed_error_that_harms_nobody_else_and_passes() {
    let file = File::new();
    let queue = file.open_with(TaskQueue::builder().max_file_size(2 << 20));
    queue.register(TaskType::new("t")).expect("registered");
    let mut accepted = 0;
    let full = loop {
        match queue.enqueue(task(format!("{accepted}")).input_bytes(vec![7; 50_000])) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1_000, "it is never full");
    };
    assert!(matches!(full, TaskError::DiskFull { .. }) && full.is_retryable(), "{full}");
    assert_eq!(queue.stats().expect("read").total(), accepted, "nothing lost, and no half of what was refused");
    queue.delete("t", "0").expect("deleting needs no room");
    queue.delete("t", "1").expect("deleting needs no room");
    // Many at once, one of which is too large for what is left: it alone is refused.
    std::thread::scope(|scope| {
        let huge = scope.spawn(|| queue.enqueue(task("huge").input_bytes(vec![7; 1 << 20])));
        let small: Vec<_> = (0..8)
            .map(|n| {
                let queue = &queue;
                scope.spawn(move || queue.enqueue(task(format!("small{n}"))).map(drop))
            })
            .collect();
        let huge = huge.join().expect("no panic").expect_err("too large");
        assert!(matches!(huge, TaskError::DiskFull { .. }), "{huge}");
        small.into_iter().for_each(|small| small.join().expect("no panic").expect("there is room for it"));
    });
    let db = file.connect();
    let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(sound, "ok");
}

/// As if somebody registered it between the look and the registration.
#[test]
fn a_store_s_own_settings_stay_though_somebody_submits_meanwhile() {
    let file = File::new();
    let queue = file.open();
    file.connect()
        .execute_batch(
            "CREATE TRIGGER first BEFORE INSERT ON fulmar_task_type WHEN NEW.restart_limit <> 77
                 AND NOT EXISTS (SELECT 1 FROM fulmar_task_type WHERE name = NEW.name) BEGIN
                 INSERT INTO fulmar_task_type (name, restart_limit, retry_limit, retry_first, retry_factor, retry_cap,
                     retry_jitter) VALUES (NEW.name, 77, 0, 0, 1, 0, 0); END",
        )
        .expect("sound SQL");
    queue.submit("s", "op", false, serde_json::json!({})).expect("accepted");
    assert_eq!(file.count("SELECT restart_limit FROM fulmar_task_type WHERE name = 'store:s'"), 77);
}

/// A worker at a task whose response is too large for the file, until `ballast` is deleted.
fn outcome_without_room(queue: &TaskQueue) -> (Worker, TaskHandle) {
    queue.register(TaskType::new("t")).expect("registered");
    queue.enqueue(task("ballast").input_bytes(vec![7; 500_000]).run_after(HANG * 10)).expect("accepted");
    let worker = Worker::builder(queue)
        .max_concurrent(1)
        .handle("t", |task: &TaskContext| task.store_response(vec![7; 600_000], "x/y"))
        .start()
        .expect("started");
    (worker, put(queue, "a"))
}

/// Each process has a wrong clock of its own. On PostgreSQL there is none but the server's.
#[test]
fn skewed_clocks_finish_nothing_twice() {
    let file = File::new();
    let queue = patient_queue(&file);
    let clocks = [-5_000, 0, 5_000];
    let workers = clocks.map(|offset| Process::start(&file, "work", &[("FULMAR_CHILD_CLOCK", offset)]));
    let names: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    queue.enqueue_many(names.iter().map(task)).expect("accepted");
    wait_for_all(&queue, &names);
    for worker in &workers {
        worker.signal(Signal::TERM);
        worker.until("drained ");
    }
    if !is_unfenced() {
        assert_account(&violations(&queue, &names));
    }
}

#[test]
fn a_worker_whose_disk_is_full_keeps_the_outcome_until_there_is_room() {
    let file = File::new();
    let queue = file.open_with(TaskQueue::builder().max_file_size(1 << 20).poll_interval(Duration::from_millis(5)));
    let (worker, handle) = outcome_without_room(&queue);
    eventually("the outcome can't be written", || worker.stats().errors > 2);
    assert_eq!(handle.status().expect("known"), TaskStatus::Running);
    queue.delete("t", "ballast").expect("deleted");
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Finished);
    assert_eq!(handle.response().expect("known").expect("stored").body.len(), 600_000);
    assert_eq!(worker.drain(HANG).expect("idle").started, 1);
}

#[test]
fn a_worker_cut_off_from_its_database_tells_its_handlers_and_comes_back() {
    let file = File::new();
    let queue = file.open_with(TaskQueue::builder().busy_timeout(Duration::from_millis(20)));
    // A slow machine may lose such a short lease again and again.
    queue.register(TaskType::new("t").restart_limit(10_000)).expect("registered");
    let (gate, told) = (Gate::default(), Gate::default());
    let (inside, tell) = (gate.clone(), told.clone());
    let worker = Worker::builder(&queue)
        .lease(Duration::from_millis(150))
        .max_concurrent(1)
        .handle("t", move |task: &TaskContext| {
            if task.attempt() == 1 {
                inside.pass();
                while !task.is_lost() {
                    std::thread::yield_now();
                }
                tell.open();
            }
            Ok::<_, TaskError>(())
        })
        .start()
        .expect("started");
    let handle = put(&queue, "a");
    gate.await_arrivals(1);
    let mut db = file.connect();
    let held = db.transaction_with_behavior(TransactionBehavior::Immediate).expect("the lock is free");
    gate.open();
    told.pass();
    drop(held);
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Finished, "by this attempt or by another");
    let ends = handle.log().expect("a log").iter().filter(|entry| entry.status.is_ended()).count();
    assert_eq!(ends, 1);
    worker.drain(HANG).expect("idle");
}

#[test]
fn a_caller_s_own_transaction_decides() {
    let file = File::new();
    let queue = file.queue();
    let mut own = file.connect();
    assert!(matches!(queue.enqueue_in(&own, [task("a")]), Err(TaskError::Invalid(_))), "no transaction");
    let transaction = own.transaction_with_behavior(TransactionBehavior::Immediate).expect("begun");
    let handles = queue.enqueue_in(&transaction, [task("a"), task("b")]).expect("accepted");
    assert!(matches!(queue.enqueue_in(&transaction, [task("c"), task("a")]), Err(TaskError::Duplicate { .. })));
    assert!(matches!(
        queue.enqueue_in(&transaction, [task("c"), NewTask::new("u", "c")]),
        Err(TaskError::UnknownType(_))
    ));
    assert!(matches!(handles[0].status(), Err(TaskError::NotFound { .. })), "not yet");
    transaction.commit().expect("committed");
    assert_eq!(handles[1].status().expect("known"), TaskStatus::Accepted);
    assert!(matches!(queue.status("t", "c"), Err(TaskError::NotFound { .. })), "what was refused left nothing");

    let transaction = own.transaction_with_behavior(TransactionBehavior::Immediate).expect("begun");
    let gone = queue.enqueue_in(&transaction, [task("d")]).expect("accepted");
    transaction.rollback().expect("rolled back");
    assert!(matches!(gone[0].status(), Err(TaskError::NotFound { .. })));

    let other = File::new();
    let others = other.queue();
    let mut own = file.connect();
    let transaction = own.transaction_with_behavior(TransactionBehavior::Immediate).expect("begun");
    assert!(matches!(others.enqueue_in(&transaction, [task("a")]), Err(TaskError::Invalid(_))), "another database");
}

#[test]
fn many_threads_write_at_once_and_nobody_hears_of_locks() {
    let file = File::new();
    let queues = [file.queue(), file.open()];
    std::thread::scope(|scope| {
        for thread in 0..32 {
            let queue = &queues[thread % 2];
            scope.spawn(move || {
                for n in 0..10 {
                    put(queue, &format!("{thread}-{n}"));
                }
            });
        }
    });
    assert_eq!(queues[0].stats().expect("read").count(TaskStatus::Accepted), 320);
}

#[test]
fn a_drain_that_takes_too_long_loses_no_outcome() {
    let file = File::new();
    let queue = file.open_with(TaskQueue::builder().max_file_size(1 << 20).poll_interval(Duration::from_millis(5)));
    let (worker, handle) = outcome_without_room(&queue);
    eventually("the outcome can't be written", || worker.stats().errors > 0);
    let left = worker.drain(Duration::ZERO).expect_err("the outcome is not written");
    assert!(matches!(left, TaskError::Timeout { left: 1, .. }), "{left}");
    let errors = worker.stats().errors;
    eventually("it is tried again", || worker.stats().errors > errors);
    queue.delete("t", "ballast").expect("deleted");
    let stats = worker.drain(HANG).expect("there is room");
    assert_eq!((stats.finished, stats.stale), (1, 0), "{stats}");
    assert_eq!(handle.status().expect("known"), TaskStatus::Finished);
}

#[test]
fn one_bad_row_keeps_no_other_from_its_end() {
    let file = File::new();
    let queue = file.queue();
    let gate = Gate::default();
    let inside = gate.clone();
    let worker = Worker::builder(&queue)
        .max_concurrent(1)
        .batch(10)
        .start_together(10)
        .handle("t", move |task: &TaskContext| {
            if task.identifier() == "first" {
                inside.pass();
            }
            Ok::<_, TaskError>(())
        })
        .start()
        .expect("started");
    let first = put(&queue, "first");
    gate.await_arrivals(1);
    let others = queue.enqueue_many((0..5).map(|n| task(n.to_string()))).expect("accepted");
    eventually("the worker takes the others", || worker.stats().claimed == 6);
    // Its next log entry is there already.
    assert_eq!(file.sql("UPDATE fulmar_task SET entries = 1 WHERE identifier = '2'"), 1);
    gate.open();
    assert_eq!(first.wait(HANG).expect("it ends"), TaskStatus::Finished);
    for (n, handle) in others.iter().enumerate() {
        let expected = if n == 2 { TaskStatus::Failed } else { TaskStatus::Finished };
        assert_eq!(handle.wait(HANG).expect("it ends"), expected, "{n}");
    }
    let stats = worker.drain(HANG).expect("idle");
    assert_eq!((stats.started, stats.finished), (5, 5), "{stats}");
}

#[test]
fn a_priority_that_makes_no_sense_keeps_nobody_from_being_claimed() {
    let file = File::new();
    let queue = file.queue();
    queue.enqueue_many((0..3).map(|n| task(n.to_string()))).expect("accepted");
    file.sql("UPDATE fulmar_task SET priority = 'high' WHERE identifier = '0'");
    file.sql(&format!("UPDATE fulmar_task SET priority = {} WHERE identifier = '1'", i64::MIN));
    file.sql(&format!("UPDATE fulmar_task SET run_at = {} WHERE identifier = '2'", i64::MIN));
    queue.stats().expect("nor from being counted");
    let claims = crate::support::claims(&queue, &fulmar::tasks::WorkerId::new(), 9);
    assert_eq!(claims.len(), 3);
}

/// SQLite takes a text for a number.
#[test]
fn types_and_limits_that_make_no_sense_hold_back_their_type_alone() {
    let file = File::new();
    let queue = file.queue();
    for name in ["a", "z"] {
        queue.register(TaskType::new(name)).expect("registered");
    }
    queue.set_limits("z", Limits::new().rate_by_key(Rate::new(9, HANG).burst(9))).expect("set");
    let worker = fulmar::tasks::WorkerId::new();
    // Among few types each is asked; among many, the first tasks of all are looked at.
    let many: Vec<String> = (0..20).map(|n| format!("many{n}")).collect();
    let many: Vec<&str> = many.iter().map(|name| &**name).chain(["a", "t", "z"]).collect();
    let senseless = [
        "fulmar_limit SET key_at_once = 'many'",
        "fulmar_limit SET turns = 'mine'",
        "fulmar_task_type SET at_once = 'many'",
        "fulmar_task_type SET at_once = -1",
    ];
    for (round, senseless) in senseless.into_iter().enumerate() {
        queue.register(TaskType::new("t")).expect("registered anew");
        queue.set_limits("t", Limits::new().turns(true)).expect("set anew");
        let key = if senseless.contains("_type") { "id" } else { "type_id" };
        let of_t = format!("{key} = (SELECT id FROM fulmar_task_type WHERE name = 't')");
        assert_eq!(file.sql(&format!("UPDATE {senseless} WHERE {of_t}")), 1);
        for types in [&["a", "t", "z"][..], &many] {
            for name in ["a", "t", "z"] {
                let task = NewTask::new(name, format!("{round} {}", types.len())).ordered("k", false);
                queue.enqueue(task).expect("accepted");
            }
            let claims = queue.dequeue(&worker, types, 9, crate::support::LEASE).expect("claimed");
            let types: Vec<&str> = claims.iter().map(|claim| claim.task().task_type()).collect();
            assert_eq!(types, ["a", "z"], "{senseless}");
        }
        assert_eq!(queue.stats().expect("counted").types.len(), 3, "{senseless}");
        assert!(queue.task_types().expect("read").iter().any(|of_type| of_type.name() == "z"), "{senseless}");
    }
    queue.register(TaskType::new("t")).expect("registered anew");
    queue.set_limits("t", Limits::new().turns(true)).expect("set anew");
    // The times of buckets are set right by the claim.
    file.sql("UPDATE fulmar_limit SET next_at = 'soon'");
    file.sql("UPDATE fulmar_limit_key SET next_at = 'soon'");
    let claims = queue.dequeue(&worker, &["t"], 99, crate::support::LEASE).expect("claimed");
    assert_eq!(claims.len(), 2 * senseless.len(), "all that waited");
    queue.pass_time(HANG).expect("it passes");
    queue.enqueue(NewTask::new("z", "last").ordered("k", false)).expect("accepted");
    assert_eq!(queue.dequeue(&worker, &["z"], 9, crate::support::LEASE).expect("claimed").len(), 1);
}

#[test]
fn a_newer_schema_is_refused_though_somebody_writes() {
    let file = File::new();
    drop(file.queue());
    file.sql("UPDATE fulmar_setting SET value = 99 WHERE name = 'schema'");
    let mut db = file.connect();
    let _held = db.transaction_with_behavior(TransactionBehavior::Immediate).expect("the lock is free");
    let refused = TaskQueue::builder().busy_timeout(Duration::from_millis(1)).open(file.path()).expect_err("too new");
    assert!(matches!(refused, TaskError::SchemaTooNew { found: 99, .. }), "{refused}");
}

#[test]
fn a_connection_that_is_busy_is_not_another_database() {
    let file = File::new();
    drop(file.queue());
    let queue = file.open();
    let own = file.connect();
    own.busy_timeout(Duration::ZERO).expect("a timeout");
    own.execute_batch("BEGIN").expect("begun");
    let mut db = file.connect();
    let held = db.transaction_with_behavior(TransactionBehavior::Immediate).expect("the lock is free");
    let busy = queue.enqueue_in(&own, [task("a")]).expect_err("somebody writes");
    assert!(matches!(busy, TaskError::Busy { .. }) && busy.is_retryable(), "{busy}");
    drop(held);
    own.execute_batch("ROLLBACK").expect("it is the caller's still");
}

/// Says that nothing is acknowledged once `harm` was done to the open file, and by which path it
/// was noticed.
fn nothing_is_acknowledged_after(harm: impl FnOnce(&std::path::Path), noticed: &str) {
    let file = File::new();
    let queue = file.queue();
    let handle = put(&queue, "before");
    let started = claim(&queue);
    started.start().expect("ours");
    harm(&file.path());
    for refused in [
        queue.enqueue(task("after")).map(drop),
        started.finish().map(drop),
        handle.cancel().map(drop),
        handle.status().map(drop),
        queue.dequeue(&WorkerId::new(), &["t"], 1, HANG).map(drop),
    ] {
        let error = refused.expect_err("not acknowledged");
        assert!(matches!(&error, TaskError::FileReplaced { path } if path.ends_with(noticed)), "{error:?}");
        assert!(!error.is_retryable() && error.to_string().contains(noticed), "{error}");
    }
}

#[test]
fn a_file_that_is_moved_removed_or_replaced_acknowledges_nothing() {
    let beside = |path: &std::path::Path, suffix: &str| format!("{}{suffix}", path.display());
    let change = |what: &str, done: std::io::Result<()>| done.unwrap_or_else(|error| panic!("{what}: {error}"));
    nothing_is_acknowledged_after(|path| change("removing", std::fs::remove_file(path)), "queue.db");
    nothing_is_acknowledged_after(|path| change("moving", std::fs::rename(path, beside(path, ".old"))), "queue.db");
    nothing_is_acknowledged_after(
        |path| {
            let copy = beside(path, ".copy");
            change("copying", std::fs::copy(path, &copy).map(drop));
            change("replacing", std::fs::rename(copy, path));
        },
        "queue.db",
    );
    for suffix in ["-wal", "-shm"] {
        let noticed = format!("queue.db{suffix}");
        nothing_is_acknowledged_after(|path| change(suffix, std::fs::remove_file(beside(path, suffix))), &noticed);
    }
}

#[test]
fn a_file_that_was_put_back_goes_on() {
    let file = File::new();
    let queue = file.queue();
    let away = file.path().with_extension("away");
    std::fs::rename(file.path(), &away).expect("moved");
    assert!(matches!(queue.enqueue(task("a")), Err(TaskError::FileReplaced { .. })));
    std::fs::rename(away, file.path()).expect("moved back");
    put(&queue, "a");
    assert_eq!(file.count("SELECT count(*) FROM fulmar_task"), 1, "what was refused left nothing");
}

#[test]
fn a_connection_to_a_copy_is_another_database() {
    let file = File::new();
    let queue = file.queue();
    let copy = file.path().with_extension("copy");
    file.connect().execute("VACUUM INTO ?1", [copy.to_str().expect("text")]).expect("copied");
    let mut own = Connection::open(&copy).expect("the copy opens");
    let transaction = own.transaction_with_behavior(TransactionBehavior::Immediate).expect("begun");
    let error = queue.enqueue_in(&transaction, [task("a")]).expect_err("a copy");
    assert!(matches!(&error, TaskError::Invalid(text) if text.contains("copy")), "{error}");
    // A link isn't a copy.
    let link = file.path().with_extension("link");
    std::os::unix::fs::symlink(file.path(), &link).expect("linked");
    let mut own = Connection::open(&link).expect("the link opens");
    let transaction = own.transaction_with_behavior(TransactionBehavior::Immediate).expect("begun");
    queue.enqueue_in(&transaction, [task("a")]).expect("accepted");
    transaction.commit().expect("committed");
    assert_eq!(queue.status("t", "a").expect("known"), TaskStatus::Accepted);
}

/// A reader that is forgotten keeps the log from being reused: it grows, `stats` says why, and
/// afterwards the disk is given back.
#[test]
fn a_log_that_a_forgotten_reader_lets_grow_is_warned_of_and_shrinks_again() {
    let file = File::new();
    let queue = file.queue();
    let log = || std::fs::metadata(format!("{}-wal", file.address())).expect("a log").len();
    let grow = |names: std::ops::Range<u32>| {
        for n in names {
            queue.enqueue(task(n.to_string()).input_bytes(vec![7; 4 << 20])).expect("accepted");
        }
    };
    grow(0..6);
    assert_eq!(queue.stats().expect("read").warnings, [""; 0], "large tasks alone are no reason");
    let reader = file.connect();
    reader.execute_batch("BEGIN; SELECT count(*) FROM fulmar_task").expect("a snapshot");
    grow(6..12);
    let warnings = queue.stats().expect("read").warnings;
    assert!(
        matches!(&*warnings, [one] if one.contains("write-ahead log") && one.contains("read transaction")),
        "{warnings:?}"
    );
    assert!(log() > 24 << 20, "{}", log());
    reader.execute_batch("COMMIT").expect("its end");
    grow(12..14);
    assert_eq!(queue.stats().expect("read").warnings, [""; 0]);
    put(&queue, "last");
    assert!(log() <= 16 << 20, "{}", log());
}
