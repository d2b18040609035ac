//! Another program, compiled against the front door as it is promised: every name, with the types that users write.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fulmar::{
    Args, AsyncRequest, BoxError, Builder, Error, Executor, OnFull, Operation, Result, Stats, as_completed,
    async_await_termination, async_reset_pool, async_shutdown, async_submit, async_total_requests,
    async_wait_any_request, async_wait_request, async_wait_requests, is_cancelled,
};

struct Prices;

#[derive(Debug, PartialEq)]
struct UnknownSymbol(String);

impl std::fmt::Display for UnknownSymbol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unknown symbol `{}`", self.0)
    }
}

impl std::error::Error for UnknownSymbol {}

impl Prices {
    fn read(&self, symbol: &str) -> Result<f64, UnknownSymbol> {
        if symbol == "NONE" { Err(UnknownSymbol(symbol.into())) } else { Ok(symbol.len() as f64) }
    }

    fn write(&self, (symbol, price): (String, f64)) -> Result<usize, UnknownSymbol> {
        Ok(symbol.len() + price as usize)
    }

    fn list(&self, (): ()) -> Result<Vec<String>, std::convert::Infallible> {
        Ok(vec!["AAPL".into()])
    }
}

#[cfg(feature = "json")]
impl fulmar::Store for Prices {
    fn name(&self) -> &str {
        "prices"
    }

    fn call(&self, op: &str, args: serde_json::Value) -> Result<serde_json::Value, BoxError> {
        match op {
            "read" => Ok(self.read(args["symbol"].as_str().ok_or("`symbol` is missing")?)?.into()),
            _ => Err(format!("no operation `{op}`").into()),
        }
    }
}

const LIMIT: Duration = Duration::from_secs(30);

fn keyed<A: Args>(args: &A) -> Option<String> {
    args.key().map(str::to_owned)
}

#[test]
fn the_functions_of_the_global_executor() {
    let prices = Arc::new(Prices);
    let request: AsyncRequest<f64> = async_submit(&prices, Prices::read, false, "AAPL").expect("accepted");
    assert_eq!(async_wait_request(&request, LIMIT).expect("a price"), 4.0);

    let write = async_submit(&prices, Prices::write, true, ("AAPL".to_owned(), 3.0)).expect("accepted");
    let list = async_submit(&prices, Prices::list, false, ()).expect("accepted");
    assert_eq!(async_wait_request(&write, None).expect("written"), 7);
    assert_eq!(async_wait_request(&list, Some(LIMIT)).expect("a list"), ["AAPL"]);

    let reads =
        ["IBM", "AAPL", "GOOGL"].map(|symbol| async_submit(&prices, Prices::read, false, symbol).expect("accepted"));
    let any: usize = async_wait_any_request(&reads, LIMIT).expect("one ends");
    assert!(any < 3);
    let all: Vec<f64> = async_wait_requests(&reads, LIMIT).expect("all end");
    assert_eq!(all, [3.0, 4.0, 5.0]);
    assert!(async_total_requests() >= 6);
    assert!(!is_cancelled());
}

#[test]
fn the_names_of_reset_and_shutdown() {
    // Only named here: what they do to the whole process is tested in a process of its own (`tests/global_*.rs`).
    let _: fn(Option<usize>, Option<Duration>) -> Result<()> = async_reset_pool;
    let _: fn(usize, Duration) -> Result<()> = async_reset_pool;
    let _: fn(Option<Duration>) -> Result<()> = async_shutdown;
    let _: fn(Duration) -> Result<()> = async_await_termination;
    let _: &'static Executor = Executor::global();
}

#[test]
fn the_methods_of_an_executor() {
    let builder: Builder = Executor::builder().threads(2).queue_capacity(1_000).thread_name("contract");
    let executor = builder.on_full(OnFull::Wait(LIMIT)).build().expect("sound settings");
    let _ = [OnFull::Reject, OnFull::CallerRuns];
    let prices = Arc::new(Prices);

    let request = executor.submit(&prices, Prices::read, false, "AAPL").expect("accepted");
    assert_eq!(executor.wait_request(&request, LIMIT).expect("a price"), 4.0);
    let spawned: AsyncRequest<u8> = executor.spawn(|| 7).expect("accepted");
    assert_eq!(spawned.wait(LIMIT).expect("a number"), 7);
    let many = executor.submit_many(&prices, Prices::read, false, ["A", "BB"]).expect("accepted");
    assert!(executor.wait_any_request(&many, LIMIT).expect("one ends") < 2);
    assert_eq!(executor.wait_requests(&many, None).expect("all end"), [1.0, 2.0]);
    let after = executor.submit_after(Duration::ZERO, &prices, Prices::read, false, "IBM").expect("accepted");
    assert_eq!(after.wait(LIMIT).expect("a price"), 3.0);
    let every: fulmar::Periodic = executor.submit_every(LIMIT, &prices, Prices::read, false, "IBM").expect("accepted");
    assert!(every.cancel());
    executor.resize(3).expect("live");
    executor.reset(2, LIMIT).expect("the old threads end");
    executor.reset(None, LIMIT).expect("the same size");
    let stats: Stats = executor.clone().stats();
    let parts: [u64; 8] = [
        stats.submitted,
        stats.deferred,
        stats.queued,
        stats.running,
        stats.completed,
        stats.failed,
        stats.panicked,
        stats.cancelled,
    ];
    assert_eq!(parts, [5, 0, 0, 0, 5, 0, 0, 0]);
    let _: usize = stats.threads;
    executor.shutdown(LIMIT).expect("ends");
    executor.await_termination(LIMIT).expect("has ended");
    assert!(matches!(executor.spawn(|| 1), Err(Error::ShutDown)));
}

#[test]
fn the_methods_of_a_request() {
    let executor = crate::support::executor(2);
    let request = executor.submit(&Arc::new(Prices), Prices::write, true, ("IBM".to_owned(), 1.0)).expect("accepted");
    let _: u64 = request.id();
    assert_eq!(request.kind(), fulmar::Kind::Modifier);
    let _: fulmar::Status = request.status();
    request.on_complete(|status| assert_eq!(status, fulmar::Status::Completed));
    let doubled = request.then(|length| Ok::<_, std::fmt::Error>(length * 2)).expect("accepted");
    assert_eq!(doubled.wait(LIMIT).expect("a number"), 8);
    assert!(request.is_done());
    assert!(!request.cancel());
    assert!(matches!(request.try_take(), Some(Err(Error::ResultTaken))));
    let times: [Option<Duration>; 3] = [request.schedule_delay(), request.execution_duration(), request.total_time()];
    assert!(times.iter().all(Option::is_some), "{times:?}");
    let requests = [executor.spawn(|| 1).expect("accepted"), executor.spawn(|| 2).expect("accepted")];
    let sum: u32 = as_completed(&requests, LIMIT).map(|(index, result)| index as u32 + result.expect("a number")).sum();
    assert_eq!(sum, 4);
    fn is_a_future<T>(_: &impl Future<Output = Result<T>>) {}
    is_a_future(&requests[0]);
}

#[test]
fn operations_infer_and_errors_keep_their_type() {
    fn is_operation<S: ?Sized, A, O: Operation<S, A>>(_: &O) {}
    is_operation::<Prices, &str, _>(&Prices::read);
    let executor = crate::support::executor(1);
    let prices = Arc::new(Prices);
    let closure = executor.submit(
        &prices,
        |prices: &Prices, n: u8| prices.list(()).map(|list| list.len() + n as usize),
        false,
        1,
    );
    assert_eq!(closure.expect("accepted").wait(None).expect("a number"), 2);
    let failed = executor.submit(&prices, Prices::read, false, "NONE").expect("accepted").wait(None);
    match failed.expect_err("no such symbol") {
        Error::Operation(error) => {
            let error: BoxError = error;
            assert_eq!(error.downcast_ref(), Some(&UnknownSymbol("NONE".into())));
        }
        other => panic!("not the operation's error: {other:?}"),
    }
    let errors = [Error::ShutDown, Error::QueueFull, Error::Cancelled, Error::ResultTaken, Error::WouldDeadlock];
    assert!(errors.iter().all(|error| !error.is_timeout()));
    let _ = (Error::Panicked(String::new()), Error::Invalid(String::new()));
    let timeout =
        executor.spawn(std::thread::yield_now).expect("accepted").then(|()| Ok::<_, Error>(())).expect("accepted");
    match timeout.wait(Duration::ZERO) {
        Err(error @ Error::Timeout { .. }) => assert!(error.is_timeout() && error.is_retryable()),
        done => done.expect("it may have ended already"),
    }
}

#[test]
fn arguments_know_their_key() {
    let aapl = Some("AAPL".to_owned());
    assert_eq!(keyed(&"AAPL"), aapl);
    assert_eq!(keyed(&"AAPL".to_owned()), aapl);
    assert_eq!(keyed(&("AAPL", 1, Duration::ZERO)), aapl);
    assert_eq!(keyed(&(("AAPL".to_owned(), 1), vec![2])), aapl);
    assert_eq!(keyed(&(1, "AAPL")), None, "the first element alone");
    assert_eq!(keyed(&()), None);
    assert_eq!(keyed(&true), None);
    assert_eq!(keyed(&1.5), None);
    assert_eq!(keyed(&Duration::ZERO), None);
    assert_eq!(keyed(&std::path::PathBuf::from("AAPL")), None);
    assert_eq!(keyed(&vec!["AAPL"]), None);
    assert_eq!(keyed(&Some("AAPL")), None);
    assert_eq!(keyed(&Arc::new("AAPL")), None);
    #[cfg(feature = "json")]
    {
        use serde_json::json;
        assert_eq!(keyed(&json!({"key": "MSFT", "symbol": "AAPL"})), aapl);
        assert_eq!(keyed(&json!({"key": "AAPL"})), aapl);
        assert_eq!(keyed(&json!({"symbol": 7})), None);
        assert_eq!(keyed(&json!("AAPL")), None);
    }
}

#[cfg(feature = "json")]
#[test]
fn named_operations_on_a_store_of_any_type() {
    use serde_json::{Value, json};
    let executor = crate::support::executor(1);
    let concrete = Arc::new(Prices);
    let shared: Arc<dyn fulmar::Store> = concrete.clone();
    assert_eq!(shared.name(), "prices");
    let request: AsyncRequest<Value> =
        executor.submit(&concrete, "read", false, json!({"symbol": "IBM"})).expect("accepted");
    assert_eq!(request.wait(None).expect("a price"), json!(3.0));
    let request = executor.submit(&shared, "read", false, json!({"symbol": "IBM"})).expect("accepted");
    assert_eq!(request.wait(None).expect("a price"), json!(3.0));
    let unknown = executor.submit(&shared, "burn", false, json!({})).expect("accepted").wait(None);
    assert!(unknown.expect_err("no such operation").to_string().contains("failed"));
}
