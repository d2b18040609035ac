//! Jobs are made exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use fulmar::Executor;
use fulmar::client::http::{HttpError, HttpErrorKind};
use fulmar::client::openeo::{Connection, LogLevel, NewJob, OpenEoError, ProcessGraph};
use openeo_server::{Config, Fault, Server};
use serde_json::{Value, json};

use super::{server, sum};

#[test]
fn all_that_is_said_about_a_job_is_sent() {
    let (server, connection) = server(Config::quick());
    let job = sum("e2e").description("d").plan("free").budget(10.0).log_level(LogLevel::Debug);
    let job = job.job_options(json!({"driver-memory": "1G"})).field("x", json!(1)).out_format("GTiff");
    connection.create_job(job).expect("created");
    let seen = server.seen();
    let create = seen.iter().find(|seen| seen.method == "POST" && seen.target.ends_with("/jobs")).expect("sent");
    let body: Value = serde_json::from_slice(&create.body).expect("JSON");
    for (name, value) in [
        ("title", json!("e2e")),
        ("description", json!("d")),
        ("plan", json!("free")),
        ("budget", json!(10.0)),
        ("log_level", json!("debug")),
        ("job_options", json!({"driver-memory": "1G"})),
        ("x", json!(1)),
    ] {
        assert_eq!(body[name], value, "{name}");
    }
    assert_eq!(body["process"]["process_graph"]["saveresult1"]["process_id"], "save_result");
}

#[test]
fn a_budget_that_json_does_not_have_makes_no_job_without_a_limit() {
    let (server, connection) = server(Config::quick());
    for budget in [f64::NAN, f64::INFINITY] {
        let error = connection.create_job(sum("dear").budget(budget)).expect_err("no number");
        assert!(matches!(error, OpenEoError::Invalid(_)), "{error:?}");
    }
    assert!(server.jobs().is_empty());
}

#[test]
fn what_the_validation_says_are_warnings() {
    let (server, connection) = server(Config::quick());
    let odd = NewJob::new(ProcessGraph::start("unknown_process", json!({})));
    let job = connection.create_job(odd.clone()).expect("made all the same");
    assert_eq!(job.warnings(), ["ProcessUnsupported: The process of unknownprocess1 is not supported."]);
    let job = connection.create_job(odd.validate(false)).expect("created");
    assert!(job.warnings().is_empty());
    assert_eq!(server.count("validation"), 1);
}

#[test]
fn a_lost_reply_makes_no_second_job() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::LostReply, 1);
    let job = connection.create_job(sum("once")).expect("found");
    assert_eq!(server.jobs().len(), 1);
    assert_eq!(server.jobs()[0].id, job.id());
    assert_eq!(server.count("create"), 1, "not repeated");
}

#[test]
fn a_500_to_a_create_that_did_create_makes_no_second_job() {
    for status in [500, 502, 503, 504] {
        let (server, connection) = server(Config::quick());
        server.plan("create", Fault::DoneBut(status), 1);
        let job = connection.create_job(sum("once")).expect("found");
        assert_eq!((server.jobs().len(), server.jobs()[0].id.as_str()), (1, job.id()), "{status}");
    }
}

#[test]
fn a_request_that_never_arrived_is_sent_again() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::Cut, 2);
    connection.create_job(sum("third time")).expect("created");
    assert_eq!((server.jobs().len(), server.count("create")), (1, 3));
    assert!(server.count("list") >= 2, "looked before each");
}

#[test]
fn a_refusal_is_a_refusal() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::Status(400), 1);
    let error = connection.create_job(sum("no")).expect_err("refused");
    assert_eq!(error.http().map(HttpError::kind), Some(HttpErrorKind::Status(400)), "{error:?}");
    assert_eq!((server.jobs().len(), server.count("create"), server.count("list")), (0, 1, 0));
}

#[test]
fn alike_jobs_that_are_wanted_twice_are_two() {
    let (server, connection) = server(Config { page: Some(1), ..Config::quick() });
    let first = connection.create_job(sum("twin")).expect("created");
    server.plan("create", Fault::LostReply, 1);
    let second = connection.create_job(sum("twin")).expect("found");
    assert_ne!(first.id(), second.id());
    assert_eq!(server.jobs().len(), 2, "found on the second page");
}

#[test]
fn a_job_of_another_program_is_left_alone() {
    let (server, connection) = server(Config::quick());
    let elsewhere = super::connect(&server);
    let dearer = elsewhere.create_job(sum("twin").plan("pro").budget(100.0)).expect("created");
    let from_before = elsewhere.create_job(sum("twin").plan("free").budget(1.0)).expect("created");
    assert_eq!(connection.list_jobs().expect("listed").len(), 2, "so both are known from before");
    server.plan("create", Fault::Cut, 1);
    let own = connection.create_job(sum("twin").plan("free").budget(1.0)).expect("created");
    assert_eq!((server.jobs().len(), server.count("create")), (3, 4), "the request never arrived");
    assert!(own.id() != from_before.id() && own.id() != dearer.id(), "{}", own.id());
}

/// Creates a job whose reply is lost: the job is there, or it isn't.
fn lost(connection: &Connection, server: &Server, arrives: bool) -> OpenEoError {
    server.plan("create", if arrives { Fault::LostReply } else { Fault::Cut }, 1);
    let jobs = server.jobs().len();
    let error = connection.create_job(sum("lost")).expect_err("it is not known");
    assert!(matches!(error, OpenEoError::LostReply { .. }), "{error:?}");
    assert_eq!(server.jobs().len(), jobs + usize::from(arrives), "not made again");
    error
}

#[test]
fn a_like_job_whose_time_does_not_fit_is_a_doubt_and_no_reason_to_make_another() {
    let (server, connection) = server(Config::quick());
    let twin = super::connect(&server).create_job(sum("lost")).expect("created");
    server.backdate(twin.id(), Duration::from_secs(3_600));
    let error = lost(&connection, &server, false);
    assert!(error.to_string().contains("it may be j-000001"), "{error}");
    // The back-end's two clocks say different things, so that its own job seems to be from before.
    for hours in [-3, 3] {
        let (server, connection) = super::server(Config { list_clock: hours * 3_600, ..Config::quick() });
        assert!(lost(&connection, &server, true).to_string().contains("it may be j-000001"));
    }
}

#[test]
fn clocks_that_are_hours_off_find_a_job_all_the_same() {
    for hours in [-5, 5] {
        let (server, connection) = server(Config { clock: hours * 3_600, ..Config::quick() });
        server.plan("create", Fault::LostReply, 1);
        connection.create_job(sum("by the replies' own date")).expect("found");
        assert_eq!(server.jobs().len(), 1);
        let (server, connection) = super::server(Config { list_clock: hours * 3_600, ..Config::quick() });
        connection.create_job(sum("tells the list's clock")).expect("created");
        server.plan("create", Fault::LostReply, 1);
        connection.create_job(sum("by that clock")).expect("found");
        assert_eq!(server.jobs().len(), 2);
    }
}

#[test]
fn a_list_that_is_not_proven_whole_proves_nothing() {
    type Change = fn(&mut Value);
    let gaps: [(&str, Change); 6] = [
        ("could not be asked: x, y", |list| list["federation:missing"] = json!(["x", "y"])),
        ("could not be asked: x", |list| list["federation:missing"] = json!("x")),
        ("a next one", |list| list["links"] = json!([{"rel": "next", "href": "https://other.example/jobs"}])),
        ("a next one", |list| list["links"] = json!([{"rel": "next", "href": null}])),
        ("a next one", |list| list["links"] = json!("odd")),
        ("has no id", |list| list["jobs"] = json!([{"status": "created", "title": "lost"}])),
    ];
    for (gap, change) in gaps {
        let (server, connection) = server(Config::quick());
        server.rewrite("list", move |_, list| change(list));
        let error = lost(&connection, &server, false);
        assert!(error.to_string().contains(gap), "{gap}: {error}");
    }
    let (server, connection) = server(Config { page: Some(1), ..Config::quick() });
    for _ in 0..2 {
        super::connect(&server).create_job(sum("another")).expect("created");
    }
    server.plan_page("list", 1, Fault::Status(404));
    assert!(lost(&connection, &server, false).to_string().contains("404"));
}

#[test]
fn a_job_that_the_back_end_may_have_changed_is_a_doubt() {
    let (server, connection) = server(Config::quick());
    server.rewrite("describe", |_, job| job["process"]["process_graph"]["add1"]["arguments"]["z"] = json!(0));
    assert!(lost(&connection, &server, true).to_string().contains("it may be j-000001"));
}

#[test]
fn what_the_back_end_may_still_be_making_is_looked_for_and_not_made_again() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::Status(504), 1);
    let error = connection.create_job(sum("slow")).expect_err("it is not known");
    assert!(
        matches!(&error, OpenEoError::LostReply { why, .. } if why.contains("may still be making it")),
        "{error:?}"
    );
    assert_eq!((server.count("create"), server.count("list")), (1, 3));
}

#[test]
fn what_a_proxy_gave_up_waiting_for_is_not_made_again() {
    // At the same time, because each waits for three looks.
    thread::scope(|scope| {
        for status in [520, 522, 524, 598, 599] {
            scope.spawn(move || {
                let (server, connection) = server(Config::quick());
                server.plan("create", Fault::Status(status), 1);
                let error = connection.create_job(sum("slow")).expect_err("it is not known");
                assert!(
                    matches!(&error, OpenEoError::LostReply { why, .. } if why.contains("may still be making it")),
                    "{status}: {error:?}"
                );
                assert_eq!(server.count("create"), 1, "{status}");
            });
        }
    });
}

#[test]
fn what_appears_a_moment_after_a_proxy_lost_the_back_end_is_found() {
    thread::scope(|scope| {
        for status in [502, 503, 521, 523, 525, 526, 527] {
            scope.spawn(move || {
                let (server, connection) = server(Config::quick());
                server.plan("create", Fault::DoneBut(status), 1);
                let lists = AtomicUsize::new(0);
                server.rewrite("list", move |_, list| {
                    if lists.fetch_add(1, Ordering::SeqCst) == 0 {
                        list["jobs"] = json!([]);
                    }
                });
                let job = connection.create_job(sum("late")).expect("found");
                assert_eq!((server.jobs().len(), server.jobs()[0].id.as_str()), (1, job.id()), "{status}");
            });
        }
    });
}

#[test]
fn a_cancel_while_a_job_is_made_tells_the_doubt_and_makes_no_second() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::Hang, 1);
    let executor = Executor::builder().threads(1).build().expect("an executor");
    let store = Arc::new(connection);
    let create = |connection: &Connection, ()| connection.create_job(sum("slow"));
    let request = executor.submit(&store, create, true, ()).expect("accepted");
    crate::support::eventually("it is asked for", || server.count("create") == 1);
    assert!(!request.cancel(), "it runs");
    let error = request.wait(crate::support::HANG).expect_err("it is not known");
    let error = error.operation::<OpenEoError>().expect("the client's own");
    assert!(matches!(error, OpenEoError::LostReply { why, .. } if why.contains("cancelled")), "{error:?}");
    assert_eq!(error.http().map(HttpError::kind), Some(HttpErrorKind::Cancelled), "{error:?}");
    assert_eq!((server.count("create"), server.count("list")), (1, 0), "neither made again nor looked for");
}

#[test]
fn of_many_alike_jobs_with_lost_replies_each_finds_its_own() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::LostReply, 1);
    server.plan_for("create", "alike", Fault::DoneBut(502), 3);
    let executor = Executor::builder().threads(8).build().expect("an executor");
    let store = Arc::new(connection);
    let create = |connection: &Connection, ()| connection.create_job(sum("alike")).map(|job| job.id().to_owned());
    let requests: Vec<_> = (0..8).map(|_| executor.submit(&store, create, false, ()).expect("accepted")).collect();
    let mut ids = executor.wait_requests(&requests, None).expect("all made");
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), server.jobs().len()), (8, 8));
}

#[test]
fn what_can_not_be_found_out_is_said() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::LostReply, 1);
    server.plan("list", Fault::Status(400), 99);
    let error = connection.create_job(sum("lost")).expect_err("it is not known");
    let OpenEoError::LostReply { title, .. } = &error else { panic!("{error:?}") };
    assert_eq!(title, "lost");
    assert!(error.to_string().contains("look into the job list"), "{error}");
    assert_eq!(server.jobs().len(), 1);
}

#[test]
fn a_request_that_is_sent_on_and_makes_no_job_says_where_to() {
    for status in [301, 302, 303] {
        let (server, connection) = server(Config::quick());
        server.plan("create", Fault::Redirect(status), 1);
        let error = connection.create_job(sum("sent on")).expect_err("no job came of it");
        let OpenEoError::Invalid(text) = &error else { panic!("{status}: {error:?}") };
        let origin = connection.root_url().split("/openeo").next().expect("an origin");
        let said = format!(
            "the back-end sent the request to create a job on to {origin}/neighbour/jobs, and no job came of that: \
             connect by the URL of its API"
        );
        assert_eq!(*text, said, "{status}");
        assert!(server.jobs().is_empty() && server.count("list") == 1, "{status}: it was looked for");
    }
}
