//! A submission whose answer was lost, on servers that say when what happens: nobody else's job is taken, and nothing is
//! submitted that nobody wants any more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulmar::batch::BatchReport;
use fulmar::client::http::HttpErrorKind;
use fulmar::client::pairs::{Client, PairsError, Query, QueryResult, batch_query, start_batch_query};

use super::scripted::{Server, Then, reply};
use super::{Folder, options, point, square, told};
use crate::support::{Gate, HANG};

fn client(server: &Server) -> Client {
    Client::builder(&server.url("/v2")).http(|http| http.environment_proxy(false)).build().expect("a client")
}

fn posts(server: &Server) -> usize {
    server.seen().iter().filter(|seen| seen.method == "POST").count()
}

#[test]
fn a_batch_that_is_cancelled_while_it_looks_for_a_lost_job_submits_no_other() {
    let (folder, list) = (Folder::new(), Gate::new());
    let gate = list.clone();
    let server = Server::start(move |seen, stream| {
        if seen.method == "POST" {
            return Then::Close;
        }
        gate.pass();
        reply(stream, 200, &[], br#"{"totPages":1,"queryJobList":[]}"#)
    });
    let batch = start_batch_query(&client(&server), [square("a")], options(&folder)).expect("sound");
    list.await_arrivals(1);
    batch.cancel();
    list.open();
    let report = batch.wait(HANG).expect("it ends");
    assert_eq!(report.stats.cancelled, 1, "{}", told(&report));
    assert_eq!(posts(&server), 1, "{:?}", report.jobs[0].notes);
    assert!(report.jobs[0].notes.iter().any(|note| note.contains("may have a job")), "{:?}", report.jobs[0].notes);
}

#[test]
fn a_batch_that_is_cancelled_while_a_submission_is_on_its_way_says_that_there_may_be_a_job() {
    let (folder, silence) = (Folder::new(), Gate::new());
    let gate = silence.clone();
    let server = Server::start(move |_, _| {
        gate.pass();
        Then::Close
    });
    let batch = start_batch_query(&client(&server), [square("a")], options(&folder)).expect("sound");
    silence.await_arrivals(1);
    batch.cancel();
    // The server says nothing until then.
    let report = batch.wait(HANG).expect("it ends");
    silence.open();
    assert_eq!(report.stats.cancelled, 1, "{}", told(&report));
    assert_eq!((posts(&server), server.seen().len()), (1, 1), "{:?}", report.jobs[0].notes);
    assert!(report.jobs[0].notes.iter().any(|note| note.contains("may have a job")), "{:?}", report.jobs[0].notes);
}

#[test]
fn a_dry_run_whose_answer_was_lost_leaves_no_job_to_look_for() {
    let folder = Folder::new();
    let server = Server::start(|seen, stream| match seen.number {
        0 => Then::Close,
        _ => reply(stream, 200, &[], br#"{"info":{"usage":1}}"#),
    });
    let query = Query::builder().layer(92).square(0.0, 0.0, 1.0, 1.0).dry_run(true).build().expect("a query");
    let report = batch_query(&client(&server), [query], options(&folder)).expect("sound");
    assert!(report.is_success(), "{}", told(&report));
    assert!(report.jobs[0].notes.is_empty(), "{:?}", report.jobs[0].notes);
    assert_eq!((posts(&server), server.seen().len()), (2, 2));
}

#[test]
fn a_submission_that_outlived_its_token_twice_is_made_again_and_nothing_is_in_doubt() {
    for (status, said) in [(500, "Invalid-JWT-Validate"), (401, "'exp' claim expired at Mon, 12 Jul 2021")] {
        let folder = Folder::new();
        let server = Server::start(move |seen, stream| {
            if seen.target.contains("/api-key") {
                return reply(stream, 200, &[], format!("token-{}", seen.number).as_bytes());
            }
            match seen.number {
                // The first two ask whether it speaks plain http; then each with a token before it.
                0..=6 => reply(stream, status, &[], format!(r#"{{"error":"{said}"}}"#).as_bytes()),
                _ => reply(stream, 200, &[], br#"{"id":"own"}"#),
            }
        });
        let client = Client::builder(&server.url("/v3")).api_key("PHX-key").tenant_id("tenant").org_id("organisation");
        let client = client.auth_endpoint(&server.url("")).http(|http| http.environment_proxy(false));
        let client = client.build().expect("a client");
        let options = options(&folder).status(false).download(false);
        let report = batch_query(&client, [square("a")], options).expect("sound");
        assert!(report.is_success(), "{}", told(&report));
        assert!(report.jobs[0].attempts.submit > 1, "the first had no more than one renewal");
        assert!(report.jobs[0].notes.is_empty(), "{:?}", report.jobs[0].notes);
        assert!(server.seen().iter().all(|seen| !seen.target.contains("/list")), "there was nothing to look for");
    }
}

/// What comes of one query.
fn run(server: &Server) -> BatchReport<QueryResult> {
    batch_query(&client(server), [square("a")], options(&Folder::new())).expect("sound")
}

fn failure(report: &BatchReport<QueryResult>) -> &PairsError {
    let outcome = report.jobs[0].outcome.as_ref();
    outcome.expect_err("it can't succeed").error().unwrap_or_else(|| panic!("{}", told(report)))
}

#[test]
fn a_job_that_may_exist_is_a_lost_reply_that_says_why() {
    // A list that has entries which can't be read; one that may go on; one that can't be had; one
    // that may have it.
    let gap = r#"{"totPages":1,"queryJobList":[7]}"#.to_owned();
    let other = |id| format!(r#"{{"id":"{id}","nickname":"other","status":"Queued","statusCode":0}}"#);
    let others: Vec<String> = (0..100).map(other).collect();
    let full = format!(r#"{{"queryJobList":[{}]}}"#, others.join(","));
    let alike = r#"{"totPages":1,"queryJobList":[{"id":"1","status":"Queued","statusCode":0}]}"#.to_owned();
    for (status, list, said) in [
        (200, gap, "which may lack some"),
        (200, full, "no totPages"),
        (403, "{}".to_owned(), "403"),
        (200, alike, "it may be 1"),
    ] {
        let server = Server::start(move |seen, stream| match seen.method.as_str() {
            "POST" => Then::Close,
            _ if seen.target.contains("/list") => reply(stream, status, &[], list.as_bytes()),
            _ => reply(stream, 404, &[], b"{}"),
        });
        let report = run(&server);
        let (error, notes) = (failure(&report), &report.jobs[0].notes);
        let PairsError::LostReply { name, why, source } = error else { panic!("{error:?}") };
        assert!(name == "a" && why.contains(said), "{error}");
        assert!(matches!(&**source, PairsError::Http(error) if error.kind() == HttpErrorKind::Broken), "{source:?}");
        assert!(!error.is_retryable() && notes.iter().any(|note| note.contains("may have a job")), "{notes:?}");
        assert_eq!(posts(&server), 1);
    }
}

#[test]
fn a_submission_that_is_sent_on_and_makes_no_job_says_where_to() {
    for status in [301, 302, 303] {
        let server = Server::start(move |seen, stream| match (seen.method.as_str(), seen.target.as_str()) {
            ("POST", _) => reply(stream, status, &[("Location", "/login?next=secret")], b""),
            (_, target) if target.contains("/list") => reply(stream, 200, &[], br#"{"totPages":1,"queryJobList":[]}"#),
            _ => reply(stream, 200, &[("Content-Type", "text/html")], b"<html>who are you?</html>"),
        });
        let report = run(&server);
        let error = failure(&report);
        let said = format!(
            "the server sent the submission on to {}, and no job came of that: name the URL of its API as the host",
            server.url("/login")
        );
        assert!(matches!(error, PairsError::SentOn { .. }) && error.to_string() == said, "{status}: {error}");
        assert_eq!(posts(&server), 1, "{status}");
    }
}

#[test]
fn a_job_that_appears_a_moment_after_a_proxy_lost_the_server_is_found() {
    for status in [502, 503, 521] {
        let (folder, lists) = (Folder::new(), AtomicUsize::new(0));
        let server = Server::start(move |seen, stream| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
            let job = format!(r#"{{"id":"own","status":"Succeeded","statusCode":20,"start":{now}}}"#);
            let body = if seen.method == "POST" {
                return reply(stream, status, &[], b"<html>lost</html>");
            } else if !seen.target.contains("/list") && !seen.target.contains("/queryhistories/") {
                job
            } else if seen.target.contains("/queryhistories/") {
                serde_json::json!({"queryjob": "own", "apiJson": square("a").to_submit().to_string()}).to_string()
            } else if lists.fetch_add(1, Ordering::SeqCst) == 0 {
                r#"{"totPages":1,"queryJobList":[]}"#.to_owned()
            } else {
                format!(r#"{{"totPages":1,"queryJobList":[{job}]}}"#)
            };
            reply(stream, 200, &[], body.as_bytes())
        });
        let report = batch_query(&client(&server), [square("a")], options(&folder).download(false)).expect("sound");
        assert!(report.is_success(), "{status}: {}", told(&report));
        assert_eq!(posts(&server), 1, "{status}: {:?}", report.jobs[0].notes);
    }
}

#[test]
fn a_submission_that_a_proxy_gave_up_on_is_not_made_again() {
    let server = Server::start(|seen, stream| match seen.method.as_str() {
        "POST" => reply(stream, 524, &[], b"<html>timeout</html>"),
        _ => reply(stream, 200, &[], br#"{"totPages":1,"queryJobList":[]}"#),
    });
    let report = run(&server);
    assert!(matches!(failure(&report), PairsError::LostReply { .. }), "{}", told(&report));
    assert_eq!(posts(&server), 1);
}

/// How far the exchange below is.
#[derive(Default)]
struct Progress {
    submitted: usize,
    has_listed: bool,
    has_told_history: bool,
    has_told_status: bool,
}

#[derive(Clone, Default)]
struct Steps(Arc<(Mutex<Progress>, Condvar)>);

impl Steps {
    fn set(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.0.0.lock().expect("no panic"));
        self.0.1.notify_all();
    }

    fn until(&self, limit: Duration, is_so: impl Fn(&Progress) -> bool) -> MutexGuard<'_, Progress> {
        let progress = self.0.0.lock().expect("no panic");
        self.0.1.wait_timeout_while(progress, limit, |progress| !is_so(progress)).expect("no panic").0
    }
}

#[test]
fn a_job_that_a_twin_has_made_since_the_look_began_stays_the_twins() {
    let (folder, steps) = (Folder::new(), Steps::default());
    let server = Server::start(move |seen, stream| {
        let status = |id: &str| format!(r#"{{"id":"{id}","status":"Succeeded","statusCode":20}}"#);
        if seen.method == "POST" && String::from_utf8_lossy(&seen.body).contains("in between") {
            // The twin begins when the other one looks already.
            drop(steps.until(HANG, |progress| progress.has_listed));
            return reply(stream, 200, &[], br#"{"data":[]}"#);
        }
        if seen.method == "POST" {
            let mut number = 0;
            steps.set(|progress| {
                progress.submitted += 1;
                number = progress.submitted;
            });
            return match number {
                1 => Then::Close,
                2 => {
                    drop(steps.until(HANG, |progress| progress.has_told_history));
                    // Time for the other to take it: it mustn't, so nothing says when it has not.
                    drop(steps.until(Duration::from_millis(300), |progress| progress.has_told_status));
                    reply(stream, 200, &[], br#"{"id":"twins"}"#)
                }
                _ => reply(stream, 200, &[], br#"{"id":"own"}"#),
            };
        }
        let body = if seen.target.contains("/list") {
            steps.set(|progress| progress.has_listed = true);
            drop(steps.until(HANG, |progress| progress.submitted > 1));
            format!(r#"{{"totPages":1,"queryJobList":[{}]}}"#, status("twins"))
        } else if seen.target.contains("/queryhistories/") {
            steps.set(|progress| progress.has_told_history = true);
            serde_json::json!({"queryjob": "twins", "apiJson": square("twin").to_submit().to_string()}).to_string()
        } else {
            steps.set(|progress| progress.has_told_status = true);
            status(seen.target.rsplit('/').next().unwrap_or_default())
        };
        reply(stream, 200, &[], body.as_bytes())
    });
    let queries = [square("twin"), point("in between"), square("twin")];
    let report = batch_query(&client(&server), queries, options(&folder).workers(2).download(false)).expect("sound");
    assert!(report.is_success(), "{}", told(&report));
    let id = |at: usize| report.jobs[at].outcome.as_ref().ok().and_then(|result| result.id.as_deref());
    assert_eq!((id(0), id(2)), (Some("own"), Some("twins")), "{:?}", report.jobs[0].notes);
    assert!(report.jobs[0].notes.iter().any(|note| note.contains("twice")), "{:?}", report.jobs[0].notes);
}
