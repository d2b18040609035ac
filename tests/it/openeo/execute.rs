//! Graphs that are computed at once, into memory and into files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fulmar::client::http::{Existing, HttpClient, HttpErrorKind, Timeouts};
use fulmar::client::openeo::{Connection, ExecuteOptions, NewJob, OpenEoError, ProcessGraph};
use fulmar::{Executor, Store};
use openeo_server::{Config, Fault};
use serde_json::json;

use super::{Folder, server};
use crate::support::HANG;

fn sum() -> ProcessGraph {
    ProcessGraph::start("add", json!({"x": 3, "y": 5}))
}

fn image() -> ProcessGraph {
    ProcessGraph::load_collection("SENTINEL2_L2A").save_result("GTiff")
}

fn kind(error: &OpenEoError) -> HttpErrorKind {
    match error {
        OpenEoError::Http(error) => error.kind(),
        other => panic!("{other:?}"),
    }
}

fn may_have_arrived(error: &OpenEoError) -> bool {
    error.http().is_some_and(|error| error.may_have_arrived())
}

#[test]
fn a_value_comes_back_with_what_it_has_cost() {
    let (_server, connection) = server(Config::quick());
    let job = NewJob::new(sum()).plan("free").budget(10.0);
    let computed = connection.execute(job, &ExecuteOptions::new()).expect("computed");
    assert_eq!(computed.json().expect("JSON"), 8);
    assert_eq!((computed.costs(), computed.id().as_deref()), (Some(2.5), Some("r-000001")));
    assert!(computed.length_known());
    let image = connection.execute(image(), &ExecuteOptions::new()).expect("computed");
    assert_eq!((image.content_type().as_deref(), &image.bytes()[..4]), (Some("image/tiff"), &b"II*\0"[..]));
    let error =
        connection.execute(ProcessGraph::start("none", json!({})), &ExecuteOptions::new()).expect_err("no such");
    assert_eq!(error.code(), Some("ProcessGraphInvalid"));
}

#[test]
fn a_file_has_its_name_when_it_is_whole_and_is_computed_once() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let path = folder.path().join("new/image.tif");
    let options = ExecuteOptions::new();
    assert_eq!(connection.download(image(), &path, &options).expect("downloaded"), path);
    let whole = std::fs::read(&path).expect("a file");
    assert_eq!(whole.len(), 4_104);

    server.plan("result", Fault::CutAt(1_000), 1);
    let other = folder.path().join("cut.tif");
    let error = connection.download(image(), &other, &options).expect_err("cut");
    assert_eq!(kind(&error), HttpErrorKind::Broken);
    assert_eq!(folder.names(), ["new"], "nothing is left of it");
    assert_eq!(server.count("result"), 2, "nobody asked for it to be computed again");
    server.plan("result", Fault::LostReply, 1);
    let error = connection.execute(sum(), &options).expect_err("lost");
    assert!(kind(&error) == HttpErrorKind::Broken && may_have_arrived(&error), "{error:?}");
    assert_eq!(server.count("result"), 3);

    let kept = ExecuteOptions::new().existing(Existing::Refuse);
    assert_eq!(kind(&connection.download(image(), &path, &kept).expect_err("it is there")), HttpErrorKind::File);
    let small = ExecuteOptions::new().max_bytes(4_103);
    assert_eq!(kind(&connection.download(image(), &other, &small).expect_err("too large")), HttpErrorKind::TooLarge);
    assert_eq!(kind(&connection.execute(image(), &small).expect_err("too large")), HttpErrorKind::TooLarge);
    assert_eq!(std::fs::read(&path).expect("a file"), whole);
}

#[test]
fn a_page_in_place_of_a_result_is_no_result() {
    let (server, connection) =
        server(Config { assets: vec![("p".into(), "text/html".into(), 100)], ..Config::quick() });
    let folder = Folder::new();
    let error = connection.execute(image(), &ExecuteOptions::new()).expect_err("a page");
    assert!(matches!(&error, OpenEoError::Reply(text) if text.contains("HTML")), "{error:?}");
    let error = connection.download(image(), folder.path().join("a.tif"), &ExecuteOptions::new()).expect_err("a page");
    assert_eq!(kind(&error), HttpErrorKind::Content);
    assert_eq!((folder.names().len(), server.count("result")), (0, 2));
}

#[test]
fn a_back_end_may_think_longer_than_any_reply_takes_but_not_longer_than_the_limit() {
    let (server, _) = server(Config::quick());
    let hasty = Timeouts { first_byte: Some(Duration::from_millis(50)), ..Timeouts::default() };
    let connection = Connection::connect_with(&server.url(), HttpClient::builder().timeouts(hasty)).expect("connected");
    connection.authenticate_basic("u", "u123").expect("logged in");
    server.plan("result", Fault::Hang, 2);
    let limited = ExecuteOptions::new().time_limit(Duration::from_millis(300));
    let error = connection.execute(sum(), &limited).expect_err("it hangs");
    // Not by the limit for other replies, which passed long before.
    assert!(kind(&error) == HttpErrorKind::Timeout && error.to_string().contains("the whole took too long"), "{error}");
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| connection.execute(sum(), &ExecuteOptions::new()));
        assert!(server.await_hung(2));
        server.release();
        assert_eq!(patient.join().expect("no panic").expect("computed").json().expect("JSON"), 8);
    });
}

#[test]
fn a_cancel_arrives_while_the_back_end_computes() {
    let (server, connection) = server(Config::quick());
    let (folder, stop) = (Folder::new(), AtomicBool::new(false));
    let options = || ExecuteOptions::new().cancelled(|| stop.load(Ordering::SeqCst));
    server.plan("result", Fault::Hang, 2);
    std::thread::scope(|scope| {
        let value = scope.spawn(|| connection.execute(sum(), &options()).map(drop));
        let file = scope.spawn(|| connection.download(image(), folder.path().join("a.tif"), &options()).map(drop));
        assert!(server.await_hung(2));
        stop.store(true, Ordering::SeqCst);
        for ended in [value, file] {
            let error = ended.join().expect("no panic").expect_err("cancelled");
            assert_eq!(kind(&error), HttpErrorKind::Cancelled);
            assert!(may_have_arrived(&error));
        }
    });
    assert!(folder.names().is_empty(), "{:?}", folder.names());
    let error = connection.execute(sum(), &options()).expect_err("cancelled");
    assert_eq!(kind(&error), HttpErrorKind::Cancelled);
}

#[test]
fn a_cancel_of_the_request_ends_the_wait_for_the_back_end() {
    let (server, connection) = server(Config::quick());
    let executor = Executor::builder().threads(1).build().expect("an executor");
    server.plan("result", Fault::Hang, 1);
    let request =
        executor.spawn(move || connection.execute(sum(), &ExecuteOptions::new()).map(drop)).expect("accepted");
    assert!(server.await_hung(1));
    assert!(!request.cancel(), "it runs already, and is told");
    let ended = request.wait(HANG).expect("it ends").expect_err("cancelled");
    assert_eq!(kind(&ended), HttpErrorKind::Cancelled);
}

#[test]
fn a_graph_is_computed_and_a_job_changed_by_name() {
    let (_server, connection) = server(Config::quick());
    let graph = json!({"process_graph": {"a": {"process_id": "add", "arguments": {"x": 3, "y": 5}, "result": true}}});
    assert_eq!(connection.call("execute", json!({"process": graph})).expect("computed"), 8);
    let made = connection.call("create_job", json!({"title": "t", "budget": 5, "process": graph})).expect("created");
    let change = json!({"id": made["id"], "key": made["id"], "title": "u", "budget": null});
    assert_eq!(connection.call("change_job", change).expect("changed"), json!(null));
    let now = connection.call("describe_job", json!({"id": made["id"]})).expect("described");
    assert_eq!((&now["title"], now.get("budget"), now.get("key")), (&json!("u"), None, None));
}
