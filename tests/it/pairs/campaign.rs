//! Campaigns of PAIRS queries: the ledger is that of openEO campaigns, and so are the promises.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fulmar::client::pairs::campaign::{CampaignError, CampaignOptions, CampaignReport, Row, RowState};
use fulmar::client::pairs::{BatchOptions, Client, Query};
use pairs_server::{Config, Faults, Passage, Server};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::openeo::campaign::open_campaign;

use super::{Folder, client, point, quick, server, square};

fn options(folder: &Path) -> CampaignOptions {
    let run = BatchOptions::new()
        .status_interval_floor(Duration::from_millis(10))
        .status_interval(Duration::from_millis(20))
        .runner_with(|runner| {
            runner.backoff(fulmar::backoff::Backoff::new(Duration::from_millis(5)).cap(Duration::from_millis(50)))
        });
    CampaignOptions::new().run_with(run).download_to(folder.join("out")).settle(Duration::from_millis(50))
}

/// Areas, and one point that is answered at once.
fn rows(areas: usize) -> impl Iterator<Item = Value> {
    (0..areas).map(|number| json!({"area": number})).chain([json!({"point": "p"})])
}

fn make(row: &Row) -> Result<Query, Box<dyn std::error::Error + Send + Sync>> {
    Ok(match row.get("point").as_str() {
        Some(name) => point(name),
        None => square(&format!("area {}", row.get("area"))),
    })
}

fn run(client: &Client, folder: &Path, areas: usize) -> CampaignReport {
    let campaign = open_campaign(folder);
    campaign.add_rows(rows(areas)).expect("added");
    campaign.run_queries(client, make, &options(folder)).expect("run")
}

/// Each area has one job, and every file is whole and called as the Python client calls it.
fn assert_done_once(server: &Server, report: &CampaignReport, folder: &Folder, areas: usize) {
    assert!(report.is_success(), "{report}: {:?}", report.failures().collect::<Vec<_>>());
    assert_eq!(report.rows.len(), areas + 1);
    let mut names = HashMap::new();
    for job in server.jobs() {
        *names.entry(job.name).or_insert(0) += 1;
    }
    assert!(names.len() == areas && names.values().all(|count| *count == 1), "{names:?}");
    let files = folder.files();
    for row in &report.rows {
        match (&row.job, row.params.get("point")) {
            (Some(id), None) => assert_eq!(files.get(&format!("out/{id}.zip")), server.archive(id).as_ref(), "{id}"),
            (None, Some(_)) => assert!(files.contains_key("out/p.json"), "{:?}", files.keys()),
            other => panic!("{other:?}: {row:?}"),
        }
        assert!(!row.files.is_empty() && row.files.iter().all(|file| file.is_file()), "{row:?}");
    }
    let left: Vec<&String> =
        files.keys().filter(|name| name.contains(".part") || name.contains(".unpacking")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_same_program_again_submits_nothing_and_writes_the_same_files() {
    let (server, folder) = (server(quick()), Folder::new());
    let client = client(&server);
    assert_done_once(&server, &run(&client, folder.path(), 3), &folder, 3);
    let submitted = server.count("submit");
    assert_done_once(&server, &run(&client, folder.path(), 3), &folder, 3);
    assert_eq!(server.count("submit"), submitted);
    assert_done_once(&server, &run(&client, folder.path(), 4), &folder, 4);
    assert_eq!(server.count("submit"), submitted + 1, "the fourth area is new");
}

#[test]
fn what_a_process_has_left_that_was_killed_while_it_unpacked_is_removed() {
    let (server, folder) = (server(quick()), Folder::new());
    let client = client(&server);
    let campaign = open_campaign(folder.path());
    campaign.add_rows([json!({"area": 0})]).expect("added");
    let left = ["named.unpacking-0", "named.unpacked~.unpacking-0", "named.replaced~", "other.unpacking-0"];
    for name in left {
        std::fs::create_dir_all(folder.path().join("out").join(name)).expect("a folder");
    }
    let named = |_: &Row| {
        let query = Query::builder().layer(92).square(30.0, -100.0, 30.5, -99.6).snapshot("2018-11-01");
        Ok(query.download_file_name("named").build()?)
    };
    let report = campaign.run_queries(&client, named, &options(folder.path())).expect("run");
    assert!(report.is_success() && folder.files().contains_key("out/named.zip"), "{report:?}");
    let is_there = left.map(|name| folder.path().join("out").join(name).exists());
    assert_eq!(is_there, [false, false, false, true], "another's stays");
}

const URL: &str = "FULMAR_QUERIES_URL";
const FOLDER: &str = "FULMAR_QUERIES_FOLDER";
const AREAS: usize = 2;

#[test]
#[ignore = "it is a process of another test, which starts it"]
fn child() {
    let (Ok(url), Ok(folder)) = (std::env::var(URL), std::env::var(FOLDER)) else { return };
    let client = Client::builder(&url).basic("me", "a password").build().expect("a client");
    println!("@ {}", run(&client, Path::new(&folder), AREAS));
}

fn start_child(server: &Server, folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args(["pairs::campaign::child", "--exact", "--ignored", "--nocapture"]);
    command.env(URL, server.url()).env(FOLDER, folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("this very program starts")
}

/// Runs the campaign in a process that is killed at request `at`, if it makes so many, and then to
/// its end; says how many requests there were until then.
fn killed_at(at: u64, passage: Passage) -> u64 {
    let (server, folder) = (server(quick()), Folder::new());
    let (start, started) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let (started, ended) = (Mutex::new(started), Mutex::new(ended));
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    server.guard(move |number| {
        count.fetch_max(number, Ordering::SeqCst);
        if number != at {
            return Passage::Free;
        }
        let id = started.lock().expect("no panic").recv().expect("a process");
        kill_process(id, Signal::KILL).expect("killed");
        // The other half is dropped when the process has ended.
        let _ = ended.lock().expect("no panic").recv();
        passage
    });
    let mut child = start_child(&server, folder.path());
    start.send(Pid::from_child(&child)).expect("the server is there");
    let status = child.wait().expect("ended");
    drop(end);
    let requests = seen.load(Ordering::SeqCst);
    // The number of requests differs from run to run, so that the last ones may not come.
    assert_eq!(status.success(), requests < at, "killed if and only if it came so far: {status}");
    // What the process has sent is done before the next one looks, or never.
    server.drain().expect("a connection");
    server.guard(|_| Passage::Free);
    assert_done_once(&server, &run(&client(&server), folder.path(), AREAS), &folder, AREAS);
    requests
}

#[test]
fn queries_of_a_campaign_that_is_killed_at_any_request_are_submitted_once() {
    let requests = killed_at(u64::MAX, Passage::Free);
    assert!(requests >= 7, "{requests}");
    for at in 1..requests {
        for passage in [Passage::Done, Passage::Lost] {
            killed_at(at, passage);
        }
    }
}

#[test]
fn a_query_whose_answer_is_lost_is_found_by_its_name() {
    let faults = Faults { lost_reply: 1.0, ..Faults::default() };
    let (server, folder) = (server(Config { faults, ..quick() }), Folder::new());
    let report = run(&client(&server), folder.path(), 3);
    assert_done_once(&server, &report, &folder, 3);
    assert!(server.jobs().iter().all(|job| job.reply_was_lost));
}

#[test]
fn what_failed_on_the_server_is_submitted_again_by_rule() {
    let failing = server(Config { faults: Faults { codes: vec![(40, 1.0)], ..Faults::default() }, ..quick() });
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows([json!({"area": 1})]).expect("added");
    let ruled = |word: &'static str| options(folder.path()).attempts(3).retry_if(move |e| e.to_string().contains(word));
    let report = campaign.run_queries(&client(&failing), make, &ruled("simulated")).expect("run");
    assert_eq!((report.count(RowState::Failed), failing.jobs().len()), (1, 3), "{report}");
    let row = &report.rows[0];
    assert!(row.error.as_ref().is_some_and(|error| error.contains("Failed")) && row.job.is_some(), "{row:?}");
    assert_eq!(campaign.retry_failed().expect("one"), 1);
    let report = campaign.run_queries(&client(&failing), make, &ruled("nothing like it")).expect("run");
    assert_eq!((report.rows[0].attempt, failing.jobs().len()), (4, 4), "{report}");

    // Two that a person has deleted are not.
    let deleted = server(Config { faults: Faults { codes: vec![(31, 1.0)], ..Faults::default() }, ..quick() });
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows([json!({"area": 1}), json!({"area": 2})]).expect("added");
    let report = campaign.run_queries(&client(&deleted), make, &options(folder.path()).attempts(3)).expect("run");
    assert_eq!((report.count(RowState::Failed), deleted.jobs().len()), (2, 2), "{report}");
}

#[test]
fn a_limit_needs_an_estimate_and_keeps_it() {
    let (server, folder) = (server(quick()), Folder::new());
    let client = client(&server);
    let campaign = open_campaign(folder.path());
    campaign.add_rows((0..4).map(|number| json!({"area": number}))).expect("added");
    let limited = || options(folder.path()).spend_at_most(5.0);
    let report = campaign.run_queries(&client, make, &limited()).expect("run");
    assert_eq!((report.count(RowState::Done), server.jobs().len()), (1, 1), "{report:?}");
    let report = campaign.run_queries(&client, make, &limited().estimate(2.0)).expect("run");
    assert_eq!((report.count(RowState::Done), report.over_budget, report.spent), (2, 2, 4.0), "{report:?}");
    let error = campaign.run_queries(&client, make, &limited().cancel_over_limit(true)).expect_err("not here");
    assert!(matches!(&error, CampaignError::Invalid(text) if text.contains("cancel_over_limit")), "{error}");
}

#[test]
fn files_of_one_name_and_folders_by_a_pattern_stay_apart() {
    let (server, folder) = (server(quick()), Folder::new());
    let client = client(&server);
    let campaign = open_campaign(folder.path());
    campaign.add_rows((0..2).map(|number| json!({"n": number}))).expect("added");
    let same = |_: &Row| Ok(point("same"));
    let report = campaign.run_queries(&client, same, &options(folder.path())).expect("run");
    assert!(report.is_success(), "{report:?}");
    let files = folder.files();
    assert!(["out/same.json", "out/same-2.json"].iter().all(|name| files.contains_key(*name)), "{:?}", files.keys());

    let other = Folder::new();
    let campaign = open_campaign(other.path());
    campaign.add_rows((0..2).map(|number| json!({"n": number}))).expect("added");
    let report = campaign.run_queries(&client, same, &options(other.path()).folders("n{n}")).expect("run");
    assert!(report.is_success(), "{report:?}");
    let files = other.files();
    assert!(
        ["out/n0/same.json", "out/n1/same.json"].iter().all(|name| files.contains_key(*name)),
        "{:?}",
        files.keys()
    );
    campaign.add_rows([json!({"n": 2})]).expect("added");
    let report = campaign.run_queries(&client, same, &options(other.path()).folders("{id}")).expect("run");
    let failed = report.failures().next().expect("one");
    assert!(failed.error.as_ref().is_some_and(|error| error.contains("{id}")), "{failed:?}");
}
