//! A bed of PostgreSQL, and statements of users' that are given up.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use fulmar::tasks::{TaskContext, TaskError, TaskQueue, TaskStatus, Worker};
use fulmar::{Executor, shield};

use crate::support::{Bed, HANG, eventually, put};

/// A schema of its own on the server that tests/run brings, which goes with it.
pub(crate) struct Schema {
    name: String,
    /// For SQL around the queue: another queue's connections, of which each speaks of this schema.
    around: TaskQueue,
}

fn server() -> String {
    std::env::var("FULMAR_POSTGRES_URL").expect("tests/run sets it, to a server that it has started")
}

impl Schema {
    pub(crate) fn new() -> Schema {
        let name = format!("fulmar_{}", fulmar::tasks::WorkerId::new());
        // Tables of its own, in the database's default schema.
        let around = TaskQueue::connect(&server()).expect("the server is up");
        let schema = Schema { name, around };
        schema.ask(&format!("CREATE SCHEMA {}", schema.name));
        schema
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A queue on the same server, with other tables.
    pub(crate) fn around(&self) -> &TaskQueue {
        &self.around
    }

    /// The rows that a statement gives, with this schema's tables.
    pub(crate) fn ask(&self, sql: &str) -> (usize, Vec<Vec<Option<String>>>) {
        loop {
            let answer = self.around.postgres_transaction(|tx| {
                tx.execute(&format!("SET LOCAL search_path = {}, public", self.name), &[])?;
                if sql.trim_start().starts_with("SELECT") {
                    return Ok::<_, TaskError>((0, tx.query(sql, &[])?));
                }
                Ok((tx.execute(sql, &[])? as usize, Vec::new()))
            });
            match answer {
                Ok(answer) => return answer,
                // A statement over the whole table beside workers: the server calls off one of the two, in no order.
                Err(error) if format!("{error:?}").contains("40P01") => {}
                Err(error) => panic!("{sql}: {error:?}"),
            }
        }
    }
}

impl Bed for Schema {
    fn address(&self) -> String {
        // `%3D` is `=`: a value inside of a value.
        format!("{}?options=-csearch_path%3D{}", server(), self.name)
    }

    fn sql(&self, sql: &str) -> usize {
        self.ask(sql).0
    }

    fn count(&self, sql: &str) -> i64 {
        let (_, rows) = self.ask(&format!("SELECT ({sql})::text"));
        let number = rows[0][0].as_deref().unwrap_or_else(|| panic!("{sql}: null"));
        number.parse().unwrap_or_else(|error| panic!("{sql}: {number}: {error}"))
    }

    fn size(&self) -> i64 {
        self.count(&format!(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = '{}'::regnamespace",
            self.name
        ))
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        // A test that failed has said enough, and the server goes with the tests.
        if !std::thread::panicking() {
            self.ask(&format!("DROP SCHEMA {} CASCADE", self.name));
        }
    }
}

/// How long the server would take for it: longer than any test waits.
const ENDLESS: &str = "SELECT pg_sleep(3600)";

/// Whether the server is at the endless statement for that session.
pub(crate) fn is_at_it(bed: &Schema, session: &str) -> bool {
    let sql = format!(
        "SELECT count(*)::text FROM pg_stat_activity
         WHERE pid = {session} AND state = 'active' AND query = '{ENDLESS}' AND wait_event = 'PgSleep'"
    );
    bed.ask(&sql).1[0][0].as_deref() == Some("1")
}

/// Runs the endless statement, and says in which session.
pub(crate) fn endless(queue: &TaskQueue, session: &Sender<String>) -> Result<(), TaskError> {
    queue.postgres_transaction(|tx| {
        let rows = tx.query("SELECT pg_backend_pid()::text", &[])?;
        session.send(rows[0][0].clone().expect("a number")).expect("the test listens");
        tx.execute(ENDLESS, &[]).map(drop)
    })
}

fn one(queue: &TaskQueue) -> Result<(), TaskError> {
    queue.postgres_transaction(|tx| tx.execute("SELECT 1", &[]).map(drop))
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_cancel_gives_a_statement_up_on_the_server_and_hits_no_later_one() {
    let bed = Schema::new();
    let queue = bed.queue();
    let executor = Executor::builder().threads(1).build().expect("sound");
    let (session, sessions) = channel();
    let request = executor.spawn(move || {
        let outcome = endless(&queue, &session);
        // A cancel lasts; what has to be said all the same goes on.
        (outcome, one(&queue), shield(|| (0..100).try_for_each(|_| one(&queue))))
    });
    let request = request.expect("accepted");
    let session = sessions.recv_timeout(HANG).expect("it begins");
    eventually("the server is at it", || is_at_it(&bed, &session));
    assert!(!request.cancel(), "it runs");
    let (outcome, later, shielded) = request.wait(HANG).expect("it ends");
    let (outcome, later) = (format!("{:?}", outcome.expect_err("given up")), format!("{:?}", later.expect_err("late")));
    assert!(outcome.contains("57014") && outcome.contains("was cancelled, so that"), "{outcome}");
    assert!(later.contains("57014") && later.contains("before it was sent"), "{later}");
    shielded.expect("the cancel's request hits none of them");
    assert!(!is_at_it(&bed, &session), "the server goes on");
}

#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn a_time_limit_and_a_task_s_cancel_give_a_statement_up() {
    let bed = Schema::new();
    let queue = bed.queue();
    let executor = Executor::builder().threads(1).build().expect("sound");
    let (session, sessions) = channel();
    let (tell, told) = channel();
    // On a busy machine the time may be over before it begins: then it gets more.
    let given_up = (0..).find_map(|doubled| {
        let limit = Duration::from_millis(50 << doubled);
        assert!(limit < HANG, "it doesn't get there");
        let (limited, at_it, tell) = (queue.clone(), session.clone(), tell.clone());
        let operation = move || tell.send(endless(&limited, &at_it)).expect("the test listens");
        let request = executor.within(limit).spawn(operation).expect("accepted");
        let outcome = told.recv_timeout(HANG).expect("it ends by itself").expect_err("it is endless");
        drop(request);
        sessions.try_recv().ok().map(|_| format!("{outcome:?}"))
    });
    let given_up = given_up.expect("some time");
    assert!(given_up.contains("57014"), "{given_up}");

    let at_work = queue.clone();
    let handler = move |_: &TaskContext| endless(&at_work, &session);
    let worker = Worker::builder(&queue).max_concurrent(1).handle("t", handler).start().expect("started");
    let handle = put(&queue, "a");
    let session = sessions.recv_timeout(HANG).expect("it begins");
    eventually("the server is at it", || is_at_it(&bed, &session));
    handle.cancel().expect("known");
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Cancelled);
    assert!(!is_at_it(&bed, &session), "the server goes on");
    worker.drain(HANG).expect("idle");
}
