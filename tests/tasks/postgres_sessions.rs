//! Whose tables, which settings, how many sessions: what a queue does to a PostgreSQL server beside
//! its work.

#[cfg(feature = "postgres-tls")]
use std::io::{Read, Write};
#[cfg(feature = "postgres-tls")]
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
#[cfg(feature = "postgres-tls")]
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
#[cfg(feature = "postgres-tls")]
use std::sync::mpsc::channel;
use std::time::Duration;

use fulmar::BoxError;
#[cfg(feature = "postgres-tls")]
use fulmar::Executor;
use fulmar::tasks::{TaskContext, TaskError, TaskQueue, TaskStatus, TaskType, Worker, WorkerId};

use crate::postgres::Schema;
#[cfg(feature = "postgres-tls")]
use crate::postgres::{endless, is_at_it};
use crate::support::{Bed, HANG, claim, claims, eventually, put, task};

/// The server without any schema in its address.
fn server() -> String {
    std::env::var("FULMAR_POSTGRES_URL").expect("tests/run sets it, to a server that it has started")
}

/// That address with options.
fn with(options: &str) -> String {
    format!("{}?{options}", server())
}

fn run_one(queue: &TaskQueue, name: &str) {
    put(queue, name);
    let claim = claim(queue);
    assert_eq!(claim.task().identifier(), name);
    claim.start().expect("ours");
    claim.finish().expect("ours");
    assert_eq!(queue.status("t", name).expect("known"), TaskStatus::Finished);
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_queue_has_its_schema_whatever_is_in_the_path() {
    let (theirs, ours) = (Schema::new(), Schema::new());
    theirs.queue();
    put(&theirs.open(), "theirs");
    // Another's queue comes first in the path, or is all that there is in it.
    for path in [format!("{},{}", theirs.name(), ours.name()), theirs.name().to_owned(), "pg_catalog".into()] {
        let queue = TaskQueue::builder()
            .schema(ours.name())
            .connect(&with(&format!("options=-csearch_path%3D{path}")))
            .expect("the queue opens");
        queue.register(TaskType::new("t")).expect("registered");
        run_one(&queue, &path);
        // By the function, too, whose own names are looked for nowhere else.
        let by_function = format!("SELECT {}.fulmar_enqueue('t', 'by function {path}', '1')", ours.name());
        queue
            .postgres_transaction(|tx| {
                tx.execute("CREATE TEMP TABLE fulmar_task (id int8) ON COMMIT DROP", &[])?;
                tx.query(&by_function, &[])
            })
            .expect("enqueued");
        assert_eq!(claim(&queue).task().identifier(), format!("by function {path}"));
    }
    assert_eq!(theirs.count("SELECT count(*) FROM fulmar_task"), 1, "theirs is as it was");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_queue_further_down_the_path_is_not_taken_for_ours() {
    let (theirs, ours) = (Schema::new(), Schema::new());
    theirs.queue();
    let path = with(&format!("options=-csearch_path%3D{},{}", ours.name(), theirs.name()));
    let error = TaskQueue::connect(&path).expect_err("whose queue is meant?");
    assert!(matches!(&error, TaskError::Invalid(words) if words.contains("`schema`")), "{error:?}");
    TaskQueue::builder().schema(ours.name()).connect(&path).expect("it was said");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_schema_that_is_not_there_is_made_once() {
    let bed = Schema::new();
    let name = format!("{}_New\"", bed.name());
    let open = || TaskQueue::builder().schema(&name).connect(&server());
    let queues: Vec<_> = std::thread::scope(|scope| {
        let opening: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
        opening.into_iter().map(|thread| thread.join().expect("no panic").expect("the queue opens")).collect()
    });
    queues[0].register(TaskType::new("t")).expect("registered");
    run_one(&queues[1], "a");
    drop(queues);
    bed.ask(&format!("DROP SCHEMA \"{}\" CASCADE", name.replace('"', "\"\"")));
    for name in ["", "x".repeat(64).as_str(), "a\0b"] {
        let error = TaskQueue::builder().schema(name).connect(&server()).expect_err("no name for a schema");
        assert!(matches!(error, TaskError::Invalid(_)), "{error:?}");
    }
}

/// How many sessions have this name.
fn sessions(bed: &Schema, name: &str) -> i64 {
    bed.count(&format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'"))
}

/// Locks and channels of news are the whole database's: each schema's queue has its own.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn queues_of_two_schemas_do_not_disturb_each_other() {
    let (one, two) = (Schema::new(), Schema::new());
    let hasty = |bed: &Schema| bed.open_with(TaskQueue::builder().busy_timeout(Duration::from_millis(50)));
    let queues = [hasty(&one), hasty(&two)];
    for queue in &queues {
        queue.register(TaskType::new("t").max_concurrent(5)).expect("registered");
        queue.set_capacity(9).expect("set");
    }
    let new = |name: &str| task(name).ordered("k", false);
    let [first, second] = &queues;
    first
        .postgres_transaction(|tx| {
            // It holds the locks of the capacity and of the key.
            first.enqueue_in(tx, [new("a")])?;
            assert!(matches!(first.enqueue(new("b")), Err(TaskError::Busy { .. })), "the test would show nothing");
            second.enqueue(new("a"))?;
            assert_eq!(claims(second, &WorkerId::new(), 9).len(), 1);
            two.ask("SELECT fulmar_enqueue('t', 'by function', 'null', key => 'k')");
            Ok::<_, TaskError>(())
        })
        .expect("committed");
}

/// What is waited for in vain here goes on there, unless the server is told.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn what_is_given_up_here_goes_on_nowhere() {
    const MOST: usize = 3;
    let bed = Schema::new();
    let name = WorkerId::new().to_string();
    let queue = TaskQueue::builder()
        .connections(MOST)
        .busy_timeout(Duration::from_millis(100))
        .connect(&format!("{}&application_name={name}", bed.address()))
        .expect("the queue opens");
    queue.register(TaskType::new("t")).expect("registered");
    let lock = format!("LOCK TABLE {}.fulmar_task IN ACCESS EXCLUSIVE MODE", bed.name());
    bed.around()
        .postgres_transaction(|tx| {
            tx.execute(&lock, &[])?;
            std::thread::scope(|scope| {
                for thread in 0..2 * MOST {
                    let queue = &queue;
                    scope.spawn(move || {
                        for round in 0..3 {
                            let error = queue.enqueue(task(format!("{thread}-{round}"))).expect_err("nobody gets by");
                            assert!(matches!(error, TaskError::Busy { .. }), "{error:?}");
                        }
                    });
                }
            });
            Ok::<_, TaskError>(())
        })
        .expect("committed");
    // One for the news, and one for leases.
    assert!(sessions(&bed, &name) <= MOST as i64 + 2);
    let waiting = format!("application_name = '{name}' AND state <> 'idle'");
    eventually("nothing of ours is at work", || {
        bed.count(&format!("SELECT count(*) FROM pg_stat_activity WHERE {waiting}")) == 0
    });
    run_one(&queue, "afterwards");
}

/// The holder of a lock that all need may be frozen, and is not the server's fault.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_frozen_holder_of_the_capacity_s_lock_is_waited_for_no_longer_than_the_busy_limit() {
    let bed = Schema::new();
    let limit = Duration::from_millis(200);
    let queue = TaskQueue::builder().busy_timeout(limit).connect(&bed.address()).expect("the queue opens");
    queue.register(TaskType::new("t")).expect("registered");
    queue.set_capacity(10).expect("set");
    let frozen = bed.open();
    frozen
        .postgres_transaction(|tx| {
            frozen.enqueue_in(tx, [task("held")])?;
            let error = queue.enqueue(task("a")).expect_err("its lock is held");
            assert!(matches!(error, TaskError::Busy { waited } if waited >= limit), "{error:?}");
            Ok::<_, TaskError>(())
        })
        .expect("committed");
    assert_eq!(claim(&queue).task().identifier(), "held");
}

/// A role that may not log in can't help it: it is told at once, and the server is not asked a
/// hundred times.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_server_that_refuses_for_good_is_asked_seldom() {
    let bed = Schema::new();
    let role = format!("seldom_{}", bed.name());
    bed.ask(&format!("CREATE ROLE {role} LOGIN PASSWORD 'seldom asked'"));
    bed.ask(&format!("GRANT ALL ON SCHEMA {} TO {role}", bed.name()));
    let server = server();
    let rest = server.rsplit('@').next().expect("a place");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    // Each login asks for the password.
    let queue = TaskQueue::builder().schema(bed.name()).password(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok("seldom asked".into())
    });
    let queue =
        queue.connect(&format!("postgres://{role}@{rest}?application_name={role}")).expect("the password is right");
    queue.register(TaskType::new("t")).expect("registered");
    bed.ask(&format!("ALTER ROLE {role} NOLOGIN"));
    bed.ask(&format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'"));
    eventually("its sessions end", || sessions(&bed, &role) == 0);
    let before = asked.load(Ordering::SeqCst);
    for number in 0..500 {
        let error = queue.enqueue(task(number.to_string())).expect_err("it may not log in");
        assert!(matches!(error, TaskError::Unreachable { .. }), "{error:?}");
        assert!(format!("{error:?}").contains("not permitted to log in"), "{error:?}");
    }
    let logins = asked.load(Ordering::SeqCst) - before;
    println!("{logins} logins for 500 calls");
    assert!((1..=20).contains(&logins), "{logins} logins");
    bed.ask(&format!("ALTER ROLE {role} LOGIN"));
    eventually("it is let in again", || queue.task_types().is_ok());
    run_one(&queue, "afterwards");
    drop(queue);
    bed.ask(&format!("DROP OWNED BY {role} CASCADE"));
    bed.ask(&format!("DROP ROLE {role}"));
}

/// As after a restore of the tables alone.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_sequence_behind_its_table_is_called_that_and_the_remedy_works() {
    let bed = Schema::new();
    let queue = bed.queue();
    put(&queue, "a");
    bed.ask(&format!("SELECT setval('{}.fulmar_task_number', 1, false)", bed.name()));
    let error = queue.enqueue(task("b")).expect_err("its number is taken");
    assert!(matches!(error, TaskError::Database { .. }), "{error:?}");
    let shown = format!("{:?}", BoxError::from(error).source().expect("why").to_string());
    let remedy = shown.split_once("put it right: ").expect("a remedy").1.trim_end_matches('"').replace("\\\"", "\"");
    bed.ask(&remedy);
    put(&queue, "b");
}

/// Whatever a queue or a caller's transaction set, the next client of a pooler's session finds as
/// it was. Workers work.
#[test]
#[ignore = "tests/run brings it: a PgBouncer in transaction mode"]
fn behind_a_pooler_in_transaction_mode_all_works_and_nothing_is_left() {
    let pooler = std::env::var("FULMAR_PGBOUNCER_URL").expect("tests/run sets it, to a pooler that it has started");
    let bed = Schema::new();
    let stranger = || TaskQueue::builder().schema(bed.name()).connections(1).connect(&pooler).expect("the queue opens");
    let settings =
        "SELECT name || '=' || setting FROM pg_settings WHERE name IN ('synchronous_commit', 'enable_seqscan',
        'plan_cache_mode', 'statement_timeout', 'lock_timeout', 'default_transaction_isolation', 'search_path', 'jit',
        'idle_in_transaction_session_timeout', 'default_transaction_read_only', 'client_min_messages') ORDER BY 1";
    // What a session says in which nothing of ours was set: by its source.
    let left = "SELECT name FROM pg_settings WHERE source = 'session'
        AND name NOT IN ('client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings', 'application_name')
        UNION ALL SELECT name FROM pg_prepared_statements
        UNION ALL SELECT 'a lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
        UNION ALL SELECT name FROM pg_cursors WHERE is_holdable
        UNION ALL SELECT pg_listening_channels()";
    let queue = TaskQueue::builder().schema(bed.name()).direct(server()).connect(&pooler).expect("the queue opens");
    queue.register(TaskType::new("t")).expect("registered");
    let at_first = raw(&pooler, settings);
    queue.set_capacity(10_000).expect("set");
    let worker =
        Worker::builder(&queue).max_concurrent(8).handle("t", |_: &TaskContext| Ok::<(), BoxError>(())).start();
    let worker = worker.expect("started");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let queue = &queue;
            scope.spawn(move || {
                for number in 0..25 {
                    let task = task(format!("{thread}-{number}")).ordered("k", number % 5 == 0);
                    let handle = queue.enqueue(task).expect("accepted");
                    if number % 5 == 0 {
                        assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Finished);
                    }
                }
            });
        }
    });
    eventually("all have ended", || worker.stats().finished == 100);
    let in_own = queue.postgres_transaction(|tx| {
        for sql in [
            "SET search_path = pg_catalog",
            "SET statement_timeout = 1234567",
            "SET ROLE pg_monitor",
            "SELECT pg_advisory_lock(4711)",
            "RESET ROLE",
            "LISTEN something",
        ] {
            tx.query(sql, &[])?;
        }
        queue.enqueue_in(tx, [task("in a transaction")])
    });
    in_own.expect("committed");
    eventually("that one, too", || worker.stats().finished == 101);
    // What outlives a transaction in a session, committed or not: again and again, because the
    // pooler has some sessions.
    let lock = format!("SELECT pg_advisory_lock(4712, hashtext('{}'))", bed.name());
    for round in 0..16 {
        let done = queue.postgres_transaction(|tx| {
            for sql in [
                "PREPARE of_ours AS SELECT 1",
                &lock,
                "CREATE TEMPORARY TABLE of_ours (id int8)",
                "DECLARE of_ours CURSOR WITH HOLD FOR SELECT * FROM of_ours",
                "SET statement_timeout = 7654321",
            ] {
                tx.query(sql, &[])?;
            }
            match round % 4 {
                0 => Err(TaskError::Cancelled),
                1 => tx.query("SELECT 1 / 0", &[]).map(drop),
                _ => Ok(()),
            }
        });
        match round % 4 {
            0 => assert!(matches!(done, Err(TaskError::Cancelled)), "{done:?}"),
            1 => assert!(format!("{done:?}").contains("22012"), "{done:?}"),
            _ => done.expect("committed"),
        }
        let locks = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 4712
                 AND objid = (hashtext('{}')::int8 & 4294967295)::oid",
            bed.name()
        );
        assert_eq!(bed.count(&locks), 0, "round {round}");
    }
    worker.drain(HANG).expect("idle");
    drop(queue);
    for _ in 0..20 {
        assert_eq!(raw(&pooler, settings), at_first);
        assert_eq!(raw(&pooler, left), "");
    }
    // With its own session, without news, and as one of many.
    let queues: Vec<_> = (0..4).map(|_| stranger()).collect();
    for (number, queue) in queues.iter().enumerate() {
        run_one(queue, &format!("stranger {number}"));
    }
    assert_eq!(heard(&queues[..1]), [""; 0], "what was sent to a channel would come to the next client of the session");
}

/// The channels that are listened to in as many sessions of the pooler's as there are queues.
fn heard(queues: &[TaskQueue]) -> Vec<String> {
    let Some((first, rest)) = queues.split_first() else { return Vec::new() };
    let channels = first.postgres_transaction(|tx| {
        let channels = tx.query("SELECT pg_listening_channels()", &[])?.into_iter().flatten().flatten();
        Ok::<_, TaskError>(channels.chain(heard(rest)).collect())
    });
    channels.expect("the server is up")
}

/// A server with a certificate of an authority of its own, as managed ones have.
#[cfg(feature = "postgres-tls")]
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server with TLS"]
fn over_tls_the_server_is_known_and_a_password_may_change() {
    let folder = std::env::var("FULMAR_POSTGRES_TLS").expect("tests/run sets it, to a folder with certificates");
    let bed = Schema::new();
    let connect = |options: &str| {
        let calls = Arc::new(AtomicUsize::new(0));
        let (counted, server) = (calls.clone(), server());
        let (start, rest) = server.split_once('@').expect("a user");
        let (user, password) = start.rsplit_once(':').expect("a password");
        let password = password.to_owned();
        let queue = TaskQueue::builder()
            .schema(bed.name())
            .password(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok(password.clone())
            })
            .busy_timeout(Duration::from_millis(200))
            .connect(&format!("{user}@{rest}?application_name={}&{options}", bed.name()));
        queue.map(|queue| (queue, calls))
    };
    for options in [
        "sslmode=require".to_owned(),
        format!("sslmode=verify-full&sslrootcert={folder}/ca.pem"),
        format!("sslmode=verify-full&sslrootcert={folder}/ca.pem&channel_binding=require"),
    ] {
        let (queue, calls) = connect(&options).expect("the queue opens");
        queue.register(TaskType::new("t")).expect("registered");
        run_one(&queue, &options);
        let is_hidden =
            queue.postgres_transaction(|tx| tx.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]));
        assert_eq!(is_hidden.expect("read"), [[Some("t".to_owned())]], "{options}");
        assert!(calls.load(Ordering::SeqCst) >= 2, "each connection has asked");
        // What is given up is given up there, over TLS as well.
        let lock = format!("LOCK TABLE {}.fulmar_task IN ACCESS EXCLUSIVE MODE", bed.name());
        bed.around()
            .postgres_transaction(|tx| {
                tx.execute(&lock, &[])?;
                assert!(matches!(queue.enqueue(task("late")), Err(TaskError::Busy { .. })));
                Ok::<_, TaskError>(())
            })
            .expect("committed");
    }
    let refused = |options: &str, why: &str| {
        let error = connect(options).expect_err(options);
        assert!(format!("{error:?}").contains(why), "{options}: {error:?}");
    };
    refused(&format!("sslmode=verify-full&sslrootcert={folder}/other.pem"), "certificate verify failed");
    refused(&format!("sslmode=verify-full&sslrootcert={folder}/none.pem"), "none.pem");
}

/// Passes each connection on to the server, and notes what it begins with.
#[cfg(feature = "postgres-tls")]
struct Relay {
    port: u16,
    first_words: Arc<Mutex<Vec<u32>>>,
}

/// What a client says first (PostgreSQL's manual, "Message Formats").
#[cfg(feature = "postgres-tls")]
const SSL_REQUEST: u32 = 80_877_103;
#[cfg(feature = "postgres-tls")]
const CANCEL_REQUEST: u32 = 80_877_102;

#[cfg(feature = "postgres-tls")]
impl Relay {
    fn to(server: String) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("bound").port();
        let relay = Relay { port, first_words: Arc::default() };
        let first_words = relay.first_words.clone();
        // It lives as long as the process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, mut up) = (client.expect("accepted"), TcpStream::connect(&server).expect("it is up"));
                let first_words = first_words.clone();
                std::thread::spawn(move || {
                    let mut start = [0; 8];
                    if client.read_exact(&mut start).is_err() || up.write_all(&start).is_err() {
                        return;
                    }
                    // Behind its length.
                    first_words
                        .lock()
                        .expect("no panic")
                        .push(u32::from_be_bytes([start[4], start[5], start[6], start[7]]));
                    let mut back = (up.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut back.0, &mut back.1);
                        let _ = back.1.shutdown(Shutdown::Both);
                    });
                    let _ = std::io::copy(&mut client, &mut up);
                    let _ = up.shutdown(Shutdown::Both);
                });
            }
        });
        relay
    }

    fn first_words(&self) -> Vec<u32> {
        self.first_words.lock().expect("no panic").clone()
    }
}

/// A cancel's request has the key with which anyone could end the session's statements.
#[cfg(feature = "postgres-tls")]
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server with TLS"]
fn over_tls_a_statement_is_given_up_and_no_request_for_it_goes_in_the_clear() {
    let folder = std::env::var("FULMAR_POSTGRES_TLS").expect("tests/run sets it, to a folder with certificates");
    let bed = Schema::new();
    let server = server();
    let (user, place) = server.rsplit_once('@').expect("a place");
    let (host, database) = place.split_once('/').expect("a database");
    let relay = Relay::to(host.to_owned());
    let connect = |options: &str| {
        let address = format!("{user}@127.0.0.1:{}/{database}?{options}", relay.port);
        TaskQueue::builder().schema(bed.name()).connect(&address).expect("the queue opens")
    };
    let queue = connect(&format!("sslmode=verify-full&sslrootcert={folder}/ca.pem"));
    queue.register(TaskType::new("t")).expect("registered");
    let executor = Executor::builder().threads(1).build().expect("sound");
    let assert_given_up = |outcome: Result<(), TaskError>, session: &str| {
        let error = format!("{:?}", outcome.expect_err("it is endless"));
        assert!(error.contains("57014") && error.contains("was cancelled, so that it was told"), "{error}");
        assert!(!is_at_it(&bed, session), "the server goes on");
    };
    // By a cancel of the operation.
    let ((session, sessions), at_work) = (channel(), queue.clone());
    let request = executor.spawn(move || endless(&at_work, &session)).expect("accepted");
    let at = sessions.recv_timeout(HANG).expect("it begins");
    eventually("the server is at it", || is_at_it(&bed, &at));
    let before = relay.first_words().len();
    assert!(!request.cancel(), "it runs");
    assert_given_up(request.wait(HANG).expect("it ends"), &at);
    assert!(relay.first_words().len() > before, "the server was asked through the relay");

    // By a time limit, which passes while the server is at it, or else is longer.
    let given_up = (0..8).find_map(|doubled| {
        let ((session, sessions), at_work) = (channel(), queue.clone());
        let (tell, told) = channel();
        let operation = move || tell.send(endless(&at_work, &session)).expect("the test listens");
        let limit = Duration::from_millis(100 << doubled);
        let request = executor.within(limit).spawn(operation).expect("accepted");
        let outcome = told.recv_timeout(HANG).ok()?;
        drop(request);
        let at = sessions.try_recv().ok()?;
        let was_sent = format!("{outcome:?}").contains("so that it was told");
        was_sent.then_some((outcome, at))
    });
    let (outcome, at) = given_up.expect("it gets to the server within seconds");
    assert_given_up(outcome, &at);

    // By a cancel of the handler's task.
    let ((session, sessions), (tell, told), at_work) = (channel(), channel(), queue.clone());
    let handler = move |_: &TaskContext| {
        let outcome = endless(&at_work, &session);
        let failed = outcome.is_err();
        tell.send(outcome).expect("the test listens");
        if failed { Err(BoxError::from("given up")) } else { Ok(()) }
    };
    let worker = Worker::builder(&queue).max_concurrent(1).handle("t", handler).start().expect("started");
    let handle = put(&queue, "a");
    let at = sessions.recv_timeout(HANG).expect("it begins");
    eventually("the server is at it", || is_at_it(&bed, &at));
    handle.cancel().expect("known");
    assert_given_up(told.recv_timeout(HANG).expect("it ends"), &at);
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Cancelled);
    worker.drain(HANG).expect("idle");

    let first_words = relay.first_words();
    assert!(first_words.iter().all(|word| *word == SSL_REQUEST), "{first_words:?}");

    // The relay would have seen it: without TLS it goes in the clear.
    let ((session, sessions), in_the_clear) = (channel(), connect("sslmode=disable"));
    let request = executor.spawn(move || endless(&in_the_clear, &session)).expect("accepted");
    let at = sessions.recv_timeout(HANG).expect("it begins");
    eventually("the server is at it", || is_at_it(&bed, &at));
    assert!(!request.cancel(), "it runs");
    assert_given_up(request.wait(HANG).expect("it ends"), &at);
    assert!(relay.first_words().contains(&CANCEL_REQUEST), "{:?}", relay.first_words());
}

/// What a client without any manners is told by the pooler.
fn raw(pooler: &str, sql: &str) -> String {
    let done = std::process::Command::new("psql").args(["-X", "-A", "-t", pooler, "-c", sql]).output().expect("psql");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text").trim().to_owned()
}
