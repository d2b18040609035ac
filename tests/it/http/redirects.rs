//! Redirects, and what goes along: a second server says what it saw.

use std::io::Read;
use std::time::Duration;

use fulmar::client::http::{Basic, HttpErrorKind};

use super::server::{Server, Then, head, reply};
use super::{client, quick};

#[test]
fn credentials_and_secret_headers_never_travel_to_another_origin() {
    let stranger = Server::of(b"a stranger's");
    let to = stranger.url("/there?x=1");
    let home = Server::start(move |seen, stream| match seen.target.as_str() {
        "/away" => reply(stream, 302, &[("Location", &to)], b""),
        "/local" => reply(stream, 307, &[("Location", "/end")], b""),
        _ => reply(stream, 200, &[], b"home"),
    });
    let client = quick().auth(Basic::new(&home.url("/"), "me", "s3cr3t-password")).build().expect("sound settings");
    let get = |path: &str| {
        client
            .get(&home.url(path))
            .secret_header("X-Mine", "s3cr3t-header")
            .header("X-Api-Key", "s3cr3t-key")
            .header("Cookie", "s3cr3t-cookie")
            .header("Authorization-Extra", "s3cr3t-extra")
            .header("X-Plain", "plain")
            .send()
            .expect("a reply")
    };
    assert_eq!(get("/away").bytes(), b"a stranger's");
    let seen = &stranger.seen()[0];
    assert_eq!(seen.header("x-plain"), Some("plain"));
    assert!(!format!("{seen:?}").contains("s3cr3t"), "{seen:?}");
    assert_eq!(seen.header("authorization"), None);

    assert_eq!(get("/local").bytes(), b"home");
    let seen = home.seen();
    assert_eq!(seen.len(), 3);
    for seen in &seen {
        assert!(seen.header("authorization").is_some_and(|value| value.starts_with("Basic ")), "{seen:?}");
        for name in ["x-mine", "x-api-key", "cookie", "authorization-extra"] {
            assert!(seen.header(name).is_some(), "{name} is missing at home");
        }
    }

    // Asked directly, too: these credentials are for another port.
    client.get(&stranger.url("/direct")).send().expect("a reply");
    assert_eq!(stranger.seen()[1].header("authorization"), None);
}

#[test]
fn a_post_turns_into_a_get_and_leaves_its_body_behind() {
    let server = Server::start(|seen, stream| match seen.target.as_str() {
        "/303" => reply(stream, 303, &[("Location", "/end")], b""),
        "/302" => reply(stream, 302, &[("Location", "/end")], b""),
        "/308" => reply(stream, 308, &[("Location", "/end")], b""),
        _ => reply(stream, 200, &[], b"end"),
    });
    for (path, method, body) in [("/303", "GET", ""), ("/302", "GET", ""), ("/308", "POST", "\"x\"")] {
        let reply = client().post(&server.url(path)).json("x").send().expect("a reply");
        assert!(reply.url().ends_with("/end"), "{reply:?}");
        let seen = server.seen().pop().expect("a request");
        assert_eq!((seen.method.as_str(), seen.body.as_slice()), (method, body.as_bytes()), "{path}");
        assert_eq!(seen.header("content-type").is_some(), !body.is_empty(), "{path}");
    }
}

#[test]
fn what_leads_astray_is_an_error() {
    let stranger = Server::of(b"");
    let elsewhere = stranger.url("/");
    let server = Server::start(move |seen, stream| match seen.target.as_str() {
        "/circle" => reply(stream, 302, &[("Location", "/circle")], b""),
        "/nowhere" => reply(stream, 302, &[], b""),
        "/file" => reply(stream, 302, &[("Location", "file:///etc/passwd")], b""),
        "/broken" => reply(stream, 302, &[("Location", "http://[")], b""),
        _ => reply(stream, 307, &[("Location", &elsewhere)], b""),
    });
    for path in ["/circle", "/nowhere", "/file", "/broken"] {
        let error = client().get(&server.url(path)).send().expect_err("not followed");
        assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::Redirect, 1), "{path}: {error:?}");
    }
    assert_eq!(server.seen().iter().filter(|seen| seen.target == "/circle").count(), 11);
    let error = client().post(&server.url("/body")).json("s3cr3t").send().expect_err("a body to a stranger");
    assert_eq!(error.kind(), HttpErrorKind::Redirect);
    assert!(stranger.seen().is_empty());
}

#[test]
fn a_post_that_was_answered_by_a_redirect_is_never_repeated_whatever_comes_after() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let nobody = format!("http://{gone}/");
    let server = Server::start(move |seen, stream| match seen.target.as_str() {
        "/create" => reply(stream, 303, &[("Location", "/result")], b""),
        "/create-elsewhere" => reply(stream, 302, &[("Location", &nobody)], b""),
        _ => reply(stream, 429, &[("Retry-After", "0")], b""),
    });
    for (path, kind) in [("/create", HttpErrorKind::Status(429)), ("/create-elsewhere", HttpErrorKind::Connect)] {
        let error = client().post(&server.url(path)).json("x").send().expect_err("no result");
        assert_eq!((error.kind(), error.attempts()), (kind, 1), "{error:?}");
        assert!(error.may_have_arrived(), "it did arrive: {error:?}");
    }
    assert_eq!(server.seen().iter().filter(|seen| seen.method == "POST").count(), 2);
}

#[test]
fn a_redirect_is_followed_though_the_end_of_its_own_body_does_not_come() {
    let server = Server::start(|seen, stream| {
        let hop: usize = seen.target.trim_start_matches('/').parse().expect("a number");
        if hop == 10 {
            return reply(stream, 200, &[], b"end");
        }
        head(stream, 302, &[("Location", &format!("/{}", hop + 1))], None);
        // The client is the first to close.
        let _ = stream.read(&mut [0]);
        Then::Close
    });
    // If the client waited at each of the ten for as long as it does for a body that is worth it, it
    // would be late.
    let request = client().get(&server.url("/0")).timeout(Duration::from_secs(90));
    assert_eq!(request.send().expect("a reply").bytes(), b"end");
}
