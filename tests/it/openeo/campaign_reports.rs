//! What users of other job managers and workflow engines reported, as small campaigns. Each names
//! the report.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fulmar::BoxError;
use fulmar::client::openeo::campaign::{CampaignOptions, CampaignReport, Row, RowState};
use fulmar::client::openeo::{BackEnd, Connection, NewJob, RunOptions};
use openeo_server::{Config, Fault, Passage, Server};
use serde_json::{Value, json};

use super::campaign::open_campaign;
use super::{Folder, names_in, server, sum};

fn options(folder: &Path) -> CampaignOptions {
    let poll = Duration::from_millis(20);
    let run = RunOptions::new().poll(poll, poll).soft_errors(3, Duration::from_millis(5));
    CampaignOptions::new().run_with(run).download_to(folder.join("out")).settle(Duration::from_millis(50))
}

fn rows(count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(|number| json!({"number": number}))
}

fn titled(row: &Row) -> Result<NewJob, BoxError> {
    Ok(sum(&format!("row {}", row.get("number"))))
}

/// Runs `count` rows, with the program that a user would start again.
fn run(connection: &Connection, folder: &Path, count: usize) -> CampaignReport {
    let campaign = open_campaign(folder);
    campaign.add_rows(rows(count)).expect("added");
    let back_ends = [BackEnd::new(connection).name("one").parallel_jobs(4)];
    campaign.run_jobs(back_ends, titled, &options(folder)).expect("run")
}

/// Leaves the campaign as a process does that ends: once `count` jobs were started.
fn leave(server: &Server, connection: &Connection, folder: &Path, count: usize, cancels: bool) {
    let campaign = open_campaign(folder);
    campaign.add_rows(rows(count)).expect("added");
    let back_ends = [BackEnd::new(connection).name("one").parallel_jobs(4)];
    let at_work = campaign.start_jobs(back_ends, titled, &options(folder)).expect("started");
    crate::support::eventually("jobs were started", || started(server) >= count);
    if cancels {
        at_work.cancel()
    } else {
        at_work.detach()
    }
    at_work.wait().expect("ended");
}

/// How many jobs the back-end has started: a request to start one may have come, and not be done.
fn started(server: &Server) -> usize {
    server.jobs().iter().filter(|job| job.starts > 0).count()
}

fn statuses(server: &Server) -> Vec<&'static str> {
    let mut statuses: Vec<_> = server.jobs().iter().map(|job| job.status).collect();
    statuses.sort_unstable();
    statuses
}

/// Open-EO/openeo-python-client#632: an error of one row's `start_job` crashed the job manager, and
/// all rows with it.
#[test]
fn a_function_that_fails_for_one_row_is_that_rows_failure_alone() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(5)).expect("added");
    let make = |row: &Row| match row.get("number").as_u64() {
        Some(1) => Err("ApiResponseError".into()),
        Some(2) => panic!("a bug for this row"),
        _ => titled(row),
    };
    let back_ends = || [BackEnd::new(&connection).name("one").parallel_jobs(4)];
    let report = campaign.run_jobs(back_ends(), make, &options(folder.path())).expect("run");
    assert_eq!((report.count(RowState::Done), report.count(RowState::Failed)), (3, 1), "{report:?}");
    let told: Vec<&str> = report.failures().filter_map(|row| row.error.as_deref()).collect();
    assert!(told.iter().any(|error| error.contains("ApiResponseError")), "{told:?}");
    assert!(told.iter().any(|error| error.contains("a bug for this row")), "{told:?}");
    // The bug is mended, and the row that it hit is done.
    let report = campaign.run_jobs(back_ends(), titled, &options(folder.path())).expect("run");
    assert_eq!((report.count(RowState::Done), server.jobs().len()), (4, 4), "{report:?}");
}

/// Open-EO/openeo-python-client#432: with a job that had failed, the job manager never ended.
#[test]
fn a_run_ends_though_jobs_fail() {
    let (_server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(3)).expect("added");
    let make = |row: &Row| Ok(sum(if row.get("number") == &json!(0) { "fail" } else { "good" }));
    let back_ends = [BackEnd::new(&connection).name("one")];
    let report = campaign.run_jobs(back_ends, make, &options(folder.path())).expect("it ends");
    assert_eq!((report.count(RowState::Done), report.count(RowState::Failed)), (2, 1), "{report}");
}

/// Open-EO/openeo-python-client#744: who exports results to a workspace wants none downloaded.
#[test]
fn without_a_folder_nothing_is_downloaded() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(2)).expect("added");
    let poll = Duration::from_millis(20);
    let bare = CampaignOptions::new().run_with(RunOptions::new().poll(poll, poll));
    let report = campaign.run_jobs([BackEnd::new(&connection).name("one")], titled, &bare).expect("run");
    assert!(report.is_success() && report.rows.iter().all(|row| row.files.is_empty()), "{report:?}");
    assert_eq!(server.count("asset"), 0);
}

/// Open-EO/openeo-python-client#440, Open-EO/openeo-python-driver#482: a start that a gateway
/// answers with 502 may have had its effect, and a job that is started twice may fail.
#[test]
fn a_start_that_a_gateway_answers_is_not_sent_again_unless_it_had_no_effect() {
    let (server, connection) = server(Config::quick());
    server.plan("start", Fault::DoneBut(502), 1);
    server.plan("start", Fault::Status(502), 1);
    let folder = Folder::new();
    let report = run(&connection, folder.path(), 3);
    assert!(report.is_success(), "{report}: {:?}", report.failures().collect::<Vec<_>>());
    assert!(server.jobs().iter().all(|job| job.starts == 1), "{:?}", server.jobs());
    assert_eq!(server.jobs().len(), 3);
}

/// Open-EO/openeo-community-examples#45: rows that were added to the table of a job database were
/// ignored.
#[test]
fn rows_that_come_later_are_done_and_the_others_left_alone() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    assert!(run(&connection, folder.path(), 2).is_success());
    assert!(run(&connection, folder.path(), 5).is_success());
    assert_eq!((server.jobs().len(), server.count("create")), (5, 5));
}

/// nextflow-io/nextflow#1448: tasks that finished while the head was dead were submitted again.
#[test]
fn jobs_that_finished_while_no_process_looked_are_fetched_and_not_made_again() {
    let (server, connection) = server(Config { run: Duration::from_millis(300), ..Config::quick() });
    let folder = Folder::new();
    leave(&server, &connection, folder.path(), 3, false);
    crate::support::eventually("they finish", || statuses(&server).iter().all(|status| *status == "finished"));
    let report = run(&connection, folder.path(), 3);
    assert!(report.is_success() && report.rows.iter().all(|row| row.files.len() == 2), "{report:?}");
    assert_eq!(server.count("create"), 3);
}

/// nextflow-io/nextflow#1990: a job that was aborted counted as done in the next run.
/// snakemake/snakemake#22: jobs ran on after the program had been told to stop.
#[test]
fn jobs_of_a_cancelled_run_are_stopped_and_made_anew_by_the_next() {
    let (server, connection) = server(Config { run: Duration::from_secs(3600), ..Config::quick() });
    let folder = Folder::new();
    leave(&server, &connection, folder.path(), 2, true);
    assert!(statuses(&server).iter().all(|status| !matches!(*status, "queued" | "running")), "{:?}", server.jobs());
    let stopped = server.jobs().len();
    let campaign = open_campaign(folder.path());
    assert_eq!(campaign.report().expect("read").count(RowState::Done), 0);
    let back_ends = [BackEnd::new(&connection).name("one").parallel_jobs(4)];
    let at_work = campaign.start_jobs(back_ends, titled, &options(folder.path())).expect("started");
    crate::support::eventually("others are at work", || started(&server) >= 4);
    assert_eq!(server.jobs().len(), stopped + 2);
    at_work.cancel();
    at_work.wait().expect("ended");
}

/// nextflow-io/nextflow#309: the lock file of a killed run kept the next one from its cache.
#[test]
fn the_lock_file_of_a_killed_process_is_in_no_ones_way() {
    if super::campaign::is_on_postgres() {
        return; // There the lock is the session's.
    }
    let (_server, connection) = server(Config::quick());
    let folder = Folder::new();
    assert!(run(&connection, folder.path(), 1).is_success());
    // As a process leaves it that was killed while a row was its own.
    std::fs::write(folder.path().join("c.db.0123456789abcdef.lock"), "").expect("written");
    let ledger = rusqlite::Connection::open(folder.path().join("c.db")).expect("the ledger");
    let sql = "INSERT INTO campaign_row (key, params, owner) VALUES ('k', '{\"number\":7}', '0123456789abcdef')";
    ledger.execute(sql, []).expect("a row");
    drop(ledger);
    let report = run(&connection, folder.path(), 1);
    assert!(report.is_success() && report.rows.len() == 2, "{report:?}");
    assert!(!names_in(folder.path()).iter().any(|name| name.ends_with("abcdef.lock")));
}

/// snakemake/snakemake#877: a run from the beginning "resumed" jobs of another run that had the
/// same ids.
#[test]
fn a_campaign_adopts_no_jobs_of_another_with_the_same_rows_and_titles() {
    let (server, connection) = server(Config::quick());
    let folders = [Folder::new(), Folder::new()];
    for folder in &folders {
        server.plan("create", Fault::LostReply, 2);
        assert!(run(&connection, folder.path(), 3).is_success());
    }
    assert_eq!((server.jobs().len(), statuses(&server)), (6, vec!["finished"; 6]));
}

/// BSC-ES/autosubmit#2027: while the command that checks a job failed, the job was submitted a
/// second time.
#[test]
fn a_job_that_can_not_be_asked_about_is_left_and_not_made_again() {
    let (server, connection) = server(Config { run: Duration::from_millis(200), ..Config::quick() });
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let back_ends = [BackEnd::new(&connection).name("one")];
    let at_work = campaign.start_jobs(back_ends, titled, &options(folder.path()).attempts(3)).expect("started");
    crate::support::eventually("it is at work", || started(&server) == 1);
    server.guard(|_| Passage::Lost);
    let report = at_work.wait().expect("ended");
    assert_eq!((report.count(RowState::Started), server.jobs().len()), (1, 1), "{report:?}");
    drop(campaign);
    server.guard(|_| Passage::Free);
    let report = run(&connection, folder.path(), 1);
    assert!(report.is_success(), "{report:?}");
    assert_eq!((server.jobs().len(), server.jobs()[0].starts), (1, 1), "{report:?}");
}

/// Open-EO/openeo-python-client#510, Open-EO/openeo-geopyspark-driver#590: results that can't be
/// had yet, and a download that left an empty file.
#[test]
fn results_that_can_not_be_had_yet_are_asked_for_again_and_no_file_is_half() {
    let (server, connection) = server(Config::quick());
    server.plan("results", Fault::Status(502), 2);
    server.plan("asset", Fault::CutAt(0), 2);
    server.plan("asset", Fault::CutAt(100), 2);
    let folder = Folder::new();
    let mut report = run(&connection, folder.path(), 2);
    while !report.is_success() {
        assert_eq!(report.count(RowState::Failed), 0, "{report:?}");
        report = run(&connection, folder.path(), 2);
    }
    for row in &report.rows {
        for file in &row.files {
            let key = file.file_name().and_then(|name| name.to_str()).expect("a name");
            let whole = server.asset(row.job.as_deref().expect("a job"), key);
            assert_eq!(std::fs::read(file).ok(), whole, "{}", file.display());
        }
    }
    assert_eq!(server.jobs().len(), 2);
}

/// dask/dask-jobqueue#643: jobs that were removed behind the program's back were waited for without
/// end.
#[test]
fn a_job_that_an_operator_removes_is_noticed_and_made_again_if_that_is_allowed() {
    let (server, connection) = server(Config { run: Duration::from_secs(3600), ..Config::quick() });
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let back_ends = [BackEnd::new(&connection).name("one")];
    let at_work = campaign.start_jobs(back_ends, titled, &options(folder.path()).attempts(2)).expect("started");
    let stopper = at_work.stopper();
    let (tell, ended) = mpsc::channel();
    thread::spawn(move || tell.send(at_work.wait()));
    crate::support::eventually("it is at work", || started(&server) == 1);
    for job in server.jobs() {
        connection.job(&job.id).delete().expect("deleted");
    }
    crate::support::eventually("another is at work", || started(&server) == 2);
    stopper.cancel();
    let report = ended.recv_timeout(crate::support::HANG).expect("it ends").expect("ended");
    assert_eq!((report.count(RowState::Done), server.count("create")), (0, 2), "{report:?}");
}
