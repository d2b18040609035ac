//! Two promises at scale, while everything goes wrong that can: no job twice, and what can be had
//! is had.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fulmar::backoff::Backoff;
use fulmar::batch::BatchRunner;
use fulmar::client::http::{HttpClient, RateLimit, RetryPolicy, Timeouts};
use fulmar::client::openeo::{BackEnd, Connection, JobStatus, OpenEoError, RunOptions, run_jobs};
use openeo_server::{Chaos, Config, JobAccount, Server};
use serde_json::{Value, json};

use super::{Folder, sum};

const JOBS: usize = 1_000;
const SEED: u64 = 20_261_126;

/// A back-end whose clocks are off by hours, each call to which is struck with probability 0.1, and
/// one list in ten of which lacks half of the jobs, as it says.
fn back_end(seed: u64, clock: i64, list_clock: i64) -> (Server, Connection) {
    let chaos = Some(Chaos { seed, share: 0.1, delay: Duration::from_millis(60) });
    let (clock, list_clock) = (clock * 3_600, list_clock * 3_600);
    let server = Server::start(Config { clock, list_clock, chaos, slots: 64, ..Config::quick() }).expect("a server");
    let lists = AtomicU64::new(seed);
    server.rewrite("list", move |_, list| {
        if lists.fetch_add(1, Ordering::Relaxed) % 10 == 0 {
            let jobs = list["jobs"].as_array().expect("jobs").iter().step_by(2).cloned().collect::<Value>();
            list["jobs"] = jobs;
            list["federation:missing"] = json!(["elsewhere"]);
        }
    });
    // Shorter than the longest delays.
    let timeouts = Timeouts { first_byte: Some(Duration::from_millis(400)), ..Timeouts::default() };
    let retry = RetryPolicy::attempts(5).backoff(Backoff::new(Duration::from_millis(5)));
    let client = HttpClient::builder().timeouts(timeouts).retry(retry).rate_limit(RateLimit::none());
    let connection = Connection::connect_with(&server.url(), client).expect("connected");
    connection.authenticate_basic("u", "u123").expect("logged in");
    (server, connection)
}

#[test]
fn a_thousand_jobs_on_two_back_ends_in_trouble_are_all_accounted_for() {
    let seed = std::env::var("FULMAR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    println!("FULMAR_SEED={seed}");
    let (one, first) = back_end(seed, 3, 0);
    let (two, second) = back_end(seed.wrapping_add(1), -5, 2);
    let title = |job: usize| if job % 10 == 3 { format!("job {job} to fail") } else { format!("job {job}") };
    let (folder, told) = (Folder::new(), Arc::new(Mutex::new(HashMap::<String, usize>::new())));
    let heard = Arc::clone(&told);
    let backoff = Backoff::new(Duration::from_millis(10)).cap(Duration::from_millis(200)).jitter(0.5);
    let poll = Duration::from_millis(50);
    let options = RunOptions::new()
        .poll(poll, poll * 4)
        .soft_errors(30, poll)
        .download_to(folder.path())
        .run_on(BatchRunner::builder().attempts(20).max_concurrent(32).backoff(backoff))
        .on_error(move |job, _| {
            let name = format!("{} {}", job.connection().root_url(), job.id());
            *heard.lock().expect("no panic").entry(name).or_default() += 1;
        });
    let back_ends = [
        BackEnd::new(&first).name("one").parallel_jobs(60).queue_limit(60),
        BackEnd::new(&second).name("two").parallel_jobs(60).queue_limit(60),
    ];
    let report = run_jobs(back_ends, (0..JOBS).map(|job| sum(&title(job))), &options).expect("run");

    let mut made: BTreeMap<String, Vec<JobAccount>> = BTreeMap::new();
    for server in [&one, &two] {
        for account in server.jobs() {
            made.entry(account.title.clone()).or_default().push(account);
        }
    }
    let (mut doubts, mut twice, mut failed, mut whole) = (0, 0, 0, 0);
    for job in &report.jobs {
        let about = || format!("job {}: {:?} {:?}; FULMAR_SEED={seed}", job.index, job.outcome, job.notes);
        let made = made.remove(&title(job.index)).unwrap_or_default();
        let is_said = job.notes.iter().any(|note| note.contains("created again"));
        assert!(made.iter().all(|account| account.starts <= 1), "started twice: {made:?}; {}", about());
        assert!(made.iter().filter(|account| account.starts > 0).count() <= 1, "run twice; {}", about());
        match &job.outcome {
            Ok(run) => {
                let server = if run.back_end == "one" { &one } else { &two };
                assert_eq!(run.files.len(), 2, "{}", about());
                for (file, key) in run.files.iter().zip(["openEO.tif", "out.csv"]) {
                    assert!(std::fs::read(file).ok() == server.asset(run.job.id(), key), "{key}; {}", about());
                }
                whole += 1;
            }
            Err(failure) => match failure.error::<OpenEoError>() {
                Some(OpenEoError::JobFailed { status: JobStatus::Error, .. }) if job.index % 10 == 3 => failed += 1,
                Some(OpenEoError::LostReply { .. }) => doubts += 1,
                _ => panic!("{}", about()),
            },
        }
        let is_doubt =
            matches!(&job.outcome, Err(failure) if matches!(failure.error(), Some(OpenEoError::LostReply { .. })));
        assert!(made.len() <= 1 || is_said || is_doubt, "{} without a word; {}", made.len(), about());
        twice += usize::from(made.len() > 1);
    }
    assert!(made.is_empty(), "nobody asked for {made:?}; FULMAR_SEED={seed}");
    let told = told.lock().expect("no panic");
    assert!(told.values().all(|times| *times == 1), "{told:?}; FULMAR_SEED={seed}");
    assert_eq!(told.len(), failed, "on_error is called once for each that failed; FULMAR_SEED={seed}");
    let struck = one.count("by chance") + two.count("by chance");
    let noted = |text: &str| report.jobs.iter().filter(|job| job.notes.iter().any(|note| note.contains(text))).count();
    let (found, again) = (noted("it was found in the job list"), noted("created again"));
    println!("{whole} whole, {failed} failed, {doubts} in doubt, {twice} twice and said so; {struck} calls struck");
    println!("lost replies to creations: {found} found in the list, {again} created again");
    assert!(found > 0 && again > 0, "nothing was lost: {found} and {again}; FULMAR_SEED={seed}");
    assert_eq!(twice, 0, "no reply here is lost in a way that no list can tell; FULMAR_SEED={seed}");
    assert!(doubts <= JOBS / 50, "{doubts} jobs end in doubt, more than one in fifty; FULMAR_SEED={seed}");
}
