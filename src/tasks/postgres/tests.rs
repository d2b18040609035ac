//! The connection, against a server that tests/run brings; and what it does where there is none.

use std::ffi::CString;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::durable::{Entry as Stored, Holder, Journal, Kept, Kind, State};
use super::super::engine::{Action, Claimed, Engine, Step};
use super::super::error::TaskError;
use super::super::new_task::NewTask;
use super::super::queue::TaskQueue;
use super::super::status::TaskStatus;
use super::super::task_type::TaskType;
use super::super::worker_id::WorkerId;
use super::connection::{Connection, Heard, Limits};
use super::error::PgError;
use super::keep::Keep;
use super::libpq::{self, Raw};
use super::target::Target;
use super::trail::Entry;
use super::value::Param;
use super::waker::Waker;
use super::{PostgresEngine, produce, reap, steps, trail};
use crate::combine::Transaction;
use crate::sync::{AtomicBool, Ordering, thread};

/// Only turns a hang into a failure.
const HANG: Duration = Duration::from_secs(60);

fn limits() -> Limits {
    Limits { connect: Duration::from_secs(10), statement: HANG, lock: HANG, heartbeat: Duration::from_secs(5) }
}

pub(super) fn url() -> String {
    std::env::var("FULMAR_POSTGRES_URL").expect("tests/run sets it, to a server that it has started")
}

pub(super) fn connect() -> Connection {
    Connection::open(&Target::parse(&url()).expect("a sound URL"), limits()).expect("the server is up")
}

/// Run now and here: the test goes on when it has ended, or fails.
fn on_another_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> impl FnOnce() -> T {
    let (producer, consumer) = crate::queue::bounded(1).expect("a sound size");
    thread::spawn("other".into(), None, move || drop(producer.put(body()))).expect("a thread");
    move || consumer.get_timeout(HANG).unwrap_or_else(|_| panic!("the other thread panicked, or hangs"))
}

#[test]
fn nobody_listening_is_an_error_with_the_place_and_without_the_password() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let target = Target::parse(&format!("postgres://alice:hunter2@127.0.0.1:{port}/jobs")).expect("a sound URL");
    let error = Connection::open(&target, limits()).expect_err("nobody is there");
    assert!(matches!(error, PgError::Connect { .. }) && error.is_lost(), "{error:?}");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains(&format!("127.0.0.1:{port}/jobs")) && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_server_that_says_the_password_is_not_repeated() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let server = on_another_thread(move || {
        let (mut client, _) = listener.accept().expect("a client");
        // The length, the protocol's version, and then the options.
        let mut length = [0; 4];
        client.read_exact(&mut length).expect("the start-up message");
        let mut rest = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("small") - 4];
        client.read_exact(&mut rest).expect("the start-up message");
        let fields = b"SFATAL\0C28P01\0Mwrong password hunter2\0\0";
        let length = u32::try_from(fields.len() + 4).expect("small").to_be_bytes();
        client.write_all(&[b"E", &length[..], fields].concat()).expect("it listens");
    });
    let url = format!("postgres://alice:hunter2@127.0.0.1:{port}/jobs?sslmode=disable&gssencmode=disable");
    let error = Connection::open(&Target::parse(&url).expect("a sound URL"), limits()).expect_err("refused");
    server();
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("wrong password ***") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let url = format!("postgres://127.0.0.1:{port}/jobs?sslmode=disable&gssencmode=disable");
    let limits = Limits { connect: Duration::from_secs(1), ..limits() };
    let error = Connection::open(&Target::parse(&url).expect("a sound URL"), limits).expect_err("no answer");
    assert!(error.to_string().contains("timeout"), "{error}");
}

#[test]
fn a_wait_ends_by_the_waker_and_by_its_deadline() {
    let waker = Waker::new().expect("descriptors");
    let silent = Waker::new().expect("descriptors");
    let past = libpq::wait(silent.fd(), false, Some(waker.fd()), Some(Instant::now())).expect("poll");
    assert_eq!((past.socket, past.waker), (false, false));
    let soon = Instant::now() + Duration::from_millis(3);
    libpq::wait(silent.fd(), false, None, Some(soon)).expect("poll");
    assert!(Instant::now() >= soon, "it ended before its deadline");

    let ringer = waker.clone();
    let rung = on_another_thread(move || ringer.ring());
    let ready = libpq::wait(silent.fd(), false, Some(waker.fd()), Some(Instant::now() + HANG)).expect("poll");
    rung();
    assert!(ready.waker && !ready.socket);
    for _ in 0..100_000 {
        waker.ring();
    }
    waker.hear();
    let after = libpq::wait(silent.fd(), false, Some(waker.fd()), Some(Instant::now())).expect("poll");
    assert!(!after.waker, "many rings are heard as one");
}

#[test]
fn a_trail_is_read_up_to_where_it_is_torn() {
    let number = |number: i64| number.to_be_bytes();
    let accepted = [number(1), number(5_000 << 3), number(77)].concat();
    let taken = [&number(2)[..], &number(5_001 << 3 | 1), &number(1), b"abcd    "].concat();
    let whole = [accepted, taken].concat();
    let entry =
        |number, time, status, token, message: &str| Entry { number, time, status, token, message: message.into() };
    let taken = entry(2, 5_001, 1, 1, "taken by worker abcd");
    assert_eq!(trail::entries(&whole), [entry(1, 5_000, 0, 77, ""), taken]);
    for length in 0..whole.len() {
        assert!(trail::entries(&whole[..length]).len() <= usize::from(length >= 24));
    }
}

#[test]
fn options_that_libpq_does_not_know_are_an_error_and_no_crash() {
    let options = [(CString::from(c"no_such_option"), CString::from(c"1"))];
    assert!(Raw::connect(&options).is_err());
    assert!(Raw::connect(&[(c"dbname".into(), c"postgres://[".into())]).is_err());
    assert!(libpq::parse(c"port=1 host='").is_none());
    assert_eq!(libpq::parse(c"port=1"), Some(vec![("port".into(), "1".into())]));
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn values_come_back_as_they_went() {
    let mut connection = connect();
    let every_byte: Vec<u8> = (0..=255).collect();
    let text = "naïve 'quotes'; DROP TABLE x; -- \\ \u{1f426}\n\t";
    let sql =
        "SELECT $1::bool, $2::int8, $3::text, $4::bytea, $5::text, $6::int8[], $7::text[], $8::bytea[], $9::float8";
    let rows = connection
        .query(
            sql,
            &[
                true.into(),
                i64::MIN.into(),
                text.into(),
                every_byte[..].into(),
                Param::Null,
                Param::Ints(&[1, -2]),
                Param::MaybeTexts(&[Some(text), None, Some("")]),
                Param::ByteArrays(&[&every_byte, b""]),
                Param::Float(0.1),
            ],
        )
        .expect("a sound statement");
    let row = rows.only().expect("one");
    assert!(row.get::<bool>(0).expect("bool"));
    assert_eq!(row.get::<i64>(1).expect("int8"), i64::MIN);
    assert_eq!(row.get::<&str>(2).expect("text"), text);
    assert_eq!(row.get::<&[u8]>(3).expect("bytea"), every_byte);
    assert_eq!(row.get::<Option<&str>>(4).expect("null"), None);
    assert_eq!(row.get::<f64>(8).expect("float8").to_bits(), 0.1_f64.to_bits());
    assert!(row.get::<i64>(2).is_err() && row.get::<&str>(4).is_err() && row.get::<i64>(99).is_err());

    let elements = "SELECT a, coalesce(b, '<null>'), c FROM unnest($1::int8[], $2::text[], $3::bytea[]) AS t (a, b, c)";
    let params =
        [Param::Ints(&[1, -2]), Param::MaybeTexts(&[None, Some(text)]), Param::ByteArrays(&[&every_byte, b""])];
    let rows = connection.query(elements, &params).expect("arrays");
    let read: Vec<(i64, String, Vec<u8>)> = rows
        .iter()
        .map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .collect::<Result<_, PgError>>()
        .expect("the types asked for");
    assert_eq!(read, [(1, "<null>".into(), every_byte), (-2, text.into(), Vec::new())]);
    let none = connection.query(elements, &[Param::Ints(&[]), Param::Texts(&[]), Param::ByteArrays(&[])]);
    assert_eq!(none.expect("empty arrays").len(), 0);
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn sixty_four_mebibytes_go_there_and_back() {
    let mut connection = connect();
    let large: Vec<u8> = (0..64 << 20).map(|n: u32| n.to_le_bytes()[0] ^ n.to_le_bytes()[2]).collect();
    let rows = connection.query("SELECT $1::bytea", &[large[..].into()]).expect("it fits");
    assert!(rows.only().and_then(|row| row.get::<&[u8]>(0)).expect("bytes") == large);
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_refusal_has_its_sqlstate_and_the_connection_goes_on() {
    let mut connection = connect();
    let error = connection.query("SELECT 1 / $1::int8", &[0.into()]).expect_err("a division by zero");
    assert_eq!(error.sqlstate(), Some("22012"), "{error}");
    assert!(!error.is_lost());
    assert_eq!(connection.query("SELECT", &[]).map(|rows| rows.len()).expect("one row without columns"), 1);
    let error = connection.query("SELEKT", &[]).expect_err("no SQL");
    assert_eq!(error.sqlstate(), Some("42601"), "{error}");
    let error = connection.query("SELECT $1::text", &["zero\0byte".into()]).expect_err("no text for PostgreSQL");
    assert!(matches!(error, PgError::Invalid(_)), "{error}");
    let error = connection.query_once("COPY (SELECT 1) TO STDOUT", &[]).expect_err("nobody copies here");
    assert!(matches!(error, PgError::Unexpected(_)), "{error}");
    assert!(!connection.is_good() && connection.ping().is_err(), "a connection in the middle of a copy is done with");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_session_that_a_pooler_reset_is_replaced_and_does_not_lie() {
    let mut connection = connect();
    connection.ping().expect("it is there");
    connection.script("DISCARD ALL").expect("what poolers send");
    let error = connection.ping().expect_err("what was prepared is gone");
    assert!(error.is_lost() && !connection.is_good(), "{error}");
}

/// Each change of a task writes its trail anew. What becomes of it is found where it is looked for
/// after a lost answer.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_trail_does_not_grow_for_ever_and_loses_nothing() {
    let (queue, schema) = queue_of_one_connection();
    queue.enqueue_many(["a", "other"].map(|name| NewTask::new("t", name))).expect("accepted");
    let engine = queue.engine().as_any().downcast_ref::<PostgresEngine>().expect("it is on PostgreSQL");
    let take = || engine.core.pool.take().expect("a connection");
    let mark: i64 = take()
        .query("SELECT ('x' || encode(substring(trail FROM 17 FOR 8), 'hex'))::bit(64)::int8 FROM fulmar_task", &[])
        .and_then(|rows| rows.first().expect("a task").get(0))
        .expect("a number");
    let mut first = None;
    let mut expected = vec![TaskStatus::Accepted];
    for round in 0..100 {
        let claim = queue.dequeue(&WorkerId::new(), &["t"], 1, HANG).expect("claimed").pop().expect("ready");
        assert_eq!(claim.task().identifier(), "a");
        claim.start().expect("ours");
        expected.extend([TaskStatus::Scheduled, TaskStatus::Running]);
        if round % 7 == 0 {
            claim.task().message("in words, between the others").expect("ours");
            expected.push(TaskStatus::Running);
        }
        claim.task().pause(Duration::ZERO);
        assert_eq!(claim.finish().expect("ours"), TaskStatus::Paused);
        expected.push(TaskStatus::Paused);
        let trail = "SELECT octet_length(trail)::int8 FROM fulmar_task WHERE identifier = 'a'";
        let length: i64 = take().query(trail, &[]).and_then(|rows| rows.only()?.get(0)).expect("a length");
        assert!(length < 2 * trail::LONG, "{length} bytes after {round} rounds");
        let action = Action::Pause { message: String::new(), after: Duration::ZERO, checkpoint: None, response: None };
        first.get_or_insert_with(|| claim.task().step(action));
    }
    let log = queue.log("t", "a").expect("a log");
    assert_eq!(log.iter().map(|entry| entry.status).collect::<Vec<_>>(), expected);
    assert!(log.is_sorted_by_key(|entry| entry.time), "in order");
    assert!(log[1].message.starts_with("taken by worker ") && log[2].message == "attempt 1");
    let found = steps::find_own(&mut take(), &first.expect("a hundred rounds")).expect("read");
    assert_eq!(found, Some(TaskStatus::Paused), "the first of all");
    let tasks = ["a", "other"].map(|name| NewTask::new("t", name).checked().expect("sound"));
    assert!(produce::find_marked(&mut take(), &tasks, mark).expect("read").is_some(), "its enqueuing");
    connect().script(&format!("DROP SCHEMA {schema} CASCADE")).expect("dropped");
}

/// A queue with the type `t`, in a schema of its own.
fn queue_of_one_connection() -> (TaskQueue, String) {
    let schema = format!("fulmar_{}", super::super::worker_id::random_name());
    connect().script(&format!("CREATE SCHEMA {schema}")).expect("a schema");
    let address = format!("{}?options=-csearch_path%3D{schema}", url());
    let queue = TaskQueue::builder().connections(1).connect(&address).expect("the queue opens");
    queue.register(TaskType::new("t")).expect("registered");
    (queue, schema)
}

/// An operator has it done again between the look for what has retired and its deletion.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn what_was_retried_since_it_had_retired_is_not_deleted() {
    let (queue, schema) = queue_of_one_connection();
    queue.register(TaskType::new("t").retention(Duration::ZERO)).expect("registered");
    let engine = queue.engine().as_any().downcast_ref::<PostgresEngine>().expect("it is on PostgreSQL");
    let take = || engine.core.pool.take().expect("a connection");
    let tasks = ["again", "gone"].map(|name| queue.enqueue(NewTask::new("t", name)).expect("accepted"));
    for task in &tasks {
        task.cancel().expect("it waits");
    }
    let ids = reap::retired(&mut take(), 9).expect("looked");
    assert_eq!(ids.len(), 2);
    queue.retry("t", "again").expect("it was cancelled");
    assert_eq!(reap::erase_retired(&mut take(), &ids).expect("deleted"), 1);
    assert_eq!(tasks[0].status().expect("it is there"), TaskStatus::Accepted);
    assert!(matches!(tasks[1].status(), Err(TaskError::NotFound { .. })));
    connect().script(&format!("DROP SCHEMA {schema} CASCADE")).expect("dropped");
}

/// What a pooler does between two of its clients.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_session_that_was_reset_is_replaced_and_nothing_is_done_twice() {
    let (queue, schema) = queue_of_one_connection();
    let engine = queue.engine().as_any().downcast_ref::<PostgresEngine>().expect("it is on PostgreSQL");
    let forget = || engine.core.pool.take().expect("a connection").script("DEALLOCATE ALL").expect("forgotten");
    let put = |name: &str| queue.enqueue(NewTask::new("t", name)).expect("accepted");
    put("a");
    forget();
    put("b");
    forget();
    let claims = queue.dequeue(&WorkerId::new(), &["t"], 9, HANG).expect("claimed");
    let names: Vec<&str> = claims.iter().map(|claim| claim.task().identifier()).collect();
    assert_eq!(names, ["a", "b"]);
    forget();
    claims[0].start().expect("its start was done, once");
    forget();
    assert_eq!(claims[0].finish().expect("ours"), TaskStatus::Finished);
    let info = queue.info("t", "a").expect("known");
    assert_eq!((info.starts, info.status), (1, TaskStatus::Finished));
    connect().script(&format!("DROP SCHEMA {schema} CASCADE")).expect("dropped");
}

/// What a leader does with the results that several threads have brought.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn results_of_many_functions_are_one_statement_each_behind_its_fence() {
    let (queue, schema) = queue_of_one_connection();
    let engine = queue.engine().as_any().downcast_ref::<PostgresEngine>().expect("it is on PostgreSQL");
    let worker = WorkerId::new();
    queue.enqueue_many(["a", "b", "c"].map(|name| NewTask::new("t", name))).expect("accepted");
    let claims = engine.claim(&worker, &["t".to_owned()], 9, HANG, "").expect("claimed");
    let step = |claim: &Claimed| {
        let (task, token, worker) = (claim.id, claim.token, worker.clone());
        Step { task, token, worker, action: Action::Start, finished_in: false }
    };
    engine.step(claims.iter().map(step).collect()).expect("started");
    let keep = |claim: &Claimed, token: i64, worker: &WorkerId, body: &[u8]| Keep {
        holder: Holder { task: claim.id, token, worker: worker.clone() },
        entry: Stored {
            name: "s".into(),
            number: 0,
            ord: 0,
            kind: Kind::Step,
            state: State::Done,
            attempts: 1,
            until: None,
            is_json: true,
            body: Some(body.into()),
        },
    };
    let commit = |mut works: Vec<Keep>| -> Vec<Kept> {
        let outcomes = engine.core.commit(&mut (), &mut works).expect("committed");
        outcomes.into_iter().map(|outcome| outcome.expect("no error of its own")).collect()
    };
    let [a, b, c] = &claims[..] else { panic!("three were enqueued") };
    // Not in the order of their numbers.
    let kept = commit(vec![
        keep(c, c.token, &WorkerId::new(), b"another worker's"),
        keep(b, b.token, &worker, b"2"),
        keep(a, a.token, &worker, b"1"),
        keep(c, c.token + 1, &worker, b"another claim's"),
    ]);
    assert_eq!((kept[0], kept[3]), (Kept::Stale, Kept::Stale));
    assert_eq!((kept[1], kept[2]), (Kept::Done, Kept::Done));
    let again = commit(vec![
        keep(a, a.token, &worker, b"3"),
        keep(c, c.token - 1, &worker, b"an attempt's that lost the task"),
        keep(c, c.token, &worker, b"4"),
    ]);
    assert_eq!(again[0], Kept::Stale, "a result that is stored stays");
    assert_eq!(again[1..], [Kept::Stale, Kept::Done]);
    // A call that can't know what became of an earlier one, alone and beside others.
    assert_eq!(commit(vec![keep(c, c.token, &worker, b"4")]), [Kept::Done]);
    let once_more = commit(vec![keep(a, a.token, &worker, b"1"), keep(c, c.token, &worker, b"4")]);
    assert_eq!(once_more, [Kept::Done, Kept::Done]);
    let bodies =
        claims.iter().map(|claim| engine.steps(claim.id).expect("read").1[0].body.as_deref().map(<[u8]>::to_vec));
    assert_eq!(bodies.collect::<Vec<_>>(), [b"1", b"2", b"4"].map(|body| Some(body.to_vec())));
    connect().script(&format!("DROP SCHEMA {schema} CASCADE")).expect("dropped");
}

/// Otherwise two statements that end children of the same parents wait for each other.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_statement_that_ends_children_takes_their_parents_counts_in_one_order() {
    let (queue, schema) = queue_of_one_connection();
    let engine = queue.engine().as_any().downcast_ref::<PostgresEngine>().expect("it is on PostgreSQL");
    let worker = WorkerId::new();
    let claim = || engine.claim(&worker, &["t".to_owned()], 9, HANG, "").expect("claimed");
    let step = |claim: &Claimed, action: Action| {
        let (task, token, worker) = (claim.id, claim.token, worker.clone());
        Step { task, token, worker, action, finished_in: false }
    };
    queue.enqueue_many(["a", "b"].map(|name| NewTask::new("t", name))).expect("accepted");
    let parents = claim();
    engine.step(parents.iter().map(|claim| step(claim, Action::Start)).collect()).expect("started");
    // The child of the second parent has the lower number.
    for parent in parents.iter().rev() {
        let holder = Holder { task: parent.id, token: parent.token, worker: worker.clone() };
        let child = queue.checked([NewTask::new("t", format!("child of {}", parent.identifier))]).expect("sound");
        let (name, kind, state) = ("c".to_owned(), Kind::Children, State::Begun);
        let entry =
            Stored { name, number: 0, ord: 0, kind, state, attempts: 0, until: None, is_json: true, body: None };
        assert_eq!(engine.spawn(&holder, &entry, &child, true).expect("spawned"), Kept::Done);
    }
    let children = claim();
    engine.step(children.iter().map(|claim| step(claim, Action::Start)).collect()).expect("started");
    let count = "SELECT 1 FROM fulmar_task_family WHERE task_id = $1::int8 FOR UPDATE NOWAIT";
    let (mut first, mut second) = (connect(), connect());
    for session in [&mut first, &mut second] {
        session.script(&format!("SET search_path = {schema}")).expect("set");
    }
    let mut holds_first = first.begin().expect("begun");
    holds_first.query(count, &[parents[0].id.into()]).expect("it is free");
    let finish = || Action::Finish { message: String::new(), response: None };
    let steps: Vec<Step> = children.iter().map(|claim| step(claim, finish())).collect();
    let other = queue.clone();
    let ended = on_another_thread(move || other.engine().step(steps));
    let waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))";
    let since = Instant::now();
    while holds_first.query(waits, &[]).expect("looked").len() == 0 {
        assert!(since.elapsed() < HANG, "nothing waits for the first parent's count");
    }
    second.query(count, &[parents[1].id.into()]).expect("what waits for the first count doesn't hold the second");
    holds_first.commit().expect("committed");
    let ended = ended().expect("stepped");
    assert_eq!(ended.len(), 2);
    for child in &children {
        assert_eq!(queue.status("t", &child.identifier).expect("there"), TaskStatus::Finished);
    }
    connect().script(&format!("DROP SCHEMA {schema} CASCADE")).expect("dropped");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_database_that_can_not_hold_every_text_is_refused() {
    let mut connection = connect();
    let url = url();
    let server = url.rsplit_once('/').map_or(&*url, |(server, _)| server).to_owned();
    for (encoding, is_fine) in [("LATIN1", false), ("SQL_ASCII", true)] {
        let name = format!("fulmar_{}_{}", encoding.to_lowercase(), super::super::worker_id::random_name());
        let create = format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
        connection.script(&create).expect("a database");
        match TaskQueue::connect(&format!("{server}/{name}")) {
            Ok(queue) => {
                assert!(is_fine, "{encoding} was taken");
                queue.register(TaskType::new("t")).expect("registered");
                let handle =
                    queue.enqueue(NewTask::new("t", "naïve \u{1f426}").message("\u{1f426}")).expect("accepted");
                assert_eq!(handle.log().expect("a log")[0].message, "\u{1f426}");
            }
            Err(error) => {
                assert!(matches!(error, TaskError::Invalid(_)) && !is_fine, "{encoding}: {error:?}");
                assert!(error.to_string().contains("ENCODING 'UTF8'"), "{error}");
            }
        }
        connection.script(&format!("DROP DATABASE {name} WITH (FORCE)")).expect("dropped");
    }
}

/// In a database that takes every byte, a client in another encoding may have left names that can't
/// be read.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn names_that_are_not_utf_8_keep_no_other_task_from_anything() {
    let mut connection = connect();
    let name = format!("fulmar_bytes_{}", super::super::worker_id::random_name());
    let create = format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    connection.script(&create).expect("a database");
    let url = url();
    let server = url.rsplit_once('/').map_or(&*url, |(server, _)| server);
    let queue = TaskQueue::connect(&format!("{server}/{name}")).expect("the queue opens");
    queue.register(TaskType::new("t").restart_limit(1)).expect("registered");
    queue.enqueue(NewTask::new("t", "good")).expect("accepted");
    let engine = queue.engine().as_any().downcast_ref::<PostgresEngine>().expect("it is on PostgreSQL");
    let script = |sql: &str| engine.core.pool.take().expect("a connection").script(sql).expect(sql);
    let bytes = "convert_from('\\xe9ff'::bytea, 'SQL_ASCII')";
    script(&format!(
        "SELECT fulmar_enqueue('t', {bytes}, '1', priority => 9);
         SELECT fulmar_enqueue('t', 'in its lane' || {bytes}, '1', priority => 9, key => {bytes} || '2', is_modifier => true);
         SELECT fulmar_enqueue('t', 'lane', '1', priority => 8, key => {bytes}, is_modifier => true);
         SELECT fulmar_enqueue('t', 'behind', '1', priority => 7, key => {bytes}, is_modifier => true);
         SELECT fulmar_enqueue('t', 'last', '1', priority => 6, key => {bytes}, is_modifier => true);
         SELECT fulmar_enqueue('t', 'freed', '1', key => {bytes} || '2');
         INSERT INTO fulmar_task_type (name, restart_limit, retry_limit, retry_first, retry_factor, retry_cap, retry_jitter)
             VALUES ({bytes}, 1, 1, 1, 1, 1, 1)"
    ));
    let worker = WorkerId::new();
    let take = |expected: &[&str]| {
        let mut claims = Vec::new();
        // A claim may be all bad rows; they are set aside, and the next one finds the others.
        while claims.len() < expected.len() {
            let taken = queue.dequeue(&worker, &["t"], 9, HANG).expect("claimed");
            assert!(!taken.is_empty() || claims.is_empty(), "nothing is left: {expected:?}");
            claims.extend(taken);
        }
        let mut names: Vec<&str> = claims.iter().map(|claim| claim.task().identifier()).collect();
        names.sort_unstable();
        assert_eq!(names, expected);
        claims
    };
    let claims = take(&["good", "lane"]);
    for claim in &claims {
        claim.start().expect("ours");
        claim.finish().expect("ours");
    }
    // The next of each key are free now: `behind`, for the one before it has ended, and `freed`,
    // for the one before it was set aside.
    let lost = take(&["behind", "freed"]);
    for claim in &lost {
        claim.start().expect("ours");
    }
    script("UPDATE fulmar_task SET lease = 0, lost = 1 WHERE status = 2");
    let reaped = engine.core.promptly("rescuing", |db, _| super::reap::reap(db, 9)).expect("rescued");
    assert_eq!((reaped.failed, reaped.bad), (2, 0));
    assert_eq!(take(&["last"]).len(), 1);
    let stats = queue.stats().expect("read");
    assert_eq!(stats.types.iter().map(|of| of.counts.iter().sum::<u64>()).sum::<u64>(), 7);
    assert_eq!(queue.task_types().expect("read").len(), 2);
    drop((claims, lost, queue));
    connection.script(&format!("DROP DATABASE {name} WITH (FORCE)")).expect("dropped");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_dropped_transaction_leaves_nothing_and_a_committed_one_all() {
    let mut connection = connect();
    connection.script("CREATE TEMP TABLE t (n int8 PRIMARY KEY)").expect("a table");
    let mut transaction = connection.begin().expect("begun");
    assert_eq!(transaction.execute("INSERT INTO t VALUES ($1::int8)", &[1.into()]).expect("inserted"), 1);
    assert!(transaction.begin().is_err(), "not inside of another one");
    drop(transaction);
    assert!(!connection.is_in_transaction());
    assert_eq!(connection.execute("SELECT FROM t", &[]).expect("asked"), 0);

    let mut transaction = connection.begin().expect("begun");
    transaction.execute("INSERT INTO t VALUES ($1::int8)", &[1.into()]).expect("inserted");
    transaction.commit().expect("committed");

    let mut transaction = connection.begin().expect("begun");
    transaction.execute("INSERT INTO t VALUES ($1::int8)", &[2.into()]).expect("inserted");
    transaction.execute("INSERT INTO t VALUES ($1::int8)", &[1.into()]).expect_err("there is one already");
    let error = transaction.commit().expect_err("the server would say ROLLBACK, and no error");
    assert_eq!(error.sqlstate(), Some("25P02"), "{error}");

    let inside = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut transaction = connection.begin().expect("begun");
        transaction.execute("INSERT INTO t VALUES ($1::int8)", &[3.into()]).expect("inserted");
        panic!("in a test, on purpose");
    }));
    assert!(inside.is_err() && !connection.is_in_transaction());
    assert_eq!(connection.execute("SELECT FROM t", &[]).expect("asked"), 1, "of all of them, the committed one");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_notification_ends_a_wait_and_a_ring_ends_it_too() {
    let (mut ear, waker) = (connect(), Waker::new().expect("descriptors"));
    ear.listen("odd \"name").expect("listening");
    assert_eq!(ear.wait(&waker, Some(Instant::now())).expect("a look"), Heard::Nothing);
    let said = on_another_thread(|| {
        connect().query("SELECT pg_notify($1::text, $2::text)", &["odd \"name".into(), "hello".into()]).map(drop)
    });
    match ear.wait(&waker, Some(Instant::now() + HANG)).expect("a wait") {
        Heard::Notified(heard) => {
            assert_eq!(heard.len(), 1);
            assert_eq!((&*heard[0].channel, &*heard[0].payload), ("odd \"name", "hello"));
        }
        other => panic!("{other:?}"),
    }
    said().expect("notified");
    let ringer = waker.clone();
    let rung = on_another_thread(move || ringer.ring());
    assert_eq!(ear.wait(&waker, Some(Instant::now() + HANG)).expect("a wait"), Heard::Rung);
    rung();
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_killed_session_ends_the_wait_and_the_statement() {
    let (mut ear, waker) = (connect(), Waker::new().expect("descriptors"));
    ear.listen("fulmar_test").expect("listening");
    let pid: i64 = ear.query("SELECT pg_backend_pid()", &[]).and_then(|rows| rows.only()?.get(0)).expect("a number");
    let killed = on_another_thread(move || {
        connect().query("SELECT pg_terminate_backend($1::int8::int4)", &[pid.into()]).map(drop)
    });
    let error = ear.wait(&waker, Some(Instant::now() + HANG)).expect_err("the session was killed");
    killed().expect("the right to");
    assert!(error.is_lost() && !ear.is_good(), "{error}");
    assert!(ear.ping().expect_err("gone").is_lost());
    assert!(ear.wait(&waker, None).expect_err("gone").is_lost());
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_statement_that_is_given_up_here_is_given_up_there() {
    let mut connection = connect();
    connection.set_limit(Duration::from_millis(20));
    let error = connection.query("SELECT pg_sleep(60)", &[]).expect_err("too late");
    assert!(error.sqlstate() == Some("57014") && error.to_string().contains("no answer within 20ms"), "{error}");
    connection.set_limit(HANG);
    connection.ping().expect("the server has given it up, and goes on with us");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_half_open_connection_is_noticed() {
    let url = url();
    let place = url.rsplit('@').next().and_then(|rest| rest.split('/').next()).expect("host and port").to_owned();
    let through_a_proxy = |port: u16| url.replace(&place, &format!("127.0.0.1:{port}"));
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let detour = through_a_proxy(proxy.local_addr().expect("bound").port());
    let silent = Arc::new(AtomicBool::new(false));
    let (place, swallow) = (place.clone(), Arc::clone(&silent));
    thread::spawn("proxy".into(), None, move || {
        let (client, _) = proxy.accept().expect("a client");
        let server = TcpStream::connect(place).expect("the server");
        pump(server.try_clone().expect("a handle"), client.try_clone().expect("a handle"), Arc::clone(&swallow));
        pump(client, server, swallow);
    })
    .expect("a thread");
    let target = Target::parse(&detour).expect("a sound URL");
    let mut connection = Connection::open(&target, limits()).expect("through the proxy");
    connection.ping().expect("the proxy passes all on");
    connection.set_limit(Duration::from_millis(50));
    silent.store(true, Ordering::SeqCst);
    let error = connection.ping().expect_err("nothing comes through, and nobody hangs up");
    assert!(error.is_lost() && !connection.is_good(), "{error}");
}

/// Passes on what comes, or swallows it.
fn pump(mut from: TcpStream, mut to: TcpStream, swallow: Arc<AtomicBool>) {
    thread::spawn("pump".into(), None, move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if !swallow.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    })
    .expect("a thread");
}
