//! The openEO client against what others wrote: a back-end on `openeo-fastapi`, the reference
//! driver, the contract proxy, two OIDC issuers, and the Python client. `tests/run` installs them
//! (`tests/peers/openeo/install`) and runs this; without, every test here is ignored.

#![cfg(all(feature = "openeo", feature = "sqlite"))]

mod driver;
mod user;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fulmar::Executor;
use fulmar::backoff::Backoff;
use fulmar::batch::BatchRunner;
use fulmar::client::http::HttpClient;
use fulmar::client::openeo::{
    BackEnd, Connection, DownloadOptions, JobChange, JobStatus, LogLevel, NewJob, Oidc, OpenEoError, ProcessGraph,
    RefreshTokens, RunOptions, WaitOptions, run_jobs,
};
use serde_json::{Value, json};

/// Far longer than anything takes here: it only turns a hang into a failure with a reason.
const HANG: Duration = Duration::from_secs(90);

/// A program of others, ended when dropped.
struct Peer {
    child: Child,
    lines: Receiver<String>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// Starts it, and waits until it says `ready`.
    fn start(command: &mut Command, ready: &str) -> Peer {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}: run tests/peers/openeo/install"));
        let (tell, lines) = channel();
        let said = Arc::new(Mutex::new(Vec::new()));
        let out = child.stdout.take().map(|out| Box::new(out) as Box<dyn std::io::Read + Send>);
        let err = child.stderr.take().map(|err| Box::new(err) as Box<dyn std::io::Read + Send>);
        for pipe in [out, err].into_iter().flatten() {
            let (tell, said) = (tell.clone(), said.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    said.lock().expect("sound").push(line.clone());
                    let _ = tell.send(line);
                }
            });
        }
        let peer = Peer { child, lines, said };
        peer.await_line(ready);
        peer
    }

    fn await_line(&self, text: &str) -> String {
        let end = Instant::now() + HANG;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(_) => panic!("it never said {text:?}, but: {:#?}", self.said()),
            }
        }
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().expect("sound").clone()
    }

    fn count(&self, text: &str) -> usize {
        self.said().iter().filter(|line| line.contains(text)).count()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn home() -> PathBuf {
    let tools = std::env::var_os("FULMAR_TOOLS").map(PathBuf::from);
    tools.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".local")).join("openeo-peers")
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/openeo")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// The back-end on `openeo-fastapi`.
struct RealBackEnd {
    port: u16,
    _peer: Peer,
}

impl RealBackEnd {
    fn start(settings: &[(&str, &str)]) -> RealBackEnd {
        let port = free_port();
        let mut command = Command::new(home().join("back-end/bin/python"));
        command.args(["-m", "uvicorn", "back_end:app", "--host", "127.0.0.1", "--port", &port.to_string()]);
        command.current_dir(scripts()).env("PYTHONDONTWRITEBYTECODE", "1");
        let address = format!("127.0.0.1:{port}");
        for (name, value) in [
            ("API_DNS", address.as_str()),
            ("API_TLS", "false"),
            ("API_TITLE", "t"),
            ("API_DESCRIPTION", "d"),
            ("OIDC_URL", "http://127.0.0.1:9"),
            ("OIDC_ORGANISATION", "local"),
            ("STAC_API_URL", "http://127.0.0.1:9/"),
            ("QUEUE_S", "0.2"),
            ("RUN_S", "0.5"),
        ]
        .into_iter()
        .chain(settings.iter().copied())
        {
            command.env(name, value);
        }
        RealBackEnd { port, _peer: Peer::start(&mut command, "Uvicorn running on") }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/openeo/1.1.0", self.port)
    }

    fn requests(&self) -> u64 {
        let client = HttpClient::builder().build().expect("a client");
        let counts: Value = client
            .get(&format!("http://127.0.0.1:{}/__count", self.port))
            .send()
            .and_then(|reply| reply.json())
            .expect("counted");
        counts["requests"].as_u64().expect("a number")
    }

    fn connect(&self) -> Connection {
        log_in(&self.url())
    }
}

fn log_in(url: &str) -> Connection {
    let connection = Connection::connect(url).expect("connected");
    connection.authenticate_basic("u", "u123").expect("logged in");
    // This back-end makes a user on the first call, and of several at once all but one fail, some
    // after 30 s.
    connection.me().expect("known");
    connection
}

/// The contract proxy before a back-end.
struct Contract {
    port: u16,
    peer: Peer,
}

impl Contract {
    fn before(back_end: &str) -> Contract {
        let port = free_port();
        let mut command = Command::new("node");
        command.arg(home().join("node/node_modules/@stoplight/prism-cli/dist/index.js"));
        command.args(["proxy", "-h", "127.0.0.1", "-p", &port.to_string()]);
        command.arg(home().join("contract/openapi.yaml")).arg(back_end);
        Contract { port, peer: Peer::start(&mut command, "Prism is listening") }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it found wrong with requests so far.
    fn violations(&self) -> Vec<String> {
        self.peer.said().into_iter().filter(|line| line.contains("Violation: request")).collect()
    }
}

fn oidc(script: &str, life: u32) -> (String, Peer) {
    let port = free_port();
    let mut command = Command::new("node");
    command.arg(home().join("node").join(script)).env("PORT", port.to_string()).env("TTL", life.to_string());
    (format!("http://127.0.0.1:{port}"), Peer::start(&mut command, "ready"))
}

fn graph() -> Value {
    json!({"lc": {"process_id": "add", "arguments": {"x": 3, "y": 5}, "result": true}})
}

fn sum(title: &str) -> NewJob {
    NewJob::new(ProcessGraph::from_json(graph()).expect("sound")).title(title)
}

/// From the line of the function `run` on: what comes before are imports and words.
fn lines_of_code(text: &str) -> usize {
    let is_start = |line: &&str| line.contains("fn run(") || line.starts_with("def run(");
    text.lines().skip_while(|line| !is_start(line)).filter(|line| !line.trim().is_empty()).count()
}

fn soon<'a>() -> WaitOptions<'a> {
    WaitOptions::new().poll(Backoff::new(Duration::from_millis(100)).factor(1.0)).quiet()
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fulmar-openeo-peer-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

fn python(script: &str, arguments: &[&str]) -> String {
    let output = Command::new(home().join("client/bin/python"))
        .arg(scripts().join(script))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{error}: run tests/peers/openeo/install"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The last line that the reference client's script prints.
fn reference(arguments: &[&str]) -> Value {
    let text = python("reference.py", arguments);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
#[ignore = "tests/run brings it: a back-end on openeo-fastapi and the contract proxy"]
fn the_whole_client_keeps_to_the_contract() {
    let back_end = RealBackEnd::start(&[("SIGNED", "1")]);
    let contract = Contract::before(&back_end.url());
    let connection = log_in(&contract.url());
    assert!(connection.me().expect("known")["user_id"].is_string());

    let job = sum("e2e").description("d").plan("free").budget(10.0).log_level(LogLevel::Debug);
    let job = connection.create_job(job.job_options(json!({"driver-memory": "1G"}))).expect("created");
    assert_eq!(job.status().expect("known"), JobStatus::Created);
    assert_eq!(job.results().metadata().expect_err("early").code(), Some("JobNotFinished"));
    let end = job.start_and_wait(soon()).expect("finished");
    assert_eq!((end.title(), end.costs()), (Some("e2e"), Some(4.0)));
    assert_eq!(job.logs(None, LogLevel::Info).expect("logs").len(), 3);
    assert_eq!(job.logs("0", None).expect("logs").len(), 3);
    let out = folder("contract");
    let files = job.results().download_files(&out, &DownloadOptions::new()).expect("downloaded");
    assert_eq!(files.iter().map(|file| file.metadata().expect("there").len()).collect::<Vec<_>>(), [4_104, 8]);
    // The back-end has none (501), and then the proxy answers out of the contract's examples.
    assert!(job.estimate().expect("an example").is_object());

    let failing = connection.create_job(sum("fail")).expect("created");
    let error = failing.start_and_wait(soon()).expect_err("fails");
    assert!(matches!(&error, OpenEoError::JobFailed { logs, .. } if logs.len() == 1), "{error:?}");
    let slow = connection.create_job(sum("slow")).expect("created");
    slow.change(&JobChange::new().description("slow").budget(None)).expect("changed");
    assert_eq!(slow.describe().expect("known").description(), Some("slow"));
    slow.start().expect("started");
    slow.stop().expect("stopped");
    assert_eq!(slow.status().expect("known"), JobStatus::Canceled);
    assert_eq!(connection.list_jobs().expect("listed").len(), 3);
    slow.delete().expect("deleted");
    assert!(slow.describe().expect_err("gone").is_not_found());
    assert!(connection.job("nope").describe().expect_err("no id of theirs").is_not_found());

    let options = RunOptions::new().poll(Duration::from_millis(200), Duration::from_secs(1)).download_to(&out);
    let jobs = (0..6).map(|number| sum(&format!("many {number}")));
    let report = run_jobs([BackEnd::new(&connection).parallel_jobs(3)], jobs, &options).expect("run");
    assert!(report.is_success(), "{report}: {:?}", report.failures().next());
    assert_eq!(contract.violations(), [""; 0]);

    // The proxy does look: a request that breaks the contract is found out.
    let client = HttpClient::builder().build().expect("a client");
    let _ = client.post(&format!("{}/jobs", contract.url())).json(&json!({"title": 7})).send();
    contract.peer.await_line("Violation: request");
    std::fs::remove_dir_all(out).expect("removed");
}

#[test]
#[ignore = "tests/run brings it: a back-end on openeo-fastapi and an OIDC issuer"]
fn tokens_of_three_seconds_are_renewed_between_polls() {
    let (issuer, provider) = oidc("oidc.mjs", 3);
    let back_end = RealBackEnd::start(&[("AUTH", "oidc"), ("OIDC_URL", &issuer), ("RUN_S", "8")]);
    let connection = Connection::connect(&back_end.url()).expect("connected");
    let oidc = Oidc::new().client("service").secret("secret");
    connection.authenticate_oidc_client_credentials(&oidc).expect("logged in");
    let job = connection.create_job(sum("long")).expect("created");
    job.start_and_wait(soon().poll(Backoff::new(Duration::from_millis(500)).factor(1.0))).expect("finished");
    let out = folder("tokens");
    job.results().download_files(&out, &DownloadOptions::new()).expect("downloaded");
    let tokens = provider.count("token client_credentials");
    assert!((3..=12).contains(&tokens), "{tokens} tokens for 8 s and more");
    std::fs::remove_dir_all(out).expect("removed");
}

#[test]
#[ignore = "tests/run brings it: an OIDC issuer with the device flow"]
fn a_person_logs_in_by_the_device_flow() {
    let (issuer, provider) = oidc("device.mjs", 3_600);
    let back_end = RealBackEnd::start(&[("AUTH", "oidc"), ("OIDC_URL", &issuer)]);
    let connection = Connection::connect(&back_end.url()).expect("connected");
    let out = folder("device");
    let oidc =
        Oidc::new().client("dev").scopes(["openid"]).remember(RefreshTokens::at(out.join("refresh-tokens.json")));
    let person = |url: String, code: String| std::thread::spawn(move || python("approve.py", &[&url, &code]));
    let mut at_browser = None;
    let logged_in = connection.authenticate_oidc_device(&oidc, |prompt| {
        at_browser = Some(person(prompt.url.clone(), prompt.code.clone()));
    });
    let browser = at_browser.expect("the person was told").join().expect("the browser ran");
    logged_in.unwrap_or_else(|error| panic!("{error}; the browser: {browser}"));
    provider.await_line("granted urn:ietf:params:oauth:grant-type:device_code");

    // This back-end knows no opaque tokens and says TokenInvalid, so a renewal is tried: by refresh
    // token.
    assert_eq!(connection.me().expect_err("opaque").code(), Some("TokenInvalid"));
    provider.await_line("granted refresh_token");
    let again = Connection::connect(&back_end.url()).expect("connected");
    again.authenticate_oidc_device(&oidc, |_| panic!("nobody is to be asked")).expect("remembered");
    std::fs::remove_dir_all(out).expect("removed");
}

#[test]
#[ignore = "tests/run brings it: a back-end on openeo-fastapi and the Python client"]
fn the_python_client_sees_our_jobs_and_we_see_its() {
    let back_end = RealBackEnd::start(&[]);
    let (url, connection) = (back_end.url(), back_end.connect());
    let ours = connection.create_job(sum("made here")).expect("created");
    ours.start_and_wait(soon()).expect("finished");
    let listed = reference(&["list", &url]);
    assert_eq!(listed, json!([{"id": ours.id(), "title": "made here", "status": "finished"}]));

    let theirs = reference(&["create", &url, "made there"]);
    let theirs = connection.job(theirs["id"].as_str().expect("an id"));
    let end = theirs.wait(soon()).expect("finished");
    assert_eq!(end.title(), Some("made there"));

    for job in [&ours, &theirs] {
        let (here, there) = (folder("here"), folder("there"));
        job.results().download_files(&here, &DownloadOptions::new()).expect("downloaded");
        let told = reference(&["download", &url, job.id(), &there.display().to_string()]);
        assert_eq!(told["status"], "finished");
        for name in ["openEO.tif", "out.csv"] {
            let (a, b) = (std::fs::read(here.join(name)), std::fs::read(there.join(name)));
            let (a, b) = (a.expect("downloaded here"), b.expect("downloaded there"));
            assert!(!a.is_empty() && a == b, "{name}: {} and {} bytes", a.len(), b.len());
        }
        let metadata = |folder: &Path| -> Value {
            let text = std::fs::read_to_string(folder.join("job-results.json")).expect("metadata");
            serde_json::from_str(&text).expect("JSON")
        };
        assert_eq!(metadata(&here), metadata(&there));
        std::fs::remove_dir_all(here).expect("removed");
        std::fs::remove_dir_all(there).expect("removed");
    }
}

/// The figures are printed; what is held to is the number of requests, which no busy machine
/// changes much.
#[test]
#[ignore = "tests/run brings it: a back-end on openeo-fastapi and the Python client"]
fn forty_jobs_take_at_most_half_of_the_references_requests() {
    const JOBS: u64 = 40;
    let settings = [("QUEUE_S", "0.5"), ("RUN_S", "1.5"), ("PARALLEL", "16")];
    let ideal = 3.0 * 2.0;

    let back_end = RealBackEnd::start(&settings);
    let connection = back_end.connect();
    let out = folder("many");
    let second = Duration::from_secs(1);
    let executor = Executor::builder().threads(16).build().expect("an executor");
    let runner = BatchRunner::builder().executor(&executor).max_concurrent(16);
    let options = RunOptions::new().poll(second, second).download_to(&out).run_on(runner);
    let jobs = (0..JOBS).map(|number| sum(&format!("job {number}")));
    let before = back_end.requests();
    let began = Instant::now();
    let back_ends = [BackEnd::new(&connection).parallel_jobs(16).queue_limit(16)];
    let report = run_jobs(back_ends, jobs, &options).expect("run");
    let took = began.elapsed().as_secs_f64();
    let requests = back_end.requests() - before;
    assert!(report.is_success(), "{report}: {:?}", report.failures().next());
    std::fs::remove_dir_all(out).expect("removed");

    let back_end = RealBackEnd::start(&settings);
    let unasked = back_end.requests();
    back_end.connect();
    let login = back_end.requests() - unasked;
    let out = folder("campaign");
    std::fs::create_dir_all(&out).expect("a folder");
    let (before, began) = (back_end.requests(), Instant::now());
    let report = user::run(&back_end.url(), JOBS, 16, graph(), &out).expect("run");
    let remembered_took = began.elapsed().as_secs_f64();
    let remembered_requests = back_end.requests() - before;
    assert!(report.is_success(), "{report}");
    std::fs::remove_dir_all(out).expect("removed");

    let back_end = RealBackEnd::start(&settings);
    let out = folder("reference");
    let told = reference(&["manage", &back_end.url(), &JOBS.to_string(), "16", &out.display().to_string()]);
    let their_requests = back_end.requests();
    assert_eq!(told["states"]["finished"], JOBS, "{told}");
    std::fs::remove_dir_all(out).expect("removed");

    println!("40 jobs of 2 s, 16 in parallel, poll 1 s; ideal {ideal:.1} s");
    println!("fulmar     {took:5.2} s = {:.2} of ideal, {requests} requests", took / ideal);
    println!(
        "campaign   {remembered_took:5.2} s = {:.2} of ideal, {remembered_requests} requests",
        remembered_took / ideal
    );
    let theirs = told["seconds"].as_f64().unwrap_or_default();
    println!("reference  {theirs:5.2} s = {:.2} of ideal, {their_requests} requests", theirs / ideal);
    let lines = [include_str!("user.rs"), include_str!("../peers/openeo/user.py")].map(lines_of_code);
    println!("lines of a user's code: {} for a campaign, {} for the reference", lines[0], lines[1]);
    assert!(lines[0] <= 15, "{} lines", lines[0]);
    assert!(requests * 2 <= their_requests, "{requests} requests, and the reference {their_requests}");
    // As above: the login isn't counted.
    let also = remembered_requests - login;
    assert!(also * 2 <= their_requests, "{also} requests of a campaign, and the reference {their_requests}");
}

const URL: &str = "FULMAR_PEER_URL";
const OUT: &str = "FULMAR_PEER_OUT";

#[test]
#[ignore = "it is a process of the next test, which starts it"]
fn child() {
    if let (Ok(url), Ok(out)) = (std::env::var(URL), std::env::var(OUT)) {
        user::run(&url, 12, 8, graph(), Path::new(&out)).expect("run");
    }
}

/// What the reference's job manager and a campaign leave of a `kill -9` once the same program has
/// run again, for `benches/README.md`. What a campaign promises for any request, `openeo::campaign`
/// of `tests/it` tests.
#[test]
#[ignore = "tests/run brings it: a back-end on openeo-fastapi and the Python client"]
fn what_becomes_of_the_jobs_when_their_manager_is_killed() {
    const JOBS: u64 = 12;
    for requests in [20, 26] {
        for is_ours in [false, true] {
            let back_end = RealBackEnd::start(&[("QUEUE_S", "0.1"), ("RUN_S", "0.3"), ("PARALLEL", "8")]);
            let out = folder(&format!("killed-{requests}"));
            let arguments = ["manage", &back_end.url(), &JOBS.to_string(), "8", &out.display().to_string()];
            let before = if is_ours {
                back_end.connect();
                back_end.requests()
            } else {
                0
            };
            let mut command = if is_ours {
                let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
                command.args(["child", "--exact", "--ignored"]).env(URL, back_end.url()).env(OUT, &out);
                command
            } else {
                let mut command = Command::new(home().join("client/bin/python"));
                command.arg(scripts().join("reference.py")).args(arguments);
                command
            };
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
            while back_end.requests() < before + requests {
                assert!(child.try_wait().expect("a child").is_none(), "it ended before request {requests}");
            }
            child.kill().expect("killed");
            child.wait().expect("ended");
            let told = if is_ours {
                user::run(&back_end.url(), JOBS, 8, graph(), &out).expect("run").to_string()
            } else {
                let told = reference(&arguments);
                let waits = if told["ended"] == true { "" } else { ", and waits for ever" };
                format!("{}{waits}", told["states"])
            };
            let jobs = back_end.connect().list_jobs().expect("a list");
            let status = |wanted: &JobStatus| jobs.iter().filter(|job| job.status() == *wanted).count();
            let (finished, created) = (status(&JobStatus::Finished), status(&JobStatus::Created));
            println!(
                "{}, killed at request {requests}: {} jobs for {JOBS} rows, {finished} finished, {created} never started; it says: {told}",
                if is_ours { "a campaign" } else { "the reference" },
                jobs.len(),
            );
            assert!(!is_ours || (jobs.len() as u64, finished as u64) == (JOBS, JOBS), "{told}");
            std::fs::remove_dir_all(out).expect("removed");
        }
    }
}
