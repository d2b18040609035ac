//! Against servers and clients of others. Nothing here runs by itself: `tests/run` installs what is needed and then asks for it.
//!
//! PAIRS: `peers/pairs_sim.py` is a server that was proved with the real client, and `ibmpairs` is that client.

#[path = "it/pairs/folder.rs"]
mod folder;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fulmar::Executor;
use fulmar::backoff::Backoff;
use fulmar::batch::BatchReport;
use fulmar::client::http::HttpClient;
use fulmar::client::pairs::{BatchOptions, Client, PairsError, Query, QueryResult, batch_query};
use serde_json::{Value, json};

use folder::Folder;

/// Far longer than anything takes here: it only turns a hang into a failure with a reason.
const HANG: Duration = Duration::from_secs(300);

/// The simulator, as a process of its own; ended with the test.
struct Simulator {
    process: Child,
    port: u16,
    http: HttpClient,
}

impl Simulator {
    fn start(settings: &[&str]) -> Simulator {
        let python = std::env::var("FULMAR_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        // Free a moment ago: a test that is robbed of it says so.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pairs_sim.py");
        let mut command = Command::new(&python);
        command.arg(script).args(["--port", &port.to_string(), "--concurrency", "2000"]).args(settings);
        let process = command.stdout(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{python}: {error}"));
        let http = HttpClient::builder().environment_proxy(false).build().expect("a client");
        let mut simulator = Simulator { process, port, http };
        let began = Instant::now();
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(began.elapsed() < HANG, "the simulator never listened");
            let ended = simulator.process.try_wait().expect("its state is known");
            assert!(ended.is_none(), "the simulator ended by itself: {ended:?}");
            std::thread::yield_now();
        }
        simulator
    }

    fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn url(&self) -> String {
        format!("{}/v2", self.origin())
    }

    fn client(&self) -> Client {
        Client::builder(&self.url())
            .basic("me", "a password")
            .http(|http| http.environment_proxy(false))
            .build()
            .expect("a client")
    }

    /// Nothing goes wrong from now on.
    fn heal(&self) {
        let healthy = json!({
            "rate_5xx": 0.0, "drop": 0.0, "drop_after": 0.0, "drop_mid": 0.0, "malformed": 0.0, "malformed_dl": 0.0,
            "rate_limit": 0.0, "not_ready": 0, "auth": "any", "require_client_id": 0,
        });
        self.http.post(&format!("{}/__faults", self.origin())).json(&healthy).send().expect("healed");
    }

    fn counts(&self) -> Value {
        self.http.get(&format!("{}/__stats", self.origin())).send().expect("counts").json().expect("JSON")
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn square(name: &str) -> Query {
    let query = Query::builder().layer(92).square(30.0, -100.0, 30.5, -99.6).snapshot("2018-11-01T00:00:00");
    query.name(name).build().expect("a query")
}

fn options(folder: &Folder, interval: Duration) -> BatchOptions {
    let executor = Executor::builder().threads(8).build().expect("an executor");
    let options = BatchOptions::new().status_interval_floor(interval).status_interval(interval).folder(folder.path());
    // Shorter pauses than a server that many share would deserve.
    let backoff = Backoff::new(Duration::from_millis(200)).cap(Duration::from_secs(2)).jitter(0.5);
    options.runner_with(|runner| runner.executor(&executor).backoff(backoff).time_limit(HANG))
}

fn told(report: &BatchReport<QueryResult>) -> String {
    let mut text = format!("{report}\n");
    for job in report.failures() {
        let mut next = job.outcome.as_ref().err().map(|failure| failure as &dyn std::error::Error);
        text += &format!("{} {:?}", job.index, job.id);
        while let Some(error) = next {
            text += &format!(": {error}");
            next = error.source();
        }
        text.push('\n');
    }
    text
}

#[test]
#[ignore = "tests/run brings it: python3"]
fn forty_queries_of_two_seconds_eight_at_a_time() {
    let (simulator, folder) = (Simulator::start(&["--run", "2"]), Folder::new());
    let queries = (0..40).map(|n| square(&n.to_string()));
    let report = batch_query(&simulator.client(), queries, options(&folder, Duration::from_secs(1))).expect("sound");
    assert!(report.is_success(), "{}", told(&report));
    assert_eq!(folder.files().len(), 40 * 5);
    println!("40 queries of 2 s, window 8, polls of 1 s: {:.2} s; ideal is 10 s", report.elapsed.as_secs_f64());
}

/// Runs 200 queries, and compares what each side says and has.
fn survive(what: &str, settings: &[&str], client: impl FnOnce(&Simulator) -> Client) {
    const COUNT: usize = 200;
    let simulator = Simulator::start(&[&["--run", "0.2"], settings].concat());
    let folder = Folder::new();
    let queries = (0..COUNT).map(|n| square(&format!("query {n}")));
    let settings = options(&folder, Duration::from_millis(500)).workers(64).attempts(15);
    let report = batch_query(&client(&simulator), queries, settings).expect("sound");
    let counts = simulator.counts();
    simulator.heal();
    println!("{what}: {report}; {}", counts["stats"]);

    // All that the server has, by name.
    let healthy = simulator.client();
    let mut by_name: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
    for page in 1.. {
        let list = healthy.list(false, page, 500).expect("a list");
        for job in list.jobs {
            by_name.entry(job.nickname.unwrap_or_default()).or_default().push((job.id, job.code.code()));
        }
        if u64::from(page) >= list.pages {
            break;
        }
    }
    let mut finished = Vec::new();
    for job in &report.jobs {
        let name = format!("query {}", job.index);
        let id = job.id.as_deref().unwrap_or_else(|| panic!("{name} was never accepted: {}", told(&report)));
        let created = by_name.remove(&name).unwrap_or_default();
        let own = created.iter().find(|(own, _)| own == id);
        let (_, code) = own.unwrap_or_else(|| panic!("{name} has a stranger's {id}"));
        assert!(
            created.len() == 1 || job.notes.iter().any(|note| note.contains("twice")),
            "{name} is there twice, unsaid"
        );
        match &job.outcome {
            Ok(_) => {
                assert_eq!(*code, 20, "{name}");
                finished.push(square(&name).with_id(id).expect("an id"));
            }
            Err(failure) => {
                let Some(PairsError::Failed { code: said, .. }) = failure.error() else {
                    panic!("{name}: {}", told(&report))
                };
                assert_eq!((said.code(), *code != 20), (*code, true), "{name}");
            }
        }
    }
    assert!(by_name.is_empty(), "nobody asked for {by_name:?}");
    let (files, again) = (folder.files(), Folder::new());
    assert_eq!(files.len(), 5 * finished.len(), "{:?}", files.keys());
    let settings = options(&again, Duration::from_millis(100)).workers(16).submit(false);
    let report = batch_query(&healthy, finished, settings).expect("sound");
    assert!(report.is_success(), "downloaded again: {}", told(&report));
    for (name, content) in again.files() {
        // An archive has the time at which it was made in it.
        assert!(name.ends_with(".zip") || files[&name] == content, "{name} is damaged");
    }
    if let Some(fault) = ["5xx", "drop", "drop_after", "drop_mid", "429", "not ready", "malformed_dl"]
        .iter()
        .find(|fault| what == **fault)
    {
        assert!(counts["stats"][format!("fault {fault}")].as_u64() > Some(0), "{fault} never struck: {counts}");
    }
}

fn survive_as_anybody(what: &str, settings: &[&str]) {
    survive(what, settings, Simulator::client);
}

/// By a key of Environmental Intelligence, whose tokens expire as the simulator is told.
fn with_key(simulator: &Simulator) -> Client {
    let builder = Client::builder(&format!("{}/geospatial/run/na/core/v3", simulator.origin())).api_key("PHX-key");
    let endpoint = format!("{}/authentication-retrieve", simulator.origin());
    let builder = builder.tenant_id("tenant").org_id("organisation").auth_endpoint(&endpoint);
    builder.http(|http| http.environment_proxy(false)).build().expect("a client")
}

#[test]
#[ignore = "tests/run brings it: python3"]
fn each_fault_alone_and_every_query_is_accounted_for() {
    survive_as_anybody("5xx", &["--rate-5xx", "0.1"]);
    survive_as_anybody("drop", &["--drop", "0.05"]);
    survive_as_anybody("drop_after", &["--drop-after", "0.05"]);
    survive_as_anybody("drop_mid", &["--drop-mid", "0.2"]);
    survive_as_anybody("not ready", &["--not-ready", "2"]);
    survive_as_anybody("malformed_dl", &["--malformed-dl", "0.1", "--malformed", "0.05"]);
    survive_as_anybody("failure codes", &["--fail-codes", "40:0.1,21:0.05,42:0.05"]);
    survive_as_anybody("429", &["--rate-limit", "50"]);
    survive(
        "tokens of 3 s",
        &["--auth", "bearer", "--token-ttl", "3", "--require-client-id", "1", "--run", "2"],
        with_key,
    );
}

#[test]
#[ignore = "tests/run brings it: python3"]
fn all_faults_together_and_every_query_is_accounted_for() {
    let settings = [
        ["--rate-5xx", "0.1"],
        ["--drop", "0.05"],
        ["--drop-after", "0.05"],
        ["--drop-mid", "0.2"],
        ["--not-ready", "2"],
        ["--malformed-dl", "0.1"],
        ["--malformed", "0.05"],
        ["--fail-codes", "40:0.1,21:0.05"],
        ["--rate-limit", "50"],
        ["--auth", "bearer"],
        ["--token-ttl", "3"],
        ["--require-client-id", "1"],
    ];
    survive("all together", &settings.concat(), with_key);
}

#[test]
#[ignore = "tests/run brings it: python3 with ibmpairs"]
fn the_real_client_and_this_one_submit_the_same_and_get_the_same_files() {
    let python = std::env::var("FULMAR_IBMPAIRS").expect("FULMAR_IBMPAIRS names a Python that has ibmpairs");
    let (simulator, theirs, ours) = (Simulator::start(&["--run", "0.5"]), Folder::new(), Folder::new());
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
    let path = peers.join("pairs_queries.jsonl");
    let output = Command::new(&python)
        .arg(peers.join("pairs_reference.py"))
        .args([simulator.url().as_ref(), path.as_os_str(), theirs.path().as_os_str()])
        .env("QUERY_MIN_STATUS_INTERVAL", "1")
        .env("PAW_LOG_LEVEL", "ERROR")
        .env("NO_PROXY", "127.0.0.1")
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}"));
    assert!(output.status.success(), "the real client failed");
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a JSON list");

    let text = fs::read_to_string(&path).expect("the queries");
    let queries: Vec<Query> = text.lines().map(|line| line.parse().expect("a query")).collect();
    assert_eq!(queries.len(), answers.len());
    for (query, answer) in queries.iter().zip(&answers) {
        assert_eq!(query.to_submit(), answer["submit"], "what is submitted");
        assert_eq!(query.to_dict(), answer["dict"], "what is printed");
        assert_eq!(answer["status"], "SUCCEEDED");
    }

    // The jobs are the real client's, since the simulator's rasters depend on the id; points are asked for anew.
    let jobs = queries.iter().zip(&answers);
    let known = jobs.filter_map(|(query, answer)| Some(query.clone().with_id(answer["id"].as_str()?).expect("an id")));
    let fast = Duration::from_millis(100);
    let report = batch_query(&simulator.client(), known, options(&ours, fast).submit(false)).expect("sound");
    assert!(report.is_success(), "{}", told(&report));
    let points = queries.iter().filter(|query| query.is_interactive()).cloned();
    let report = batch_query(&simulator.client(), points, options(&ours, fast)).expect("sound");
    assert!(report.is_success(), "{}", told(&report));

    let (theirs, ours) = (theirs.files(), ours.files());
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
    for (name, content) in &theirs {
        let json = |content: &[u8]| serde_json::from_slice::<Value>(content).expect("JSON");
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            // It has the time at which it was made in it; what is in it is compared file by file.
            Some("zip") => {}
            Some("json") => assert_eq!(json(content), json(&ours[name]), "{name}"),
            _ => assert!(*content == ours[name], "{name} differs"),
        }
    }
    println!("{} queries, {} files, the same by the real client and by this one", queries.len(), theirs.len());
}
