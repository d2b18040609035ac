//! Faults that only a server can show, or the way to it. Each needs the server that tests/run
//! brings.
//!
//! Those in [`alone`] stop and start that server, so that nothing else may run on it meanwhile.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fulmar::BoxError;
use fulmar::tasks::durable::{Durable, function};
use fulmar::tasks::{
    NewTask, PostgresTransaction, TaskContext, TaskError, TaskQueue, TaskStatus, TaskType, Worker, WorkerBuilder,
    WorkerId,
};

use crate::postgres::Schema;
use crate::support::{Bed, Gate, HANG, LEASE, claim, claims, eventually, history, last_message, put, task};

/// A way to the server on which things go wrong.
struct Detour {
    bed: Schema,
    port: u16,
    way: Arc<Mutex<Way>>,
}

#[derive(Default)]
struct Way {
    /// Whoever says this is heard by the server, and cut off as soon as it answers. Once.
    cut_after: Option<Vec<u8>>,
    /// What connections of up to this number say, or are told, gets lost, and nobody hangs up.
    dead_up_to: usize,
    count: usize,
    /// How many statements the server was asked to run.
    statements: usize,
    /// The clients' ends.
    clients: Vec<TcpStream>,
}

/// Finds the messages in what a client says. Source: PostgreSQL's manual, "Message Formats".
#[derive(Default)]
struct Messages {
    /// The first message has no letter before its length.
    begun: bool,
    head: Vec<u8>,
    rest: usize,
}

impl Messages {
    /// How many of those that begin here ask for a statement: `Q` has its text, `E` executes what
    /// was prepared.
    fn statements(&mut self, said: &[u8]) -> usize {
        let mut found = 0;
        for &byte in said {
            if self.rest > 0 {
                self.rest -= 1;
                continue;
            }
            self.head.push(byte);
            let (kind, length) = self.head.split_at(usize::from(self.begun));
            let Ok(length) = <[u8; 4]>::try_from(length) else { continue };
            found += usize::from(matches!(kind, b"E" | b"Q"));
            self.rest = u32::from_be_bytes(length) as usize - 4;
            self.begun = true;
            self.head.clear();
        }
        found
    }
}

impl Detour {
    fn new() -> Detour {
        let bed = Schema::new();
        let address = bed.address();
        let server =
            address.rsplit('@').next().and_then(|rest| rest.split('/').next()).expect("host and port").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let way = Arc::new(Mutex::new(Way::default()));
        let shared = way.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&server) else { return };
                let number = {
                    let mut way = shared.lock().expect("nobody panics under it");
                    way.count += 1;
                    way.clients.extend(client.try_clone());
                    way.count
                };
                let cut = Arc::new(Mutex::new(false));
                let ends = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
                pump(ends.0, ends.1, shared.clone(), number, cut.clone(), true);
                pump(server, client, shared.clone(), number, cut, false);
            }
        });
        Detour { bed, port, way }
    }

    fn queue(&self) -> TaskQueue {
        let address = self.bed.address();
        let (start, rest) = address.split_once('@').expect("a user");
        let (_, rest) = rest.split_once('/').expect("a database");
        // In the clear, because what is said is read here.
        let detour = format!("{start}@127.0.0.1:{}/{rest}&sslmode=disable", self.port);
        TaskQueue::builder().poll_interval(Duration::from_millis(5)).connect(&detour).expect("the queue opens")
    }

    fn way(&self) -> std::sync::MutexGuard<'_, Way> {
        self.way.lock().expect("nobody panics under it")
    }

    /// Cuts off who is connected now. What the server is at, it goes on with.
    fn cut(&self) {
        for client in self.way().clients.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

/// Passes on what comes, or not.
fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    way: Arc<Mutex<Way>>,
    number: usize,
    cut: Arc<Mutex<bool>>,
    asks: bool,
) {
    std::thread::spawn(move || {
        let mut bytes = [0; 65_536];
        let mut messages = Messages::default();
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let said = &bytes[..count];
            let mut way = way.lock().expect("nobody panics under it");
            if number <= way.dead_up_to {
                continue;
            }
            way.statements += if asks { messages.statements(said) } else { 0 };
            let mut cut = cut.lock().expect("nobody panics under it");
            if asks && way.cut_after.as_ref().is_some_and(|words| said.windows(words.len()).any(|part| part == words)) {
                way.cut_after = None;
                *cut = true;
            } else if !asks && *cut {
                break;
            }
            drop((way, cut));
            if to.write_all(said).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn an_enqueuing_whose_answer_was_lost_is_found_and_not_repeated() {
    let detour = Detour::new();
    let queue = detour.queue();
    queue.register(TaskType::new("t")).expect("registered");
    for (name, message) in [("bare", ""), ("worded", "with a word")] {
        detour.way().cut_after = Some(name.into());
        put(&queue, "before");
        let handles = queue.enqueue_many([task(name).message(message), task(format!("{name} two"))]).expect("accepted");
        assert!(detour.way().cut_after.is_none(), "the answer was cut off");
        assert_eq!(handles[0].info().expect("known").id, handles[0].id().expect("a number"), "its own number");
        assert_eq!(history(&queue, name), [TaskStatus::Accepted]);
        queue.delete("t", "before").expect("deleted");
    }
    detour.way().cut_after = Some(b"again".into());
    put(&detour.bed.open(), "again");
    let refused = queue.enqueue(task("again")).expect_err("somebody else's");
    assert!(matches!(refused, TaskError::Duplicate { .. }), "{refused}");
}

/// The first try commits while the second one waits for it, with a capacity or without.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn an_enqueuing_that_is_still_under_way_when_it_is_repeated_is_found() {
    for capacity in [None, Some(1)] {
        let detour = Detour::new();
        let bed = &detour.bed;
        let queue = detour.queue();
        queue.register(TaskType::new("t")).expect("registered");
        queue.set_capacity(capacity).expect("set");
        let key = format!("hashtext('{}')", bed.name());
        bed.ask(&format!(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_advisory_xact_lock({key}); RETURN NULL; END $$"
        ));
        bed.ask(
            "CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON fulmar_task DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION hold()",
        );
        std::thread::scope(|scope| {
            let mut enqueuing = None;
            bed.around()
                .postgres_transaction(|tx| {
                    tx.query(&format!("SELECT pg_advisory_xact_lock({key})"), &[])?;
                    enqueuing = Some(scope.spawn(|| queue.enqueue(task("a"))));
                    let waits =
                        "SELECT pid FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))";
                    eventually("its commit waits", || tx.query(waits, &[]).is_ok_and(|rows| rows.len() == 1));
                    detour.cut();
                    let waits = "SELECT b.pid FROM pg_locks a JOIN pg_locks b ON a.pid = ANY(pg_blocking_pids(b.pid))
                         WHERE NOT a.granted AND NOT b.granted AND pg_backend_pid() = ANY(pg_blocking_pids(a.pid))";
                    eventually("the second try waits for it", || {
                        tx.query(waits, &[]).is_ok_and(|rows| rows.len() == 1)
                    });
                    Ok::<_, TaskError>(())
                })
                .expect("a lock");
            let handle = enqueuing.expect("spawned").join().expect("no panic").expect("it was accepted");
            assert_eq!(handle.info().expect("known").id, handle.id().expect("a number"), "its own number");
        });
        assert_eq!(bed.count("SELECT count(*) FROM fulmar_task"), 1);
    }
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_step_whose_answer_was_lost_was_done_and_is_not_stale() {
    let detour = Detour::new();
    let queue = detour.queue();
    queue.register(TaskType::new("t")).expect("registered");
    let cut = |worker: &WorkerId| detour.way().cut_after = Some(worker.to_string().into());
    for (name, is_ordered) in [("plain", false), ("ordered", true)] {
        let new = task(name);
        queue.enqueue(if is_ordered { new.ordered("k", true) } else { new }).expect("accepted");
        let worker = WorkerId::new();
        let claim = claims(&queue, &worker, 1).pop().expect("ready");
        cut(&worker);
        claim.start().expect("its start was done");
        assert!(detour.way().cut_after.is_none(), "the answer was cut off");
        cut(&worker);
        assert_eq!(claim.finish().expect("its finish was done"), TaskStatus::Finished);
        assert!(detour.way().cut_after.is_none(), "the answer was cut off");
        use TaskStatus::{Accepted, Finished, Running, Scheduled};
        assert_eq!(history(&queue, name), [Accepted, Scheduled, Running, Finished], "each of them once");
        assert!(claim.finish().expect_err("there is nothing in doubt any more").is_stale());
    }
}

/// The caller is told that it was done, and it was done once.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn an_event_and_a_fork_whose_answers_were_lost_were_sent_once_and_made_once() {
    let detour = Detour::new();
    let queue = detour.queue();
    let cut = |after: &str| detour.way().cut_after = Some(after.into());
    let was_cut = |what: &str| assert!(detour.way().cut_after.is_none(), "{what}: the answer was cut off");
    queue.register(TaskType::new("f")).expect("registered");
    let ends = fulmar::tasks::durable::function(|cx: &fulmar::tasks::durable::Durable<'_>, ()| {
        cx.step("one", || Ok::<_, TaskError>(1))?;
        cx.event::<i64>("go", HANG * 10)
    });
    let worker = Worker::builder(&queue).handle("f", ends);
    let enqueue = |name: &str| queue.enqueue(fulmar::tasks::NewTask::new("f", name).input(&())).expect("accepted");
    let task = enqueue("a");
    worker.run_due().expect("run");
    assert_eq!(task.status().expect("there"), TaskStatus::Paused);
    for is_first in [true, false] {
        if is_first {
            cut("COMMIT\0");
        }
        assert_eq!(queue.send_event_once("f", "a", "go", "key", &7).expect("sent"), is_first);
        was_cut("sending an event");
    }
    worker.run_due().expect("run");
    assert_eq!(task.status().expect("there"), TaskStatus::Finished);
    // One that is told so late that the function has ended by that event.
    let task = enqueue("b");
    worker.run_due().expect("run");
    assert!(queue.send_event_once("f", "b", "go", "key", &7).expect("sent"));
    worker.run_due().expect("run");
    let late = queue.send_event_once("f", "b", "go", "key", &7).expect_err("it has ended");
    assert!(matches!(late, TaskError::WrongStatus { .. }), "{late}");
    assert_eq!(task.status().expect("there"), TaskStatus::Finished);

    cut("COMMIT\0");
    let fork = queue.fork("f", "a", "one", 1, "c").expect("forked");
    was_cut("forking");
    assert_eq!(fork.status().expect("there"), TaskStatus::Accepted);
    assert_eq!(detour.bed.count("SELECT count(*) FROM fulmar_task"), 3);
    let refused = queue.fork("f", "a", "one", 1, "c").expect_err("it is there");
    assert!(matches!(refused, TaskError::Duplicate { .. }), "{refused}");
}

/// Each call is done once, though the answer to its commit, or to its one statement, was cut off.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn no_call_takes_a_lost_answer_for_a_failure() {
    let detour = Detour::new();
    let queue = detour.queue();
    let cut = |after: &str| detour.way().cut_after = Some(after.into());
    let was_cut = |what: &str| assert!(detour.way().cut_after.is_none(), "{what}: the answer was cut off");
    cut("t-and-no-other");
    queue.register(TaskType::new("t-and-no-other")).expect("registered");
    was_cut("registering");
    assert_eq!(queue.task_types().expect("read").len(), 1);
    cut("COMMIT\0");
    queue.unregister("t-and-no-other").expect("unregistered");
    was_cut("unregistering");
    queue.register(TaskType::new("t").restart_limit(3)).expect("registered");
    cut("capacity");
    queue.set_capacity(1_000).expect("set");
    was_cut("setting the capacity");

    let started = |name: &str| {
        put(&queue, name);
        let claim = claim(&queue);
        claim.start().expect("ours");
        claim
    };
    let paused = started("pauses");
    paused.task().pause_with(HANG * 10, "where it was").expect("small");
    cut("where it was");
    assert_eq!(paused.finish().expect("it was paused"), TaskStatus::Paused);
    was_cut("pausing");
    let failed = started("fails");
    cut("for a reason");
    assert_eq!(failed.fail("for a reason").expect("it has failed"), TaskStatus::Failed);
    was_cut("failing");
    let lost = started("is lost");
    cut("out of sight");
    assert_eq!(lost.lose("out of sight").expect("it was lost"), TaskStatus::Accepted);
    was_cut("losing");
    assert_eq!(queue.info("t", "is lost").expect("known").lost, 1, "once");
    let back = claim(&queue);
    cut("not now");
    back.give_back("not now").expect("it was given back");
    was_cut("giving back");
    assert_eq!(queue.status("t", "is lost").expect("known"), TaskStatus::Accepted);

    cut("COMMIT\0");
    assert_eq!(queue.cancel("t", "is lost").expect("known"), TaskStatus::Cancelled);
    was_cut("cancelling");
    cut("COMMIT\0");
    queue.delete("t", "is lost").expect("deleted");
    was_cut("deleting");
    cut("COMMIT\0");
    let ordered = (0..3).map(|n| task(n.to_string()).ordered("k", true));
    assert_eq!(queue.enqueue_many(ordered).expect("accepted").len(), 3);
    was_cut("enqueuing in order");
    let modifier = claim(&queue);
    modifier.start().expect("ours");
    cut("COMMIT\0");
    assert_eq!(modifier.finish().expect("ours"), TaskStatus::Finished);
    was_cut("finishing in order");
    assert_eq!(history(&queue, "0").iter().filter(|status| status.is_ended()).count(), 1);

    // What was claimed without our hearing of it goes back when its lease is over, and costs
    // nothing.
    let worker = WorkerId::new();
    cut(&worker.to_string());
    // A queue of its own: one that knows of a slow claim asks first for what has a higher priority.
    let doubt = detour.queue().dequeue(&worker, &["t"], 9, LEASE).expect_err("it was claimed, and nobody heard");
    assert!(matches!(doubt, TaskError::Unreachable { .. }) && doubt.is_retryable(), "{doubt:?}");
    was_cut("claiming");
    detour.bed.pass(2 * LEASE);
    assert_eq!(queue.tidy().expect("rescued").returned, 1);
    let info = queue.info("t", "1").expect("known");
    assert_eq!((info.status, info.starts, info.lost), (TaskStatus::Accepted, 0, 0));

    // Nothing was done yet.
    cut("BEGIN");
    queue.postgres_transaction(|tx| tx.query("SELECT 1", &[]).map(drop)).expect("begun anew");
    was_cut("beginning");
    // A commit of the caller's is the caller's to judge.
    cut("COMMIT\0");
    let doubt: Result<(), TaskError> = queue.postgres_transaction(|tx| tx.query("SELECT 1", &[]).map(drop));
    assert!(matches!(doubt, Err(TaskError::Unreachable { .. })), "{doubt:?}");
    was_cut("committing");
    for read in ["fails", "pauses"] {
        cut(read);
        assert!(queue.log("t", read).expect("read").len() > 3);
        was_cut("reading");
    }
}

/// What a server refuses under load, or when it is told to, isn't a fault of a task.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn what_a_server_refuses_for_now_is_tried_again() {
    let bed = Schema::new();
    let queue = bed.queue();
    queue.register(TaskType::new("t").restart_limit(0)).expect("registered");
    let worker = Worker::builder(&queue)
        .max_concurrent(2)
        .handle("t", |task: &TaskContext| task.store_response(task.identifier(), "text/plain"))
        .start()
        .expect("started");
    // A sequence counts on when its transaction is rolled back.
    bed.ask("CREATE SEQUENCE refusals");
    // Serialization failure, deadlock, a lock not to be had, called off, out of memory, disk full,
    // too many connections, shut down, the limit of a transaction.
    for code in ["40001", "40P01", "55P03", "57014", "53200", "53100", "53300", "57P01", "25P04"] {
        bed.ask(&format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
                 IF nextval('refusals') % 4 <> 0 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '{code}'; END IF;
                 RETURN NULL; END $$"
        ));
        bed.ask("CREATE OR REPLACE TRIGGER refuse BEFORE UPDATE ON fulmar_task FOR EACH STATEMENT EXECUTE FUNCTION refuse()");
        let names: Vec<String> = (0..3).map(|n| format!("{code}-{n}")).collect();
        queue.enqueue_many(names.iter().map(task)).expect("inserting is allowed");
        for name in &names {
            assert_eq!(queue.wait("t", name, HANG).expect("it ends"), TaskStatus::Finished, "{name}");
            let info = queue.info("t", name).expect("known");
            assert_eq!((info.starts, info.lost, info.failures), (1, 0, 0), "{name}");
            use TaskStatus::{Accepted, Finished, Running, Scheduled};
            assert_eq!(history(&queue, name), [Accepted, Scheduled, Running, Finished], "{name}");
        }
        bed.ask("DROP TRIGGER refuse ON fulmar_task");
    }
    let stats = worker.drain(HANG).expect("idle");
    assert_eq!((stats.finished, stats.stale), (27, 0), "{stats}");
}

/// Two ways in which a row's count of entries makes no sense: none fits the column, the next but
/// one is in the log.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn one_bad_row_keeps_no_other_from_its_end() {
    for entries in [i64::MAX, -1] {
        let bed = Schema::new();
        let queue = bed.queue();
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
                task.store_response(task.identifier(), "text/plain")?;
                Err::<(), BoxError>("in words".into())
            })
            .start()
            .expect("started");
        let first = put(&queue, "first");
        gate.await_arrivals(1);
        let ordered = |n: usize| task(n.to_string()).message("in words").ordered(n.to_string(), true);
        let others = queue.enqueue_many((0..5).map(ordered)).expect("accepted");
        eventually("the worker takes the others", || worker.stats().claimed == 6);
        put_behind(&queue, "2");
        assert_eq!(bed.sql(&format!("UPDATE fulmar_task SET entries = {entries} WHERE identifier = '2'")), 1);
        gate.open();
        first.wait(HANG).expect("it ends");
        for handle in &others {
            assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Failed);
        }
        assert_eq!(queue.wait("t", "behind", HANG).expect("its lane is open"), TaskStatus::Failed);
        let stats = worker.drain(HANG).expect("idle");
        assert_eq!((stats.failed, stats.errors), (6, 0), "{stats}");
        for n in 0..5 {
            let name = n.to_string();
            let message = last_message(&queue, &name);
            assert_eq!(message.contains("makes no sense"), n == 2, "{n}: {message}");
            assert_eq!(queue.response("t", &name).expect("read").is_some(), n != 2, "{n}");
        }
        let held = "SELECT count(*) FROM fulmar_task WHERE ended IS NULL OR worker IS NOT NULL OR lease IS NOT NULL
            OR deadline IS NOT NULL OR gate IS NOT NULL";
        assert_eq!(bed.count(held), 0, "nothing is left of them");
    }
}

/// A modifier that waits for the one of that name.
fn put_behind(queue: &TaskQueue, name: &str) {
    queue.enqueue(task("behind").ordered(name, true)).expect("accepted");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn times_that_make_no_sense_keep_nobody_from_being_counted_or_claimed() {
    let bed = Schema::new();
    let queue = bed.queue();
    put(&queue, "now");
    queue.enqueue(task("later").run_after(HANG)).expect("accepted");
    assert_eq!(bed.sql(&format!("UPDATE fulmar_task SET run_at = {}", i64::MIN)), 2);
    queue.stats().expect("counted");
    assert_eq!(claims(&queue, &WorkerId::new(), 9).len(), 2);
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_newer_schema_is_refused_though_somebody_migrates() {
    let bed = Schema::new();
    drop(bed.queue());
    bed.sql("UPDATE fulmar_setting SET value = '99' WHERE name = 'schema'");
    bed.around()
        .postgres_transaction(|tx| {
            let locks = format!("(1718971501 # hashtext('\"{}\".fulmar_locks')) & -4", bed.name());
            tx.query(&format!("SELECT pg_advisory_xact_lock({locks}, 0)"), &[])?;
            let refused = TaskQueue::connect(&bed.address()).expect_err("too new");
            assert!(matches!(refused, TaskError::SchemaTooNew { found: 99, .. }), "{refused}");
            Ok::<_, TaskError>(())
        })
        .expect("a lock");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_half_open_connection_is_replaced_and_work_goes_on() {
    let detour = Detour::new();
    let queue = detour.queue();
    queue.register(TaskType::new("t")).expect("registered");
    let worker = Worker::builder(&queue)
        .lease(LEASE)
        .handle("t", |_: &TaskContext| Ok::<(), BoxError>(()))
        .start()
        .expect("started");
    let others = detour.bed.open();
    put(&others, "a");
    assert_eq!(others.wait("t", "a", HANG).expect("it ends"), TaskStatus::Finished);
    let dead = Instant::now();
    {
        let mut way = detour.way();
        way.dead_up_to = way.count;
    }
    put(&others, "b");
    assert_eq!(others.wait("t", "b", HANG).expect("it ends"), TaskStatus::Finished);
    println!("noticed, and done, after {:.1?}", dead.elapsed());
    worker.drain(HANG).expect("it ends");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn killed_sessions_cost_no_more_than_the_poll_interval() {
    let bed = Schema::new();
    let name = format!("fulmar {}", WorkerId::new());
    let address = format!("{}&application_name={}", bed.address(), name.replace(' ', "%20"));
    let queue =
        TaskQueue::builder().poll_interval(Duration::from_millis(50)).connect(&address).expect("the queue opens");
    queue.register(TaskType::new("t")).expect("registered");
    let worker =
        Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<(), BoxError>(())).start().expect("started");
    let others = bed.open();
    // What the session that listens does now and then, and no other.
    let listeners = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND state = 'idle'
             AND (query LIKE 'LISTEN \"news_of_fulmar_%' OR query IN ('SELECT pg_notify($1::text, $2::text)', 'SELECT true'))"
    );
    for round in 0..5 {
        eventually("it listens", || bed.count(&listeners) == 1);
        let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'");
        let (_, killed) = bed.ask(&kill);
        assert!(killed.len() > 1, "the listener, and those that claim: {killed:?}");
        put(&others, &round.to_string());
        assert_eq!(others.wait("t", &round.to_string(), HANG).expect("it ends"), TaskStatus::Finished);
    }
    worker.drain(HANG).expect("it ends");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_long_transaction_of_somebody_else_is_warned_of() {
    let bed = Schema::new();
    let queue = bed.open_with(TaskQueue::builder().old_transaction(Duration::ZERO));
    queue.register(TaskType::new("t")).expect("registered");
    let name = WorkerId::new().to_string();
    let warned = || queue.stats().expect("read").warnings.iter().any(|warning| warning.contains(&name));
    assert!(!warned());
    // The name is that of this one transaction: by that of a queue the session that listens for its
    // news would be found, too, which has a transaction for a moment now and then, and no moment is
    // too short here.
    bed.around()
        .postgres_transaction(|tx| {
            tx.execute(&format!("SET LOCAL application_name = '{name}'"), &[])?;
            tx.query("SELECT txid_current()", &[])?;
            // It tells of the oldest, and other tests have theirs.
            eventually("it is warned of", warned);
            Ok::<_, TaskError>(())
        })
        .expect("committed");
    assert!(!warned());
}

/// A role without rights does not see since when another role's transaction is open, but that it is
/// in the way.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_transaction_of_another_role_is_warned_of_too() {
    let bed = Schema::new();
    let role = format!("poor_{}", bed.name());
    bed.ask(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'"));
    bed.ask(&format!("GRANT ALL ON SCHEMA {} TO {role}", bed.name()));
    let address = bed.address();
    let (_, server) = address.split_once('@').expect("a server");
    let builder = TaskQueue::builder().old_transaction(Duration::from_millis(100));
    let queue = builder.connect(&format!("postgres://{role}:x@{server}")).expect("the queue opens");
    queue.register(TaskType::new("t")).expect("registered");
    let name = WorkerId::new().to_string();
    let warned = || {
        let warnings = queue.stats().expect("read").warnings;
        let found = warnings.into_iter().find(|warning| warning.contains(&name));
        assert!(found.as_ref().is_none_or(|warning| warning.contains("transactions of others")), "{found:?}");
        found.is_some()
    };
    // As above, the transaction's alone.
    bed.around()
        .postgres_transaction(|tx| {
            tx.execute(&format!("SET LOCAL application_name = '{name}'"), &[])?;
            tx.query("SELECT txid_current()", &[])?;
            let mut tasks = 0;
            eventually("it is in the way", || {
                tasks += 1;
                put(&queue, &tasks.to_string());
                warned()
            });
            Ok::<_, TaskError>(())
        })
        .expect("committed");
    assert!(!warned());
    drop(queue);
    bed.ask(&format!("DROP OWNED BY {role} CASCADE"));
    bed.ask(&format!("DROP ROLE {role}"));
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_transaction_of_the_caller_s_own_decides() {
    let bed = Schema::new();
    let queue = bed.queue();
    bed.sql("CREATE TABLE orders (pieces int4, buyer text)");
    let kept = queue.postgres_transaction(|tx| {
        tx.execute("INSERT INTO orders VALUES ($1, $2)", &[Some("3"), None])?;
        let handles = queue.enqueue_in(tx, [task("a").ordered("k", true), task("b").ordered("k", true)])?;
        assert!(matches!(queue.enqueue_in(tx, [task("c"), task("a")]), Err(TaskError::Duplicate { .. })));
        assert!(matches!(queue.enqueue_in(tx, [task("c"), NewTask::new("u", "c")]), Err(TaskError::UnknownType(_))));
        assert!(matches!(bed.open().enqueue_in(tx, [task("c")]), Err(TaskError::Invalid(_))), "another queue's");
        assert!(matches!(queue.status("t", "a"), Err(TaskError::NotFound { .. })), "not committed yet");
        assert_eq!(tx.query("SELECT pieces, buyer FROM orders", &[])?, [[Some("3".to_owned()), None]]);
        Ok::<_, TaskError>(handles)
    });
    assert_eq!(kept.expect("committed")[1].status().expect("known"), TaskStatus::Accepted);
    assert_eq!(claim(&queue).task().identifier(), "a", "and `b` comes behind it");

    let dropped: Result<(), TaskError> = queue.postgres_transaction(|tx| {
        queue.enqueue_in(tx, [task("d")])?;
        tx.execute("INSERT INTO orders VALUES (4, 'me')", &[])?;
        Err(TaskError::Invalid("changed my mind".into()))
    });
    assert!(matches!(dropped, Err(TaskError::Invalid(why)) if why == "changed my mind"));
    let ended: Result<(), TaskError> = queue.postgres_transaction(|tx| tx.execute("COMMIT", &[]).map(drop));
    assert!(matches!(ended, Err(TaskError::Invalid(_))), "{ended:?}");
    assert!(matches!(queue.status("t", "d"), Err(TaskError::NotFound { .. })));
    assert_eq!(bed.count("SELECT count(*) FROM orders"), 1);
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn what_a_caller_sets_in_his_session_ends_with_his_transaction() {
    let bed = Schema::new();
    let queue = bed.open_with(TaskQueue::builder().connections(1).poll_interval(Duration::from_millis(5)));
    queue.register(TaskType::new("t")).expect("registered");
    let session = |tx: &PostgresTransaction<'_>| {
        let lock = format!("SELECT pg_advisory_lock(hashtext('{}'))", bed.name());
        for sql in ["SET search_path = pg_catalog", "SET statement_timeout = 1", "SET ROLE pg_monitor", &lock] {
            tx.query(sql, &[])?;
        }
        Ok::<_, TaskError>(())
    };
    let is_as_before = |name: &str| {
        let settings = "SELECT current_setting('statement_timeout'), current_user, current_setting('enable_seqscan')";
        let read = queue.postgres_transaction(|tx| tx.query(settings, &[])).expect("read");
        let read: Vec<&str> = read[0].iter().flatten().map(|setting| &**setting).collect();
        assert_eq!(read, ["61s", "fulmar", "on"], "{name}");
        put(&queue, name);
        assert_eq!(claim(&queue).task().identifier(), name);
        let free = format!("SELECT pg_try_advisory_xact_lock(hashtext('{}'))", bed.name());
        assert_eq!(bed.ask(&free).1[0][0].as_deref(), Some("t"), "{name}");
    };
    queue.postgres_transaction(session).expect("committed");
    is_as_before("after a commit");
    let rolled_back: Result<(), TaskError> = queue.postgres_transaction(|tx| {
        session(tx)?;
        Err(TaskError::Invalid("changed my mind".into()))
    });
    assert!(matches!(rolled_back, Err(TaskError::Invalid(_))));
    is_as_before("after a rollback");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn other_programs_enqueue_with_a_function() {
    let bed = Schema::new();
    let queue = bed.queue();
    let enqueue = |arguments: &str| {
        queue.postgres_transaction(|tx| tx.query(&format!("SELECT fulmar_enqueue({arguments})"), &[]).map(drop))
    };
    enqueue("'t', 'late', '7', run_after => interval '1 hour'").expect("accepted");
    enqueue("'t', 'first', repeat('x', 1000)::bytea, priority => 5, message => 'hello'").expect("accepted");
    enqueue("'t', 'a', '[1]', key => 'k', is_modifier => true").expect("accepted");
    enqueue("'t', 'b', '[2]', key => 'k'").expect("accepted");
    let log = queue.log("t", "first").expect("a log");
    assert_eq!((log[0].status, &*log[0].message), (TaskStatus::Accepted, "hello"));
    let worker = WorkerId::new();
    let taken = claims(&queue, &worker, 9);
    assert_eq!(crate::support::names(&taken), ["first", "a"], "one is late, and one comes behind another");
    assert_eq!(taken[0].task().input_bytes().expect("an input"), [b'x'; 1000]);
    taken[1].start().expect("started");
    taken[1].finish().expect("finished");
    assert_eq!(crate::support::names(&claims(&queue, &worker, 9)), ["b"]);

    let refused = |arguments: &str, why: &str| {
        let error = enqueue(arguments).expect_err(why);
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(source.contains(why), "{arguments}: {source}");
    };
    refused("'t', 'a', '[1]'", "23505");
    refused("'u', 'a', '[1]'", "not registered");
    refused("'t', '', '[1]'", "use 1 to 512");
    refused("'t', E'a\\nb', '[1]'", "control character");
    queue.set_capacity(4).expect("set");
    // One is late, and two were taken and have not started.
    enqueue("'t', 'c', '[1]'").expect("there is room for one");
    refused("'t', 'd', '[1]'", "the queue is full");
    assert_eq!(queue.stats().expect("read").count(TaskStatus::Accepted), 2);
}

/// Somebody registers the store's type while `submit` does.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_store_s_own_settings_stay_though_somebody_submits_meanwhile() {
    let bed = Schema::new();
    let queue = bed.open();
    std::thread::scope(|scope| {
        let mut submitting = None;
        bed.around()
            .postgres_transaction(|tx| {
                tx.execute(
                    &format!(
                        "INSERT INTO {}.fulmar_task_type (name, restart_limit, retry_limit, retry_first, retry_factor,
                             retry_cap, retry_jitter) VALUES ('store:s', 77, 0, 0, 1, 0, 0)",
                        bed.name()
                    ),
                    &[],
                )?;
                submitting = Some(scope.spawn(|| queue.submit("s", "op", false, serde_json::json!({}))));
                let waits =
                    "SELECT pid FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))";
                eventually("it registers, too", || tx.query(waits, &[]).is_ok_and(|rows| rows.len() == 1));
                Ok::<_, TaskError>(())
            })
            .expect("committed");
        submitting.expect("spawned").join().expect("no panic").expect("accepted");
    });
    assert_eq!(bed.count("SELECT restart_limit FROM fulmar_task_type WHERE name = 'store:s'"), 77);
}

/// What an idle worker asks for: a look each poll interval, a sign of life now and then, and
/// nothing for each other worker.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn an_idle_worker_looks_once_each_poll_interval_and_no_more() {
    const LOOKS: usize = 100;
    let detour = Detour::new();
    let queue = detour.queue();
    queue.register(TaskType::new("t")).expect("registered");
    let worker =
        Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<(), BoxError>(())).start().expect("started");
    assert_eq!(queue.wait("t", put(&queue, "a").identifier(), HANG).expect("it ends"), TaskStatus::Finished);
    // Others work meanwhile, which is none of its business but for the news of it.
    eventually("the worker is idle", || worker.stats().running == 0);
    let (begin, before) = (Instant::now(), detour.way().statements);
    let asked = || detour.way().statements - before;
    eventually("it looks for work", || asked() >= LOOKS);
    let (asked, passed) = (asked(), begin.elapsed());
    let times = |interval: Duration| (passed.as_nanos() / interval.as_nanos()) as usize + 1;
    // The poll interval of the bed; a heartbeat of the one that listens; two looks at what is over;
    // the last of the work.
    let most = times(Duration::from_millis(5)) + times(Duration::from_secs(5)) + 2 * times(Duration::from_secs(15)) + 8;
    assert!(asked <= most, "{asked} statements in {passed:.1?}, and {most} would do");
    println!("{asked} statements in {passed:.1?}; with the poll interval of 100 ms about {} a minute", 600 + 12 + 8);
    worker.drain(HANG).expect("idle");
}

/// Dead entries pile up while a snapshot is held. A claim reads each of them once, however many
/// tasks it takes.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_snapshot_held_by_others_costs_a_claim_one_walk_and_is_warned_of() {
    const TASKS: i64 = 3_000;
    let bed = Schema::new();
    let (ours, theirs) = (WorkerId::new().to_string(), WorkerId::new().to_string());
    let open = || {
        let builder = TaskQueue::builder().old_transaction(Duration::ZERO).poll_interval(Duration::from_millis(5));
        builder.connect(&format!("{}&application_name={ours}", bed.address())).expect("the queue opens")
    };
    // Sessions that have ended have told all that they read.
    let all_gone = || {
        let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{ours}'");
        eventually("the sessions end", || bed.count(&sessions) == 0);
    };
    let walked = format!(
        "SELECT idx_tup_read FROM pg_stat_all_indexes WHERE schemaname = '{}' AND indexrelname = 'fulmar_task_ready'",
        bed.name()
    );
    // How many entries a claim of ten reads, if ten are there.
    let walk = |names: &str| {
        let queue = open();
        queue.enqueue_many((0..10).map(|n| task(format!("{names}{n}")))).expect("accepted");
        drop(queue);
        all_gone();
        let before = bed.count(&walked);
        let queue = open();
        assert_eq!(claims(&queue, &WorkerId::new(), 10).len(), 10);
        drop(queue);
        all_gone();
        bed.count(&walked) - before
    };
    let queue = open();
    queue.register(TaskType::new("t")).expect("registered");
    let other = TaskQueue::connect(&format!("{}&application_name={theirs}", bed.address())).expect("a connection");
    other
        .postgres_transaction(|tx| {
            tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", &[])?;
            tx.query("SELECT count(*) FROM fulmar_task", &[])?;
            let worker = Worker::builder(&queue)
                .max_concurrent(4)
                .batch(200)
                .start_together(50)
                .handle("t", |_: &TaskContext| Ok::<(), BoxError>(()))
                .start()?;
            for part in 0..3 {
                queue.enqueue_many((0..TASKS / 3).map(|n| task(format!("{part}-{n}"))))?;
            }
            eventually("all are finished", || worker.stats().finished == TASKS as u64);
            worker.drain(HANG)?;
            let warnings = queue.stats()?.warnings;
            assert!(warnings.iter().any(|warning| warning.contains(&theirs)), "{warnings:?}");
            drop((worker, queue));
            let entries = walk("held");
            println!("a claim of 10 read {entries} entries, with {TASKS} dead ones");
            assert!(entries >= TASKS, "{entries}: nothing was held, so that this proves nothing");
            assert!(entries <= TASKS + TASKS / 10, "{entries}: more than one walk");
            Ok::<_, TaskError>(())
        })
        .expect("committed");
    drop(other);
    // A claim marks what is dead to everybody, and the next one passes it by. Other tests hold
    // snapshots now and then, too.
    let mut round = 0;
    eventually("what is dead is passed by", || {
        round += 1;
        walk(&format!("then{round}-")) <= TASKS / 10
    });
}

/// A program's own long transactions cost no lease.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn leases_are_renewed_though_all_connections_are_taken() {
    let bed = Schema::new();
    let queue = bed.open_with(TaskQueue::builder().connections(1));
    queue.register(TaskType::new("t")).expect("registered");
    put(&queue, "a");
    let claim = claim(&queue);
    claim.start().expect("ours");
    bed.pass(LEASE * 2 / 3);
    queue
        .postgres_transaction(|tx| {
            tx.query("SELECT 1", &[])?;
            claim.renew(LEASE)
        })
        .expect("it is ours, and nobody stands in its way");
    bed.pass(LEASE * 2 / 3);
    assert_eq!(queue.tidy().expect("nothing to do").returned, 0);
    assert_eq!(claim.finish().expect("ours"), TaskStatus::Finished);
}

/// A lock on one task must not lose the leases of the others.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_locked_row_keeps_no_lease_from_being_renewed() {
    let bed = Schema::new();
    let queue = bed.queue();
    let worker = WorkerId::new();
    put(&queue, "a");
    put(&queue, "b");
    let claims = claims(&queue, &worker, 9);
    claims.iter().for_each(|claim| claim.start().expect("ours"));
    bed.pass(LEASE * 2 / 3);
    let lock = format!("SELECT id FROM {}.fulmar_task WHERE identifier = 'a' FOR UPDATE", bed.name());
    bed.around()
        .postgres_transaction(|tx| {
            tx.query(&lock, &[])?;
            claims[1].renew(LEASE).expect("nobody stands in its way");
            claims[0].renew(LEASE).expect("it is ours still, though its lease could not be renewed");
            Ok::<_, TaskError>(())
        })
        .expect("a lock");
    bed.pass(LEASE * 2 / 3);
    bed.around()
        .postgres_transaction(|tx| {
            tx.query(&lock, &[])?;
            assert!(claims[0].renew(LEASE).expect_err("it was locked for longer than its lease").is_stale());
            claims[1].renew(LEASE).expect("that was renewed");
            assert_eq!(queue.tidy()?.returned, 0, "one is locked, and the other one's lease is good");
            Ok::<_, TaskError>(())
        })
        .expect("a lock");
    assert_eq!(queue.tidy().expect("rescued").returned, 1);
    assert!(claims[0].finish().expect_err("taken away").is_stale());
    assert_eq!(claims[1].finish().expect("ours"), TaskStatus::Finished);
    assert!(claims[1].renew(LEASE).expect_err("it has ended").is_stale());
}

/// A handler whose steps follow each other quickly has its row locked most of the time: a heartbeat
/// that only ever skipped it would lose it.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_row_that_was_skipped_before_is_waited_for() {
    let bed = Schema::new();
    let queue = bed.queue();
    put(&queue, "a");
    let claim = claim(&queue);
    claim.start().expect("ours");
    bed.pass(LEASE * 2 / 3);
    let lock = format!("SELECT id FROM {}.fulmar_task FOR UPDATE", bed.name());
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
        bed.name()
    );
    let before = bed.count("SELECT lease FROM fulmar_task");
    // On a machine that was held up for longer than a heartbeat waits, the next one renews it.
    eventually("a heartbeat waits, and then renews the lease", || {
        std::thread::scope(|scope| {
            let renewal = bed.around().postgres_transaction(|tx| {
                tx.query(&lock, &[])?;
                let renewal = scope.spawn(|| claim.renew(LEASE));
                while !renewal.is_finished() && bed.count(&waits) == 0 {}
                Ok::<_, TaskError>(renewal)
            });
            renewal.expect("a lock").join().expect("no panic").expect("it is ours");
        });
        bed.count("SELECT lease FROM fulmar_task") > before
    });
}

/// A child that was retried ends in the very moment in which its parent enqueues others.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_child_that_ends_beside_a_spawn_is_not_waited_for() {
    let bed = Schema::new();
    let queue = bed.queue();
    queue.register(TaskType::new("c")).expect("registered");
    let parent = Worker::builder(&queue).handle(
        "t",
        function(|cx: &Durable<'_>, ()| {
            cx.all_ended::<()>("first", [cx.child("c", "x", &())])?;
            cx.sleep("rest", LEASE)?;
            cx.all::<()>("second", [cx.child("c", "y", &())]).map(drop)
        }),
    );
    let ends = |worker: &WorkerBuilder| -> Vec<TaskStatus> {
        worker.run_due().expect("run").into_iter().map(|attempt| attempt.status).collect()
    };
    let task = queue.enqueue(NewTask::new("t", "a").input(&())).expect("accepted");
    assert_eq!(ends(&parent), [TaskStatus::Paused], "it waits for its first child");
    queue.cancel("c", "a/x").expect("it waits");
    assert_eq!(ends(&parent), [TaskStatus::Paused], "it sleeps");
    queue.retry("c", "a/x").expect("it was cancelled");
    let child = queue.dequeue(&WorkerId::new(), &["c"], 1, 2 * LEASE).expect("claimed").pop().expect("ready");
    child.start().expect("ours");
    queue.pass_time(LEASE).expect("it passes");
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
        bed.name()
    );
    std::thread::scope(|scope| {
        let spawn = queue.postgres_transaction(|tx| {
            child.task().finish_in(tx)?;
            let spawn = scope.spawn(|| ends(&parent));
            while !spawn.is_finished() && bed.count(&waits) == 0 {}
            Ok::<_, TaskError>(spawn)
        });
        assert_eq!(
            spawn.expect("committed").join().expect("no panic"),
            [TaskStatus::Paused],
            "it waits for the second"
        );
    });
    let double = Worker::builder(&queue).handle("c", |_: &TaskContext| Ok::<_, TaskError>(()));
    assert_eq!(ends(&double), [TaskStatus::Finished]);
    assert_eq!(ends(&parent), [TaskStatus::Finished], "the last child wakes it");
    assert_eq!(task.status().expect("known"), TaskStatus::Finished);
}

/// A handler stores the result of a step in the very moment in which its type is removed by force.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_step_beside_the_end_of_its_type_leaves_nothing() {
    let bed = Schema::new();
    let queue = bed.queue();
    put(&queue, "a");
    let claim = claim(&queue);
    claim.start().expect("ours");
    let id = claim.task().id();
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
        bed.name()
    );
    std::thread::scope(|scope| {
        let remove = queue.postgres_transaction(|tx| {
            // As a step is stored.
            tx.execute(&format!("SELECT 1 FROM fulmar_task WHERE id = {id} FOR SHARE"), &[])?;
            tx.execute(
                &format!(
                    "INSERT INTO fulmar_task_step (task_id, name, number, ord, kind, state, token, is_json)
                     VALUES ({id}, 's', 0, 0, 0, 1, 1, true)"
                ),
                &[],
            )?;
            let remove = scope.spawn(|| queue.force_unregister("t"));
            while !remove.is_finished() && bed.count(&waits) == 0 {}
            Ok::<_, TaskError>(remove)
        });
        remove.expect("committed").join().expect("no panic").expect("removed");
    });
    assert!(claim.finish().expect_err("it is gone").is_stale());
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_step"), 0);
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task"), 0);
}

/// A role or a database may bring settings of its own, and a schema any name.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn neither_odd_names_nor_a_role_s_settings_matter() {
    let bed = Schema::new();
    let role = format!("odd_{}", bed.name());
    let schema = format!("Odd \"{}\"; --, \\", bed.name());
    let quoted = format!("\"{}\"", schema.replace('"', "\"\""));
    bed.ask(&format!("CREATE ROLE {role} LOGIN PASSWORD 'p''\\@/:%'"));
    bed.ask(&format!("CREATE SCHEMA {quoted} AUTHORIZATION {role}"));
    for setting in [
        format!("search_path = {quoted}"),
        "standard_conforming_strings = off".into(),
        "backslash_quote = off".into(),
        "statement_timeout = 500".into(),
        "idle_in_transaction_session_timeout = 500".into(),
        "lock_timeout = 60000".into(),
        "default_transaction_isolation = serializable".into(),
        "default_transaction_read_only = on".into(),
        "bytea_output = escape".into(),
        "datestyle = 'German'".into(),
        "timezone = 'Asia/Kathmandu'".into(),
        "client_encoding = LATIN1".into(),
        "synchronous_commit = off".into(),
    ] {
        bed.ask(&format!("ALTER ROLE {role} SET {setting}"));
    }
    let address = bed.address();
    let server = address.rsplit('@').next().and_then(|rest| rest.split('?').next()).expect("host and database");
    // That the role can't write by default doesn't matter either.
    let url = format!("postgres://{role}:p'%5C%40%2F%3A%25@{server}?application_name=odd");
    let queue = TaskQueue::connect(&url).expect("the queue opens");
    queue.register(TaskType::new("t")).expect("registered");
    let handle = queue.enqueue(task("ü😀\\'").input(&"\\x41 ü😀").message("ü😀\\")).expect("accepted");
    let claim = claim(&queue);
    assert_eq!(claim.task().input::<String>().expect("read"), "\\x41 ü😀");
    claim.run(&|task: &TaskContext| task.store_response("ü😀\\", "text/plain")).expect("ours");
    assert_eq!(handle.response().expect("known").expect("stored").text().expect("text"), "ü😀\\");
    assert_eq!(handle.log().expect("a log")[0].message, "ü😀\\");
    let ours = "SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'),
             current_setting('synchronous_commit')";
    let limits = queue.postgres_transaction(|tx| tx.query(ours, &[])).expect("read");
    assert_eq!(limits, [["61s", "61s", "on"].map(|setting| Some(setting.to_owned()))], "the queue's own");
    // What waits for the disk of one server at least is a matter of taste.
    let local = TaskQueue::connect(&format!("{url}&options=-csynchronous_commit%3Dlocal")).expect("the queue opens");
    let kept = local.postgres_transaction(|tx| tx.query("SELECT current_setting('synchronous_commit')", &[]));
    assert_eq!(kept.expect("read"), [[Some("local".to_owned())]]);
    drop(local);
    let (_, rows) = bed.ask(&format!("SELECT count(*) FROM {quoted}.fulmar_task"));
    assert_eq!(rows[0][0].as_deref(), Some("1"), "in the schema that was named");
    queue
        .postgres_transaction(|tx| tx.query("SELECT fulmar_enqueue('t', E'by \\\\ function', '1')", &[]).map(drop))
        .expect("the function knows its schema");
    assert_eq!(queue.status("t", "by \\ function").expect("known"), TaskStatus::Accepted);
    drop((claim, handle, queue));
    bed.ask(&format!("DROP SCHEMA {quoted} CASCADE"));
    bed.ask(&format!("DROP ROLE {role}"));
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_queue_shows_no_password() {
    let bed = Schema::new();
    let password = bed.address().split([':', '@']).nth(2).expect("a password").to_owned();
    assert!(password.len() > 8);
    assert!(!format!("{:?}", bed.queue()).contains(&password));
    let wrong = bed.address().replace(&password, "hunter2");
    let error = TaskQueue::connect(&wrong).expect_err("a wrong password");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("password authentication failed") && !shown.contains("hunter2"), "{shown}");
}

/// A transaction that sees the rows of its beginning can't tell who else came since: both would
/// run, and a queue of one would take two.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn order_and_bound_are_refused_where_a_snapshot_hides_the_others() {
    let bed = Schema::new();
    let queue = bed.open();
    queue.register(TaskType::new("t")).expect("registered");
    // As somebody else's table, on which a row enqueues a task.
    bed.sql("CREATE TABLE orders (key text)");
    bed.sql(
        "CREATE FUNCTION ordered() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
             PERFORM fulmar_enqueue('t', 'by trigger', 'null', key => NEW.key, is_modifier => true); RETURN NEW; END $$",
    );
    bed.sql("CREATE TRIGGER ordered AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION ordered()");
    let others = Cell::new(0);
    let at = |level: &str, work: &dyn Fn(&PostgresTransaction<'_>) -> Result<(), TaskError>| {
        queue.postgres_transaction(|tx| {
            tx.execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}"), &[])?;
            tx.execute(&format!("SET LOCAL search_path = {}", bed.name()), &[])?;
            tx.query("SELECT count(*) FROM fulmar_task", &[])?;
            others.set(others.get() + 1);
            queue.enqueue(task(format!("another's {}", others.get())).ordered("k", true))?;
            work(tx)
        })
    };
    let by_function = |tx: &PostgresTransaction<'_>| {
        tx.query("SELECT fulmar_enqueue('t', 'by function', 'null', key => 'k', is_modifier => true)", &[]).map(drop)
    };
    let by_trigger = |tx: &PostgresTransaction<'_>| tx.execute("INSERT INTO orders VALUES ('k')", &[]).map(drop);
    let by_method = |tx: &PostgresTransaction<'_>| {
        let refused = queue.enqueue_in(tx, [task("by method").ordered("k", true)]);
        // It is refused before anything is done, and the transaction goes on.
        tx.query("SELECT 1", &[])?;
        refused.map(drop)
    };
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for work in [&by_function as &dyn Fn(&PostgresTransaction<'_>) -> _, &by_trigger, &by_method] {
            let error = at(level, work).expect_err(level);
            assert!(format!("{error:?}").contains("READ COMMITTED"), "{level}: {error:?}");
        }
        // What has no order, nor a bound, can be told apart from nobody.
        at(level, &|tx| queue.enqueue_in(tx, [task(level)]).map(drop)).expect("accepted");
    }
    at("READ COMMITTED", &by_function).expect("accepted");
    at("READ UNCOMMITTED", &by_trigger).expect("accepted: it is the same to PostgreSQL");
    at("READ COMMITTED", &by_method).expect("accepted");
    let open = "SELECT count(*) FROM fulmar_task WHERE lane = 'k' AND gate = 0";
    assert_eq!(bed.count(open), 1, "of so many modifiers one may run");

    queue.set_capacity(1_000).expect("set");
    let error = at("REPEATABLE READ", &|tx| queue.enqueue_in(tx, [task("bounded")]).map(drop)).expect_err("a bound");
    assert!(matches!(&error, TaskError::Invalid(words) if words.contains("capacity")), "{error:?}");
}

mod alone {
    use std::process::Command;

    use rustix::process::Signal;

    use super::*;
    use crate::faults::{Process, assert_account, violations, wait_for_all};
    use crate::support::number;

    fn server(what: &str) -> String {
        let program = std::env::var("FULMAR_POSTGRES_SERVER").expect("tests/run sets it");
        let output = Command::new(program).arg(what).output().expect("it runs");
        assert!(output.status.success(), "{what}: {output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// The primary stops at once, as by a power cut, and some time passes until its standby is
    /// promoted.
    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server of its own"]
    fn a_standby_refuses_in_words_and_work_goes_on_after_its_promotion() {
        let bed = Schema::new();
        put(&bed.queue(), "first");
        let standby = server("standby");
        let address = bed.address();
        let (before, rest) = address.rsplit_once('@').expect("a URL");
        let (place, path) = rest.split_once('/').expect("a database");
        let alone = format!("{before}@127.0.0.1:{standby}/{path}");
        let both = format!("{before}@127.0.0.1:{standby},{place}/{path}");
        let builder = || TaskQueue::builder().poll_interval(Duration::from_millis(5));

        // The words are those of the source.
        let refused = format!("{:?}", builder().connect(&alone).expect_err("it takes no tasks"));
        assert!(refused.contains("it is a standby"), "{refused}");
        // Of both it takes the primary, wherever that stands in the list.
        let queue = builder().connect(&both).expect("the queue opens");
        assert_eq!(queue.status("t", "first").expect("known"), TaskStatus::Accepted);
        let gate = Gate::default();
        let (at_gate, ran) = (gate.clone(), Arc::new(Mutex::new(Vec::new())));
        let runs = ran.clone();
        let handler = move |task: &TaskContext| {
            if task.identifier() == "first" {
                at_gate.pass();
            }
            runs.lock().expect("no panic under it").push(task.identifier().to_owned());
            Ok::<(), TaskError>(())
        };
        let worker = Worker::builder(&queue).max_concurrent(4).handle("t", handler).start().expect("started");
        // It runs while its server goes, and ends on the other one.
        gate.await_arrivals(1);
        let names: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        queue.enqueue_many(names[..100].iter().map(task)).expect("accepted");
        server("crash");

        let hasty = builder().busy_timeout(Duration::from_millis(100)).connect(&both);
        let refused = format!("{:?}", hasty.expect_err("no task is taken now"));
        assert!(refused.contains("it is a standby"), "{refused}");
        gate.open();
        eventually("the worker notices", || worker.stats().errors > 0);
        server("promote");
        // The first call may come too early; whether it was heard, the next one says.
        eventually("tasks are accepted", || {
            let accepted = queue.enqueue_many(names[100..].iter().map(task));
            matches!(accepted, Ok(_) | Err(TaskError::Duplicate { .. }))
        });
        for name in names.iter().map(|name| &**name).chain(["first"]) {
            assert_eq!(queue.task("t", name).wait(HANG).expect("in time"), TaskStatus::Finished, "{name}");
            let ends = history(&queue, name).into_iter().filter(|status| status.is_ended()).count();
            assert_eq!(ends, 1, "{name}");
        }
        worker.drain(HANG).expect("drained");
        let runs = ran.lock().expect("no panic under it").len();
        println!("{runs} runs of {} tasks", names.len() + 1);
        assert!(runs > names.len());
        drop(queue);
        server("standby_down");
        server("start");
    }

    /// Every few kills the server itself is stopped at once, as by a power cut, while tasks are
    /// enqueued and done.
    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server of its own"]
    fn a_server_stopped_under_its_workers_loses_nothing_and_finishes_nothing_twice() {
        let bed = Schema::new();
        let queue = bed.queue();
        queue.register(TaskType::new("t").restart_limit(1_000_000)).expect("registered");
        let faults = number("FULMAR_TASK_FAULTS", 16);
        let start = || {
            let worker = Process::start(&bed, "work", &[]);
            worker.until("worker ");
            worker
        };
        let mut workers: Vec<Process> = Vec::new();
        workers.resize_with(4, start);
        let mut names = Vec::new();
        for fault in 0..faults {
            let more: Vec<String> = (0..20).map(|n| format!("{fault}-{n}")).collect();
            if fault % 4 == 1 {
                std::thread::scope(|scope| {
                    let crash = scope.spawn(|| {
                        server("crash");
                        server("start");
                    });
                    // One by one, so that some are under way when the server goes: each must be
                    // accepted in the end.
                    for name in &more {
                        put(&queue, name);
                    }
                    crash.join().expect("it is back");
                });
            } else {
                queue.enqueue_many(more.iter().map(task)).expect("accepted");
            }
            names.extend(more);
            let victim = fault % workers.len();
            workers[victim].until("start ");
            if fault % 4 != 1 {
                workers[victim].signal(Signal::KILL);
                workers[victim] = start();
            }
        }
        let last = Instant::now();
        wait_for_all(&queue, &names);
        println!("{} tasks, {faults} faults, all ended {:.1?} after the last", names.len(), last.elapsed());
        for worker in &workers {
            worker.signal(Signal::TERM);
            worker.until("drained ");
        }
        assert_account(&violations(&queue, &names));
    }

    /// It takes connections and answers nothing, and then goes on where it was.
    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server of its own"]
    fn a_server_that_freezes_is_waited_for() {
        let bed = Schema::new();
        let queue = bed.queue();
        let claim = {
            put(&queue, "a");
            claim(&queue)
        };
        server("freeze");
        let (sent, received) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| sent.send(claim.start()).expect("the test waits"));
            let early = received.recv_timeout(Duration::from_millis(300));
            server("thaw");
            assert!(early.is_err(), "nobody could answer: {early:?}");
            received.recv_timeout(HANG).expect("an answer").expect("started");
        });
        assert_eq!(claim.finish().expect("finished"), TaskStatus::Finished);
    }
}

/// On a disk that is full because somebody else has filled it, until he clears up.
mod small_disk {
    use std::fs::File;
    use std::path::PathBuf;

    use super::*;

    /// A file that takes all there is. It goes with this.
    struct Ballast(PathBuf);

    impl Ballast {
        fn new() -> Ballast {
            let disk =
                std::env::var("FULMAR_POSTGRES_SMALL").expect("tests/run sets it, to a small disk that it has mounted");
            let path = PathBuf::from(disk).join("ballast");
            let mut file = File::create(&path).expect("this runs as root");
            let full = loop {
                if let Err(error) = file.write_all(&[7; 4096]) {
                    break error;
                }
            };
            assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
            Ballast(path)
        }
    }

    impl Drop for Ballast {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn queue(bed: &Schema) -> TaskQueue {
        let address = bed.address().replace("?options=", "?options=-cdefault_tablespace%3Dsmall%20");
        let builder = TaskQueue::builder().poll_interval(Duration::from_millis(5));
        let queue = builder.connect(&address).expect("the queue opens");
        queue.register(TaskType::new("t")).expect("registered");
        queue
    }

    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server with a small disk"]
    fn a_full_disk_is_a_typed_error_that_loses_nothing_and_passes() {
        let bed = Schema::new();
        let queue = queue(&bed);
        let ballast = Ballast::new();
        let mut accepted = 0;
        let full = loop {
            match queue.enqueue(task(accepted.to_string()).input_bytes(vec![7; 50_000])) {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
            assert!(accepted < 1_000, "it is never full");
        };
        assert!(matches!(full, TaskError::DiskFull { .. }) && full.is_retryable(), "{full:?}");
        let many = queue.enqueue_many((0..100).map(|n| task(format!("many{n}")).input_bytes(vec![7; 50_000])));
        assert!(matches!(many, Err(TaskError::DiskFull { .. })), "{many:?}");
        assert_eq!(
            queue.stats().expect("reading needs no room").total(),
            accepted,
            "nothing lost, and no half of what was refused"
        );
        drop(ballast);
        put(&queue, &accepted.to_string());
        assert_eq!(queue.stats().expect("read").count(TaskStatus::Accepted), accepted + 1);
        for claim in claims(&queue, &WorkerId::new(), 1_000) {
            claim.start().expect("there is room");
            assert_eq!(claim.finish().expect("there is room"), TaskStatus::Finished);
        }
        assert_eq!(queue.stats().expect("read").count(TaskStatus::Finished), accepted + 1);
    }

    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server with a small disk"]
    fn a_worker_whose_disk_is_full_keeps_the_outcome_until_there_is_room() {
        let bed = Schema::new();
        let queue = queue(&bed);
        let gate = Gate::default();
        let inside = gate.clone();
        let worker = Worker::builder(&queue)
            .max_concurrent(1)
            .handle("t", move |task: &TaskContext| {
                inside.pass();
                task.store_response(vec![7; 4 << 20], "x/y")
            })
            .start()
            .expect("started");
        let handle = put(&queue, "a");
        gate.await_arrivals(1);
        let ballast = Ballast::new();
        gate.open();
        eventually("the outcome can't be written", || worker.stats().errors > 2);
        assert_eq!(handle.status().expect("reading needs no room"), TaskStatus::Running);
        drop(ballast);
        assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Finished);
        assert_eq!(handle.response().expect("known").expect("stored").body.len(), 4 << 20);
        let stats = worker.drain(HANG).expect("idle");
        assert_eq!((stats.started, stats.finished, stats.stale), (1, 1, 0), "{stats}");
        assert_eq!(handle.info().expect("known").lost, 0);
    }
}
