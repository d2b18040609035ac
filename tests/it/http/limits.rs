//! The rate limit of each host.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fulmar::client::http::{HttpErrorKind, RateLimit};

use super::quick;
use super::server::{Server, Then, reply};
use crate::support::Gate;

#[test]
fn no_more_than_agreed_are_under_way_at_once() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, peak) = (now.clone(), most.clone());
    let server = Server::start(move |_, stream| {
        let count = inside.fetch_add(1, Ordering::SeqCst) + 1;
        peak.fetch_max(count, Ordering::SeqCst);
        std::thread::yield_now();
        inside.fetch_sub(1, Ordering::SeqCst);
        reply(stream, 200, &[], b"ok")
    });
    let client = quick().rate_limit(RateLimit::none().max_concurrent(3)).build().expect("sound settings");
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                for _ in 0..10 {
                    client.get(&server.url("/")).send().expect("a reply");
                }
            });
        }
    });
    assert_eq!(server.seen().len(), 120);
    assert!(most.load(Ordering::SeqCst) <= 3, "{most:?} at once");
}

#[test]
fn requests_of_all_threads_are_spaced_as_agreed() {
    let server = Server::of(b"ok");
    let client = quick().rate_limit(RateLimit::per_second(200.0)).build().expect("sound settings");
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    client.get(&server.url("/")).send().expect("a reply");
                }
            });
        }
    });
    // Not how fast it is, but that it isn't faster than allowed: the fortieth turn comes 39
    // distances after the first.
    assert!(start.elapsed() >= Duration::from_millis(5 * 39), "too fast: {:?}", start.elapsed());
}

#[test]
fn each_host_has_its_own_limit() {
    let (one, two) = (Server::of(b"1"), Server::of(b"2"));
    let client = quick().rate_limit(RateLimit::per_second(0.001)).build().expect("sound settings");
    client.get(&one.url("/")).send().expect("the first to one");
    client.get(&two.url("/")).send().expect("the first to two");
    let error =
        client.get(&one.url("/")).timeout(Duration::from_secs(60)).send().expect_err("the second would wait too long");
    assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::RateLimited, 0), "{error:?}");
}

#[test]
fn once_is_refused_instead_of_waiting_and_each_is_told_another_time() {
    let server = Server::of(b"ok");
    let client = quick().rate_limit(RateLimit::per_second(0.01)).build().expect("sound settings");
    client.get(&server.url("/")).once().send().expect("the first");
    let mut told: Vec<Duration> = Vec::new();
    for _ in 0..3 {
        let error = client.get(&server.url("/")).once().send().expect_err("refused");
        assert_eq!(error.kind(), HttpErrorKind::RateLimited);
        assert!(error.is_retryable() && !error.may_have_arrived(), "{error:?}");
        told.push(error.retry_after().expect("when to come back"));
    }
    assert!(told[0] <= Duration::from_secs(100) && told[0] > Duration::from_secs(30), "{told:?}");
    assert!(told[1] > told[0] + Duration::from_secs(50) && told[2] > told[1] + Duration::from_secs(50), "{told:?}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn once_is_refused_while_all_places_are_taken_and_not_after() {
    let gate = Gate::new();
    let hold = gate.clone();
    let server = Server::start(move |seen, stream| {
        if seen.target == "/slow" {
            hold.pass();
        }
        reply(stream, 200, &[], b"ok");
        Then::Keep
    });
    let client = quick().rate_limit(RateLimit::none().max_concurrent(1)).build().expect("sound settings");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| client.get(&server.url("/slow")).send().expect("a reply"));
        gate.await_arrivals(1);
        let error = client.get(&server.url("/")).once().send().expect_err("refused");
        assert_eq!(error.kind(), HttpErrorKind::RateLimited);
        gate.open();
        slow.join().expect("no panic");
    });
    client.get(&server.url("/")).once().send().expect("the place is free again");
}

#[test]
fn limits_that_let_nothing_through_are_refused() {
    for limit in [
        RateLimit::per_second(0.0),
        RateLimit::per_second(-1.0),
        RateLimit::per_second(f64::NAN),
        RateLimit::per_second(f64::MIN_POSITIVE),
        // Its distance is a duration, but beyond the clock.
        RateLimit::per_second(1e-19),
        RateLimit::none().max_concurrent(0),
    ] {
        let error = quick().rate_limit(limit).build().expect_err("refused");
        assert!(matches!(error, fulmar::Error::Invalid(_)), "{limit:?}: {error}");
    }
    assert!(quick().rate_limit(RateLimit::per_second(f64::INFINITY)).build().is_ok(), "no distance at all");
}
