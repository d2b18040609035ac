//! One request: connections, time limits, size limits, JSON.

use std::io::Write;
use std::time::Duration;

use fulmar::client::http::{HttpClient, HttpErrorKind, Method, Timeouts};
use serde_json::{Value, json};

use super::server::{Server, Then, head, reply};
use super::{client, quick, soon};
use crate::support::Gate;

#[test]
fn a_kept_connection_serves_many_requests_errors_and_redirects_included() {
    let server = Server::start(|seen, stream| match seen.number % 4 {
        0 => reply(stream, 200, &[], b"ok"),
        1 => reply(stream, 404, &[], b"not here"),
        2 => reply(stream, 302, &[("Location", "/next")], b"elsewhere"),
        _ => reply(stream, 204, &[], b""),
    });
    let client = client();
    for _ in 0..10 {
        assert_eq!(client.get(&server.url("/a")).send().expect("a reply").bytes(), b"ok");
        assert_eq!(client.get(&server.url("/b")).send().expect_err("not there").status(), Some(404));
        assert_eq!(client.clone().get(&server.url("/c")).send().expect("a reply").status(), 204);
    }
    assert_eq!(server.connections(), 1, "the connection isn't kept");
}

#[test]
fn json_goes_out_and_comes_in_with_query_and_headers() {
    let server = Server::start(|_, stream| {
        reply(stream, 201, &[("Content-Type", "application/json; charset=utf-8"), ("X-Id", "7")], b"{\"id\": 7}")
    });
    let request = client().post(&server.url("/jobs?a=1")).query("name", "a b&c").header("X-Client", "me");
    let reply = request.accept("application/json").json(&json!({"x": [1, 2]})).send().expect("a reply");
    assert_eq!(
        (reply.status(), reply.header("x-ID"), reply.content_type()),
        (201, Some("7"), Some("application/json".into()))
    );
    assert_eq!(reply.json::<Value>().expect("JSON"), json!({"id": 7}));
    assert_eq!(reply.text().expect("text"), "{\"id\": 7}");

    let seen = &server.seen()[0];
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/jobs?a=1&name=a+b%26c"));
    assert_eq!(seen.body, b"{\"x\":[1,2]}");
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!((seen.header("x-client"), seen.header("accept")), (Some("me"), Some("application/json")));
    assert!(seen.header("user-agent").is_some_and(|name| name.starts_with("fulmar/")), "{seen:?}");
}

#[test]
fn forms_empty_bodies_and_every_method_are_sent_as_they_should_be() {
    let server = Server::of(b"");
    let client = client();
    client.post(&server.url("/")).form(&[("a", "1 2"), ("b", "&")]).send().expect("a reply");
    client.put(&server.url("/")).send().expect("a reply");
    client.delete(&server.url("/")).send().expect("a reply");
    for method in [Method::Head, Method::Options, Method::Patch, Method::Get] {
        client.request(method, &server.url("/")).send().expect("a reply");
    }
    let seen = server.seen();
    assert_eq!(seen[0].body, b"a=1+2&b=%26");
    assert_eq!(seen[1].header("content-length"), Some("0"), "a PUT without a body says so");
    let methods: Vec<&str> = seen.iter().map(|seen| seen.method.as_str()).collect();
    assert_eq!(methods, ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "GET"]);
}

#[test]
fn a_body_that_is_no_json_is_an_error_that_says_where_and_shows_no_value() {
    let server = Server::start(|seen, stream| match seen.target.as_str() {
        "/page" => reply(stream, 200, &[("Content-Type", "text/html")], b"<html>Log in</html>"),
        _ => reply(stream, 200, &[], b"{\"token\": \"s3cr3t\"}"),
    });
    let error = client().get(&server.url("/page")).send().expect("a reply").json::<Value>().expect_err("a page");
    assert_eq!(error.kind(), HttpErrorKind::Content);
    assert!(error.to_string().contains("HTML"), "{error}");
    let reply = client().get(&server.url("/token")).send().expect("a reply");
    let error = reply.json::<std::collections::HashMap<String, u32>>().expect_err("no numbers");
    assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
}

fn limited(timeouts: Timeouts) -> HttpClient {
    quick().retry(soon(1)).timeouts(timeouts).build().expect("sound settings")
}

/// Long enough for what should come, short enough to wait for.
const SHORT: Option<Duration> = Some(Duration::from_millis(100));

#[test]
fn each_phase_has_its_time_limit() {
    let gate = Gate::new();
    let hold = gate.clone();
    let server = Server::start(move |seen, stream| {
        if seen.target == "/body" {
            head(stream, 200, &[], Some(10));
            let _ = stream.write_all(b"12345");
        }
        hold.pass();
        Then::Close
    });
    let none = Timeouts { connect: None, send: None, first_byte: None, body: None, total: None };

    let client = limited(Timeouts { first_byte: SHORT, ..none });
    let error = client.get(&server.url("/headers")).send().expect_err("no reply");
    assert_eq!(error.kind(), HttpErrorKind::Timeout, "first byte: {error:?}");
    assert!(error.may_have_arrived() && error.is_retryable(), "{error:?}");

    let client = limited(Timeouts { body: SHORT, first_byte: SHORT, ..none });
    let error = client.get(&server.url("/body")).send().expect_err("half a reply");
    assert_eq!(error.kind(), HttpErrorKind::Timeout, "body: {error:?}");

    let client = limited(Timeouts { total: SHORT, ..none });
    for path in ["/headers", "/body"] {
        let error = client.get(&server.url(path)).send().expect_err("too slow");
        assert_eq!(error.kind(), HttpErrorKind::Timeout, "total, {path}: {error:?}");
    }

    let error = client.get(&server.url("/x")).timeout(Duration::ZERO).send().expect_err("no time at all");
    assert_eq!((error.kind(), error.may_have_arrived()), (HttpErrorKind::Timeout, false), "{error:?}");

    // A server that reads nothing: the buffers between fill up.
    let client = limited(Timeouts { send: SHORT, ..none });
    let request = client.post(&server.url("/send")).header("X-Unread", "yes").body("a/b", vec![0; 64 << 20]);
    let error = request.send().expect_err("nobody reads it");
    assert_eq!(error.kind(), HttpErrorKind::Timeout, "send: {error:?}");
    gate.open();
}

#[test]
fn connecting_has_its_time_limit_encryption_included() {
    // It listens and says nothing: the handshake never ends.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("https://{}/", silent.local_addr().expect("an address"));
    let client = limited(Timeouts { connect: SHORT, ..Timeouts::default() });
    let error = client.post(&url).send().expect_err("no handshake");
    assert_eq!((error.kind(), error.may_have_arrived()), (HttpErrorKind::Timeout, false), "{error:?}");
}

#[test]
fn a_refused_connection_says_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let error = client().post(&format!("http://{free}/x")).send().expect_err("nobody listens");
    assert_eq!((error.kind(), error.may_have_arrived()), (HttpErrorKind::Connect, false), "{error:?}");
    assert_eq!(error.attempts(), 4, "nothing was sent, so a POST may be tried again");
}

#[test]
fn a_reply_larger_than_the_limit_is_refused_before_and_while_it_is_read() {
    let server = Server::start(|seen, stream| match seen.target.as_str() {
        "/told" => reply(stream, 200, &[], &[b'x'; 1001]),
        "/fits" => reply(stream, 200, &[], &[b'x'; 1000]),
        _ => {
            head(stream, 200, &[], None);
            // Until the client has enough.
            while stream.write_all(&[b'x'; 1000]).is_ok() {}
            Then::Close
        }
    });
    let client = quick().max_body(1000).build().expect("sound settings");
    assert_eq!(client.get(&server.url("/fits")).send().expect("fits").bytes().len(), 1000);
    for path in ["/told", "/endless"] {
        let error = client.get(&server.url(path)).send().expect_err("too large");
        assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::TooLarge, 1), "{path}: {error:?}");
    }
    assert_eq!(client.get(&server.url("/told")).max_body(1001).send().expect("fits now").bytes().len(), 1001);
}

#[test]
fn gzip_is_unpacked_and_a_bomb_ends_at_the_limit() {
    let server = Server::start(|seen, stream| {
        assert!(seen.header("accept-encoding").is_some_and(|kinds| kinds.contains("gzip")), "{seen:?}");
        let size = if seen.target == "/bomb" { 24 << 20 } else { 100_000 };
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let piece = [b'0'; 1 << 10];
        for _ in 0..size / piece.len() {
            packed.write_all(&piece).expect("in memory");
        }
        let packed = packed.finish().expect("in memory");
        assert!(packed.len() < 1 << 20, "it would pass for small");
        reply(stream, 200, &[("Content-Encoding", "gzip")], &packed)
    });
    let client = quick().max_body(1 << 20).build().expect("sound settings");
    let reply = client.get(&server.url("/fair")).send().expect("a reply");
    assert!(reply.bytes().len() > 99_000 && reply.bytes().iter().all(|byte| *byte == b'0'));
    let error = client.get(&server.url("/bomb")).send().expect_err("a bomb");
    assert_eq!(error.kind(), HttpErrorKind::TooLarge, "{error:?}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    let server = Server::of(b"");
    let url = server.url("/");
    let client = client();
    let with_user = url.replace("http://", "http://me:s3cr3t@");
    for request in [
        client.get("no url"),
        client.get("ftp://host.example/"),
        client.get("http://"),
        client.get(&with_user),
        client.get(&url).header("a b", "c"),
        client.get(&url).header("a", "b\r\nc: d"),
        client.get(&url).header("Content-Length", "7"),
        client.get(&url).header("Host", "other.example"),
        client.post(&url).json(&std::collections::HashMap::from([((1, 2), 3)])),
    ] {
        let error = request.send().expect_err("refused");
        assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::Invalid, 0), "{error:?}");
        assert!(!error.may_have_arrived() && !format!("{error:?} {error}").contains("s3cr3t"), "{error:?}");
    }
    assert!(server.seen().is_empty());
}

#[test]
fn whatever_has_no_end_ends_with_an_error() {
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (what, first, rest) in [
        ("headers", &b"HTTP/1.1 200 OK\r\n"[..], &b"X: y\r\n"[..]),
        ("a header", b"HTTP/1.1 200 OK\r\nX: ", b"yyyy"),
        ("a status line", b"HTTP/1.1 200 ", b"OK"),
        ("empty lines", b"", b"\r\n"),
        ("replies that are to come", b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ("hints", b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        ("a chunk's length", CHUNKED, b"0000"),
        ("a chunk's extension", &[CHUNKED, b"1;"].concat()[..], b"aaaa"),
        ("a chunk longer than any", &[CHUNKED, b"ffffffffffffffffff\r\n"].concat()[..], b"aaaa"),
        ("trailers", &[CHUNKED, b"0\r\n"].concat()[..], b"a: b\r\n"),
        ("a body", b"HTTP/1.1 200 OK\r\n\r\n", b"xxxx"),
    ] {
        let (first, rest) = (first.to_vec(), rest.repeat(1000));
        let server = Server::start(move |_, stream| {
            let _ = stream.write_all(&first);
            while stream.write_all(&rest).is_ok() {}
            Then::Close
        });
        let request = client().get(&server.url("/")).once().max_body(1 << 20).timeout(Duration::from_secs(1));
        let error = request.send().expect_err(what);
        assert!(error.may_have_arrived(), "{what}: {error:?}");
    }
}

#[test]
fn numbers_that_json_does_not_know_are_null_and_counted() {
    let server = Server::of(b"\xef\xbb\xbf{\"mean\": NaN, \"range\": [-Infinity, Infinity], \"name\": \"NaN\"}");
    let reply = client().get(&server.url("/")).send().expect("a reply");
    assert_eq!(reply.json::<Value>().expect("JSON"), json!({"mean": null, "range": [null, null], "name": "NaN"}));
    assert_eq!(reply.not_numbers(), 3);
}

/// A server that looks at the length alone, says no, and hangs up with all of the body unread: a reset follows its answer.
#[test]
fn a_refusal_of_what_is_not_read_is_heard_and_what_was_refused_is_sent_once() {
    let server = Server::start(|_, stream| {
        reply(
            stream,
            413,
            &[("Content-Type", "application/json"), ("Connection", "close")],
            b"{\"message\": \"too big\"}",
        );
        Then::Close
    });
    let request = client().put(&server.url("/")).header("X-Unread", "yes").body("a/b", vec![b'x'; 20 << 20]);
    let error = request.send().expect_err("refused");
    assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::Status(413), 1), "{error:?}");
    assert!(error.to_string().contains("too big") && !error.may_have_arrived(), "{error}");
    assert_eq!(server.connections(), 1);
}

#[test]
fn cookies_go_back_to_who_set_them_if_they_are_wanted() {
    let other = Server::of(b"other");
    let to = other.url("/");
    let server = Server::start(move |seen, stream| match (seen.target.as_str(), seen.header("cookie")) {
        ("/login", _) => {
            reply(stream, 303, &[("Set-Cookie", "session=s3cr3t-value; Path=/; HttpOnly"), ("Location", "/home")], b"")
        }
        ("/away", Some(_)) => reply(stream, 302, &[("Location", &to)], b""),
        (_, Some("session=s3cr3t-value")) => reply(stream, 200, &[], b"in"),
        (_, cookie) => reply(stream, 403, &[], format!("who? {cookie:?}").as_bytes()),
    });
    let with = quick().cookies(true).build().expect("sound settings");
    assert_eq!(with.post(&server.url("/login")).form(&[("user", "me")]).send().expect("logged in").bytes(), b"in");
    assert_eq!(with.get(&server.url("/data")).send().expect("still").bytes(), b"in");
    assert_eq!(with.get(&server.url("/away")).send().expect("away").bytes(), b"other");
    assert!(other.seen().iter().all(|seen| seen.header("cookie").is_none()), "a stranger got it");

    // The program's own go along, and win over one of their name.
    let echo = Server::start(|seen, stream| match seen.target.as_str() {
        "/set" => reply(stream, 200, &[("Set-Cookie", "a=jar; Path=/"), ("Set-Cookie", "b=jar; Path=/")], b""),
        _ => reply(stream, 200, &[], seen.header("cookie").unwrap_or_default().as_bytes()),
    });
    with.get(&echo.url("/set")).send().expect("set");
    let own = with.get(&echo.url("/")).header("Cookie", "a=own; c=own").send().expect("told");
    assert_eq!(String::from_utf8_lossy(own.bytes()), "a=own; c=own; b=jar");

    let without = client();
    let error = without.post(&server.url("/login")).send().expect_err("no cookie is kept");
    assert_eq!(error.status(), Some(403));
}
