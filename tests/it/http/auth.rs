//! Credentials, and tokens that expire under many threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use fulmar::client::http::{Basic, Bearer, HttpClient, HttpError, HttpErrorKind, Timeouts, Token, Tokens};

use super::server::{Server, reply};
use super::{client, quick};
use crate::support::Gate;

const THREADS: usize = 16;

/// Takes `Bearer token-N` for the number it is told; all who come with another meet at a barrier first, so that the token
/// has expired for all of them at once.
fn guarded(good: &Arc<AtomicUsize>, together: usize) -> Server {
    let (good, barrier) = (good.clone(), Arc::new(Barrier::new(together)));
    Server::start(move |seen, stream| {
        let expected = format!("Bearer token-{}", good.load(Ordering::SeqCst));
        if seen.header("authorization") == Some(&expected) {
            return reply(stream, 200, &[], b"ok");
        }
        barrier.wait();
        reply(stream, 500, &[], b"{\"httpMessage\": \"Invalid-JWT-Validate\"}")
    })
}

fn tokens(
    server: &Server,
    fetch: impl Fn() -> Result<Token, Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
) -> HttpClient {
    let tokens = Tokens::new(&server.url("/"), move |_renewal| fetch()).expect("a URL");
    let tokens = tokens.expired_when(|status, body| status == 500 && body.contains("Invalid-JWT-Validate"));
    quick().auth(tokens).build().expect("sound settings")
}

/// All at once, from a thread each; what they got.
fn all_at_once(client: &HttpClient, url: &str) -> Vec<Result<(), HttpError>> {
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                // A POST on purpose: what was refused for its token was not processed.
                let result = client.post(url).json("x").send().map(drop);
                results.lock().expect("no panic").push(result);
            });
        }
    });
    results.into_inner().expect("no panic")
}

#[test]
fn of_sixteen_threads_with_an_expired_token_exactly_one_renews_it() {
    let good = Arc::new(AtomicUsize::new(1));
    let server = guarded(&good, THREADS);
    let renewals = Arc::new(AtomicUsize::new(0));
    let (count, now) = (renewals.clone(), good.clone());
    let client = tokens(&server, move || {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Token::new(format!("token-{}", now.load(Ordering::SeqCst))))
    });
    client.get(&server.url("/")).send().expect("with the first token");
    assert_eq!(renewals.load(Ordering::SeqCst), 1);
    for turn in 2..6 {
        good.store(turn, Ordering::SeqCst);
        for result in all_at_once(&client, &server.url("/")) {
            result.unwrap_or_else(|error| panic!("turn {turn}: {error:?}"));
        }
        assert_eq!(renewals.load(Ordering::SeqCst), turn, "one renewal a turn");
    }
}

#[test]
fn a_renewal_that_fails_reaches_all_and_is_tried_again_by_the_next() {
    let good = Arc::new(AtomicUsize::new(1));
    let server = guarded(&good, THREADS);
    let renewals = Arc::new(AtomicUsize::new(0));
    let (count, now) = (renewals.clone(), good.clone());
    let client = tokens(&server, move || match count.fetch_add(1, Ordering::SeqCst) {
        1 => Err("the door is closed".into()),
        _ => Ok(Token::new(format!("token-{}", now.load(Ordering::SeqCst)))),
    });
    client.get(&server.url("/")).send().expect("with the first token");
    good.store(2, Ordering::SeqCst);
    for result in all_at_once(&client, &server.url("/")) {
        let error = result.expect_err("no token");
        assert_eq!(error.kind(), HttpErrorKind::Unauthorized);
        assert!(!error.may_have_arrived(), "{error:?}");
        let source = std::error::Error::source(&error).expect("the reason").to_string();
        assert_eq!(source, "the door is closed");
    }
    assert_eq!(renewals.load(Ordering::SeqCst), 2, "one renewal for all who failed together");
    client.get(&server.url("/")).send().expect("the next one tries again");
    assert_eq!(renewals.load(Ordering::SeqCst), 3);
}

#[test]
fn the_first_token_is_got_once_for_all() {
    let good = Arc::new(AtomicUsize::new(1));
    let server = guarded(&good, 1);
    let (renewals, gate) = (Arc::new(AtomicUsize::new(0)), Gate::new());
    let (count, hold) = (renewals.clone(), gate.clone());
    let client = tokens(&server, move || {
        count.fetch_add(1, Ordering::SeqCst);
        hold.pass();
        Ok(Token::new("token-1"))
    });
    std::thread::scope(|scope| {
        let (client, url) = (&client, server.url("/"));
        let all = scope.spawn(move || all_at_once(client, &url));
        gate.await_arrivals(1);
        gate.open();
        for result in all.join().expect("no panic") {
            result.expect("a token for all");
        }
    });
    assert_eq!(renewals.load(Ordering::SeqCst), 1);
}

#[test]
fn a_token_is_renewed_before_its_known_end() {
    let good = Arc::new(AtomicUsize::new(1));
    let server = guarded(&good, 1);
    let count = Arc::new(AtomicUsize::new(0));
    let now = good.clone();
    let client = tokens(&server, move || {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        now.store(number, Ordering::SeqCst);
        // No life at all: it is stale as soon as it is there.
        Ok(Token::new(format!("token-{number}")).expires_in(Duration::ZERO))
    });
    for _ in 0..3 {
        client.get(&server.url("/")).send().expect("a fresh token each time");
    }
    assert_eq!(good.load(Ordering::SeqCst), 3);
    assert_eq!(server.seen().len(), 3, "none was refused first");
}

#[test]
fn a_token_that_is_refused_again_is_an_error_and_no_loop() {
    let server = Server::start(|_, stream| reply(stream, 401, &[], b"{\"message\": \"token-7 is not for you\"}"));
    let tokens = Tokens::new(&server.url("/"), |_| Ok(Token::new("token-7"))).expect("a URL");
    let client = quick().auth(tokens).build().expect("sound settings");
    let error = client.get(&server.url("/")).send().expect_err("refused twice");
    assert_eq!((error.status(), server.seen().len()), (Some(401), 2));
    assert_eq!(error.message(), "*** is not for you");
}

#[test]
fn a_panic_while_renewing_reaches_all_as_an_error() {
    let server = Server::of(b"");
    let client = tokens(&server, || panic!("in a test, on purpose"));
    for result in all_at_once(&client, &server.url("/")) {
        let error = result.expect_err("no token");
        let source = std::error::Error::source(&error).expect("the reason").to_string();
        assert!(source.contains("in a test, on purpose"), "{source}");
    }
    assert!(server.seen().is_empty());
}

#[test]
fn a_renewal_that_meets_its_own_http_errors_says_whether_to_come_back() {
    let door = Server::start(|_, stream| reply(stream, 503, &[("Retry-After", "9")], b""));
    let server = Server::of(b"");
    let (plain, url) = (client(), door.url("/token"));
    let tokens = Tokens::new(&server.url("/"), move |renewal| {
        let request = plain.post(&url).form(&[("apikey", "s3cr3t-key")]);
        let reply = if renewal.is_once() { request.once().send()? } else { request.send()? };
        Ok(Token::new(reply.text()?))
    });
    let client = quick().auth(tokens.expect("a URL")).build().expect("sound settings");
    let error = client.get(&server.url("/")).once().send().expect_err("no token");
    assert_eq!(error.kind(), HttpErrorKind::Unauthorized);
    assert!(error.is_retryable(), "{error:?}");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(9)));
    assert!(server.seen().is_empty());
}

#[test]
fn of_several_credentials_each_goes_to_its_own_host() {
    let (one, two) = (Server::of(b""), Server::of(b""));
    let builder = quick().auth(Bearer::new(&one.url("/x"), "for-one")).auth(Basic::new(&two.url("/"), "me", "for-two"));
    let client = builder.build().expect("sound settings");
    client.get(&one.url("/")).send().expect("a reply");
    client.get(&two.url("/")).send().expect("a reply");
    client.get(&one.url("/")).without_auth().send().expect("a reply");
    assert_eq!(one.seen()[0].header("authorization"), Some("Bearer for-one"));
    assert_eq!(two.seen()[0].header("authorization"), Some("Basic bWU6Zm9yLXR3bw=="));
    assert_eq!(one.seen()[1].header("authorization"), None);
}

#[test]
fn a_renewal_that_had_no_time_fails_for_nobody_else() {
    let gate = Gate::new();
    let hold = gate.clone();
    let server = Server::start(move |seen, stream| {
        let is_new = seen.header("authorization") == Some("Bearer token-3");
        if seen.target == "/patient" && !is_new {
            hold.pass();
        }
        reply(stream, if is_new || seen.target == "/" { 200 } else { 401 }, &[], b"")
    });
    let count = AtomicUsize::new(0);
    let tokens = Tokens::new(&server.url("/"), move |renewal| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        if renewal.is_once() { Err("no time to try again".into()) } else { Ok(Token::new(format!("token-{number}"))) }
    });
    let client = quick().auth(tokens.expect("a URL")).build().expect("sound settings");
    client.get(&server.url("/")).send().expect("with the first token");
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| client.get(&server.url("/patient")).send().map(drop));
        gate.await_arrivals(1);
        let error = client.get(&server.url("/hasty")).once().send().expect_err("no token at once");
        assert_eq!(error.kind(), HttpErrorKind::Unauthorized);
        // Only now the other is told that its token has expired: after that renewal has ended.
        gate.open();
        patient.join().expect("no panic").expect("had all the time");
    });
}

#[test]
fn a_function_that_asks_itself_for_a_token_is_told_so() {
    let server = Server::of(b"ok");
    let own = Arc::new(Mutex::new(None::<HttpClient>));
    let (inner, url) = (own.clone(), server.url("/token"));
    let tokens = Tokens::new(&server.url("/"), move |renewal| {
        let client = inner.lock().expect("no panic").clone().expect("set");
        let request = client.get(&url);
        let reply = if renewal.is_once() { request.without_auth().send()? } else { request.send()? };
        Ok(Token::new(reply.text()?))
    });
    let timeouts = Timeouts { total: None, ..Timeouts::default() };
    let client = quick().timeouts(timeouts).auth(tokens.expect("a URL")).build().expect("sound settings");
    *own.lock().expect("no panic") = Some(client.clone());
    let error = client.get(&server.url("/")).send().expect_err("it would wait for itself");
    assert!(format!("{error:?}").contains("without_auth"), "{error:?}");
    client.get(&server.url("/")).once().send().expect("without credentials it may");
    *own.lock().expect("no panic") = None;
}

#[test]
fn an_early_renewal_that_fails_leaves_the_token_until_the_server_refuses_it() {
    let server = Server::start(|seen, stream| match (seen.target.as_str(), seen.header("authorization")) {
        ("/closed", Some("Bearer token-1")) => reply(stream, 401, &[], b""),
        _ => reply(stream, 200, &[], b""),
    });
    let fetched = Arc::new(AtomicUsize::new(0));
    let (count, hour) = (fetched.clone(), Duration::from_secs(3600));
    let tokens = Tokens::new(&server.url("/"), move |_| match count.fetch_add(1, Ordering::SeqCst) + 1 {
        2 => Err("closed for a minute".into()),
        number => Ok(Token::new(format!("token-{number}")).expires_in(hour)),
    });
    // Early as can be: the first request after it is due to renew it.
    let tokens = tokens.expect("a URL").renew_before(hour - Duration::from_nanos(1));
    let client = quick().auth(tokens).build().expect("sound settings");
    client.get(&server.url("/")).send().expect("with the first token");
    client.get(&server.url("/")).send().expect("the first token still is good");
    assert_eq!(fetched.load(Ordering::SeqCst), 2);
    client.get(&server.url("/closed")).send().expect("refused, and renewed");
    assert!(fetched.load(Ordering::SeqCst) >= 3);
}
