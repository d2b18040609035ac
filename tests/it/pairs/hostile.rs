//! Servers that say what no PAIRS server says: whatever they do, it ends as an error with its reason, and nothing is left.

use std::fs;
use std::path::Path;

use fulmar::batch::BatchReport;
use fulmar::client::http::archive::{ArchiveError, Limits};
use fulmar::client::http::{HttpClientBuilder, HttpErrorKind, Method};
use fulmar::client::pairs::{Client, ClientBuilder, PairsError, QueryResult, batch_query};

use super::scripted::{Server, Then, reply};
use super::{Folder, client, options, point, quick, server, square, told};
use crate::support::eventually;

const ID: &str = "1234567890_12345678";

/// Answers a submission, a question for the status and a download with these, each as status, type and body.
struct Script {
    submit: (u16, &'static str, Vec<u8>),
    status: (u16, &'static str, Vec<u8>),
    download: (u16, &'static str, Vec<u8>),
}

fn sound(download: &[u8]) -> Script {
    let status = format!(r#"{{"id":"{ID}","status":"Succeeded","statusCode":20}}"#);
    Script {
        submit: (200, "application/json", format!(r#"{{"id":"{ID}"}}"#).into_bytes()),
        status: (200, "application/json", status.into_bytes()),
        download: (200, "application/zip", download.to_vec()),
    }
}

/// Runs one query against the script, with two attempts for each step.
fn run(script: Script, folder: &Folder) -> (Server, BatchReport<QueryResult>) {
    let server = scripted(script);
    let report = batch_query(&to(&server).build().expect("a client"), [square("a")], options(folder).attempts(2));
    (server, report.expect("sound"))
}

fn to(server: &Server) -> ClientBuilder {
    Client::builder(&server.url("/v2")).http(|http| http.environment_proxy(false))
}

fn scripted(script: Script) -> Server {
    Server::start(move |seen, stream| {
        let (status, kind, body) = match (seen.method.as_str(), seen.target.as_str()) {
            ("POST", _) => &script.submit,
            (_, target) if target.ends_with("/download") => &script.download,
            (_, target) if target.contains("/list") => {
                return reply(stream, 200, &[], br#"{"totPages":1,"queryJobList":[]}"#);
            }
            _ => &script.status,
        };
        reply(stream, *status, &[("Content-Type", kind)], body)
    })
}

fn failure(report: &BatchReport<QueryResult>) -> &PairsError {
    let outcome = report.jobs[0].outcome.as_ref();
    outcome.expect_err("it can't succeed").error().unwrap_or_else(|| panic!("{}", told(report)))
}

/// A sound archive.
fn archive() -> Vec<u8> {
    let server = server(quick());
    let report = batch_query(&client(&server), [square("a")], options(&Folder::new()).download(false)).expect("sound");
    server.archive(report.jobs[0].id.as_deref().expect("an id")).expect("an archive")
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(from.as_bytes())).collect();
    assert_eq!(places.len(), 2, "once with the file, once in the index");
    places.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to.as_bytes()));
    bytes
}

#[test]
fn a_script_that_is_sound_succeeds() {
    let folder = Folder::new();
    let (_server, report) = run(sound(&archive()), &folder);
    assert!(report.is_success(), "{}", told(&report));
    assert_eq!(folder.files().len(), 5);
}

#[test]
fn an_id_from_the_server_that_climbs_is_no_id() {
    for id in ["../../x", "a/b", "", "x y"] {
        let (folder, submit) = (Folder::new(), serde_json::json!({"id": id}).to_string());
        let (server, report) = run(Script { submit: (200, "application/json", submit.into()), ..sound(b"") }, &folder);
        // The server says that it made a job, and not which.
        let PairsError::LostReply { source, .. } = failure(&report) else { panic!("{}", told(&report)) };
        assert!(matches!(**source, PairsError::Reply(_)), "{source:?}");
        assert!(report.jobs[0].notes.iter().any(|note| note.contains("may have a job")), "{:?}", report.jobs[0].notes);
        assert!(server.seen().iter().all(|seen| !seen.target.contains("x") && !seen.target.contains("a/b")));
        assert!(folder.files().is_empty());
    }
}

#[test]
fn the_status_of_another_query_is_no_status() {
    let (folder, other) = (Folder::new(), br#"{"id":"another","statusCode":20}"#.to_vec());
    let (_server, report) = run(Script { status: (200, "application/json", other), ..sound(b"") }, &folder);
    assert!(matches!(failure(&report), PairsError::Reply(text) if text.contains("another")), "{}", told(&report));
}

/// The archive with other bytes at this place behind each header of an entry, once with the files and once in the index.
fn reheaded(bytes: &[u8], with_file: usize, in_index: usize, to: u16) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (magic, offset) in [(b"PK\x03\x04", with_file), (b"PK\x01\x02", in_index)] {
        let places: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(magic)).collect();
        assert_eq!(places.len(), 4, "one for each file");
        places.into_iter().for_each(|at| bytes[at + offset..at + offset + 2].copy_from_slice(&to.to_le_bytes()));
    }
    bytes
}

#[test]
fn an_archive_that_is_not_unpacked_is_kept_for_whoever_trusts_it() {
    let climbing = |to| replaced(&archive(), "data_acknowledgement.txt", to);
    for (evil, fault) in [
        (climbing("../../../../tmp/evil.txt"), "names a folder"),
        (climbing("/tmp/fulmar-evil-evil.tx"), "is empty"),
        (climbing("output.info/../../ev.txt"), "names a folder"),
        (reheaded(&archive(), 8, 10, 93), "is packed in a way that isn't known here"),
        (reheaded(&archive(), 6, 8, 1), "is encrypted"),
    ] {
        let folder = Folder::new();
        let (_server, report) = run(sound(&evil), &folder);
        let PairsError::Archive { source: ArchiveError::Refused { archive, fault: found, .. }, .. } = failure(&report)
        else {
            panic!("{}", told(&report))
        };
        assert_eq!((*archive == folder.path().join(format!("{ID}.zip")), *found), (true, fault));
        assert_eq!(folder.files(), [(format!("{ID}.zip"), evil)].into(), "and nothing else");
        assert!(told(&report).contains("was kept"), "{}", told(&report));
        assert_eq!(report.jobs[0].attempts.fetch, 1, "it would be the same again");
        assert!(!Path::new("/tmp/evil.txt").exists() && !Path::new("/tmp/fulmar-evil-evil.tx").exists());
    }
}

#[test]
fn what_is_no_data_is_no_file() {
    let whole = archive();
    let mut damaged = whole.clone();
    damaged[200] ^= 0xff;
    type Kind = fn(&PairsError) -> bool;
    let is_damaged: Kind = |error| matches!(error, PairsError::Archive { source: ArchiveError::Damaged { .. }, .. });
    let is_page: Kind = |error| matches!(error, PairsError::Http(error) if error.kind() == HttpErrorKind::Content);
    let is_useless: Kind = |error| matches!(error, PairsError::Download { .. });
    let cases: [(&str, &[u8], Kind); 10] = [
        ("an archive without its end", &whole[..whole.len() / 2], is_damaged),
        ("an archive with another bit", &damaged, is_damaged),
        ("JSON without its end", br#"{"data": [{"layerId": 1"#, is_useless),
        ("a page", b"<!DOCTYPE html><html>login</html>", is_page),
        ("nothing", b"", is_useless),
        ("prose", b"It didn't work out.", is_useless),
        ("prose with a comma", b"Sorry, it didn't work out.\n", is_useless),
        ("a gateway's error", br#"{"httpCode":"500","httpMessage":"no","moreInformation":"ask, later"}"#, is_useless),
        ("bytes", b"\x00\xff\xfe\x01", is_useless),
        ("half an archive's magic", b"PK\x03", is_useless),
    ];
    for (what, body, is_expected) in cases {
        let folder = Folder::new();
        let (_server, report) = run(sound(body), &folder);
        assert!(is_expected(failure(&report)), "{what}: {}", told(&report));
        assert!(folder.files().is_empty(), "{what}: {:?}", folder.files().keys());
        assert!(report.jobs[0].attempts.fetch == 2, "{what}: another download may be whole");
    }
}

#[test]
fn a_success_without_a_file_says_so() {
    let (empty_zip, folder) = ([b"PK\x05\x06".as_slice(), &[0; 18]].concat(), Folder::new());
    let (_server, report) = run(sound(&empty_zip), &folder);
    assert!(report.is_success(), "{}", told(&report));
    assert_eq!(report.jobs[0].notes, ["the archive of the result holds no file"]);

    let server = Server::of(br#"{"data":[]}"#);
    let report = batch_query(&to(&server).build().expect("a client"), [point("p")], options(&folder)).expect("sound");
    assert!(report.is_success(), "{}", told(&report));
    assert_eq!(report.jobs[0].notes, ["the server has no value for these points: there is no file"]);
}

#[test]
fn values_that_can_not_be_read_into_memory_are_in_the_file_and_the_report_says_why() {
    let (folder, body) = (Folder::new(), br#"{"values":[1,2]}"#);
    let server = scripted(Script { download: (200, "application/json", body.to_vec()), ..sound(b"") });
    let report = batch_query(&to(&server).build().expect("a client"), [point("p")], options(&folder)).expect("sound");
    assert!(report.is_success(), "{}", told(&report));
    assert_eq!(folder.files(), [(format!("{ID}.json"), body.to_vec())].into());
    let notes = &report.jobs[0].notes;
    assert!(notes.len() == 1 && notes[0].starts_with("the values are in the file alone: "), "{notes:?}");
}

#[test]
fn csv_points_that_were_cut_are_asked_for_again_and_one_that_may_be_is_said_to_be() {
    let whole = "layerId,timestamp,longitude,latitude,value\n92,1527811200000,-97.0,48.7,288.73\n";
    let bare = |stream: &mut std::net::TcpStream, text: &str| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nConnection: close\r\n\r\n";
        let _ = std::io::Write::write_all(stream, format!("{head}{text}").as_bytes());
        Then::Close
    };
    let query = || {
        let query = fulmar::client::pairs::Query::builder().layer(92).points(&[(48.7, -97.0)]).output_type("csv");
        query.name("p").build().expect("a query")
    };
    // Neither length nor chunks: the first ends within a line, the second might be all.
    let folder = Folder::new();
    let server = Server::start(move |seen, stream| bare(stream, if seen.number == 0 { &whole[..70] } else { whole }));
    let report = batch_query(&to(&server).build().expect("a client"), [query()], options(&folder)).expect("sound");
    let result = report.jobs[0].outcome.as_ref().unwrap_or_else(|_| panic!("{}", told(&report)));
    assert!(!result.data.as_ref().expect("in memory").length_known());
    assert_eq!(folder.files(), [("p.csv".to_owned(), whole.as_bytes().to_vec())].into());
    let notes = &report.jobs[0].notes;
    assert!(notes.len() == 1 && notes[0].contains("didn't say how long"), "{notes:?}");
    assert_eq!(server.seen().iter().map(|seen| seen.method.as_str()).collect::<Vec<_>>(), ["POST", "POST"]);

    // The same with a download: the first attempt is useless.
    let status = format!(r#"{{"id":"{ID}","status":"Succeeded","statusCode":20}}"#);
    let downloads = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |seen, stream| match seen.method.as_str() {
        "POST" => reply(stream, 200, &[], format!(r#"{{"id":"{ID}"}}"#).as_bytes()),
        _ if seen.target.ends_with("/download") => {
            let is_first = downloads.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            bare(stream, if is_first { &whole[..70] } else { whole })
        }
        _ => reply(stream, 200, &[], status.as_bytes()),
    });
    let folder = Folder::new();
    let report = batch_query(&to(&server).build().expect("a client"), [query()], options(&folder)).expect("sound");
    let result = report.jobs[0].outcome.as_ref().unwrap_or_else(|_| panic!("{}", told(&report)));
    assert!(result.files.may_lack_lines && report.jobs[0].attempts.fetch == 2, "{}", told(&report));
    assert!(report.jobs[0].notes.iter().any(|note| note.contains("didn't say how long")));
    assert_eq!(folder.files(), [(format!("{ID}.csv"), whole.as_bytes().to_vec())].into());

    // With a length a cut is a cut.
    let server = Server::start(move |_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", whole.len(), &whole[..70]);
        let _ = std::io::Write::write_all(stream, head.as_bytes());
        Then::Close
    });
    let error = to(&server).build().expect("a client").submit(&query()).expect_err("cut");
    assert!(matches!(&error, PairsError::Http(error) if error.kind() == HttpErrorKind::Broken), "{error:?}");
}

#[test]
fn numbers_that_json_does_not_know_lose_no_paid_result() {
    let body = br#"{"data":[{"layerId":"92","value":NaN,"latitude":-Infinity},{"layerId":"93","value":"7"}]}"#;
    let folder = Folder::new();
    let server = scripted(Script { download: (200, "application/json", body.to_vec()), ..sound(b"") });
    let report = batch_query(&to(&server).build().expect("a client"), [point("p")], options(&folder)).expect("sound");
    let result = report.jobs[0].outcome.as_ref().unwrap_or_else(|_| panic!("{}", told(&report)));
    assert_eq!((result.files.not_numbers, folder.files()), (2, [(format!("{ID}.json"), body.to_vec())].into()));
    let values = result.data.as_ref().expect("in memory, too").values().expect("values");
    assert_eq!(
        (values[0].value.as_deref(), values[0].layer_id, values[1].value.as_deref()),
        (None, Some(92), Some("7"))
    );
    assert!(!values[0].unreadable.is_empty() && values[1].unreadable.is_empty(), "{values:?}");
    assert!(report.jobs[0].notes.iter().any(|note| note.starts_with("2 numbers")), "{:?}", report.jobs[0].notes);

    // Points at once are no different.
    let server = Server::of(body);
    let submission = to(&server).build().expect("a client").submit(&point("p")).expect("read");
    let fulmar::client::pairs::Submission::Points(points) = submission else { panic!("{submission:?}") };
    assert_eq!(points.values().expect("values"), values);
}

#[test]
fn json_behind_a_byte_order_mark_is_data() {
    let (folder, body) = (Folder::new(), b"\xef\xbb\xbf{\"data\":[{\"value\":\"7\"}]}");
    let server = scripted(Script { download: (200, "application/json", body.to_vec()), ..sound(b"") });
    let report = batch_query(&to(&server).build().expect("a client"), [point("p")], options(&folder)).expect("sound");
    let result = report.jobs[0].outcome.as_ref().unwrap_or_else(|_| panic!("{}", told(&report)));
    let values = result.data.as_ref().expect("in memory, too").values().expect("values");
    assert_eq!((values[0].value.as_deref(), folder.files().len()), (Some("7"), 1));
}

#[test]
fn no_credentials_go_in_the_clear_to_a_server_that_wants_https() {
    // Where it leads to, nobody listens: what comes of it there is not the question.
    let server = Server::start(|seen, stream| {
        let location = format!("https://127.0.0.1:9{}", seen.target);
        reply(stream, 301, &[("Location", &location)], b"")
    });
    let http = |http: HttpClientBuilder| http.environment_proxy(false);
    let base = || Client::builder(&server.url("/v2")).http(http);
    let keys = Server::of(b"a-token");
    for client in [
        base().basic("me", "hunter2"),
        base().token("hunter2"),
        base().api_key("hunter2").auth_endpoint(&keys.url("")),
        Client::builder(&keys.url("/v2")).http(http).api_key("hunter2").auth_endpoint(&server.url("")),
    ] {
        let client = client.build().expect("a client");
        for _ in 0..2 {
            let error = client.submit(&square("a")).expect_err("it would be in the clear");
            let source = std::error::Error::source(&error).and_then(std::error::Error::source).map(ToString::to_string);
            let text = source.unwrap_or_else(|| error.to_string());
            assert!(text.contains("name it with `https://`"), "{error:?}");
        }
    }
    assert!(server.seen().iter().all(|seen| seen.header("authorization").is_none() && seen.body.is_empty()));
    assert!(keys.seen().iter().all(|seen| !String::from_utf8_lossy(&seen.body).contains("hunter2")));

    // One that speaks plain http is asked once, and then believed.
    let server = Server::of(br#"{"totPages":1,"queryJobList":[]}"#);
    let client = Client::builder(&server.url("/v2")).http(http).basic("me", "hunter2").build().expect("a client");
    for _ in 0..3 {
        client.list(false, 1, 1).expect("a list");
    }
    let with: Vec<bool> = server.seen().iter().map(|seen| seen.header("authorization").is_some()).collect();
    assert_eq!(with, [false, true, true, true]);
}

#[test]
fn another_call_of_the_api_has_the_clients_credentials_and_nobody_else_gets_them() {
    let server = Server::start(|seen, stream| match seen.target.as_str() {
        "/v2/away" => reply(stream, 302, &[("Location", "/other")], b""),
        _ => reply(stream, 200, &[], b"{}"),
    });
    let client = to(&server).basic("me", "hunter2").build().expect("a client");
    for method in [Method::Get, Method::Post, Method::Put, Method::Patch, Method::Delete] {
        let request = client.request(method, "/datasets").expect("it speaks http").json(&serde_json::json!({"a": 1}));
        assert_eq!(request.send().expect("answered").status(), 200);
    }
    client.request(Method::Get, "/away").expect("known").send().expect("answered");
    let seen = server.seen();
    let methods: Vec<&str> = seen[1..6].iter().map(|seen| seen.method.as_str()).collect();
    assert_eq!(methods, ["GET", "POST", "PUT", "PATCH", "DELETE"]);
    assert!(seen[1..7].iter().all(|seen| seen.header("authorization").is_some()));
    assert_eq!((seen[7].target.as_str(), seen[7].header("authorization")), ("/other", None));
}

#[test]
fn an_archive_beyond_the_limits_is_kept_and_who_raises_them_has_it_unpacked() {
    let (folder, whole) = (Folder::new(), archive());
    let server = scripted(sound(&whole));
    let zip = format!("{ID}.zip");
    let is_too_large =
        |error: &PairsError| matches!(error, PairsError::Archive { source: ArchiveError::TooLarge { .. }, .. });
    for limits in [Limits { entries: 3, ..Limits::default() }, Limits { bytes: 1_000, ..Limits::default() }] {
        let client = to(&server).build().expect("a client");
        let report = batch_query(&client, [square("a")], options(&folder).archive_limits(limits)).expect("sound");
        assert!(is_too_large(failure(&report)), "{}", told(&report));
        let text = told(&report);
        assert!(text.contains("was kept") && text.contains("`archive_limits`") && text.contains(&zip), "{text}");
        assert_eq!(folder.files(), [(zip.clone(), whole.clone())].into(), "and nothing else");
        assert_eq!(report.jobs[0].attempts.fetch, 1, "it would be the same again");
        // A single download is held to the client's limits, and so is a batch that has none of its own.
        let client = to(&server).archive_limits(limits).build().expect("a client");
        assert!(client.download(ID, folder.path()).is_err_and(|error| is_too_large(&error)));
        let report = batch_query(&client, [square("a")], options(&folder)).expect("sound");
        assert!(is_too_large(failure(&report)), "{}", told(&report));
        let report = batch_query(&client, [square("a")], options(&folder).archive_limits(Limits::default()));
        assert!(report.expect("sound").is_success(), "the batch's own count");
        fs::remove_dir_all(folder.path().join(ID)).expect("unpacked");
    }
}

#[test]
fn a_download_larger_than_allowed_leaves_nothing() {
    let (folder, whole) = (Folder::new(), archive());
    let server = scripted(sound(&whole));
    let is_too_large =
        |error: &PairsError| matches!(error, PairsError::Http(error) if error.kind() == HttpErrorKind::TooLarge);
    let client = to(&server).max_bytes(whole.len() as u64 - 1).build().expect("a client");
    assert!(client.download(ID, folder.path()).is_err_and(|error| is_too_large(&error)));
    let report = batch_query(&client, [square("a")], options(&folder)).expect("sound");
    assert!(is_too_large(failure(&report)), "{}", told(&report));
    assert!(folder.files().is_empty(), "{:?}", folder.files().keys());
    let allowed = options(&folder).max_bytes(whole.len() as u64);
    assert!(batch_query(&client, [square("a")], allowed).expect("sound").is_success(), "the batch's own counts");
}

#[test]
fn what_stands_there_from_before_survives_a_damaged_download() {
    let (folder, whole) = (Folder::new(), archive());
    let (_server, report) = run(sound(&whole), &folder);
    assert!(report.is_success(), "{}", told(&report));
    let before = folder.files();
    let (_server, report) = run(sound(&whole[..whole.len() / 2]), &folder);
    let is_damaged = matches!(failure(&report), PairsError::Archive { source: ArchiveError::Damaged { .. }, .. });
    assert!(is_damaged, "{}", told(&report));
    assert_eq!(folder.files(), before);
}

#[test]
fn a_submission_that_met_a_broken_server_is_not_repeated_and_the_report_says_what_may_be() {
    let folder = Folder::new();
    let broken = (500, "application/json", br#"{"message":"out of order"}"#.to_vec());
    let (server, report) = run(Script { submit: broken, ..sound(b"") }, &folder);
    assert!(told(&report).contains("out of order"), "{}", told(&report));
    assert!(report.jobs[0].notes.iter().any(|note| note.contains("may have a job")), "{:?}", report.jobs[0].notes);
    assert_eq!(server.seen().iter().filter(|seen| seen.method == "POST").count(), 1);
}

#[test]
fn a_refusal_of_points_is_told_in_the_servers_words_and_not_repeated() {
    for (status, kind, body, said) in [
        (
            422,
            "application/json",
            r#"{"message":"layer 51198 wants a dimension: horizon"}"#,
            "wants a dimension: horizon",
        ),
        (422, "text/csv", "Error: layer 51198 wants a dimension", "Error: layer 51198 wants a dimension"),
        (500, "application/json", "{}", "answered with status 500: {}"),
    ] {
        let folder = Folder::new();
        let script = Script { submit: (status, kind, body.into()), ..sound(b"") };
        let server = scripted(script);
        let client = to(&server).build().expect("a client");
        let report = batch_query(&client, [point("p")], options(&folder).compact_csv(true)).expect("sound");
        let PairsError::Http(error) = failure(&report) else { panic!("{}", told(&report)) };
        assert_eq!(error.kind(), HttpErrorKind::Status(status));
        assert!(error.to_string().contains(said), "{error}");
        let posts = server.seen().iter().filter(|seen| seen.method == "POST").count();
        assert_eq!((posts, folder.files().len()), (1, 0));
    }
}

#[test]
fn a_cancelled_batch_leaves_nothing_half_done() {
    let server = server(pairs_server::Config { run: std::time::Duration::from_secs(3_600), ..quick() });
    let folder = Folder::new();
    let queries = (0..20).map(|n| square(&n.to_string())).chain([point("p")]);
    let batch = fulmar::client::pairs::start_batch_query(&client(&server), queries, options(&folder).workers(21));
    let batch = batch.expect("sound");
    // Submitted as the batch knows it: a cancel would interrupt a call that the server has answered.
    eventually("all are submitted", || batch.stats().submitted == 21);
    eventually("the points are there", || batch.stats().succeeded == 1);
    batch.cancel();
    let report = batch.wait(crate::support::HANG).expect("it ends");
    assert_eq!((report.stats.succeeded, report.stats.cancelled), (1, 20), "{report}");
    assert_eq!(folder.files().into_keys().collect::<Vec<_>>(), ["p.json"]);
    assert!(report.jobs[..20].iter().all(|job| job.id.is_some()), "what goes on there can be watched later");
}

#[test]
fn what_an_older_version_of_ones_own_results_is_called_is_nobodys_to_remove() {
    let (folder, whole) = (Folder::new(), archive());
    for suffix in ["old", "new"] {
        let kept = folder.path().join(format!("{ID}.{suffix}"));
        fs::create_dir_all(&kept).expect("a folder");
        fs::write(kept.join("mine"), "kept").expect("written");
    }
    for _ in 0..2 {
        let (_server, report) = run(sound(&whole), &folder);
        assert!(report.is_success(), "{}", told(&report));
    }
    let files = folder.files();
    assert!(files.contains_key(&format!("{ID}.old/mine")) && files.contains_key(&format!("{ID}.new/mine")));
    assert_eq!(files.len(), 5 + 2, "{:?}", files.keys());
}

#[test]
fn a_server_that_repeats_what_it_was_sent_is_not_quoted_with_the_secret_in_it() {
    let server = Server::start(|seen, stream| {
        let sent = seen.header("authorization").unwrap_or_default();
        let body = match seen.target.contains("failed") {
            true => format!(r#"{{"id":"failed","statusCode":40,"status":"{sent}","message":"got {sent}"}}"#),
            false => format!(r#"{{"Authorization":"{sent}"}}"#),
        };
        reply(stream, 200, &[], body.as_bytes())
    });
    let client = Client::builder(&server.url("/v2")).basic("me", "hunter2secret");
    let client = client.http(|http| http.environment_proxy(false)).build().expect("a client");
    let folder = Folder::new();
    let failed = [square("a").with_id("failed").expect("an id")];
    let report = batch_query(&client, failed, options(&folder).submit(false)).expect("sound");
    let shown = [
        format!("{:?}", client.submit(&square("a"))),
        format!("{:?}", client.submit_compact_csv(&point("a"))),
        format!("{:?}", client.status("1")),
        format!("{:?}", client.list(false, 1, 10)),
        format!("{:?}", client.merge("1", "2")),
        format!("{report:?} {}", told(&report)),
    ];
    assert!(shown[0].contains("***") && shown[5].contains("***"), "{shown:?}");
    for shown in shown {
        assert!(!shown.contains("bWU6aHVudGVyMnNlY3JldA"), "{shown}");
    }
}
