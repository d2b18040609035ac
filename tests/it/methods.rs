//! Any method as it is: by its path, with its arguments, owned or borrowed, and what it returns.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use fulmar::{BoxError, Error, Executor, Lend, Operation, PerThread, infallible, keyed, keyless};

use crate::support::{Gate, HANG, executor};

struct Db;

#[derive(Clone, Debug, Default, PartialEq)]
struct Options {
    days: u32,
}

type Fallible<T> = Result<T, std::num::ParseIntError>;

impl Db {
    fn none(&self) {}
    fn symbols(&self) -> Fallible<Vec<String>> {
        Ok(vec!["AAPL".to_owned()])
    }
    fn last(&self, symbol: &str) -> Fallible<u32> {
        symbol.parse()
    }
    fn count(&self, symbol: &str) -> usize {
        symbol.len()
    }
    fn history(&self, symbol: &str, days: u32) -> Fallible<String> {
        Ok(format!("{symbol} {days}"))
    }
    fn detail(&self, symbol: &str, days: u32, options: &Options) -> Fallible<String> {
        Ok(format!("{symbol} {days} {}", options.days))
    }
    fn four(&self, a: &str, b: u8, c: &[u8], d: &Path) -> String {
        format!("{a} {b} {c:?} {}", d.display())
    }
    fn five(&self, a: u8, b: &str, c: u8, d: &str, e: Vec<u8>) -> String {
        format!("{a} {b} {c} {d} {e:?}")
    }
    fn six(&self, a: u8, b: u8, c: &str, d: u8, e: u8, f: &str) -> String {
        format!("{a} {b} {c} {d} {e} {f}")
    }
    fn pair(&self, (symbol, days): (&str, u32)) -> Fallible<String> {
        self.history(symbol, days)
    }
    fn since(&self, time: SystemTime) -> bool {
        time == SystemTime::UNIX_EPOCH
    }
    fn taken(&self, options: Options) -> Options {
        options
    }
    fn any_text(&self, text: impl AsRef<str>) -> usize {
        text.as_ref().len()
    }
}

#[test]
fn methods_of_no_to_six_arguments_are_called_by_their_paths() {
    let (executor, db) = (executor(1), Arc::new(Db));
    macro_rules! run {
        ($op:expr, $args:expr) => {
            executor.submit(&db, $op, false, $args).expect("accepted").wait(HANG).expect("no failure")
        };
    }
    let text = || "AAPL".to_owned();
    run!(Db::none, ());
    assert_eq!(run!(Db::symbols, ()), [text()]);
    assert_eq!(run!(Db::last, "7"), 7);
    assert_eq!(run!(Db::last, "7".to_owned()), 7);
    assert_eq!(run!(Db::last, Arc::<str>::from("7")), 7);
    assert_eq!(run!(Db::count, text()), 4);
    assert_eq!(run!(Db::history, ("AAPL", 30)), "AAPL 30");
    assert_eq!(run!(Db::history, (text(), 30)), "AAPL 30");
    assert_eq!(run!(Db::detail, ("AAPL", 30, Options { days: 1 })), "AAPL 30 1");
    assert_eq!(run!(Db::detail, (text(), 30, Arc::new(Options { days: 2 }))), "AAPL 30 2");
    assert_eq!(run!(Db::four, (text(), 1, vec![2, 3], PathBuf::from("p"))), "AAPL 1 [2, 3] p");
    assert_eq!(run!(Db::four, ("AAPL", 1, [2, 3], Path::new("p"))), "AAPL 1 [2, 3] p");
    assert_eq!(run!(Db::five, (1, "b", 3, text(), vec![5])), "1 b 3 AAPL [5]");
    assert_eq!(run!(Db::six, (1, 2, text(), 4, 5, "f")), "1 2 AAPL 4 5 f");
    assert_eq!(run!(Db::pair, ("AAPL", 30)), "AAPL 30", "all as one");
    assert_eq!(run!(Db::any_text, text()), 4);
    assert!(run!(Db::since, SystemTime::UNIX_EPOCH));
}

#[test]
fn closures_of_the_same_shapes_are_called_as_well() {
    let (executor, db) = (executor(1), Arc::new(Db));
    macro_rules! run {
        ($op:expr, $args:expr) => {
            executor.submit(&db, $op, false, $args).expect("accepted").wait(HANG).expect("no failure")
        };
    }
    assert_eq!(run!(|db: &Db, symbol| db.last(symbol), "7"), 7);
    assert_eq!(run!(|db: &Db, symbol: &str| db.last(symbol), "7".to_owned()), 7);
    assert_eq!(run!(|db: &Db, (symbol, days)| db.history(symbol, days), ("AAPL", 3)), "AAPL 3");
    assert_eq!(run!(|db: &Db, symbol: &str, days| db.history(symbol, days), ("AAPL".to_owned(), 3)), "AAPL 3");
    assert_eq!(run!(|_: &Db, ()| 7, ()), 7);
    assert_eq!(run!(|db: &Db| db.count("four"), ()), 4);
    assert_eq!(run!(|_: &Db, map: &HashMap<u8, u8>| map[&1], HashMap::from([(1, 2)])), 2);
    let text = "captured".to_owned();
    assert_eq!(run!(move |db: &Db| db.count(&text), ()), 8);
}

#[test]
fn the_error_of_an_operation_keeps_its_type_and_a_plain_value_is_no_failure() {
    let (executor, db) = (executor(1), Arc::new(Db));
    let failed = executor.submit(&db, Db::last, false, "many".to_owned()).expect("accepted").wait(HANG);
    let failed = failed.expect_err("no number");
    assert!(failed.operation::<std::num::ParseIntError>().is_some(), "{failed:?}");
    let own = executor.submit(&db, infallible(Db::taken), false, keyless(Options { days: 3 })).expect("accepted");
    assert_eq!(own.wait(HANG).expect("no failure"), Options { days: 3 });
    // Whatever it returns, an `Err` too.
    let kept = executor.submit(&db, infallible(Db::last), false, "many").expect("accepted");
    assert!(kept.wait(HANG).expect("no failure").is_err());
}

#[test]
fn a_type_may_be_an_operation_itself() {
    struct Repeat(u32);
    impl Operation<Db, &'static str> for Repeat {
        type Output = String;

        fn call(self, db: &Db, symbol: &'static str) -> Result<String, BoxError> {
            Ok(db.history(symbol, self.0)?)
        }
    }
    let repeat = executor(1).submit(&Arc::new(Db), Repeat(3), false, "AAPL").expect("accepted");
    assert_eq!(repeat.wait(HANG).expect("ends"), "AAPL 3");
}

#[test]
fn whatever_is_an_argument_goes_in_with_a_key_or_without() {
    struct Symbol(String);
    impl Lend<str> for Symbol {
        fn lend(&self) -> &str {
            &self.0
        }
    }
    let (executor, db) = (executor(2), Arc::new(Db));
    let gate = Gate::new();
    let hold = gate.clone();
    let first = executor.submit(&db, move |_: &Db, _: Options| hold.pass(), true, keyed("AAPL", Options::default()));
    let second = executor.submit(&db, Db::last, false, keyed("AAPL".to_owned(), Symbol("7".to_owned())));
    let other = executor.submit(&db, Db::history, false, keyed("IBM", (Symbol("IBM".to_owned()), 1)));
    assert_eq!(other.expect("accepted").wait(HANG).expect("ends"), "IBM 1");
    let second = second.expect("accepted");
    assert!(!second.is_done(), "on one key, behind a modifier");
    gate.open();
    first.expect("accepted").wait(HANG).expect("ends");
    assert_eq!(second.wait(HANG).expect("ends"), 7);
}

#[test]
fn a_store_behind_a_trait_is_called_by_the_path_of_its_method() {
    trait Prices: Send + Sync {
        fn last(&self, symbol: &str) -> usize;
    }
    impl Prices for Db {
        fn last(&self, symbol: &str) -> usize {
            symbol.len()
        }
    }
    let store: Arc<dyn Prices> = Arc::new(Db);
    let executor = executor(1);
    let last = executor.submit(&store, Prices::last, false, "four".to_owned()).expect("accepted");
    assert_eq!(last.wait(HANG).expect("ends"), 4);
}

/// Of one thread, which it tells when it goes.
struct Connection {
    calls: std::cell::Cell<u32>,
    log: Vec<String>,
    ended: Sender<u32>,
}

impl Connection {
    fn query(&self, text: &str) -> Result<u32, String> {
        self.calls.set(self.calls.get() + 1);
        if text == "panic" { panic!("in a test, on purpose") } else { Ok(self.calls.get()) }
    }

    fn write(&mut self, text: &str, times: usize) -> usize {
        self.log.extend(std::iter::repeat_n(text.to_owned(), times));
        self.log.len()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.ended.send(self.calls.get());
    }
}

fn connections() -> (Arc<PerThread<Connection>>, mpsc::Receiver<u32>) {
    let (ended, ends) = mpsc::channel();
    let ended = Mutex::new(ended);
    let make = move || {
        let ended = ended.lock().map_err(|_| "poisoned")?.clone();
        Ok::<_, &str>(Connection { calls: 0.into(), log: Vec::new(), ended })
    };
    (Arc::new(PerThread::new(make)), ends)
}

#[test]
fn a_value_of_each_thread_is_made_once_and_dropped_with_its_thread() {
    let executor = executor(1);
    let (store, ends) = connections();
    for call in 1..=3 {
        let query = executor.submit(&store, Connection::query, false, "select".to_owned()).expect("accepted");
        assert_eq!(query.wait(HANG).expect("ends"), call);
    }
    let write = executor.submit(&store, Connection::write, true, ("a", 2)).expect("accepted");
    assert_eq!(write.wait(HANG).expect("ends"), 2);
    let write = executor.submit(&store, Connection::write, true, keyed("key", ("a".to_owned(), 1))).expect("accepted");
    assert_eq!(write.wait(HANG).expect("ends"), 3, "the same thread's");
    assert!(ends.try_recv().is_err());
    executor.shutdown(HANG).expect("ends");
    assert_eq!(ends.try_recv(), Ok(3), "with its thread, although the store is there");
    drop(store);
    assert!(ends.try_recv().is_err());
}

#[test]
fn a_value_is_dropped_with_its_store_and_after_a_panic() {
    let executor = executor(1);
    let (store, ends) = connections();
    let query =
        |text: &'static str| executor.submit(&store, Connection::query, false, text).expect("accepted").wait(HANG);
    assert_eq!(query("one").expect("ends"), 1);
    assert!(matches!(query("panic"), Err(Error::Panicked(_))));
    assert_eq!(ends.recv_timeout(HANG), Ok(2), "who knows what the panic left half done");
    assert_eq!(query("one").expect("ends"), 1, "a new one");
    drop(store);
    assert_eq!(ends.recv_timeout(HANG), Ok(1), "although its thread lives");
    assert_eq!(executor.spawn(|| 7).expect("accepted").wait(HANG).expect("ends"), 7);
}

#[test]
fn a_value_that_can_not_be_made_fails_the_operation_and_is_tried_again() {
    let executor = executor(1);
    let tries = Mutex::new(0);
    let make = move || {
        let mut tries = tries.lock().expect("not poisoned");
        *tries += 1;
        if *tries == 1 { Err(std::io::Error::other("refused")) } else { Ok(String::from("made")) }
    };
    let store = Arc::new(PerThread::new(make));
    let length = |text: &String| text.len();
    let failed = executor.submit(&store, length, false, ()).expect("accepted").wait(HANG).expect_err("refused");
    assert!(failed.operation::<std::io::Error>().is_some(), "{failed:?}");
    assert_eq!(executor.submit(&store, length, false, ()).expect("accepted").wait(HANG).expect("made"), 4);
}

#[test]
fn an_operation_that_runs_another_on_its_thread_has_a_value_of_its_own_for_it() {
    let executor = Executor::builder().threads(1).queue_capacity(1).on_full(fulmar::OnFull::CallerRuns);
    let executor = executor.build().expect("an executor");
    let (store, _ends) = connections();
    let (inner, nested) = (executor.clone(), store.clone());
    let outer = executor.submit(
        &store,
        move |connection: &mut Connection| {
            connection.write("outer", 1);
            let requests: Vec<_> = (0..3)
                .map(|_| inner.submit(&nested, Connection::write, false, ("inner", 1)).expect("accepted"))
                .collect();
            let lengths = inner.wait_requests(&requests, HANG).expect("end");
            (lengths.iter().all(|length| *length <= 3), connection.log.len())
        },
        false,
        (),
    );
    let outer = outer.expect("accepted");
    assert_eq!(outer.wait(HANG).expect("ends"), (true, 1));
}
