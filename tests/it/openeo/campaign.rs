//! Campaigns: what is done once stays done, whatever process is killed when.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use fulmar::client::openeo::campaign::{Campaign, CampaignError, CampaignOptions, CampaignReport, RowState};
use fulmar::client::openeo::{BackEnd, Connection, NewJob, ProcessGraph, RunOptions};
use openeo_server::{Config, Fault, Passage, Server};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Folder, connect, names_in, server, sum};

/// What a finished job costs on these servers.
const COST: f64 = 4.0;

fn options(folder: &Path) -> CampaignOptions {
    let poll = Duration::from_millis(20);
    let run = RunOptions::new().poll(poll, poll).soft_errors(20, Duration::from_millis(5));
    CampaignOptions::new().run_with(run).download_to(folder.join("out")).settle(Duration::from_millis(50))
}

fn open(folder: &Path) -> Campaign {
    Campaign::open(folder.join("c.db")).expect("a ledger")
}

fn rows(count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(|number| json!({"x": number, "y": 5}))
}

fn run(campaign: &Campaign, connection: &Connection, options: &CampaignOptions) -> CampaignReport {
    let back_ends = [BackEnd::new(connection).name("one").parallel_jobs(2)];
    let make = |row: &fulmar::client::openeo::campaign::Row| {
        Ok(NewJob::new(ProcessGraph::start("add", row.params.clone())).title("sum"))
    };
    campaign.run_jobs(back_ends, make, options).expect("run")
}

/// Each row has one job that finished, all others are gone, and every file is whole.
fn assert_done_once(server: &Server, report: &CampaignReport, folder: &Path, rows: usize) {
    assert!(report.is_success(), "{report}: {:?}", report.failures().collect::<Vec<_>>());
    assert_eq!((report.rows.len(), report.spent), (rows, COST * rows as f64), "{report}");
    let mut titles = HashMap::new();
    for job in server.jobs() {
        assert_eq!((job.status, job.starts), ("finished", 1), "{job:?}");
        *titles.entry(job.title).or_insert(0) += 1;
    }
    assert!(titles.len() == rows && titles.values().all(|count| *count == 1), "{titles:?}");
    for row in &report.rows {
        let id = row.job.as_deref().expect("a job");
        assert_eq!(row.files.len(), 2, "{row:?}");
        for file in &row.files {
            let key = file.file_name().and_then(|name| name.to_str()).expect("a name");
            assert_eq!(std::fs::read(file).ok(), server.asset(id, key), "{}", file.display());
        }
        let own = folder.join("out").join(row.folder.as_ref().expect("a folder"));
        assert!(!names_in(&own).iter().any(|name| name.ends_with(".part")), "{:?}", names_in(&own));
    }
}

#[test]
fn the_same_program_again_has_nothing_left_to_do() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open(folder.path());
    assert_eq!(campaign.add_rows(rows(5)).expect("added"), 5);
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_done_once(&server, &report, folder.path(), 5);
    drop(campaign);

    let again = open(folder.path());
    assert_eq!(again.add_rows(rows(6)).expect("added"), 1, "the sixth is new");
    let made = server.count("create");
    let report = run(&again, &connection, &options(folder.path()));
    assert_done_once(&server, &report, folder.path(), 6);
    assert_eq!(server.count("create"), made + 1);
    let mut csv = Vec::new();
    report.write_csv(&mut csv).expect("written");
    let text = String::from_utf8(csv).expect("text");
    assert!(text.lines().count() == 7 && text.contains("done,1,one,"), "{text}");
    let left: Vec<String> = names_in(folder.path()).into_iter().filter(|name| name.ends_with(".lock")).collect();
    assert_eq!(left.len(), 1, "the open one's own: {left:?}");
}

const URL: &str = "FULMAR_CAMPAIGN_URL";
const FOLDER: &str = "FULMAR_CAMPAIGN_FOLDER";

#[test]
#[ignore = "it is a process of other tests, which start it"]
fn child() {
    let (Ok(url), Ok(folder)) = (std::env::var(URL), std::env::var(FOLDER)) else { return };
    let connection = Connection::connect_with(&url, super::impatient()).expect("connected");
    connection.authenticate_basic("u", "u123").expect("logged in");
    let folder = Path::new(&folder);
    let campaign = open(folder);
    campaign.add_rows(rows(ROWS)).expect("added");
    println!("@ {}", run(&campaign, &connection, &options(folder)));
}

const ROWS: usize = 3;

fn start_child(server: &Server, folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args(["openeo::campaign::child", "--exact", "--ignored", "--nocapture"]);
    command.env(URL, server.url()).env(FOLDER, folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("this very program starts")
}

/// Runs the campaign in a process that is killed at request `at`, if it makes so many, and then to
/// its end; says how many requests there were until then.
fn killed_at(at: u64, passage: Passage) -> u64 {
    let server = Server::start(Config::quick()).expect("a server");
    let folder = Folder::new();
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
    assert_eq!(status.success(), at == u64::MAX, "killed if and only if that was asked for: {status}");
    drop(end);
    let requests = seen.load(Ordering::SeqCst);
    server.guard(|_| Passage::Free);
    let connection = connect(&server);
    let campaign = open(folder.path());
    campaign.add_rows(rows(ROWS)).expect("added");
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_done_once(&server, &report, folder.path(), ROWS);
    requests
}

#[test]
fn a_campaign_that_is_killed_at_any_request_makes_nothing_twice_and_loses_nothing() {
    let requests = killed_at(u64::MAX, Passage::Free);
    assert!(requests > 20, "{requests}");
    // How many there are varies a little with time: the last ones may not come.
    for at in 1..=requests - requests / 5 {
        for passage in [Passage::Done, Passage::Lost] {
            killed_at(at, passage);
        }
    }
}

#[test]
fn nothing_is_spent_beyond_the_limit() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open(folder.path());
    campaign.add_rows(rows(8)).expect("added");
    let report = run(&campaign, &connection, &options(folder.path()).spend_at_most(18.0));
    assert_eq!((report.spent, report.count(RowState::Done), report.over_budget), (16.0, 4, 4), "{report}");
    assert_eq!((report.left, report.reserved), (Some(2.0), 0.0));
    assert_eq!(server.jobs().len(), 4, "not even made");
    let report = run(&campaign, &connection, &options(folder.path()).spend_at_most(18.0));
    assert_eq!((report.spent, server.jobs().len()), (16.0, 4), "{report}");
    let report = run(&campaign, &connection, &options(folder.path()).spend_at_most(32.0).estimate(1.0));
    assert_done_once(&server, &report, folder.path(), 8);
}

#[test]
fn a_job_that_was_refused_for_now_keeps_its_share_of_the_limit() {
    let (server, connection) = server(Config { run: Duration::from_millis(300), ..Config::quick() });
    server.plan("create", Fault::TooManyJobs, 6);
    let folder = Folder::new();
    let campaign = open(folder.path());
    campaign.add_rows(rows(8)).expect("added");
    let limited = options(folder.path()).spend_at_most(18.0).estimate(COST);
    let back_ends = [BackEnd::new(&connection).name("one").parallel_jobs(8)];
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let report = campaign.run_jobs(back_ends, make, &limited).expect("run");
    assert_eq!((report.count(RowState::Done), report.over_budget, server.jobs().len()), (4, 4, 4), "{report}");
}

#[test]
fn a_limit_that_can_not_be_kept_is_told() {
    let (server, connection) = server(Config::quick());
    server.rewrite("describe", |_, details| {
        details.as_object_mut().expect("an object").remove("costs");
    });
    let folder = Folder::new();
    let campaign = open(folder.path());
    campaign.add_rows(rows(4)).expect("added");
    let report = run(&campaign, &connection, &options(folder.path()).spend_at_most(18.0));
    assert_eq!((report.count(RowState::Done), server.jobs().len()), (1, 1), "{report}");
    let told = report.rows.iter().filter_map(|row| row.error.as_deref()).filter(|error| error.contains("estimate"));
    assert_eq!(told.count(), 3, "{report:?}");
    let report = run(&campaign, &connection, &options(folder.path()).spend_at_most(18.0).estimate(6.0));
    assert_eq!((report.count(RowState::Done), report.spent), (4, 18.0), "{report}");
}

#[test]
fn two_processes_share_a_campaign() {
    let (server, connection) = server(Config { run: Duration::from_millis(60), ..Config::quick() });
    let folder = Folder::new();
    let campaigns = [open(folder.path()), open(folder.path())];
    campaigns[0].add_rows(rows(12)).expect("added");
    let reports = thread::scope(|scope| {
        let runs = campaigns.each_ref().map(|campaign| {
            scope.spawn(|| run(campaign, &connection, &options(folder.path()).spend_at_most(COST * 12.0)))
        });
        runs.map(|run| run.join().expect("no panic"))
    });
    let elsewhere = reports[0].elsewhere + reports[1].elsewhere;
    assert_eq!(elsewhere + reports[0].over_budget + reports[1].over_budget, 12, "each row was one's alone");
    let report = run(&campaigns[0], &connection, &options(folder.path()));
    assert_done_once(&server, &report, folder.path(), 12);
}

#[test]
fn a_failure_on_the_back_end_is_tried_again_by_rule_and_paid_for() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open(folder.path());
    campaign.add_json_lines("{\"n\": 1}\n\n{\"n\": 2}\n".as_bytes()).expect("added");
    let back_ends = || [BackEnd::new(&connection).name("one")];
    let make = |row: &fulmar::client::openeo::campaign::Row| {
        // The first row needs more memory than it is given at first.
        let is_short = row.get("n") == &json!(1) && row.attempt == 1;
        assert_eq!(row.attempt > 1, row.last_error.as_ref().is_some_and(|error| error.contains("corrupt data")));
        Ok(sum(if is_short { "fail" } else { "good" }).job_options(json!({"memory": row.attempt})))
    };
    let never = options(folder.path()).attempts(3).retry_if(|error| error.to_string().contains("out of memory"));
    let report = campaign.run_jobs(back_ends(), make, &never).expect("run");
    assert_eq!((report.count(RowState::Done), report.count(RowState::Failed)), (1, 1), "{report}");
    let failed = report.failures().next().expect("one");
    assert!(failed.error.as_ref().is_some_and(|error| error.contains("corrupt data")), "{failed:?}");
    assert_eq!((failed.back_end.as_deref(), failed.attempt), (Some("one"), 1));

    assert_eq!(campaign.retry_failed().expect("one"), 1);
    let report = campaign.run_jobs(back_ends(), make, &options(folder.path())).expect("run");
    assert!(report.is_success(), "{report}");
    assert_eq!((report.rows[0].attempt, server.jobs().len()), (2, 3));

    let other = Folder::new();
    let campaign = open(other.path());
    campaign.add_rows([json!({"n": 1})]).expect("added");
    let report = campaign.run_jobs(back_ends(), make, &options(other.path()).attempts(2)).expect("run");
    assert!(report.is_success() && report.rows[0].attempt == 2, "{report}");
}

#[test]
fn what_is_left_alone_goes_on_and_is_adopted() {
    let (server, connection) = server(Config { run: Duration::from_secs(1), ..Config::quick() });
    let folder = Folder::new();
    let campaign = open(folder.path());
    campaign.add_rows(rows(4)).expect("added");
    let (told, running) = mpsc::channel();
    let runner = fulmar::batch::BatchRunner::builder().on_event(move |event| {
        let _ = told.send(event.index);
    });
    let poll = Duration::from_millis(20);
    let leaves = options(folder.path()).run_with(RunOptions::new().poll(poll, poll).run_on(runner));
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let back_ends = [BackEnd::new(&connection).name("one").parallel_jobs(2)];
    let at_work = campaign.start_jobs(back_ends, make, &leaves).expect("started");
    while server.count("start") < 2 {
        running.recv_timeout(crate::support::HANG).expect("an event");
    }
    at_work.detach();
    let report = at_work.wait().expect("ended");
    assert_eq!(report.count(RowState::Done), 0, "{report}");
    assert_eq!((server.count("stop"), server.count("delete")), (0, 0), "they are left");
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_done_once(&server, &report, folder.path(), 4);
}

#[test]
fn a_lost_reply_is_found_by_its_title() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::LostReply, 2);
    let folder = Folder::new();
    let campaign = open(folder.path());
    campaign.add_rows(rows(3)).expect("added");
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_done_once(&server, &report, folder.path(), 3);
}

#[test]
fn a_job_that_was_deleted_there_has_failed() {
    let (server, connection) = server(Config { run: Duration::from_secs(3600), ..Config::quick() });
    let folder = Folder::new();
    let campaign = open(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let back_ends = [BackEnd::new(&connection).name("one")];
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let at_work = campaign.start_jobs(back_ends, make, &options(folder.path())).expect("started");
    let waiting = thread::spawn(move || at_work.wait());
    while server.count("start") == 0 {
        thread::yield_now();
    }
    for job in server.jobs() {
        connection.job(&job.id).delete().expect("deleted");
    }
    let report = waiting.join().expect("no panic").expect("ended");
    assert_eq!(report.count(RowState::Failed), 1, "{report:?}");
    assert_eq!(server.count("create"), 1, "one attempt");
}

#[test]
fn a_back_end_that_is_not_named_any_more_is_asked_for() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    server.plan("asset", Fault::Status(404), 9);
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_eq!(report.count(RowState::Finished), 1, "{report:?}");
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let other = [BackEnd::new(&connection).name("two")];
    let report = campaign.run_jobs(other, make, &options(folder.path())).expect("run");
    assert!(report.rows[0].error.as_ref().is_some_and(|error| error.contains("\"one\"")), "{report:?}");
    assert_eq!(server.jobs().len(), 1);
}

#[test]
fn folders_are_named_by_a_pattern() {
    let (_server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open(folder.path());
    campaign.add_rows(["a/b", "a b"].map(|tile| json!({"tile": tile}))).expect("added");
    let back_ends = [BackEnd::new(&connection).name("one")];
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let report = campaign.run_jobs(back_ends, make, &options(folder.path()).folders("{back_end}/{tile}")).expect("run");
    assert!(report.is_success(), "{report}");
    let mut names = names_in(&folder.path().join("out/one"));
    names.sort();
    assert_eq!(names, ["a_b", "a_b-2"]);
}

#[test]
fn what_makes_no_sense_is_told_at_once() {
    let (_server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open(folder.path());
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let twice = [BackEnd::new(&connection).name("one"), BackEnd::new(&connection).name("one")];
    let error = campaign.run_jobs(twice, make, &options(folder.path())).expect_err("one name");
    assert!(matches!(&error, CampaignError::Invalid(text) if text.contains("\"one\"")), "{error}");
    let one = [BackEnd::new(&connection).name("one")];
    let error = campaign.run_jobs(one, make, &options(folder.path()).spend_at_most(f64::NAN)).expect_err("no number");
    assert!(matches!(&error, CampaignError::Invalid(text) if text.contains("spend_at_most")), "{error}");
    let error = campaign.add_json_lines("{}\n{".as_bytes()).expect_err("no JSON");
    assert!(matches!(&error, CampaignError::Invalid(text) if text.contains("line 2")), "{error}");
    assert!(campaign.report().expect("read").rows.is_empty(), "nothing was added");
    let error = Campaign::open(folder.path().join("none/c.db")).expect_err("no folder");
    assert!(matches!(&error, CampaignError::Ledger { .. }), "{error}");
}
