//! The state machine of a task, as a pure function: what is done, and what is known of the task,
//! to where it stands then.
//!
//! Both engines act by it. SQLite's asks it for each task. PostgreSQL's changes many tasks in one
//! statement, so it asks for each answer that a row can need and sends them along as a [`Rule`];
//! the statement only looks up which of them fits. Statements name statuses and gates as
//! [`names`](super::names) has it.
//!
//! The table is printed by
//! `cargo test --lib --all-features transition::tests::table -- --nocapture`.

use super::engine::Action;
use super::status::TaskStatus;

/// What is done to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A worker takes it.
    Claim,
    /// Its worker starts it.
    Start,
    /// Its handler returned well.
    Finish,
    /// Its handler failed, for good.
    Fail,
    /// Its handler failed, and there is another attempt after a delay.
    FailAndRetry,
    /// Its handler goes on after a delay.
    Pause,
    /// Its worker gives the attempt up.
    Lose,
    /// Its worker puts it back without having started it.
    GiveBack,
    /// Its handler has something to say.
    Note,
    /// Its lease or its time limit is over.
    Expire,
    /// A user cancels it.
    Cancel,
    /// An operator has it done again.
    Retry,
    /// Its row makes no sense.
    SetAside,
}

/// What decides, beside what is done. That the fence holds, or that the lease is over, was checked
/// before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) status: TaskStatus,
    /// A user has cancelled it while it ran.
    pub(super) cancel_requested: bool,
    /// As many attempts were lost as its type's restart limit allows.
    pub(super) is_spent: bool,
    /// What is done has it wait for some time.
    pub(super) is_delayed: bool,
    /// It has a key, and so a place in an order.
    pub(super) has_key: bool,
}

/// Where a task stands after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) status: TaskStatus,
    /// What keeps it from being claimed; `None` if a worker holds it, or if it has ended.
    pub(super) gate: Option<Gate>,
    pub(super) charge: Charge,
    pub(super) words: Words,
}

/// What keeps a task that waits from being claimed. The numbers are those in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open = 0,
    /// Its time has not come.
    Time = 1,
    /// Its order: who leaves the order before it opens the gate.
    Order = 2,
}

/// Which count goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    Nothing = 0,
    /// An attempt that started.
    Start = 1,
    Failure = 2,
    /// An attempt that was lost.
    Loss = 3,
    /// All failures and losses are forgotten.
    Reset = 4,
}

/// What the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// What was given with the change.
    Given,
    /// Which attempt starts.
    Attempt,
    /// That, and which of its restarts this is.
    Restart,
    /// That, and that there are no more restarts.
    NoRestart,
    /// That, and that it had not started.
    NotStarted,
    /// That a cancellation was asked for, and what was given.
    Request,
}

impl Gate {
    pub(super) fn code(self) -> i64 {
        self as i64
    }

    /// For a task that its order does not keep.
    pub(super) fn by_time(is_delayed: bool) -> Gate {
        if is_delayed { Gate::Time } else { Gate::Open }
    }
}

/// Where a change takes a task; `None` if it leaves it as it is.
pub(super) fn transition(change: Change, facts: Facts) -> Option<Transition> {
    use TaskStatus::{Accepted, Cancelled, Failed, Finished, Paused, Running, Scheduled};

    let held = |status, charge, words| Transition { status, gate: None, charge, words };
    let ended = |status, charge, words| Transition { status, gate: None, charge, words };
    let waits = |status, gate, charge, words| Transition { status, gate: Some(gate), charge, words };
    let by_time = Gate::by_time(facts.is_delayed);
    Some(match (change, facts.status) {
        (Change::Claim, Accepted | Paused) => held(Scheduled, Charge::Nothing, Words::Given),
        (Change::Start, Scheduled) => held(Running, Charge::Start, Words::Attempt),
        (Change::Note, Running) => held(Running, Charge::Nothing, Words::Given),

        // What was not started is as before. Its time had come once.
        (Change::GiveBack, Scheduled) => waits(Accepted, Gate::Open, Charge::Nothing, Words::Given),
        (Change::Expire, Scheduled) => waits(Accepted, Gate::Open, Charge::Nothing, Words::NotStarted),

        // What is done well is done, even if a cancellation came before its end.
        (Change::Finish, Running) => ended(Finished, Charge::Nothing, Words::Given),
        (Change::Fail | Change::FailAndRetry, Running) if facts.cancel_requested => {
            ended(Cancelled, Charge::Failure, Words::Given)
        }
        (Change::Pause, Running) if facts.cancel_requested => ended(Cancelled, Charge::Reset, Words::Given),
        (Change::Lose | Change::Expire, Running) if facts.cancel_requested => {
            ended(Cancelled, Charge::Loss, Words::Given)
        }
        (Change::Fail, Running) => ended(Failed, Charge::Failure, Words::Given),
        (Change::FailAndRetry, Running) => waits(Accepted, by_time, Charge::Failure, Words::Given),
        // It got on: what went wrong on the way there is made up for.
        (Change::Pause, Running) => waits(Paused, by_time, Charge::Reset, Words::Given),
        (Change::Lose | Change::Expire, Running) if facts.is_spent => ended(Failed, Charge::Loss, Words::NoRestart),
        (Change::Lose | Change::Expire, Running) => waits(Accepted, Gate::Open, Charge::Loss, Words::Restart),

        (Change::Cancel, Accepted | Scheduled | Paused) => ended(Cancelled, Charge::Nothing, Words::Given),
        // Its handler is told, and what it comes to decides.
        (Change::Cancel, Running) => held(Running, Charge::Nothing, Words::Request),

        // Behind all others of its order.
        (Change::Retry, Failed | Cancelled) if facts.has_key => {
            waits(Accepted, Gate::Order, Charge::Reset, Words::Given)
        }
        (Change::Retry, Failed | Cancelled) => waits(Accepted, Gate::Open, Charge::Reset, Words::Given),

        (Change::SetAside, status) if !status.is_ended() => ended(Failed, Charge::Nothing, Words::Given),
        _ => return None,
    })
}

impl Change {
    #[cfg(test)]
    const ALL: [Change; 13] = [
        Change::Claim,
        Change::Start,
        Change::Finish,
        Change::Fail,
        Change::FailAndRetry,
        Change::Pause,
        Change::Lose,
        Change::GiveBack,
        Change::Note,
        Change::Expire,
        Change::Cancel,
        Change::Retry,
        Change::SetAside,
    ];

    pub(super) fn of(action: &Action) -> Change {
        match action {
            Action::Start => Change::Start,
            Action::Finish { .. } => Change::Finish,
            Action::Fail { retry: None, .. } => Change::Fail,
            Action::Fail { retry: Some(_), .. } => Change::FailAndRetry,
            Action::Pause { .. } | Action::Wait { .. } => Change::Pause,
            Action::Lose { .. } => Change::Lose,
            Action::GiveBack { .. } => Change::GiveBack,
            Action::Note { .. } => Change::Note,
        }
    }

    /// The status that a task leaves by a change of its worker's: there is one.
    pub(super) fn leaves(self) -> TaskStatus {
        if matches!(self, Change::Start | Change::GiveBack) { TaskStatus::Scheduled } else { TaskStatus::Running }
    }

    /// Whether the worker only gives the task up, which it may do even if its lease is over.
    pub(super) fn gives_up(self) -> bool {
        matches!(self, Change::GiveBack | Change::Lose)
    }
}

impl Facts {
    /// With nothing that speaks against going on.
    pub(super) fn at(status: TaskStatus) -> Facts {
        Facts { status, cancel_requested: false, is_spent: false, is_delayed: false, has_key: false }
    }
}

/// The text that comes before the number of the restart, and so on. SQL has them as well.
macro_rules! words {
    (restart) => {
        "; restart "
    };
    (of) => {
        " of "
    };
    (limit) => {
        ", and its restart limit of "
    };
    (reached) => {
        " is reached"
    };
    (not_started) => {
        " before it started"
    };
    (request) => {
        "cancellation requested: "
    };
}

#[cfg(feature = "postgres")]
pub(super) use words;

impl Words {
    /// The text of a log's entry: `given` with the change, the number of the attempt or of the
    /// restart, and the restart limit.
    pub(super) fn text(self, given: &str, number: i64, limit: i64) -> String {
        match self {
            Words::Given => given.to_owned(),
            Words::Attempt => format!("attempt {number}"),
            Words::Restart => format!(concat!("{}", words!(restart), "{}", words!(of), "{}"), given, number, limit),
            Words::NoRestart => format!(concat!("{}", words!(limit), "{}", words!(reached)), given, limit),
            Words::NotStarted => format!(concat!("{}", words!(not_started)), given),
            Words::Request => format!(concat!(words!(request), "{}"), given),
        }
    }
}

/// All that a worker's change can come to, in one number: what a statement over many rows needs to
/// know of the table.
#[cfg(feature = "postgres")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule(pub(super) i64);

#[cfg(feature = "postgres")]
impl Rule {
    pub(super) fn new(change: Change, is_delayed: bool) -> Rule {
        let facts = Facts { is_delayed, ..Facts::at(change.leaves()) };
        let status = |facts| transition(change, facts).map_or(facts.status, |next| next.status).code();
        let next = transition(change, facts);
        let parts = [
            facts.status.code(),
            status(facts),
            status(Facts { cancel_requested: true, ..facts }),
            status(Facts { is_spent: true, ..facts }),
            next.and_then(|next| next.gate).map_or(0, Gate::code),
            next.map_or(0, |next| next.charge as i64),
            i64::from(change.gives_up()),
        ];
        Rule(parts.iter().rev().fold(0, |number, part| number << 3 | part))
    }

    /// Whether it can end a task.
    pub(super) fn may_end(self) -> bool {
        (1..4).any(|part| TaskStatus::from_code(self.0 >> (3 * part) & 7).is_ok_and(TaskStatus::is_ended))
    }
}

/// The parts of a [`Rule`] as columns, from a column `rule`.
#[cfg(feature = "postgres")]
macro_rules! rule {
    () => {
        "rule & 7 AS leaves, rule >> 3 & 7 AS status, rule >> 6 & 7 AS if_cancelled, rule >> 9 & 7 AS if_spent,
             rule >> 12 & 7 AS gate, rule >> 15 & 7 AS charge, rule >> 18 & 7 AS gives_up"
    };
}

#[cfg(feature = "postgres")]
pub(super) use rule;

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(bits: u32) -> impl Iterator<Item = Vec<bool>> {
        (0..1_u32 << bits).map(move |number| (0..bits).map(|bit| number >> bit & 1 == 1).collect())
    }

    pub(super) fn all() -> impl Iterator<Item = (Change, Facts)> {
        Change::ALL.into_iter().flat_map(|change| {
            TaskStatus::ALL.into_iter().flat_map(move |status| {
                bits(4).map(move |bits| {
                    let (cancel_requested, is_spent, is_delayed, has_key) = (bits[0], bits[1], bits[2], bits[3]);
                    (change, Facts { status, cancel_requested, is_spent, is_delayed, has_key })
                })
            })
        })
    }

    #[test]
    fn each_change_of_a_worker_leaves_one_status() {
        for change in Change::ALL.into_iter().filter(|change| {
            !matches!(change, Change::Claim | Change::Expire | Change::Cancel | Change::Retry | Change::SetAside)
        }) {
            for (_, facts) in all().filter(|(other, _)| *other == change) {
                assert_eq!(
                    transition(change, facts).is_some(),
                    facts.status == change.leaves(),
                    "{change:?} {facts:?}"
                );
            }
        }
    }

    #[test]
    fn a_gate_is_what_keeps_a_task_that_waits() {
        for (change, facts) in all() {
            let Some(next) = transition(change, facts) else { continue };
            let waits = matches!(next.status, TaskStatus::Accepted | TaskStatus::Paused);
            assert_eq!(next.gate.is_some(), waits, "{change:?} {facts:?}: {next:?}");
        }
    }

    #[test]
    fn what_has_ended_stays_but_for_a_retry_of_what_went_wrong() {
        for (change, facts) in all().filter(|(_, facts)| facts.status.is_ended()) {
            let may = change == Change::Retry && facts.status != TaskStatus::Finished;
            assert_eq!(transition(change, facts).is_some(), may, "{change:?} {facts:?}");
        }
    }

    #[test]
    fn each_attempt_is_charged_once_and_no_other_thing_is() {
        for (change, facts) in all() {
            let Some(next) = transition(change, facts) else { continue };
            let charge = match (change, facts.status) {
                (Change::Start, _) => Charge::Start,
                (Change::Fail | Change::FailAndRetry, _) => Charge::Failure,
                (Change::Lose | Change::Expire, TaskStatus::Running) => Charge::Loss,
                (Change::Retry | Change::Pause, _) => Charge::Reset,
                _ => Charge::Nothing,
            };
            assert_eq!(next.charge, charge, "{change:?} {facts:?}");
        }
    }

    #[test]
    fn only_a_users_cancel_cancels_and_it_keeps_what_runs_from_going_on() {
        for (change, facts) in all() {
            let Some(next) = transition(change, facts) else { continue };
            let asked = facts.cancel_requested && facts.status == TaskStatus::Running;
            let is_cancelled = next.status == TaskStatus::Cancelled;
            assert!(!is_cancelled || asked || change == Change::Cancel, "{change:?} {facts:?}");
            let goes_back = next.gate.is_some();
            assert!(!(asked && goes_back), "{change:?} {facts:?}");
        }
    }

    #[test]
    fn an_expired_attempt_comes_to_what_a_lost_one_does() {
        for (_, facts) in all().filter(|(change, facts)| *change == Change::Lose && facts.status == TaskStatus::Running)
        {
            assert_eq!(transition(Change::Lose, facts), transition(Change::Expire, facts));
        }
    }

    /// Prints the table: of each change, the first facts by which it comes to something new.
    #[test]
    fn table() {
        println!("{:<13} {:<10} {:<21} {:<10} {:<6} {:<8} words", "change", "from", "if", "to", "gate", "charge");
        for change in Change::ALL {
            for status in TaskStatus::ALL {
                let mut before: Vec<Transition> = Vec::new();
                for (_, facts) in all().filter(|(other, facts)| (*other, facts.status) == (change, status)) {
                    let Some(next) = transition(change, facts).filter(|next| !before.contains(next)) else { continue };
                    before.push(next);
                    let facts = [
                        (facts.cancel_requested, "cancelled"),
                        (facts.is_spent, "no restart left"),
                        (facts.is_delayed, "delayed"),
                        (facts.has_key, "has a key"),
                    ];
                    let facts: Vec<&str> = facts.iter().filter(|(is_so, _)| *is_so).map(|(_, name)| *name).collect();
                    let gate = next.gate.map_or(String::new(), |gate| format!("{gate:?}"));
                    println!(
                        "{:<13} {:<10} {:<21} {:<10} {:<6} {:<8} {:?}",
                        format!("{change:?}"),
                        status.to_string(),
                        facts.join(", "),
                        next.status.to_string(),
                        gate,
                        format!("{:?}", next.charge),
                        next.words
                    );
                }
            }
        }
    }
}

#[cfg(all(test, any(feature = "sqlite", feature = "postgres")))]
mod on_engines {
    use std::time::Duration;

    use super::super::engine::{Step, Stepped, TaskRef, taken_by};
    use super::super::new_task::NewTask;
    use super::super::queue::TaskQueue;
    #[cfg(feature = "sqlite")]
    use super::super::sqlite::Durability;
    use super::super::steer::Steering;
    use super::super::task_type::TaskType;
    use super::super::worker_id::WorkerId;
    use super::tests::all;
    use super::*;

    /// What an engine makes of each change, against the table. `sql` runs a statement, `number`
    /// asks for one.
    fn assert_holds_on(queue: &TaskQueue, sql: &dyn Fn(&str), number: &dyn Fn(&str) -> Option<i64>) {
        const LIMIT: u32 = 3;
        const FAR: i64 = 1 << 52;
        let hour = Duration::from_secs(3_600);
        queue.register(TaskType::new("t").restart_limit(LIMIT)).expect("registered");
        // Before all others in their order, and never claimed.
        let blocker = NewTask::new("t", "blocker").ordered("k", true).run_after(hour);
        queue.enqueue(blocker).expect("accepted");
        let worker = WorkerId::new();
        for (change, facts) in all() {
            let matters = match change {
                // What is held, and neither waits to start nor runs, is set aside.
                Change::Expire => transition(change, facts).is_some(),
                Change::SetAside => false,
                _ => true,
            } && (!facts.is_delayed || matches!(change, Change::FailAndRetry | Change::Pause))
                && (!facts.is_spent || matches!(change, Change::Lose | Change::Expire))
                && (!facts.has_key || change == Change::Retry);
            if !matters {
                continue;
            }
            let name = format!("{change:?} {facts:?}");
            let task = NewTask::new("t", name.clone());
            let task = if facts.has_key { task.ordered("k", true) } else { task };
            let id = queue.enqueue(task).expect("accepted").id().expect("of its own");
            let before = (0, 1, if facts.is_spent { LIMIT } else { LIMIT - 1 });
            if change == Change::Start {
                // For the log, which counts the claims before it.
                queue.engine().claim(&worker, &["t".into()], 1, hour, "").expect("claimed");
            }
            let waits = matches!(facts.status, TaskStatus::Accepted | TaskStatus::Paused);
            // Held by the worker even where that makes no sense: the status alone decides.
            let is_held = change != Change::Claim;
            sql(&format!(
                "UPDATE fulmar_task SET status = {}, gate = {}, worker = {}, token = 7, lease = {}, ended = {},
                     starts = {}, failures = {}, lost = {}, cancel_requested = (1 = {}) WHERE id = {id}",
                facts.status.code(),
                if waits { "0" } else { "NULL" },
                if is_held { format!("'{worker}'") } else { "NULL".into() },
                if change == Change::Expire { 1 } else { FAR },
                if facts.status.is_ended() { "1" } else { "NULL" },
                before.0,
                before.1,
                before.2,
                i64::from(facts.cancel_requested),
            ));
            let (engine, of) = (queue.engine(), TaskRef { task_type: "t".into(), identifier: name.clone() });
            let entries = engine.log(&of).expect("read").expect("known").len();
            let why = || "why".to_owned();
            let delay = if facts.is_delayed { hour } else { Duration::ZERO };
            let action = match change {
                Change::Start => Some(Action::Start),
                Change::Finish => Some(Action::Finish { message: why(), response: None }),
                Change::Fail => Some(Action::Fail { reason: why(), retry: None, response: None }),
                Change::FailAndRetry => Some(Action::Fail { reason: why(), retry: Some(delay), response: None }),
                Change::Pause => Some(Action::Pause { message: why(), after: delay, checkpoint: None, response: None }),
                Change::Lose => Some(Action::Lose { reason: why() }),
                Change::GiveBack => Some(Action::GiveBack { reason: why() }),
                Change::Note => Some(Action::Note { progress: None, message: why() }),
                _ => None,
            };
            let mut given = why();
            if let Some(action) = action {
                let worker = worker.clone();
                let step = Step { task: id, token: 7, worker, action, finished_in: false };
                let stepped = engine.step(vec![step]).expect("done");
                let expected = transition(change, facts).map_or(Stepped::Stale, |next| Stepped::Done(next.status));
                assert_eq!(stepped, [expected], "{name}");
            } else if change == Change::Claim {
                given = taken_by(worker.as_str());
                engine.claim(&worker, &["t".into()], 1, hour, "").expect("claimed");
            } else if change == Change::Expire {
                given = "its worker was lost".into();
                engine.reap(10).expect("rescued");
            } else if change == Change::Cancel {
                engine.cancel(&of, "why").expect("known");
            } else {
                let retry = Steering::Retry { reason: why() };
                engine.steer(&[id], retry.from(), &retry).expect("steered");
            }
            let info = engine.info(&of).expect("read").expect("known");
            let log = engine.log(&of).expect("read").expect("known");
            let counts = (info.starts, info.failures, info.lost);
            let gate = number(&format!("SELECT gate FROM fulmar_task WHERE id = {}", info.id));
            match transition(change, facts) {
                None => {
                    let gate_before = waits.then_some(0);
                    assert_eq!((info.status, counts, gate), (facts.status, before, gate_before), "{name}");
                    assert_eq!(log.len(), entries, "{name}");
                }
                Some(next) => {
                    let charged = match next.charge {
                        Charge::Nothing => before,
                        Charge::Start => (before.0 + 1, before.1, before.2),
                        Charge::Failure => (before.0, before.1 + 1, before.2),
                        Charge::Loss => (before.0, before.1, before.2 + 1),
                        Charge::Reset => (before.0, 0, 0),
                    };
                    let gate_after = next.gate.map(Gate::code);
                    assert_eq!((info.status, counts, gate), (next.status, charged, gate_after), "{name}");
                    let number = if next.words == Words::Attempt { before.0 + 1 } else { before.2 + 1 };
                    let words = next.words.text(&given, number.into(), LIMIT.into());
                    let last = log.last().map(|entry| (entry.status, &*entry.message));
                    assert_eq!((log.len(), last), (entries + 1, Some((next.status, &*words))), "{name}");
                }
            }
            sql(&format!("DELETE FROM fulmar_task WHERE id = {}", info.id));
        }
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn the_table_holds_on_sqlite() {
        let folder = std::env::temp_dir().join(format!("fulmar-table-{}", WorkerId::new()));
        std::fs::create_dir(&folder).expect("a folder of its own");
        let file = folder.join("queue.db");
        let queue = TaskQueue::builder().durability(Durability::Process).open(&file).expect("the queue opens");
        let db = rusqlite::Connection::open(&file).expect("the file opens");
        assert_holds_on(&queue, &|sql| assert_eq!(db.execute(sql, []).expect(sql), 1), &|sql| {
            db.query_row(sql, [], |row| row.get(0)).expect(sql)
        });
        drop(queue);
        let _ = std::fs::remove_dir_all(&folder);
    }

    #[cfg(feature = "postgres")]
    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server"]
    fn the_table_holds_on_postgres() {
        let url = std::env::var("FULMAR_POSTGRES_URL").expect("tests/run sets it, to a server that it has started");
        let schema = format!("table_{}", WorkerId::new());
        let around = TaskQueue::connect(&url).expect("the server is up");
        let ask = |sql: &str| {
            around
                .postgres_transaction(|tx| {
                    tx.execute(&format!("SET LOCAL search_path = {schema}"), &[])?;
                    tx.query(sql, &[])
                })
                .expect(sql)
        };
        ask(&format!("CREATE SCHEMA {schema}"));
        let queue = TaskQueue::builder().schema(&*schema).connect(&url).expect("the server is up");
        assert_holds_on(&queue, &|sql| drop(ask(sql)), &|sql| {
            ask(sql)[0][0].as_ref().map(|number| number.parse().expect("a number"))
        });
        drop(queue);
        ask(&format!("DROP SCHEMA {schema} CASCADE"));
    }
}
