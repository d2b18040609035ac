//! A job's life: start, status, logs, waits, and the list of all.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fulmar::client::openeo::{Connection, JobStatus, LogLevel, OpenEoError};
use openeo_server::{Config, Fault};
use serde_json::json;

use super::{finished, server, soon, sum};

#[test]
fn a_job_goes_from_created_to_finished() {
    let (server, connection) = server(Config::quick());
    let job = connection.create_job(sum("NDVI timeseries 2022")).expect("created");
    assert_eq!(job.status().expect("known"), JobStatus::Created);
    job.start().expect("started");
    // Another program, another day: the id is all it takes.
    let elsewhere = super::connect(&server).job(job.id());
    let end = elsewhere.wait(soon()).expect("finished");
    assert_eq!(
        (end.status(), end.title(), end.costs()),
        (JobStatus::Finished, Some("NDVI timeseries 2022"), Some(4.0))
    );
    assert!(end.to_string().contains("usage: cpu") && end.to_string().contains("12.5 cpu-seconds"), "{end}");
    job.delete().expect("deleted");
    assert!(job.describe().expect_err("gone").is_not_found());
}

#[test]
fn the_lines_of_a_wait_are_those_of_the_python_client() {
    let (_server, connection) = server(Config::quick());
    let job = connection.create_job(sum("lines")).expect("created");
    let mut lines = Vec::new();
    job.start_and_wait(soon().printer(|line| lines.push(line.to_owned()))).expect("finished");
    assert_eq!(lines.first(), Some(&format!("0:00:00 Job '{}': send 'start'", job.id())));
    assert_eq!(lines.last(), Some(&format!("0:00:00 Job '{}': finished (progress 100.0%)", job.id())));
}

#[test]
fn a_job_that_fails_prints_its_error_logs_and_the_error_carries_them() {
    let (_server, connection) = server(Config::quick());
    let job = connection.create_job(sum("to fail")).expect("created");
    let mut lines = Vec::new();
    let error = job.start_and_wait(soon().printer(|line| lines.push(line.to_owned()))).expect_err("failed");
    let text = lines.join("\n");
    assert!(text.contains(&format!("Your batch job '{}' failed.", job.id())), "{text}");
    assert!(text.contains(&format!("connection.job(\"{}\").logs", job.id())), "{text}");
    assert!(text.contains("corrupt data for tile 'J9A7K2'"), "{text}");
    let OpenEoError::JobFailed { status, logs, .. } = &error else { panic!("{error:?}") };
    assert_eq!((status, logs.len()), (&JobStatus::Error, 1));
    assert!(error.to_string().contains("corrupt data"), "{error}");

    let end = job.wait(soon().require_success(false)).expect("the end isn't an error");
    assert_eq!(end.status(), JobStatus::Error);
}

#[test]
fn a_start_that_did_start_is_not_started_again() {
    for fault in [Fault::DoneBut(500), Fault::LostReply, Fault::DoneBut(502)] {
        let (server, connection) = server(Config::quick());
        let job = connection.create_job(sum("start")).expect("created");
        server.plan("start", fault, 1);
        job.start_and_wait(soon()).expect("finished");
        assert_eq!((server.jobs()[0].starts, server.count("start")), (1, 1), "{fault:?}");
    }
}

#[test]
fn a_start_that_a_proxy_gave_up_on_is_looked_for_more_than_once() {
    let (server, connection) = server(Config::quick());
    let job = connection.create_job(sum("start")).expect("created");
    server.plan("start", Fault::DoneBut(524), 1);
    // The first asks whether it has ended, and the second comes before the start has its effect.
    let looks = AtomicUsize::new(0);
    server.rewrite("describe", move |_, details| {
        if looks.fetch_add(1, Ordering::SeqCst) == 1 {
            details["status"] = json!("created");
        }
    });
    job.start().expect("started");
    assert_eq!((server.jobs()[0].starts, server.count("start")), (1, 1));
}

#[test]
fn a_start_that_did_not_start_is_tried_again() {
    for fault in [Fault::Status(500), Fault::Cut, Fault::Status(503)] {
        let (server, connection) = server(Config::quick());
        let job = connection.create_job(sum("start")).expect("created");
        server.plan("start", fault, 2);
        job.start_and_wait(soon()).expect("finished");
        assert_eq!((server.jobs()[0].starts, server.count("start")), (1, 3), "{fault:?}");
    }
}

#[test]
fn soft_errors_while_waiting_are_tolerated_up_to_a_limit() {
    let (server, connection) = server(Config::quick());
    let job = connection.create_job(sum("soft")).expect("created");
    job.start().expect("started");
    server.plan("describe", Fault::Status(503), 6);
    server.plan("describe", Fault::Cut, 6);
    let mut lines = Vec::new();
    job.wait(soon().printer(|line| lines.push(line.to_owned()))).expect("finished");
    assert!(lines.iter().any(|line| line.contains("Service availability error while polling")), "{lines:?}");

    server.plan("describe", Fault::Status(502), 99);
    let error = job.wait(soon().soft_errors(2, Duration::from_millis(1))).expect_err("too many");
    assert!(matches!(error, OpenEoError::TooManySoftErrors { count: 3, .. }), "{error:?}");
}

#[test]
fn a_wait_has_a_limit_and_can_be_cancelled_and_the_job_goes_on() {
    let (server, connection) = server(Config { queue: Duration::from_secs(3_600), ..Config::quick() });
    let job = connection.create_job(sum("long")).expect("created");
    let error = job.start_and_wait(soon().time_limit(Duration::from_millis(30))).expect_err("out of time");
    assert!(matches!(&error, OpenEoError::TimeLimit { status: JobStatus::Queued, .. }), "{error:?}");
    assert!(error.is_retryable());
    let looks = Mutex::new(0);
    let enough = || server.count("describe") > 5;
    let error =
        job.wait(soon().cancelled(enough).printer(|_| *looks.lock().expect("sound") += 1)).expect_err("cancelled");
    assert!(matches!(error, OpenEoError::Cancelled { .. }), "{error:?}");
    assert_eq!(server.jobs()[0].status, "queued");

    job.stop().expect("stopped");
    let error = job.wait(soon()).expect_err("stopped");
    assert!(matches!(error, OpenEoError::JobFailed { status: JobStatus::Canceled, .. }), "{error:?}");
}

#[test]
fn many_jobs_are_waited_for_by_one_list() {
    let (server, connection) = server(Config { run: Duration::from_millis(100), ..Config::quick() });
    let titles = ["a", "b to fail", "c", "d", "e"];
    let jobs: Vec<_> = titles.iter().map(|title| connection.create_job(sum(title)).expect("created")).collect();
    jobs.iter().for_each(|job| job.start().expect("started"));
    let before = server.count("describe");
    let mut jobs = jobs;
    jobs.push(connection.job("nope"));
    let ends = Connection::wait_jobs(&jobs, soon());
    for (title, end) in titles.iter().zip(&ends) {
        assert_eq!(end.is_ok(), !title.contains("fail"), "{title}: {end:?}");
    }
    assert!(ends[5].as_ref().is_err_and(OpenEoError::is_not_found), "{:?}", ends[5]);
    assert!(server.count("list") > 0);
    assert!(server.count("describe") - before <= 12, "the list was asked, not each job: {}", server.count("describe"));
}

#[test]
fn a_status_that_does_not_come_keeps_no_other_job_waiting() {
    let (server, connection) = server(Config::quick());
    let jobs: Vec<_> = ["hangs", "b", "c"].map(|title| connection.create_job(sum(title)).expect("created")).into();
    for job in &jobs {
        job.start().expect("started");
    }
    server.plan_for("describe", "hangs", Fault::Hang, 1);
    let mut ended = Vec::new();
    let options = soon().printer(|line| {
        if line.ends_with("finished") {
            ended.push(line.to_owned());
            if ended.len() == 2 {
                server.release();
            }
        }
    });
    let ends = Connection::wait_jobs(&jobs, options);
    assert!(ends.iter().all(|end| matches!(end, Ok(found) if found.status() == JobStatus::Finished)), "{ends:?}");
    assert_eq!(ended.len(), 3, "{ended:?}");
    assert!(!ended[0].contains(jobs[0].id()) && !ended[1].contains(jobs[0].id()), "the others were first: {ended:?}");
}

#[test]
fn a_wait_for_many_asks_whether_it_is_cancelled_before_each_look() {
    let (server, connection) = server(Config { queue: Duration::from_secs(3_600), ..Config::quick() });
    let jobs = ["a", "b", "c"].map(|title| connection.create_job(sum(title)).expect("created"));
    let ends = Connection::wait_jobs(&jobs, soon().cancelled(|| server.count("describe") > 0));
    assert!(ends.iter().all(|end| matches!(end, Err(OpenEoError::Cancelled { .. }))), "{ends:?}");
    assert_eq!(server.count("describe"), 1);
}

#[test]
fn a_back_end_that_hangs_is_asked_once_a_round_and_not_by_each_job() {
    let (server, connection) = server(Config::quick());
    let jobs = ["a", "b", "c"].map(|title| connection.create_job(sum(title)).expect("created"));
    server.plan("describe", Fault::Hang, 99);
    let ends = Connection::wait_jobs(&jobs, soon().soft_errors(1, Duration::from_millis(5)));
    assert!(ends.iter().all(|end| matches!(end, Err(OpenEoError::TooManySoftErrors { count: 2, .. }))), "{ends:?}");
    assert_eq!(server.count("describe"), 2);
}

#[test]
fn a_wait_for_many_leaves_a_job_alone_after_a_soft_error_and_looks_at_the_others() {
    let (server, connection) = server(Config { queue: Duration::from_secs(3_600), ..Config::quick() });
    let jobs = ["a", "b"].map(|title| connection.create_job(sum(title)).expect("created"));
    let looks = |job: usize| server.seen().iter().filter(|seen| seen.target.ends_with(jobs[job].id())).count();
    server.plan_for("describe", "a", Fault::Status(503), 999);
    let pause = Duration::from_secs(3_600);
    let ends = Connection::wait_jobs(&jobs, soon().soft_errors(10, pause).cancelled(|| looks(1) > 9));
    assert!(ends.iter().all(|end| matches!(end, Err(OpenEoError::Cancelled { .. }))), "{ends:?}");
    assert!(looks(0) <= 4, "as often as one look tries it, not {}", looks(0));
}

#[test]
fn logs_have_levels_and_pages_and_go_on_from_an_entry() {
    let (_server, connection) = server(Config { page: Some(1), ..Config::quick() });
    let job = finished(&connection, "logs");
    let all = job.logs(None, None).expect("logs");
    assert_eq!(all.iter().map(|entry| entry.id()).collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!(job.logs(None, LogLevel::Info).expect("logs").len(), 2, "also where a page forgets the filter");
    assert_eq!(job.logs("0", None).expect("logs").iter().next().map(|entry| entry.id()), Some("1"));
    let table = all.to_string();
    assert!(table.starts_with("id  time") && table.contains("Loading 5x3x6 tiles"), "{table}");
}

#[test]
fn entries_that_share_an_id_are_all_there_and_pages_that_repeat_them_end() {
    for id in ["", "x"] {
        let (_server, connection) = server(Config { log_id: Some(id), ..Config::quick() });
        let logs = finished(&connection, "alike").logs(None, None).expect("logs");
        assert!(logs.len() == 3 && logs.is_complete(), "{logs}");
    }
    let (_server, connection) = server(Config { log_id: Some("x"), page: Some(1), ..Config::quick() });
    let logs = finished(&connection, "in a circle").logs(None, None).expect("logs");
    assert!(logs.gap().is_some_and(|gap| gap.contains("page 2")), "{logs}");
    assert!(logs.to_string().ends_with(
        "(there may be more: page 2 ends with a link to a next one after a page with nothing new, which isn't followed)"
    ));
}

#[test]
fn the_job_list_is_followed_through_its_pages() {
    let (_server, connection) = server(Config { page: Some(2), ..Config::quick() });
    let made: Vec<String> =
        (0..5).map(|n| connection.create_job(sum(&format!("job {n}"))).expect("created").id().to_owned()).collect();
    let list = connection.list_jobs().expect("listed");
    assert_eq!(list.iter().map(|job| job.id().to_owned()).collect::<Vec<_>>(), made);
    assert!(list.is_complete());
    let table = list.to_string();
    assert!(table.lines().count() == 6 && table.contains("job 4") && table.contains("created"), "{table}");
}

#[test]
fn an_estimate_that_is_not_supported_says_so() {
    let (_server, connection) = server(Config::quick());
    let job = connection.create_job(sum("estimate")).expect("created");
    assert_eq!(job.estimate().expect_err("unsupported").code(), Some("FeatureUnsupported"));
}

#[test]
fn a_link_to_the_next_page_is_followed_to_no_stranger_and_in_no_circle() {
    let stranger = openeo_server::Server::start(Config::quick()).expect("a server");
    for next in [&format!("{}/jobs?page=1", stranger.root()), "/openeo/1.2/jobs", "file:///etc/passwd", "http://["] {
        let (server, connection) = server(Config { page: Some(1), next: Some(next.to_owned()), ..Config::quick() });
        for title in ["a", "b", "c"] {
            connection.create_job(sum(title)).expect("created");
        }
        let list = connection.list_jobs().expect("as far as it goes");
        assert!(!list.is_empty() && !list.is_complete(), "{next}: {list}");
        assert!(server.count("list") <= 2, "{next}: {} requests", server.count("list"));
    }
    assert_eq!(stranger.count("total"), 0, "nobody asked there");
}

/// pystac-client 334: a page without entries that names itself as the next one.
#[test]
fn an_empty_page_that_leads_to_itself_is_the_last() {
    let (server, connection) = server(Config::quick());
    connection.create_job(sum("listed")).expect("created");
    let root = server.root();
    server.rewrite("list", move |request, list| {
        if request.query("page").is_some() {
            list["jobs"] = serde_json::json!([]);
        }
        list["links"] = serde_json::json!([{"rel": "next", "href": format!("{root}/jobs?page=1")}]);
    });
    let list = connection.list_jobs().expect("listed");
    assert_eq!((list.len(), server.count("list")), (1, 2), "{list}");
    // That there is no more is what the server means, and doesn't say.
    assert!(!list.is_complete(), "{list}");
}

#[test]
fn a_page_that_can_not_be_had_leaves_those_before_it() {
    let (server, connection) = server(Config { page: Some(2), ..Config::quick() });
    let job = finished(&connection, "in pages");
    server.plan_page("logs", 1, Fault::Status(404));
    let logs = job.logs(None, None).expect("the first page");
    assert_eq!(logs.len(), 2, "{logs}");
    assert!(logs.gap().is_some_and(|gap| gap.contains("page 2") && gap.contains("404")), "{logs}");
    for _ in 0..2 {
        connection.create_job(sum("another")).expect("created");
    }
    server.plan_page("list", 1, Fault::Status(404));
    let list = connection.list_jobs().expect("the first page");
    assert_eq!((list.len(), list.is_complete()), (2, false), "{list}");
}

#[test]
fn a_start_that_had_no_effect_is_sent_again() {
    let (server, connection) = server(Config::quick());
    server.plan("start", Fault::Forgotten, 2);
    let job = connection.create_job(sum("forgotten")).expect("created");
    let mut lines = Vec::new();
    job.start_and_wait(soon().printer(|line| lines.push(line.to_owned()))).expect("finished, at last");
    let again = lines.iter().filter(|line| line.ends_with("the start had no effect: send 'start' again")).count();
    assert_eq!((again, server.count("start"), server.jobs()[0].starts), (2, 3, 1), "{lines:#?}");

    // One that nobody started here is left as it is.
    let job = connection.create_job(sum("left alone")).expect("created");
    let error = job.wait(soon().time_limit(Duration::from_millis(100))).expect_err("nobody starts it");
    assert!(matches!(error, OpenEoError::TimeLimit { status: JobStatus::Created, .. }), "{error:?}");
    assert_eq!(server.count("start"), 3);
}

#[test]
fn an_unclear_start_of_a_job_that_had_ended_is_no_success() {
    let (server, connection) = server(Config::quick());
    let job = finished(&connection, "again");
    let again = connection.job(job.id());
    server.plan("start", Fault::Status(502), 1);
    let error = again.start().expect_err("it is not known");
    assert_eq!((error.status(), server.jobs()[0].starts, server.count("start")), (Some(502), 1, 2));
    again.start().expect("started");
    again.wait(soon()).expect("finished");
    assert_eq!(server.jobs()[0].starts, 2);
}

#[test]
fn a_list_that_ends_with_an_empty_page_is_whole() {
    // openEO's Python driver names a next page after the last, which is empty.
    let (server, connection) = server(Config { page: Some(1), ..Config::quick() });
    for _ in 0..2 {
        connection.create_job(sum("listed")).expect("created");
    }
    let root = server.root();
    server.rewrite("list", move |request, list| {
        let page: usize = request.query("page").map_or(0, |page| page.parse().expect("a number"));
        if page < 2 {
            list["links"] = serde_json::json!([{"rel": "next", "href": format!("{root}/jobs?page={}", page + 1)}]);
        }
    });
    let list = connection.list_jobs().expect("listed");
    assert!(list.len() == 2 && list.is_complete(), "{list}");
}
