//! Finding the version, capabilities, errors, and named operations.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use fulmar::client::http::{HttpClientBuilder, HttpErrorKind};
use fulmar::client::openeo::{Connection, OpenEoError};
use fulmar::{Executor, Store};
use openeo_server::{Config, Fault, Server};
use serde_json::json;

use super::{Folder, connect, finished, impatient, server, sum};
use super::{scripted, tls_server};

#[test]
fn the_version_document_leads_to_the_api() {
    let (server, connection) = server(Config::quick());
    assert_eq!(connection.root_url(), server.root());
    assert_eq!(connection.capabilities().api_version(), (1, 2, 0));
    assert!(connection.capabilities().supports("GET", "/jobs/{id}/logs"));
    assert_eq!(connection.me().expect("known")["user_id"], "u");
}

#[test]
fn without_a_version_document_the_url_is_the_api() {
    let server = Server::start(Config::quick()).expect("a server");
    let connection = Connection::connect_with(&format!("{}/", server.root()), impatient()).expect("connected");
    assert_eq!(connection.root_url(), server.root());
}

#[test]
fn what_is_no_back_end_is_said_to_be_none() {
    let server = Server::start(Config::quick()).expect("a server");
    let error = Connection::connect_with(&format!("{}/elsewhere", server.url()), impatient()).expect_err("not there");
    assert_eq!(error.code(), Some("NotFound"), "{error}");
    assert!(matches!(Connection::connect("ftp://host"), Err(OpenEoError::Invalid(_))));
    drop(server);
}

#[test]
fn a_refusal_has_code_message_and_incident() {
    let (_server, connection) = server(Config::quick());
    let error = connection.job("../me").describe().expect_err("no such job");
    let OpenEoError::Api(api) = &error else { panic!("{error:?}") };
    assert_eq!((api.code.as_str(), api.status, api.id.as_deref()), ("JobNotFound", 404, Some("r-1")));
    assert!(error.to_string().contains("does not exist") && error.to_string().contains("(incident r-1)"), "{error}");
    assert!(error.is_not_found() && !error.is_retryable());
    assert!(error.to_string().contains("/jobs/..%2Fme"), "an id leads nowhere else: {error}");
}

#[test]
fn a_gateways_page_is_an_http_error() {
    let (server, connection) = server(Config::quick());
    server.plan("describe", Fault::Status(503), 9);
    let error = connection.job("j").describe().expect_err("unavailable");
    assert!(matches!(error, OpenEoError::Http(_)) && error.is_retryable(), "{error:?}");
    assert_eq!(server.count("describe"), 4, "as often as the policy says");
}

#[test]
fn a_path_stays_below_the_root() {
    let (server, connection) = server(Config::quick());
    let before = server.count("total");
    for path in ["me", "", "/../../elsewhere", "/%2e%2e/%2e%2e/elsewhere", "@evil.example/me", ".evil.example/"] {
        let error = connection.get_json(path).expect_err(path);
        assert!(matches!(error, OpenEoError::Invalid(_)), "{path}: {error:?}");
    }
    assert_eq!(server.count("total"), before, "nobody is asked");
    connection.get_json("/me?x=/..").expect("a query may say anything");
}

#[test]
fn the_verbs_are_named_operations() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let store = Arc::new(connection);
    let executor = Executor::builder().threads(2).build().expect("an executor");
    let call = |op: &'static str, args| executor.submit(&store, op, true, args).and_then(|request| request.wait(None));
    let done = finished(&store, "done");

    let body = sum("named").as_json();
    let id = call("create_job", body).expect("created")["id"].clone();
    assert_eq!(call("job_status", json!({ "id": id })).expect("known"), "created");
    assert_eq!(call("list_jobs", json!({})).expect("listed").as_array().map(Vec::len), Some(2));
    assert_eq!(call("describe_job", json!({ "id": id })).expect("described")["title"], "named");
    assert!(call("start_job", json!({ "id": id })).expect("started").is_null());
    assert!(call("stop_job", json!({ "id": id })).expect("stopped").is_null());
    assert!(call("delete_job", json!({ "id": id })).expect("deleted").is_null());
    let logs = call("job_logs", json!({"id": done.id(), "level": "info"})).expect("logs");
    assert_eq!(logs.as_array().map(Vec::len), Some(2));
    assert!(call("job_results", json!({"id": done.id()})).expect("results")["assets"].is_object());
    let files = call("download_results", json!({"id": done.id(), "folder": folder.path()})).expect("files");
    assert_eq!(files.as_array().map(Vec::len), Some(2));
    assert_eq!(call("validate", sum("x").as_json()).expect("asked"), json!([]));
    assert_eq!(call("me", json!({})).expect("known")["user_id"], "u");
    assert_eq!(call("get", json!({"path": "/me"})).expect("known")["user_id"], "u");
    assert_eq!(call("capabilities", json!({})).expect("known")["api_version"], "1.2.0");
    let refusal = call("estimate_job", json!({"id": done.id()})).expect_err("not supported here");
    let fulmar::Error::Operation(refusal) = refusal else { panic!("{refusal:?}") };
    let refusal = refusal.downcast_ref::<OpenEoError>().and_then(OpenEoError::code);
    assert_eq!(refusal, Some("FeatureUnsupported"));

    let unknown = store.call("explode", json!({})).expect_err("unknown").to_string();
    assert!(unknown.contains("explode") && unknown.contains("create_job"), "{unknown}");
    let missing = store.call("start_job", json!({})).expect_err("no id").to_string();
    assert!(missing.contains("`id`"), "{missing}");
    drop(server);
}

#[test]
fn no_secret_is_shown() {
    let server = Server::start(Config::quick()).expect("a server");
    let connection = Connection::connect_with(&server.url(), impatient()).expect("connected");
    let error = connection.authenticate_basic("u", "swordfish").expect_err("wrong");
    assert!(!format!("{error} {error:?} {connection:?}").contains("swordfish"), "{error:?}");
    assert_eq!(error.code(), Some("CredentialsInvalid"));
    let connection = connect(&server);
    let token =
        server.seen().iter().rev().find_map(|seen| {
            seen.headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.clone())
        });
    let token = token.expect("credentials were sent");
    assert!(!format!("{connection:?}").contains(&token));
}

/// A server that sends everything on.
fn redirecting(to: impl Fn(&str) -> String + Send + Sync + 'static) -> scripted::Server {
    scripted::Server::start(move |seen, stream| scripted::reply(stream, 301, &[("Location", &to(&seen.target))], b""))
}

#[test]
fn where_the_back_end_redirects_to_all_later_requests_go_at_once() {
    let server = Server::start(Config::quick()).expect("a server");
    let root = server.root();
    let old = redirecting(move |path| format!("{root}{}", path.strip_prefix("/old").unwrap_or(path)));
    let connection = Connection::connect_with(&old.url("/old"), impatient()).expect("connected");
    assert_eq!(connection.root_url(), server.root());
    let asked = old.seen().len();
    connection.authenticate_basic("u", "u123").expect("logged in");
    connection.create_job(sum("at the new place")).expect("a POST that no redirect turns into a GET");
    assert_eq!(old.seen().len(), asked, "credentials and jobs go to the new place alone");
}

#[test]
fn a_redirect_that_anybody_can_have_written_leads_to_no_other_host() {
    let server = Server::start(Config::quick()).expect("a server");
    let root = server.root().replace("127.0.0.1", "localhost");
    let old = redirecting(move |path| format!("{root}{path}"));
    let error = Connection::connect_with(&old.url(""), impatient()).expect_err("another host");
    assert!(
        matches!(&error, OpenEoError::Invalid(text) if text.contains("localhost") && text.contains("trust")),
        "{error}"
    );
}

#[test]
fn a_version_document_that_anybody_can_have_written_leads_to_no_other_host() {
    let server = Server::start(Config::quick()).expect("a server");
    let elsewhere = server.root().replace("127.0.0.1", "localhost");
    server.rewrite("versions", move |_, document| document["versions"][0]["url"] = json!(elsewhere));
    let error = Connection::connect_with(&server.url(), impatient()).expect_err("another host");
    assert!(
        matches!(&error, OpenEoError::Invalid(text) if text.contains("localhost") && text.contains("trust")),
        "{error}"
    );
}

#[test]
fn links_of_a_version_document_may_be_relative() {
    let server = Server::start(Config::quick()).expect("a server");
    server.rewrite("versions", |_, document| document["versions"][0]["url"] = json!("/openeo/1.2"));
    let connection = Connection::connect_with(&server.url(), impatient()).expect("connected");
    assert_eq!(connection.root_url(), server.root());
}

/// A back-end behind a proxy that speaks TLS for it, which the back-end doesn't know of: its own links begin with `http:`.
fn behind_tls(server: &Server) -> (tls_server::TlsServer, HttpClientBuilder) {
    let authority = tls_server::Authority::new("an authority");
    let config = authority.sign(&tls_server::local()).config();
    let origin = server.url();
    let to = origin.trim_start_matches("http://").to_owned();
    let tls = tls_server::TlsServer::answering(config, move |head, stream| {
        let length = |head: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-length:"));
            line.map_or(0, |line| line[15..].trim().parse::<usize>().expect("a number"))
        };
        let mut body = vec![0; length(head)];
        stream.read_exact(&mut body).expect("a body");
        let host = head.lines().find(|line| line.to_ascii_lowercase().starts_with("host:")).unwrap_or_default();
        let host = host[5..].trim().to_owned();
        let mut upstream = TcpStream::connect(&to).expect("the back-end");
        let head = head.trim_end().replace("keep-alive", "close");
        upstream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).expect("sent");
        upstream.write_all(&body).expect("sent");
        let mut reply = Vec::new();
        upstream.read_to_end(&mut reply).expect("a reply");
        // What the back-end says of itself, it says with the proxy's name.
        let split = reply.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let (head, body) = reply.split_at(split);
        let body = match std::str::from_utf8(body) {
            Ok(text) => text.replace(&to, &host).into_bytes(),
            Err(_) => body.to_vec(),
        };
        let head = String::from_utf8_lossy(head);
        let kept: String = head
            .lines()
            .filter(|line| !line.is_empty() && !line.to_ascii_lowercase().starts_with("content-length:"))
            .map(|line| format!("{line}\r\n"))
            .collect();
        let head = format!("{kept}Content-Length: {}\r\n\r\n", body.len());
        let sent =
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).and_then(|()| stream.flush());
        sent.is_ok()
    });
    (tls, impatient().root_certificate(authority.pem()))
}

#[test]
fn a_back_end_that_does_not_know_of_its_tls_is_spoken_to_safely_throughout() {
    let server = Server::start(Config { page: Some(1), ..Config::quick() }).expect("a server");
    let (tls, client) = behind_tls(&server);
    let connection = Connection::connect_with(&tls.url(), client).expect("connected");
    assert_eq!(connection.root_url(), format!("{}openeo/1.2", tls.url()));
    connection.authenticate_basic("u", "u123").expect("logged in");
    for number in 0..2 {
        connection.create_job(sum(&format!("job {number}"))).expect("created");
    }
    let list = connection.list_jobs().expect("listed");
    assert!(list.len() == 2 && list.is_complete(), "the next page's link begins with http: {list}");
    let job = connection.job(list.iter().next().expect("a job").id());
    job.start_and_wait(super::soon()).expect("finished");
    let folder = Folder::new();
    job.results().download_files(folder.path(), &fulmar::client::openeo::DownloadOptions::new()).expect("by https");
    assert_eq!(folder.names(), ["job-results.json", "openEO.tif", "out.csv"]);
}

#[test]
fn a_host_that_redirects_to_https_gets_no_credentials_in_the_clear() {
    let server = Server::start(Config::quick()).expect("a server");
    let (tls, client) = behind_tls(&server);
    let secure = tls.url();
    let open = redirecting(move |path| format!("{}{path}", secure.trim_end_matches('/')));
    let url = open.url("").replace("127.0.0.1", "localhost");
    let connection = Connection::connect_with(&url, client).expect("connected");
    assert!(connection.root_url().starts_with("https://"), "{}", connection.root_url());
    connection.authenticate_basic("u", "u123").expect("logged in");
    connection.create_job(sum("safe")).expect("created");
    let seen = open.seen();
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.header("authorization").is_none()), "{seen:?}");
}

#[test]
fn a_certificate_that_is_not_trusted_is_said_so_at_once() {
    let server = Server::start(Config::quick()).expect("a server");
    let (tls, _) = behind_tls(&server);
    let error = Connection::connect_with(&tls.url(), impatient()).expect_err("unknown authority");
    assert_eq!(error.http().map(|http| (http.kind(), http.attempts())), Some((HttpErrorKind::Tls, 1)), "{error:?}");
}
