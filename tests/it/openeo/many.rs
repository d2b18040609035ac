//! Many jobs on several back-ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use fulmar::Executor;
use fulmar::backoff::Backoff;
use fulmar::batch::{BatchReport, BatchRunner, BatchRunnerBuilder, JobFailure};
use fulmar::client::http::{Existing, HttpErrorKind};
use fulmar::client::openeo::{
    BackEnd, Connection, DownloadOptions, JobRun, JobStatus, OpenEoError, RunOptions, run_jobs, start_jobs,
};
use openeo_server::{Config, Fault};

use super::{Folder, names_in, server, sum};
use crate::support::HANG;

fn runner() -> BatchRunnerBuilder {
    BatchRunner::builder().attempts(6).backoff(Backoff::new(Duration::from_millis(5)).cap(Duration::from_millis(50)))
}

fn options() -> RunOptions {
    let poll = Duration::from_millis(50);
    RunOptions::new().poll(poll, poll).soft_errors(20, Duration::from_millis(5)).run_on(runner())
}

/// Runs one job and downloads its files.
pub(super) fn run_one(connection: &Connection, folder: &std::path::Path) -> Result<JobRun, OpenEoError> {
    let options = options().run_on(runner().attempts(2)).download_to(folder);
    let mut report = run_jobs([BackEnd::new(connection)], titles(1), &options).expect("run");
    match report.jobs.remove(0).outcome {
        Ok(run) => Ok(run),
        Err(JobFailure::Failed { source, .. }) => Err(*source.downcast::<OpenEoError>().expect("the client's error")),
        Err(failure) => panic!("{failure:?}"),
    }
}

fn titles(count: usize) -> impl Iterator<Item = fulmar::client::openeo::NewJob> {
    (0..count).map(|number| sum(&format!("job {number}")))
}

fn error_of(report: &BatchReport<JobRun>, job: usize) -> &OpenEoError {
    let failure = report.jobs[job].outcome.as_ref().expect_err("failed");
    failure.error().unwrap_or_else(|| panic!("{failure:?}"))
}

#[test]
fn jobs_go_to_the_back_ends_that_have_room_and_their_files_to_folders() {
    let (one, first) = server(Config::quick());
    let (two, second) = server(Config::quick());
    let folder = Folder::new();
    let done = Arc::new(AtomicUsize::new(0));
    let count = done.clone();
    let options = options().download_to(folder.path()).on_done(move |run| {
        assert!(!run.files.is_empty());
        count.fetch_add(1, Ordering::Relaxed);
    });
    let back_ends =
        [BackEnd::new(&first).name("one").parallel_jobs(3), BackEnd::new(&second).name("two").parallel_jobs(2)];
    let report = run_jobs(back_ends, titles(20), &options).expect("run");
    assert!(report.is_success(), "{report}: {:?}", report.failures().next());
    assert_eq!(done.load(Ordering::Relaxed), 20);
    assert_eq!(one.jobs().len() + two.jobs().len(), 20, "each once");
    assert!(one.jobs().len() > 2 && two.jobs().len() > 2, "{} and {}", one.jobs().len(), two.jobs().len());
    for job in &report.jobs {
        let run = job.outcome.as_ref().expect("done");
        let server = if run.back_end == "one" { &one } else { &two };
        for (file, key) in run.files.iter().zip(["openEO.tif", "out.csv"]) {
            assert_eq!(std::fs::read(file).ok(), server.asset(run.job.id(), key), "{key} of {}", run.job.id());
        }
        let names = names_in(run.folder.as_ref().expect("a folder"));
        let details = format!("job_{}.json", run.job.id());
        assert_eq!(names, ["job-results.json", &details, "openEO.tif", "out.csv"].map(str::to_owned).to_vec());
    }
    assert_eq!(folder.names().len(), 20, "both servers number alike, and still each job has its own folder");
}

#[test]
fn files_of_a_batch_are_downloaded_as_its_options_say() {
    let (_server, connection) = server(Config::quick());
    let folder = Folder::new();
    let run = |downloads| {
        let options = options().download_to(folder.path()).downloads(downloads);
        run_jobs([BackEnd::new(&connection)], titles(1), &options).expect("run")
    };
    assert!(run(DownloadOptions::new().metadata(false)).is_success());
    assert_eq!(names_in(&folder.path().join("job_j-000001")), ["job_j-000001.json", "openEO.tif", "out.csv"]);
    std::fs::create_dir(folder.path().join("job_j-000002")).expect("made");
    std::fs::write(folder.path().join("job_j-000002/job-results.json"), "mine").expect("written");
    let report = run(DownloadOptions::new().existing(Existing::Refuse));
    assert!(matches!(error_of(&report, 0), OpenEoError::File { .. }), "{report}");
    assert!(!folder.path().join("job_j-000002/out.csv").exists(), "before anything is fetched");
}

#[test]
fn too_many_jobs_means_later() {
    let (server, connection) = server(Config { concurrent_limit: Some(2), ..Config::quick() });
    server.plan("start", Fault::TooManyJobs, 2);
    let back_end = BackEnd::new(&connection).parallel_jobs(6);
    // What it says when: at once, or the test would wait for 5 s.
    let report = run_jobs([back_end], titles(6), &options()).expect("run");
    assert!(report.is_success(), "{report}: {:?}", report.failures().next());
    assert_eq!(server.jobs().len(), 6);
    assert!(server.jobs().iter().all(|job| job.starts == 1));
}

#[test]
fn jobs_that_fail_or_are_stopped_are_told_of_and_touch_no_other() {
    // Only the slow one is ever seen to run: the others finish at once, however late we look.
    let slow = Duration::from_secs(3_600);
    let (server, connection) = server(Config { run: Duration::ZERO, slow, ..Config::quick() });
    let folder = Folder::new();
    let (tell, told) = mpsc::channel();
    let stopped = tell.clone();
    let options = options()
        .download_to(folder.path())
        .cancel_running_job_after(Duration::from_millis(100))
        .on_error(move |job, error| tell.send((job.id().to_owned(), error.to_string())).expect("heard"))
        .on_cancel(move |job| stopped.send((job.id().to_owned(), "stopped".to_owned())).expect("heard"));
    let jobs = ["a", "b to fail", "c slow", "d"].map(sum);
    let report = run_jobs([BackEnd::new(&connection).parallel_jobs(4)], jobs, &options).expect("run");
    let id = |job: usize| report.jobs[job].id.clone().expect("created");
    assert!(report.jobs[0].outcome.is_ok() && report.jobs[3].outcome.is_ok(), "{report}");
    assert!(
        matches!(error_of(&report, 1), OpenEoError::JobFailed { status: JobStatus::Error, logs, .. } if logs.len() == 1)
    );
    assert!(matches!(error_of(&report, 2), OpenEoError::JobFailed { status: JobStatus::Canceled, .. }));
    let mut told: Vec<_> = told.try_iter().collect();
    told.sort();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().any(|(of, text)| *of == id(1) && text.contains("corrupt data")), "{told:?}");
    assert!(told.contains(&(id(2), "stopped".to_owned())), "{told:?}");
    let of_failed = folder.path().join(format!("job_{}", id(1)));
    assert_eq!(names_in(&of_failed), [format!("job_{}_errors.json", id(1))]);
    assert!(report.jobs[2].notes.iter().any(|note| note.contains("ran for more than")), "{:?}", report.jobs[2].notes);
    assert_eq!(server.count("stop"), 1);
}

#[test]
fn faults_of_every_kind_end_well_and_are_accounted_for() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    server.plan_for("create", "job 1", Fault::LostReply, 1);
    server.plan_for("create", "job 2", Fault::DoneBut(504), 1);
    server.plan_for("create", "job 3", Fault::Cut, 1);
    server.plan_for("start", "job 4", Fault::DoneBut(500), 1);
    server.plan_for("start", "job 5", Fault::Status(503), 1);
    server.plan("list", Fault::Status(503), 3);
    server.plan("list", Fault::Cut, 1);
    server.plan_for("results", "job 6", Fault::Status(502), 1);
    server.plan_for("asset", "job 7", Fault::CutAt(100), 1);
    server.plan_for("asset", "job 8", Fault::Expired, 1);
    let options = options().download_to(folder.path());
    let report = run_jobs([BackEnd::new(&connection).parallel_jobs(10)], titles(10), &options).expect("run");
    let failed: Vec<_> = report.failures().collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let jobs = server.jobs();
    assert_eq!(jobs.len(), 10, "no job twice: {jobs:?}");
    assert!(jobs.iter().all(|job| job.starts == 1), "{jobs:?}");
    for job in &report.jobs {
        let run = job.outcome.as_ref().expect("done");
        for (file, key) in run.files.iter().zip(["openEO.tif", "out.csv"]) {
            assert_eq!(std::fs::read(file).ok(), server.asset(run.job.id(), key), "{key}");
        }
    }
    assert!(
        report.jobs[1].notes.iter().any(|note| note.contains("reply to its creation was lost")),
        "{:?}",
        report.jobs[1].notes
    );
}

/// Runs one job on two back-ends, of which the first loses the reply to its creation, and returns
/// what that came to.
fn lost_on_the_first_of_two(fault: Fault, prepare: impl Fn(&openeo_server::Server)) -> OpenEoError {
    let (one, first) = server(Config::quick());
    let (two, second) = server(Config::quick());
    one.plan("create", fault, 1);
    prepare(&one);
    let back_ends = [BackEnd::new(&first).name("one"), BackEnd::new(&second).name("two")];
    let mut report = run_jobs(back_ends, titles(1), &options()).expect("run");
    assert_eq!((one.count("create"), two.count("create")), (1, 0), "neither made again nor elsewhere: {report}");
    match report.jobs.remove(0).outcome {
        Err(JobFailure::Failed { source, .. }) => *source.downcast::<OpenEoError>().expect("the client's error"),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn a_job_that_a_back_end_may_still_be_making_is_made_on_no_other() {
    let error = lost_on_the_first_of_two(Fault::Status(504), |_| {});
    assert!(matches!(&error, OpenEoError::LostReply { why, .. } if why.contains("may still be making")), "{error:?}");
}

#[test]
fn a_job_that_can_not_be_looked_for_is_made_on_no_other_back_end() {
    let error = lost_on_the_first_of_two(Fault::DoneBut(502), |one| one.plan("list", Fault::Status(503), usize::MAX));
    assert!(matches!(&error, OpenEoError::LostReply { .. }), "{error:?}");
}

#[test]
fn a_job_that_the_back_end_forgets_is_the_only_one_that_fails() {
    let (server, connection) = server(Config::quick());
    server.plan_for("start", "job 1", Fault::NotFound, 99);
    server.plan_for("describe", "job 2", Fault::NotFound, 99);
    server.plan("list", Fault::Status(404), 99);
    let report = run_jobs([BackEnd::new(&connection).parallel_jobs(5)], titles(5), &options()).expect("run");
    let failed: Vec<usize> = report.failures().map(|job| job.index).collect();
    assert_eq!(failed, [1, 2], "{report}");
    assert!(error_of(&report, 2).is_not_found());
}

#[test]
fn a_reply_that_hangs_keeps_nobody_else_waiting() {
    let (server, connection) = server(Config::quick());
    server.plan_for("start", "job 0", Fault::Hang, 1);
    let (tell, told) = mpsc::channel();
    let executor = Executor::builder().threads(4).build().expect("an executor");
    let options = options().run_on(runner().executor(&executor).max_concurrent(4)).on_done(move |run| {
        tell.send(run.job.id().to_owned()).expect("heard");
    });
    let batch = start_jobs([BackEnd::new(&connection).parallel_jobs(12).queue_limit(99)], titles(51), &options)
        .expect("started");
    for _ in 0..50 {
        told.recv_timeout(HANG).expect("50 others go on");
    }
    assert!(server.await_hung(1));
    // The hook is told a moment before the batch.
    crate::support::eventually("50 of 51 have ended", || batch.stats().ended() == 50);
    server.release();
    let report = batch.wait(HANG).expect("in time");
    assert!(report.is_success(), "{report}: {:?}", report.failures().next());
}

#[test]
fn a_list_that_hangs_leaves_each_job_to_itself() {
    let (server, connection) = server(Config { run: Duration::from_millis(200), ..Config::quick() });
    server.plan("list", Fault::Hang, 1);
    let executor = Executor::builder().threads(4).build().expect("an executor");
    let options = options().run_on(runner().executor(&executor).max_concurrent(4));
    let (tell, told) = mpsc::channel();
    let options = options.on_done(move |run| tell.send(run.job.id().to_owned()).expect("heard"));
    let batch = start_jobs([BackEnd::new(&connection).parallel_jobs(8)], titles(8), &options).expect("started");
    assert!(server.await_hung(1), "somebody reads the list");
    for _ in 0..7 {
        told.recv_timeout(HANG).expect("the others go on");
    }
    server.release();
    assert!(batch.wait(HANG).expect("in time").is_success());
}

#[test]
fn tokens_that_expire_all_the_time_are_renewed() {
    let (server, connection) = server(Config {
        token_life: Duration::from_millis(60),
        // In three waves, each longer than a token lives.
        run: Duration::from_millis(100),
        ..Config::quick()
    });
    let folder = Folder::new();
    let options = options().download_to(folder.path());
    let report = run_jobs([BackEnd::new(&connection).parallel_jobs(8)], titles(24), &options).expect("run");
    assert!(report.is_success(), "{report}: {:?}", report.failures().next());
    assert!(server.count("login") >= 3, "{} logins", server.count("login"));
    assert_eq!(server.jobs().len(), 24);
}

#[test]
fn a_cancelled_batch_stops_its_jobs() {
    let (server, connection) = server(Config { run: Duration::from_secs(3_600), ..Config::quick() });
    let options = options().ahead(1);
    let batch = start_jobs([BackEnd::new(&connection).parallel_jobs(3)], titles(5), &options).expect("started");
    crate::support::eventually("three jobs run and one waits", || {
        server.jobs().iter().filter(|job| job.status == "running").count() == 3 && batch.stats().submitted == 4
    });
    batch.cancel();
    let report = batch.wait(HANG).expect("in time");
    assert_eq!(report.stats.cancelled, 5);
    let jobs = server.jobs();
    let with = |status: &str| jobs.iter().filter(|job| job.status == status).count();
    assert_eq!((jobs.len(), with("canceled"), with("deleted")), (4, 3, 1), "{jobs:?}");
    let told = report.jobs.iter().filter(|job| job.notes.iter().any(|note| note.contains("never started"))).count();
    assert_eq!(told, 1, "of the one that was created ahead of its time");
}

#[test]
fn a_cancel_finds_jobs_in_every_phase() {
    // Never started, for all that was tried.
    let (server, connection) = server(Config::quick());
    server.plan("start", Fault::Status(503), usize::MAX);
    let tries = runner().attempts(1_000);
    let batch = start_jobs([BackEnd::new(&connection)], titles(2), &options().run_on(tries)).expect("started");
    crate::support::eventually("both were to be started", || server.count("start") >= 4);
    batch.cancel();
    let report = batch.wait(HANG).expect("in time");
    assert_eq!(report.stats.cancelled, 2);
    assert!(server.jobs().iter().all(|job| job.status == "deleted"), "{:?}", server.jobs());

    // Finished, and not downloaded.
    let (server, connection) = super::server(Config::quick());
    server.plan("results", Fault::Status(503), usize::MAX);
    let (folder, tries) = (Folder::new(), runner().attempts(1_000));
    let options = options().run_on(tries).download_to(folder.path());
    let batch = start_jobs([BackEnd::new(&connection)], titles(1), &options).expect("started");
    crate::support::eventually("it is to be downloaded", || server.count("results") >= 2);
    batch.cancel();
    batch.wait(HANG).expect("in time");
    assert_eq!((server.count("stop"), server.count("delete")), (0, 0), "what has finished is left alone");
}

#[test]
fn a_back_end_that_is_down_or_refuses_us_fails_no_job() {
    for refuses in [false, true] {
        let (broken, first) = server(Config::quick());
        let (sound, second) = server(Config::quick());
        let mut broken = Some(broken);
        if refuses {
            first.authenticate_bearer("basic//nonsense").expect("taken as it is");
        } else {
            broken = None;
        }
        let back_ends = [BackEnd::new(&first).parallel_jobs(8), BackEnd::new(&second).parallel_jobs(2)];
        let report = run_jobs(back_ends, titles(12), &options()).expect("run");
        assert!(report.is_success(), "refuses: {refuses}: {report}: {:?}", report.failures().next());
        assert_eq!(sound.jobs().len(), 12);
        assert!(broken.is_none_or(|server| server.jobs().is_empty()));
        assert!(report.jobs.iter().any(|job| job.notes.iter().any(|note| note.contains("goes elsewhere"))));
    }
}

#[test]
fn the_clients_own_rate_limit_fails_no_job() {
    let server = openeo_server::Server::start(Config::quick()).expect("a server");
    let limit = fulmar::client::http::RateLimit::per_second(100.0).max_concurrent(2);
    let connection =
        fulmar::client::openeo::Connection::connect_with(&server.url(), super::impatient().rate_limit(limit));
    let connection = connection.expect("connected");
    connection.authenticate_basic("u", "u123").expect("logged in");
    let folder = Folder::new();
    let options =
        options().soft_errors(1, Duration::from_millis(5)).run_on(runner().attempts(2)).download_to(folder.path());
    let report = run_jobs([BackEnd::new(&connection).parallel_jobs(12)], titles(12), &options).expect("run");
    assert!(report.is_success(), "{report}: {:?}", report.failures().next());
}

#[test]
fn a_hook_that_panics_is_no_ones_failure() {
    let (_server, connection) = server(Config::quick());
    let options = options().on_done(|_| panic!("in on_done")).on_error(|_, _| panic!("in on_error"));
    let jobs = ["a", "b to fail"].map(sum);
    let report = run_jobs([BackEnd::new(&connection)], jobs, &options).expect("run");
    assert!(report.jobs[0].outcome.is_ok(), "{report}");
    assert!(matches!(error_of(&report, 1), OpenEoError::JobFailed { status: JobStatus::Error, .. }));
}

#[test]
fn what_the_validation_says_is_noted_and_alike_graphs_are_asked_about_once() {
    let (server, connection) = server(Config::quick());
    let odd = fulmar::client::openeo::ProcessGraph::start("unknown_process", serde_json::json!({}));
    let jobs = (0..6).map(|number| fulmar::client::openeo::NewJob::new(odd.clone()).title(&format!("odd {number}")));
    let report = run_jobs([BackEnd::new(&connection).parallel_jobs(1)], jobs, &options().ahead(0)).expect("run");
    assert!(report.is_success(), "{report}");
    let told = |notes: &[String]| notes.iter().any(|note| note.contains("the back-end warns: ProcessUnsupported"));
    assert!(report.jobs.iter().all(|job| told(&job.notes)), "{:?}", report.jobs[0].notes);
    assert_eq!(server.count("validation"), 1);
}

#[test]
fn a_list_that_lacks_jobs_leaves_each_to_itself() {
    let (server, connection) = server(Config { page: Some(1), run: Duration::from_millis(200), ..Config::quick() });
    let report = run_jobs([BackEnd::new(&connection).parallel_jobs(6)], titles(12), &options()).expect("run");
    assert!(report.is_success(), "{report}");
    assert!(server.count("list") <= 3 + 2 && server.count("describe") >= 10, "the list is given up on");
}

#[test]
fn one_list_stands_for_many_questions() {
    let (server, connection) = server(Config { run: Duration::from_millis(500), ..Config::quick() });
    let interval = Duration::from_millis(100);
    let options = options().poll(interval, interval);
    let report =
        run_jobs([BackEnd::new(&connection).parallel_jobs(16).queue_limit(99)], titles(16), &options).expect("run");
    assert!(report.is_success(), "{report}");
    let (lists, asked) = (server.count("list"), server.count("describe"));
    assert!(lists > 0 && asked <= 16, "{lists} lists, {asked} single questions");
}

#[test]
fn no_back_end_runs_no_job() {
    let (_server, connection) = server(Config::quick());
    assert!(matches!(run_jobs([], titles(1), &options()), Err(OpenEoError::Invalid(_))));
    let none = BackEnd::new(&connection).parallel_jobs(0);
    assert!(matches!(run_jobs([none], titles(1), &options()), Err(OpenEoError::Invalid(_))));
}

#[test]
fn a_failed_job_whose_logs_can_not_be_had_is_told_of_once_as_failed() {
    let (server, connection) = server(Config::quick());
    server.plan("logs", Fault::Status(504), usize::MAX);
    let (tell, told) = mpsc::channel();
    let options =
        options().on_error(move |job, error| tell.send((job.id().to_owned(), error.to_string())).expect("heard"));
    let report = run_jobs([BackEnd::new(&connection)], ["to fail"].map(sum), &options).expect("run");
    let error = error_of(&report, 0);
    let OpenEoError::JobFailed { status: JobStatus::Error, logs, .. } = error else { panic!("{error:?}") };
    assert!(logs.is_empty() && logs.gap().is_some_and(|gap| gap.contains("504")), "{logs}");
    assert!(report.jobs[0].notes.iter().any(|note| note.contains("its logs could not be had")));
    assert_eq!(told.try_iter().count(), 1);
}

#[test]
fn an_asset_that_is_gone_leaves_its_siblings() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    server.rewrite("results", |_, doc| doc["assets"]["gone"] = serde_json::json!({"href": "results/gone"}));
    let error = run_one(&connection, folder.path()).expect_err("one is gone");
    let OpenEoError::Downloads { total: 3, failed, .. } = &error else { panic!("{error:?}") };
    assert!(failed.len() == 1 && failed[0].0 == "gone" && failed[0].1.contains("404"), "{failed:?}");
    let names = names_in(&folder.path().join("job_j-000001"));
    assert_eq!(names, ["job-results.json", "job_j-000001.json", "openEO.tif", "out.csv"]);
}

/// openeo-geopyspark-driver 1149: an asset that the results offer, and whose file doesn't exist, is
/// answered with 500 each time.
#[test]
fn an_asset_that_the_back_end_fails_to_send_leaves_its_siblings() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    server.rewrite("results", |_, doc| {
        let href = format!("{}?page=7", doc["assets"]["openEO.tif"]["href"].as_str().expect("a link"));
        doc["assets"]["missing.tif"] = serde_json::json!({"href": href, "type": "image/tiff"});
    });
    server.plan_page("asset", 7, Fault::Status(500));
    let error = run_one(&connection, folder.path()).expect_err("one is missing");
    let OpenEoError::Downloads { total: 3, failed, .. } = &error else { panic!("{error:?}") };
    assert!(failed.len() == 1 && failed[0].0 == "missing.tif" && failed[0].1.contains("500"), "{failed:?}");
    let names = names_in(&folder.path().join("job_j-000001"));
    assert_eq!(names, ["job-results.json", "job_j-000001.json", "openEO.tif", "out.csv"]);
}

#[test]
fn details_that_can_not_be_had_leave_the_files() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    server.plan_for("describe", "a", Fault::Status(500), usize::MAX);
    let options = options().download_to(folder.path());
    // Two jobs, so that the list tells of both.
    let report = run_jobs([BackEnd::new(&connection)], ["a", "b slow"].map(sum), &options).expect("run");
    assert!(report.is_success(), "{report}: {:?}", report.failures().next());
    assert_eq!(report.jobs[0].outcome.as_ref().expect("done").files.len(), 2);
    let notes = &report.jobs[0].notes;
    assert!(notes.iter().any(|note| note.contains("its details could not be had")), "{notes:?}");
}

/// Names a back-end that nobody serves any more.
fn gone() -> Connection {
    let (server, connection) = server(Config::quick());
    drop(server);
    connection
}

#[test]
fn a_back_end_that_can_not_be_reached_makes_no_doubt_and_its_jobs_go_elsewhere() {
    let (sound, second) = server(Config::quick());
    let back_ends = [BackEnd::new(&gone()).parallel_jobs(8), BackEnd::new(&second).parallel_jobs(2)];
    let report = run_jobs(back_ends, titles(12), &options()).expect("run");
    assert!(report.is_success(), "{report}: {:?}", report.failures().next());
    assert_eq!((sound.jobs().len(), sound.count("list")), (12, sound.count("list")));
    assert!(report.jobs.iter().all(|job| job.notes.iter().all(|note| !note.contains("lost"))), "nothing was sent");
    let report = run_jobs([BackEnd::new(&gone())], titles(1), &options()).expect("run");
    let error = error_of(&report, 0);
    assert_eq!(error.http().map(|http| (http.kind(), http.may_have_arrived())), Some((HttpErrorKind::Connect, false)));
}

#[test]
fn starts_that_had_no_effect_are_sent_again() {
    let (server, connection) = server(Config::quick());
    for number in 0..3 {
        server.plan_for("start", &format!("job {number}"), Fault::Forgotten, 1);
    }
    let jobs = (0..6).map(|number| sum(&format!("job {number}")));
    let report = run_jobs([BackEnd::new(&connection)], jobs, &options()).expect("run");
    assert!(report.is_success(), "{report}");
    let noted = |note: &String| note == "the start had no effect, and was sent again";
    let again: Vec<bool> = report.jobs.iter().map(|job| job.notes.iter().any(noted)).collect();
    assert_eq!(again, [true, true, true, false, false, false]);
    assert!(server.jobs().iter().all(|job| job.starts == 1));
}
