//! What is repeated, and what never is.

use std::time::{Duration, SystemTime};

use fulmar::backoff::Backoff;
use fulmar::client::http::{HttpErrorKind, Method, RetryPolicy};

use super::server::{Server, Then, head, reply};
use super::{client, quick, soon};

/// Fails so many times in a row, then says 200.
fn failing(times: usize, fail: impl Fn(&mut std::net::TcpStream) -> Then + Send + Sync + 'static) -> Server {
    Server::start(move |seen, stream| match seen.number {
        number if number < times => fail(stream),
        _ if seen.method == "HEAD" => reply(stream, 200, &[], b""),
        _ => reply(stream, 200, &[], b"ok"),
    })
}

#[test]
fn idempotent_methods_are_repeated_after_passing_statuses_and_others_are_not() {
    for status in [408, 429, 502, 503, 504] {
        for method in [Method::Get, Method::Head, Method::Put, Method::Delete] {
            let server = failing(2, move |stream| reply(stream, status, &[], b""));
            client()
                .request(method, &server.url("/"))
                .send()
                .unwrap_or_else(|error| panic!("{method} {status}: {error:?}"));
            assert_eq!(server.seen().len(), 3, "{method} {status}");
        }
    }
    for status in [400, 401, 403, 404, 409, 410, 422, 500, 501] {
        let server = failing(1, move |stream| reply(stream, status, &[], b"no"));
        let error = client().get(&server.url("/")).send().expect_err("not repeated");
        assert_eq!((error.status(), error.attempts(), server.seen().len()), (Some(status), 1, 1));
    }
}

#[test]
fn a_post_is_repeated_only_if_it_surely_was_not_processed() {
    for status in [408, 502, 503, 504] {
        let server = failing(1, move |stream| reply(stream, status, &[], b""));
        let error = client().post(&server.url("/")).send().expect_err("not repeated");
        assert_eq!((error.attempts(), server.seen().len()), (1, 1), "{status}");
        assert!(error.is_retryable(), "the caller may: {error:?}");
        assert_eq!(error.may_have_arrived(), matches!(status, 502 | 504), "{error:?}");
    }
    let server = failing(1, |stream| reply(stream, 429, &[], b""));
    client().post(&server.url("/")).send().expect("429 says that it was not processed");
    let server = failing(1, |stream| reply(stream, 503, &[], b""));
    client().post(&server.url("/")).idempotent(true).send().expect("the caller said so");
}

#[test]
fn a_post_whose_reply_is_lost_is_never_repeated() {
    type Loss = fn(&mut std::net::TcpStream) -> Then;
    let losses: [Loss; 3] = [
        |_| Then::Close,
        |stream| {
            head(stream, 200, &[], Some(10));
            Then::Close
        },
        |stream| {
            let _ = std::io::Write::write_all(stream, b"HTTP/1.1 2");
            Then::Close
        },
    ];
    for loss in losses {
        let server = failing(1, loss);
        let error = client().post(&server.url("/jobs")).json("x").send().expect_err("lost");
        assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::Broken, 1), "{error:?}");
        assert!(error.may_have_arrived(), "{error:?}");
        assert_eq!(server.seen().len(), 1, "repeated");
        // And a GET is.
        let server = failing(1, loss);
        assert_eq!(client().get(&server.url("/jobs")).send().expect("repeated").bytes(), b"ok");
    }
}

#[test]
fn a_protocol_names_further_statuses() {
    let server = failing(2, |stream| reply(stream, 500, &[], b""));
    client().get(&server.url("/")).retry_on(&[404, 500]).send().expect("repeated");
    let server = failing(1, |stream| reply(stream, 500, &[], b""));
    assert!(client().post(&server.url("/")).retry_on(&[500]).send().is_err(), "a POST still isn't");
}

#[test]
fn attempts_have_an_end_and_the_error_counts_them() {
    let server = Server::start(|_, stream| reply(stream, 503, &[], b"{\"message\": \"down for repair\"}"));
    let error = client().get(&server.url("/a?k=v")).send().expect_err("always down");
    assert_eq!((error.attempts(), server.seen().len()), (4, 4));
    assert_eq!(error.message(), "down for repair");
    let text = format!("GET {} was answered with status 503: down for repair (4 attempts)", server.url("/a?k=***"));
    assert_eq!(error.to_string(), text);
}

#[test]
fn retry_after_is_obeyed_in_seconds_and_as_a_date_up_to_its_cap() {
    // The backoff alone would wait for an hour, and the test with it.
    let hour = Backoff::new(Duration::from_secs(3600)).cap(Duration::from_secs(3600));
    let builder = quick().retry(RetryPolicy::attempts(2).backoff(hour)).max_retry_after(Duration::from_secs(60));
    let client = builder.build().expect("sound settings");
    let past = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(5));
    for value in ["0".to_owned(), past] {
        let server = failing(1, move |stream| reply(stream, 503, &[("Retry-After", &value)], b""));
        client.get(&server.url("/")).send().expect("repeated at once");
    }
    let far = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(600));
    for value in ["61".to_owned(), "99999999999999999999999".to_owned(), far] {
        let server = failing(1, move |stream| reply(stream, 503, &[("Retry-After", &value)], b""));
        let error = client.get(&server.url("/")).send().expect_err("too long to wait for");
        assert_eq!(error.attempts(), 1);
        assert!(error.retry_after().is_some_and(|after| after > Duration::from_secs(60)), "{error:?}");
    }
}

#[test]
fn no_wait_is_begun_that_ends_after_the_time_limit() {
    let server = Server::start(|_, stream| reply(stream, 503, &[("Retry-After", "100")], b""));
    let error = client().get(&server.url("/")).timeout(Duration::from_secs(50)).send().expect_err("no use waiting");
    assert_eq!((error.status(), error.attempts()), (Some(503), 1));
}

#[test]
fn once_is_one_attempt_and_says_when_to_come_back() {
    let server = Server::start(|_, stream| reply(stream, 429, &[("Retry-After", "30")], b""));
    let error = client().get(&server.url("/")).once().send().expect_err("one attempt");
    assert_eq!((error.attempts(), server.seen().len()), (1, 1));
    assert!(error.is_retryable());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
}

#[test]
fn a_connection_that_the_server_closed_meanwhile_is_replaced() {
    let server = Server::start(|_, stream| {
        reply(stream, 200, &[], b"ok");
        Then::Close
    });
    let client = quick().retry(soon(2)).build().expect("sound settings");
    for _ in 0..20 {
        client.get(&server.url("/")).send().expect("on a new connection");
    }
}

#[test]
fn a_date_to_come_back_at_is_of_the_servers_clock() {
    let server = Server::start(|seen, stream| match seen.number {
        // Its clock stands in 1999, and it asks for one second.
        0 => reply(
            stream,
            503,
            &[("Date", "Fri, 31 Dec 1999 23:59:58 GMT"), ("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT")],
            b"",
        ),
        _ => reply(stream, 200, &[], b"ok"),
    });
    let error = client().get(&server.url("/")).once().send().expect_err("later");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)), "{error:?}");
}

#[test]
fn a_get_that_is_not_idempotent_is_sent_once_over_a_kept_connection_and_before_a_redirect() {
    let server = Server::start(|seen, stream| match seen.target.as_str() {
        "/lost" => Then::Close,
        "/moved" => reply(stream, 302, &[("Location", "/busy")], b""),
        "/busy" => reply(stream, 429, &[("Retry-After", "0")], b""),
        _ => reply(stream, 200, &[], b"ok"),
    });
    let client = client();
    let sent = |path: &str, idempotent: bool, once: bool| {
        client.get(&server.url("/")).send().expect("and its connection is kept");
        let request = client.get(&server.url(path)).idempotent(idempotent);
        let request = if once { request.once() } else { request };
        let before = server.seen().len();
        let error = request.send().expect_err("no reply, or none of use");
        assert!(error.may_have_arrived() || idempotent, "{error:?}");
        server.seen()[before..].iter().filter(|seen| seen.target == path).count()
    };
    assert_eq!(sent("/lost", false, false), 1);
    assert_eq!(sent("/lost", false, true), 1);
    assert_eq!(sent("/lost", true, true), 2, "on a new connection");
    assert_eq!(sent("/moved", false, false), 1, "only what follows was refused");
    assert_eq!(sent("/moved", true, false), 4);
}
